//! Everything that is refused, and how.

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use brigade_api::BackendError;
use serde_json::{Value, json};

use crate::fake::{Fake, Reply, call, chat, complete, get, post};

/// The status, `param`, `code` and message of an error object.
fn error(reply: &Reply) -> (u16, Option<String>, Option<String>, String) {
    assert_eq!(reply.headers["content-type"], "application/json");
    let body = reply.json();
    let text = |name: &str| body["error"][name].as_str().map(str::to_owned);
    assert!(text("type").is_some(), "{body}");
    (
        reply.status.as_u16(),
        text("param"),
        text("code"),
        text("message").unwrap(),
    )
}

fn refusal(
    param: &str,
    code: &str,
    message: &str,
) -> (u16, Option<String>, Option<String>, String) {
    let some = |text: &str| Some(text.to_owned());
    (400, some(param), some(code), message.to_owned())
}

async fn refuses(chat_extra: Value, param: &str, code: &str, message: &str) {
    let fake = Fake::new(|| unreachable!("refused before"));
    let reply = chat(fake.router(), chat_extra.clone()).await;
    assert_eq!(error(&reply), refusal(param, code, message), "{chat_extra}");
}

#[tokio::test]
async fn values_out_of_range() {
    for (extra, param, rest) in [
        (
            json!({"temperature": 2.1}),
            "temperature",
            "must be between 0 and 2",
        ),
        (
            json!({"temperature": -0.1}),
            "temperature",
            "must be between 0 and 2",
        ),
        (
            json!({"temperature": "1"}),
            "temperature",
            "must be a number",
        ),
        (json!({"top_p": 1.01}), "top_p", "must be between 0 and 1"),
        (json!({"min_p": -1}), "min_p", "must be between 0 and 1"),
        (
            json!({"top_k": -1}),
            "top_k",
            "must be between 0 and 2147483647",
        ),
        (json!({"top_k": 1.5}), "top_k", "must be an integer"),
        (
            json!({"presence_penalty": 3}),
            "presence_penalty",
            "must be between -2 and 2",
        ),
        (
            json!({"frequency_penalty": -3}),
            "frequency_penalty",
            "must be between -2 and 2",
        ),
        (
            json!({"repetition_penalty": 0}),
            "repetition_penalty",
            "must be between 0.01 and 10",
        ),
        (
            json!({"max_tokens": 0}),
            "max_tokens",
            "must be between 1 and 2147483647",
        ),
        (
            json!({"max_tokens": u64::MAX}),
            "max_tokens",
            "must be between 1 and 2147483647",
        ),
        (
            json!({"max_tokens": "9"}),
            "max_tokens",
            "must be an integer",
        ),
        (
            json!({"max_completion_tokens": -1}),
            "max_completion_tokens",
            "must be between 1 and 2147483647",
        ),
        (
            json!({"max_tokens": 1, "max_completion_tokens": 2}),
            "max_tokens",
            "and max_completion_tokens differ; give one of them",
        ),
        (json!({"seed": 1.5}), "seed", "must be a 64-bit integer"),
    ] {
        let message = format!("{param} {rest}");
        refuses(extra, param, "invalid_value", &message).await;
    }
}

#[tokio::test]
async fn stop_stream_and_model_that_are_malformed() {
    for (extra, param, rest) in [
        (
            json!({"stop": 1}),
            "stop",
            "must be a string or an array of strings",
        ),
        (
            json!({"stop": ["a", 1]}),
            "stop",
            "must be a string or an array of strings",
        ),
        (
            json!({"stop": [""]}),
            "stop",
            "must not have an empty string",
        ),
        (
            json!({"stop": vec!["a"; 17]}),
            "stop",
            "must have at most 16 strings",
        ),
        (json!({"stream": 1}), "stream", "must be true or false"),
        (
            json!({"stream_options": {}}),
            "stream_options",
            "needs stream to be true",
        ),
        (
            json!({"stream": true, "stream_options": 1}),
            "stream_options",
            "must be an object",
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
            "must be true or false",
        ),
        (json!({"model": 1}), "model", "must be a string"),
    ] {
        let message = format!("{param} {rest}");
        refuses(extra, param, "invalid_value", &message).await;
    }
}

