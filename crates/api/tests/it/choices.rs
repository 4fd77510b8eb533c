//! Several answers, log-probabilities, formats of answers, and what the backend is asked for.

use axum::http::StatusCode;
use brigade_api::{Event, FinishReason, Likely, TokenLogprob};
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, chat, complete, open};

fn ok(reply: &Reply) -> Value {
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    reply.json()
}

fn refused(reply: &Reply, param: &str, message: &str) {
    assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{}", reply.body);
    let error = &reply.json()["error"];
    assert_eq!(
        (error["param"].as_str(), error["message"].as_str()),
        (Some(param), Some(message))
    );
}

#[tokio::test]
async fn several_choices_have_seeds_of_their_own() {
    let fake = Fake::hello();
    let reply = ok(&chat(fake.router(), json!({"n": 3, "seed": 7})).await);
    let choices = reply["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 3);
    for (index, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], "Hello, world\n\"é\"");
    }
    assert_eq!(
        reply["usage"],
        json!({"prompt_tokens": 11, "completion_tokens": 18, "total_tokens": 29,
            "prompt_tokens_details": {"cached_tokens": 0}})
    );
    let seeds: Vec<u64> = fake
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|r| r.sampling.seed)
        .collect();
    assert_eq!(seeds, [7, 8, 9]);
}

#[tokio::test]
async fn streamed_choices_are_told_apart() {
    let extra = json!({"n": 2, "stream": true, "stream_options": {"include_usage": true}});
    let events = chat(Fake::hello().router(), extra).await.events();
    let mut texts = [String::new(), String::new()];
    let mut finished = 0;
    for event in &events {
        for choice in event["choices"].as_array().into_iter().flatten() {
            let index = choice["index"].as_u64().unwrap() as usize;
            texts[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
            finished += usize::from(choice["finish_reason"] == "stop");
        }
    }
    assert_eq!(texts, ["Hello, world\n\"é\""; 2]);
    assert_eq!(finished, 2);
    assert_eq!(events[events.len() - 2]["usage"]["completion_tokens"], 12);
}

/// Answers with `é`, whose bytes are two tokens.
fn with_logprobs() -> std::sync::Arc<Fake> {
    Fake::new(|| {
        let (generation, sender) = open();
        for (tokens, (bytes, text)) in (1..).zip([(0xc3, ""), (0xa9, "é")]) {
            let likely = |bytes: &[u8], logprob| Likely {
                bytes: bytes.to_vec(),
                logprob,
            };
            sender
                .send(Event::Text {
                    text: text.to_owned(),
                    tokens,
                    logprob: Some(TokenLogprob {
                        token: likely(&[bytes], -0.5),
                        top: vec![likely(&[bytes], -0.5), likely(b"x", -2.0)],
                    }),
                })
                .unwrap();
        }
        let reason = FinishReason::StopString("!".to_owned());
        sender
            .send(Event::Done {
                reason,
                completion_tokens: 2,
            })
            .unwrap();
        Ok(generation)
    })
}

#[tokio::test]
async fn log_probabilities_have_both_shapes() {
    let fake = with_logprobs();
    let asked = json!({"logprobs": true, "top_logprobs": 2});
    let reply = ok(&chat(fake.router(), asked).await);
    let content = &reply["choices"][0]["logprobs"]["content"];
    assert_eq!(
        content[0],
        json!({"token": "\u{fffd}", "logprob": -0.5, "bytes": [0xc3], "top_logprobs": [
            {"token": "\u{fffd}", "logprob": -0.5, "bytes": [0xc3]},
            {"token": "x", "logprob": -2.0, "bytes": [120]},
        ]})
    );
    assert_eq!(content.as_array().unwrap().len(), 2);
    assert_eq!(reply["choices"][0]["finish_reason"], "stop");
    {
        let requests = fake.requests.lock().unwrap();
        assert!(requests[0].logprobs);
        assert_eq!(requests[0].sampling.top_logprobs, 2);
    }
    let reply = ok(&complete(with_logprobs().router(), json!({"logprobs": 2})).await);
    let logprobs = &reply["choices"][0]["logprobs"];
    assert_eq!(logprobs["token_logprobs"], json!([-0.5, -0.5]));
    assert_eq!(logprobs["text_offset"], json!([0, 1]));
    assert_eq!(
        logprobs["top_logprobs"][1],
        json!({"\u{fffd}": -0.5, "x": -2.0})
    );

    let streamed = json!({"logprobs": true, "stream": true});
    let events = chat(with_logprobs().router(), streamed).await.events();
    let bytes: Vec<u64> = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"][0]["bytes"][0].as_u64())
        .collect();
    assert_eq!(bytes, [0xc3, 0xa9]);
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    for (extra, param, message) in [
        (json!({"n": 0}), "n", "n must be between 1 and 16"),
        (json!({"n": 17}), "n", "n must be between 1 and 16"),
        (
            json!({"top_logprobs": 2}),
            "top_logprobs",
            "top_logprobs needs logprobs to be true",
        ),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "top_logprobs",
            "top_logprobs must be between 0 and 20",
        ),
        (
            json!({"logit_bias": {"x": 1}}),
            "logit_bias",
            "logit_bias must have token ids, such as \"15043\", as names",
        ),
        (
            json!({"logit_bias": {"1": 101}}),
            "logit_bias",
            "logit_bias must have numbers between -100 and 100",
        ),
        (
            json!({"response_format": {"type": "yaml"}}),
            "response_format.type",
            "response_format.type must be 'text', 'json_object' or 'json_schema'",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}}),
            "response_format.json_schema.schema",
            "response_format.json_schema.schema is required",
        ),
        (
            json!({"response_format": {"type": "json_schema", "json_schema": {"schema": {"not": {}}}}}),
            "response_format.json_schema.schema",
            "the schema of response_format.json_schema.schema cannot be kept: \
             # has the keyword 'not', which is not supported",
        ),
        (
            json!({"truncation": "maybe"}),
            "truncation",
            "truncation must be 'auto' or 'disabled'",
        ),
    ] {
        let fake = Fake::new(|| unreachable!("refused before"));
        refused(&chat(fake.router(), extra).await, param, message);
    }
}

