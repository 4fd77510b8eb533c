//! The `OpenAPI` document, against the parsers and the answers. Its routes are compared in
//! `src/routes/tests.rs`.

use axum::http::StatusCode;
use serde_json::{Value, json};

use crate::fake::{Fake, get, post};
use crate::tools::HERMES;

async fn document() -> Value {
    let reply = get(Fake::hello().router(), "/openapi.json").await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.headers["content-type"], "application/json");
    serde_json::from_str(&reply.body).unwrap()
}

/// The schema that a request to the path has.
fn request_schema<'a>(document: &'a Value, path: &str) -> &'a Value {
    let schema =
        &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
    let pointer = schema["$ref"].as_str().unwrap().strip_prefix('#').unwrap();
    document.pointer(pointer).unwrap()
}

/// Every parameter that is described is taken, and no other: `null` asks for nothing.
#[tokio::test]
async fn every_parameter_is_one_that_is_taken() {
    let document = document().await;
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let chat = json!({"model": "tiny", "messages": [{"role": "user", "content": "a"}]});
    let mut messages = chat.clone();
    messages["max_tokens"] = json!(1);
    for (path, base) in [
        ("/v1/chat/completions", chat.clone()),
        ("/v1/completions", json!({"model": "tiny", "prompt": "a"})),
        ("/v1/messages", messages),
        ("/api/chat", chat),
        ("/api/generate", json!({"model": "tiny", "prompt": "a"})),
        ("/api/show", json!({"model": "tiny"})),
    ] {
        let properties = request_schema(&document, path)["properties"]
            .as_object()
            .unwrap();
        for name in properties
            .keys()
            .filter(|name| base.get(name.as_str()).is_none())
        {
            let mut body = base.clone();
            body[name] = Value::Null;
            let reply = post(
                Fake::saying(HERMES, &["a"]).router(),
                path,
                body.to_string(),
            )
            .await;
            assert_eq!(
                reply.status,
                StatusCode::OK,
                "{path} {name}: {}",
                reply.body
            );
        }
        let mut body = base;
        body["not_described"] = json!(1);
        let reply = post(Fake::hello().router(), path, body.to_string()).await;
        assert_eq!(
            reply.status,
            StatusCode::BAD_REQUEST,
            "{path}: {}",
            reply.body
        );
        assert!(
            reply.body.contains("unknown parameter 'not_described'"),
            "{}",
            reply.body
        );
    }
}

/// What an answer has stands in the document.
#[tokio::test]
async fn answers_have_what_the_document_says() {
    let document = document().await;
    let schema = |name: &str| &document["components"]["schemas"][name];
    let chat = json!({"messages": [{"role": "user", "content": "a"}]});
    let mut messages = chat.clone();
    messages["max_tokens"] = json!(1);
    for (path, body, name) in [
        ("/v1/chat/completions", chat.clone(), "ChatAnswer"),
        (
            "/v1/completions",
            json!({"prompt": "a"}),
            "CompletionAnswer",
        ),
        ("/v1/messages", messages, "MessagesAnswer"),
        ("/v1/chat/completions", json!({"messages": []}), "Error"),
        ("/v1/messages", json!({}), "MessagesError"),
        ("/api/chat", json!({}), "OllamaError"),
    ] {
        let reply = post(Fake::hello().router(), path, body.to_string()).await;
        let answer: Value = serde_json::from_str(&reply.body).unwrap();
        let described = schema(name)["properties"].as_object().unwrap();
        for member in answer.as_object().unwrap().keys() {
            assert!(described.contains_key(member), "{name} lacks {member}");
        }
        for member in schema(name)["required"].as_array().unwrap() {
            assert!(
                !answer[member.as_str().unwrap()].is_null() || member == "stop_reason",
                "{name} {member}"
            );
        }
    }
}