#[tokio::test]
async fn messages_that_are_malformed() {
    for (extra, param, rest) in [
        (json!({"messages": null}), "messages", "is required"),
        (json!({"messages": "hi"}), "messages", "must be an array"),
        (json!({"messages": []}), "messages", "must not be empty"),
        (
            json!({"messages": ["hi"]}),
            "messages[0]",
            "must be an object",
        ),
        (
            json!({"messages": [{"content": "a"}]}),
            "messages[0].role",
            "is required",
        ),
        (
            json!({"messages": [{"role": "robot", "content": "a"}]}),
            "messages[0].role",
            "must be 'system', 'developer', 'user', 'assistant' or 'tool'",
        ),
        (
            json!({"messages": [{"role": "user"}]}),
            "messages[0].content",
            "is required",
        ),
        (
            json!({"messages": [{"role": "user", "content": 1}]}),
            "messages[0].content",
            "must be a string or an array of text parts",
        ),
        (
            json!({"messages": [{"role": "user", "content": []}]}),
            "messages[0].content",
            "must not be empty",
        ),
        (
            json!({"messages": [{"role": "user", "content": ["a"]}]}),
            "messages[0].content[0]",
            "must be an object",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages[0].content[0].text",
            "is required",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"text": "a"}]}]}),
            "messages[0].content[0].type",
            "is required",
        ),
    ] {
        let message = format!("{param} {rest}");
        refuses(extra, param, "invalid_value", &message).await;
    }
}

#[tokio::test]
async fn parameters_that_would_change_the_answer() {
    for (name, asks, neutral) in [
        ("audio", json!({"voice": "a"}), json!(null)),
        ("function_call", json!({"name": "f"}), json!("none")),
        ("functions", json!([{"name": "f"}]), json!([])),
        ("modalities", json!(["text", "audio"]), json!(["text"])),
        ("prediction", json!({"type": "content"}), json!(null)),
        ("reasoning_effort", json!("low"), json!(null)),
        ("verbosity", json!("low"), json!(null)),
        ("web_search_options", json!({}), json!(null)),
    ] {
        let message = format!("'{name}' is not supported; leave it out");
        refuses(json!({name: asks}), name, "unsupported_parameter", &message).await;
        let accepted = chat(Fake::hello().router(), json!({name: neutral})).await;
        assert_eq!(accepted.status, StatusCode::OK, "{name}: {}", accepted.body);
    }
    refuses(
        json!({"stream": true, "stream_options": {"include_obfuscation": true}}),
        "stream_options.include_obfuscation",
        "unsupported_parameter",
        "'stream_options.include_obfuscation' is not supported; leave it out",
    )
    .await;
}

#[tokio::test]
async fn parameters_that_change_nothing_are_accepted() {
    let extra = json!({
        "n": 1, "user": "u", "metadata": {"a": "b"}, "store": true, "service_tier": "flex",
        "safety_identifier": "s", "prompt_cache_key": "k", "prompt_cache_retention": "24h",
        "parallel_tool_calls": false, "tools": null, "stop": null, "temperature": null,
    });
    let reply = chat(Fake::hello().router(), extra).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
}

#[tokio::test]
async fn what_nobody_knows() {
    for (extra, param) in [
        (json!({"temprature": 1}), "temprature"),
        (json!({"best_of": 1}), "best_of"),
        (
            json!({"stream": true, "stream_options": {"x": 1}}),
            "stream_options.x",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a", "x": 1}]}),
            "messages[0].x",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}]}),
            "messages[0].content[0].x",
        ),
    ] {
        let message = format!("unknown parameter '{param}'");
        refuses(extra, param, "unknown_parameter", &message).await;
    }
}