#[tokio::test]
async fn formats_become_grammars() {
    let grammar = |extra: Value| async {
        let fake = Fake::hello();
        ok(&chat(fake.router(), extra).await);
        fake.requests.lock().unwrap().remove(0).sampling.grammar
    };
    assert_eq!(
        grammar(json!({"response_format": {"type": "text"}})).await,
        None
    );
    let object = grammar(json!({"response_format": {"type": "json_object"}})).await;
    assert!(object.unwrap().starts_with("root ::= object\n"));
    let schema =
        json!({"type": "object", "properties": {"z": {"type": "integer"}, "a": {"type": "null"}}});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": schema}});
    let text = grammar(json!({"response_format": format})).await.unwrap();
    let place =
        |text: &str, part: &str| text.find(part).unwrap_or_else(|| panic!("{part}\n{text}"));
    // Rules are made from the last property to the first.
    assert!(place(&text, r#""\"a\"" space"#) < place(&text, r#""\"z\"" space"#));
}

#[tokio::test]
async fn a_conversation_too_long_loses_its_oldest_turns_if_asked() {
    let fake = Fake::short_context("<user>three");
    let messages = json!([
        {"role": "system", "content": "s"},
        {"role": "user", "content": "one"}, {"role": "assistant", "content": "1"},
        {"role": "user", "content": "two"}, {"role": "assistant", "content": "2"},
        {"role": "user", "content": "three"},
    ]);
    let asked = json!({"messages": messages, "truncation": "auto"});
    ok(&chat(fake.router(), asked).await);
    let prompts: Vec<_> = fake
        .requests
        .lock()
        .unwrap()
        .iter()
        .map(|r| format!("{:?}", r.prompt))
        .collect();
    assert_eq!(prompts.len(), 3);
    assert!(
        prompts[2].contains("<system>s<user>three<assistant>"),
        "{prompts:?}"
    );

    let reply = chat(fake.router(), json!({"messages": messages})).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(reply.json()["error"]["code"], "context_length_exceeded");
}
