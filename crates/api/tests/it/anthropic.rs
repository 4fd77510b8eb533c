//! Anthropic's `/v1/messages`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, post};
use crate::tools::{CALLING, HERMES};

async fn ask(fake: &std::sync::Arc<Fake>, extra: Value) -> Reply {
    let mut body = json!({"model": "tiny", "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    post(fake.router(), "/v1/messages", body.to_string()).await
}

fn tools() -> Value {
    json!([{"name": "weather", "description": "d", "input_schema": {"type": "object",
        "properties": {"city": {"type": "string"}}, "required": ["city"]}}])
}

#[tokio::test]
async fn a_message_is_answered() {
    let fake = Fake::hello();
    let extra = json!({"system": [{"type": "text", "text": "be brief"}], "top_k": 5,
        "stop_sequences": ["x"], "temperature": 0.5});
    let reply = ask(&fake, extra).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    let mut message: Value = serde_json::from_str(&reply.body).unwrap();
    assert!(message["id"].as_str().unwrap().starts_with("msg_"));
    message["id"] = json!("");
    assert_eq!(
        message,
        json!({"id": "", "type": "message", "role": "assistant", "model": "tiny",
            "content": [{"type": "text", "text": "Hello, world\n\"é\""}],
            "stop_reason": "end_turn", "stop_sequence": null,
            "usage": {"input_tokens": 11, "output_tokens": 6}})
    );
    let requests = fake.requests.lock().unwrap();
    assert_eq!(
        format!("{:?}", requests[0].prompt),
        "Rendered(\"<system>be brief<user>hi<assistant>\")"
    );
    assert_eq!(requests[0].stop, ["x"]);
    assert_eq!(requests[0].max_tokens, Some(9));
    assert_eq!(requests[0].sampling.top_k, 5);
}

/// The events as `(name, data)`.
fn events(reply: &Reply) -> Vec<(String, Value)> {
    let events = reply.body.split_terminator("\n\n").map(|event| {
        let (name, data) = event.split_once('\n').unwrap();
        let name = name.strip_prefix("event: ").unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["type"], name);
        (name.to_owned(), data)
    });
    events.collect()
}

#[tokio::test]
async fn blocks_are_streamed_one_after_the_other() {
    let fake = Fake::saying(HERMES, CALLING);
    let extra = json!({"stream": true, "tools": tools(), "thinking": {"type": "enabled", "budget_tokens": 1024}});
    let reply = ask(&fake, extra).await;
    let events = events(&reply);
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names.first(), Some(&"message_start"));
    assert_eq!(names.last(), Some(&"message_stop"));
    let mut kinds = Vec::new();
    let mut open = None;
    for (name, data) in &events {
        match name.as_str() {
            "content_block_start" => {
                assert_eq!(open, None);
                assert_eq!(data["index"], kinds.len());
                open = data["index"].as_u64();
                kinds.push(data["content_block"]["type"].as_str().unwrap());
            }
            "content_block_delta" => assert_eq!(data["index"].as_u64(), open),
            "content_block_stop" => {
                assert_eq!(data["index"].as_u64(), open);
                open = None;
            }
            _ => assert_eq!(open, None),
        }
    }
    assert_eq!(kinds, ["thinking", "text", "tool_use"]);
    let joined = |member: &str| {
        let parts = events
            .iter()
            .filter_map(|(_, data)| data["delta"][member].as_str());
        parts.collect::<String>()
    };
    assert_eq!(joined("thinking"), "hmm");
    assert_eq!(joined("text"), "I look.");
    assert_eq!(joined("partial_json"), "{\"city\":\"Oslo\"}");
    let delta = &events[events.len() - 2].1;
    assert_eq!(
        delta["delta"],
        json!({"stop_reason": "tool_use", "stop_sequence": null})
    );
    assert_eq!(delta["usage"], json!({"output_tokens": 9}));
}

#[tokio::test]
async fn results_of_tools_go_back_to_the_model() {
    let fake = Fake::saying(HERMES, CALLING);
    let messages = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}},
        ]},
        {"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"}]},
            {"type": "text", "text": "and?", "cache_control": {"type": "ephemeral"}},
        ]},
    ]);
    let extra = json!({"messages": messages, "tools": tools(), "tool_choice": {"type": "any"}});
    let reply = ask(&fake, extra).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    // Thoughts were not asked for.
    let message: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(
        message["content"][0],
        json!({"type": "text", "text": "I look."})
    );
    assert_eq!(message["content"][1]["input"], json!({"city": "Oslo"}));
    let requests = fake.requests.lock().unwrap();
    let prompt = format!("{:?}", requests[0].prompt);
    let end = r#"<assistant>I look.<tool_call>{\"city\": \"Oslo\"}</tool_call><tool>rain<user>and?<assistant>")"#;
    assert!(prompt.ends_with(end), "{prompt}");
    assert!(requests[0].sampling.grammar.is_some());
}

#[tokio::test]
async fn refusals_have_anthropics_error() {
    for (extra, status, kind, message) in [
        (
            json!({"max_tokens": null}),
            400,
            "invalid_request_error",
            "max_tokens is required",
        ),
        (
            json!({"model": "gpt"}),
            404,
            "not_found_error",
            "model 'gpt' is not loaded; loaded: tiny. `brigade load` loads one",
        ),
        (
            json!({"temperature": 2}),
            400,
            "invalid_request_error",
            "temperature must be between 0 and 1",
        ),
        (
            json!({"x": 2}),
            400,
            "invalid_request_error",
            "unknown parameter 'x'",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}),
            400,
            "invalid_request_error",
            "messages[0].content[0].type 'image' is not supported here",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
            400,
            "invalid_request_error",
            "an answer cannot be begun for the model; end messages with one of the user",
        ),
        (
            json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}),
            400,
            "invalid_request_error",
            "the model does not think aloud",
        ),
    ] {
        let reply = ask(&Fake::hello(), extra).await;
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(reply.status.as_u16(), status, "{body}");
        assert_eq!(
            body,
            json!({"type": "error", "error": {"type": kind, "message": message}})
        );
    }
}