#[tokio::test]
async fn messages_that_are_more_than_text() {
    for kind in ["image_url", "input_audio", "file", "refusal"] {
        let part = json!({"type": kind, kind: {}});
        refuses(
            json!({"messages": [{"role": "user", "content": [part]}]}),
            "messages[0].content[0].type",
            "unsupported_parameter",
            &format!("messages[0].content[0].type '{kind}' is not supported; only text is"),
        )
        .await;
    }
    refuses(
        json!({"messages": [{"role": "function", "content": "a"}]}),
        "messages[0].role",
        "unsupported_parameter",
        "role 'function' is not supported; use 'tool'",
    )
    .await;
    for (name, value) in [
        ("function_call", json!({"name": "f"})),
        ("audio", json!({"id": "a"})),
        ("refusal", json!("no")),
    ] {
        refuses(
            json!({"messages": [{"role": "assistant", "content": "a", name: value}]}),
            &format!("messages[0].{name}"),
            "unsupported_parameter",
            &format!("'messages[0].{name}' is not supported; leave it out"),
        )
        .await;
    }
}

#[tokio::test]
async fn completion_parameters() {
    for (extra, param, code, message) in [
        (
            json!({"prompt": null}),
            "prompt",
            "invalid_value",
            "prompt is required",
        ),
        (
            json!({"prompt": ""}),
            "prompt",
            "invalid_value",
            "prompt must not be empty",
        ),
        (
            json!({"prompt": 1}),
            "prompt",
            "invalid_value",
            "prompt must be a string",
        ),
        (
            json!({"prompt": ["a", "b"]}),
            "prompt",
            "unsupported_parameter",
            "prompt must be a string; send one request for each prompt",
        ),
        (
            json!({"best_of": 2}),
            "best_of",
            "unsupported_parameter",
            "best_of must be 1; send one request for each answer",
        ),
        (
            json!({"echo": true}),
            "echo",
            "unsupported_parameter",
            "'echo' is not supported; leave it out",
        ),
        (
            json!({"suffix": "x"}),
            "suffix",
            "unsupported_parameter",
            "'suffix' is not supported; leave it out",
        ),
        (
            json!({"messages": []}),
            "messages",
            "unknown_parameter",
            "unknown parameter 'messages'",
        ),
    ] {
        let fake = Fake::new(|| unreachable!("refused before"));
        let reply = complete(fake.router(), extra).await;
        assert_eq!(error(&reply), refusal(param, code, message));
    }
    let neutral = json!({"best_of": 1, "n": 1, "echo": false, "suffix": null, "user": "u"});
    let reply = complete(Fake::hello().router(), neutral).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
}

#[tokio::test]
async fn bodies_that_are_not_requests() {
    let deep = "[".repeat(1_000_000);
    for (body, message) in [
        (b"".to_vec(), "the body is not valid JSON"),
        (b"{\"a\":".to_vec(), "the body is not valid JSON"),
        (
            b"{\"prompt\":\"\xff\"}".to_vec(),
            "the body is not valid JSON",
        ),
        (
            deep.into_bytes(),
            "the body is not valid JSON: recursion limit",
        ),
        (b"[]".to_vec(), "the body must be a JSON object"),
    ] {
        for path in ["/v1/chat/completions", "/v1/completions"] {
            let reply = post(Fake::hello().router(), path, body.clone()).await;
            let (status, param, _, text) = error(&reply);
            assert_eq!((status, param), (400, None));
            assert!(text.starts_with(message), "{text}");
        }
    }
}

#[tokio::test]
async fn bodies_too_large_or_of_another_type() {
    let path = "/v1/chat/completions";
    let large = post(
        Fake::hello().router(),
        path,
        vec![b' '; 4 * 1024 * 1024 + 1],
    )
    .await;
    let (status, _, code, message) = error(&large);
    assert_eq!((status, code.as_deref()), (413, Some("request_too_large")));
    assert_eq!(message, "the body must have at most 4194304 bytes");

    let (page, form) = (
        Some("http://elsewhere.example"),
        Some("application/x-www-form-urlencoded"),
    );
    let types = [
        (None, None, false),
        // As `curl -d` sends it.
        (form, None, false),
        (Some("text/plain"), None, true),
        // A web page's, which browsers send without asking.
        (None, page, true),
        (form, page, true),
        (Some("text/plain"), page, true),
        (Some("application/json"), page, false),
    ];
    for (content_type, origin, refused) in types {
        let mut request = Request::post(path);
        for (name, value) in [("content-type", content_type), ("origin", origin)] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let reply = call(
            Fake::hello().router(),
            request.body(Body::from("{}")).unwrap(),
        )
        .await;
        let (status, _, code, _) = error(&reply);
        let found = status == 415 && code.as_deref() == Some("unsupported_media_type");
        assert_eq!(found, refused, "{content_type:?} of {origin:?}: {status}");
    }
}

