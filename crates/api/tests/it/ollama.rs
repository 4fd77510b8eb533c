//! Ollama's routes.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, get, post};
use crate::tools::{CALLING, HERMES};

async fn chat(fake: &std::sync::Arc<Fake>, extra: Value) -> Reply {
    let mut body = json!({"model": "tiny:latest", "messages": [{"role": "user", "content": "hi"}]});
    body.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    post(fake.router(), "/api/chat", body.to_string()).await
}

fn lines(reply: &Reply) -> Vec<Value> {
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    assert_eq!(reply.headers["content-type"], "application/x-ndjson");
    reply
        .body
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn body(reply: &Reply) -> Value {
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    serde_json::from_str(&reply.body).unwrap()
}

#[tokio::test]
async fn chat_streams_lines_unless_told_otherwise() {
    let fake = Fake::hello();
    let options = json!({"temperature": 0, "num_predict": 5, "seed": 3, "stop": ["x"], "num_gpu": 1, "num_ctx": 512});
    let lines = lines(&chat(&fake, json!({"options": options, "keep_alive": "5m"})).await);
    let text: String = lines
        .iter()
        .filter_map(|line| line["message"]["content"].as_str())
        .collect();
    assert_eq!(text, "Hello, world\n\"é\"");
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["done"], &last["done_reason"]),
        (&json!(true), &json!("stop"))
    );
    assert_eq!(
        (&last["prompt_eval_count"], &last["eval_count"]),
        (&json!(11), &json!(6))
    );
    assert!(last["created_at"].as_str().unwrap().ends_with('Z'));
    {
        let requests = fake.requests.lock().unwrap();
        assert_eq!(requests[0].max_tokens, Some(5));
        assert_eq!(requests[0].sampling.seed, 3);
        assert_eq!(requests[0].sampling.top_k, 40);
        assert_eq!(requests[0].stop, ["x"]);
    }
    let whole = body(&chat(&fake, json!({"stream": false})).await);
    assert_eq!(
        whole["message"],
        json!({"role": "assistant", "content": text})
    );
    assert_eq!(whole["done"], true);
}

#[tokio::test]
async fn tools_and_thoughts() {
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]);
    let fake = Fake::saying(HERMES, CALLING);
    let whole = body(
        &chat(
            &fake,
            json!({"stream": false, "tools": tools, "think": true}),
        )
        .await,
    );
    assert_eq!(
        whole["message"],
        json!({"role": "assistant", "content": "I look.", "thinking": "hmm",
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Oslo"}}}]})
    );
    chat(&fake, json!({"think": false})).await;
    let prompt = format!("{:?}", fake.requests.lock().unwrap()[1].prompt);
    assert!(prompt.contains("<think></think>"), "{prompt}");
    let messages = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "weather", "arguments": {"a": 1}}}]},
        {"role": "tool", "tool_name": "weather", "content": "rain"},
    ]);
    chat(&fake, json!({"messages": messages})).await;
    let prompt = format!("{:?}", fake.requests.lock().unwrap()[2].prompt);
    assert!(
        prompt.contains(r#"<tool_call>{\"a\": 1}</tool_call><tool>rain"#),
        "{prompt}"
    );
}

#[tokio::test]
async fn generate_renders_or_goes_on() {
    let fake = Fake::hello();
    let ask = |extra: Value| {
        let router = fake.router();
        async move {
            let mut request = json!({"model": "tiny", "stream": false});
            request
                .as_object_mut()
                .unwrap()
                .extend(extra.as_object().unwrap().clone());
            body(&post(router, "/api/generate", request.to_string()).await)
        }
    };
    let answer = ask(json!({"prompt": "hi", "system": "s", "format": "json"})).await;
    assert_eq!(answer["response"], "Hello, world\n\"é\"");
    ask(json!({"prompt": "Once", "raw": true})).await;
    let loaded = ask(json!({})).await;
    assert_eq!(loaded["done_reason"], "load");
    let requests = fake.requests.lock().unwrap();
    assert_eq!(requests.len(), 2);
    assert_eq!(
        format!("{:?}", requests[0].prompt),
        "Rendered(\"<system>s<user>hi<assistant>\")"
    );
    assert!(requests[0].sampling.grammar.is_some());
    assert_eq!(format!("{:?}", requests[1].prompt), "Raw(\"Once\")");
}

#[tokio::test]
async fn models_are_told() {
    let fake = Fake::hello();
    let tags = body(&get(fake.router(), "/api/tags").await);
    let model = &tags["models"][0];
    assert_eq!(
        (&model["name"], &model["size"]),
        (&json!("tiny"), &json!(98_000_000))
    );
    assert_eq!(model["details"]["parameter_size"], "134.52M");
    assert_eq!(model["details"]["quantization_level"], "Q4_1");
    let loaded = body(&get(fake.router(), "/api/ps").await);
    assert_eq!(loaded["models"][0]["name"], "tiny");
    assert_eq!(loaded["models"][0]["context_length"], 512);
    let shown = post(fake.router(), "/api/show", r#"{"model": "tiny:latest"}"#).await;
    let shown = body(&shown);
    assert_eq!(shown["capabilities"], json!(["completion"]));
    assert_eq!(shown["model_info"]["llama.context_length"], 512);
    let version = body(&get(fake.router(), "/api/version").await);
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn refusals_have_ollamas_error() {
    for (extra, status, message) in [
        (
            json!({"model": "x"}),
            404,
            "model 'x' is not loaded; loaded: tiny. `brigade load` loads one",
        ),
        (
            json!({"options": {"mirostat": 1}}),
            400,
            "unknown parameter 'options.mirostat'",
        ),
        (
            json!({"options": {"num_ctx": 4096}}),
            400,
            "the model was loaded with a context of 512 tokens, 4096 were asked for",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a", "images": ["AA=="]}]}),
            400,
            "'messages[0].images' is not supported; leave it out",
        ),
        (
            json!({"think": true}),
            400,
            "the model does not think aloud",
        ),
        (
            json!({"format": "yaml"}),
            400,
            "format must be 'json' or a schema",
        ),
    ] {
        let reply = chat(&Fake::hello(), extra).await;
        let body: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(
            (reply.status.as_u16(), body),
            (status, json!({"error": message}))
        );
    }
}