#[tokio::test]
async fn routes_methods_and_models_that_there_are_not() {
    let router = || Fake::with_models(&["a", "b"], || unreachable!()).router();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        error(&get(router(), "/v1/embeddings").await),
        (
            404,
            None,
            some("unknown_route"),
            "there is no GET /v1/embeddings".to_owned()
        )
    );
    assert_eq!(
        error(&get(router(), "/v1/completions").await),
        (
            405,
            None,
            some("method_not_allowed"),
            "/v1/completions does not take GET".to_owned()
        )
    );
    let missing = (
        404,
        some("model"),
        some("model_not_found"),
        "model 'c' is not loaded; loaded: a, b. `brigade load` loads one".to_owned(),
    );
    assert_eq!(error(&get(router(), "/v1/models/c").await), missing);
    assert_eq!(error(&chat(router(), json!({"model": "c"})).await), missing);
    assert_eq!(
        error(&complete(router(), json!({"model": "c"})).await),
        missing
    );
    assert_eq!(
        error(&chat(router(), json!({"model": null})).await),
        refusal("model", "invalid_value", "model is required")
    );
}

#[tokio::test]
async fn what_the_template_refuses() {
    let messages = json!([{"role": "user", "content": "forbidden"}]);
    refuses(
        json!({"messages": messages}),
        "messages",
        "chat_template",
        "not that word",
    )
    .await;
}

#[tokio::test]
async fn what_the_backend_refuses() {
    let text = || "because".to_owned();
    for (refused, status, kind, code, message) in [
        (
            BackendError::ContextExceeded {
                prompt_tokens: Some(600),
                context_tokens: 512,
            },
            400,
            "invalid_request_error",
            Some("context_length_exceeded"),
            "the prompt has 600 tokens, the context holds 512 with the answer; shorten the prompt",
        ),
        (
            BackendError::Busy {
                queued: 64,
                retry_after_s: 3,
            },
            429,
            "rate_limit_error",
            Some("rate_limit_exceeded"),
            "64 requests are waiting and no more fit; try again in 3 s",
        ),
        (
            BackendError::Unavailable(text()),
            503,
            "server_error",
            Some("unavailable"),
            "because",
        ),
        (
            BackendError::UnknownModel("tiny".to_owned()),
            404,
            "invalid_request_error",
            Some("model_not_found"),
            "model 'tiny' is not loaded: `brigade load` loads one",
        ),
        (
            BackendError::DoesNotFit {
                model: "tiny".to_owned(),
                verdict: text(),
            },
            404,
            "invalid_request_error",
            Some("model_not_found"),
            "model 'tiny' is not loaded, and not for this request either: because",
        ),
        (
            BackendError::Invalid(text()),
            400,
            "invalid_request_error",
            None,
            "because",
        ),
        (
            BackendError::Internal(text()),
            500,
            "server_error",
            Some("internal_error"),
            "because",
        ),
    ] {
        let busy = matches!(refused, BackendError::Busy { .. });
        for stream in [false, true] {
            let fake = Fake::refusing(refused.clone());
            let reply = chat(fake.router(), json!({"stream": stream})).await;
            let (got_status, _, got_code, got_message) = error(&reply);
            assert_eq!(got_status, status);
            assert_eq!(got_code.as_deref(), code);
            assert_eq!(got_message, message);
            assert_eq!(reply.json()["error"]["type"], kind);
            let retry = reply.headers.get("retry-after");
            assert_eq!(
                retry.map(|value| value.to_str().unwrap()),
                busy.then_some("3")
            );
        }
    }
}
