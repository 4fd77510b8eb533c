//! Keys, origins, timeouts, and the routes for operators.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use brigade_api::{ApiKeys, Settings, new_key};
use serde_json::json;
use tokio::{sync::mpsc::UnboundedSender, time::Instant};

use crate::fake::{Fake, Reply, call, chat, get, held, open, post, send_text};

fn with_key() -> (String, Settings) {
    let (key, line) = new_key("ann", [9; 32]);
    let settings = Settings {
        keys: Some(ApiKeys::parse(&line).unwrap()),
        ..Settings::default()
    };
    (key, settings)
}

async fn models(settings: Settings, header: Option<(&str, String)>) -> Reply {
    let mut request = Request::get("/v1/models");
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(Body::empty()).unwrap();
    call(Fake::hello().router_with(settings), request).await
}

#[tokio::test]
async fn a_request_needs_a_key_where_there_are_keys() {
    let (key, settings) = with_key();
    let refused = models(settings.clone(), None).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.json()["error"]["code"], "invalid_api_key");
    for header in [
        ("authorization", format!("Bearer {key}x")),
        ("authorization", format!("Basic {key}")),
        ("authorization", key.clone()),
        ("x-api-key", String::new()),
    ] {
        let refused = models(settings.clone(), Some(header)).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    }
    for header in [
        ("authorization", format!("Bearer {key}")),
        ("authorization", format!("bearer {key}")),
        ("x-api-key", key.clone()),
    ] {
        let taken = models(settings.clone(), Some(header)).await;
        assert_eq!(taken.status, StatusCode::OK);
    }
    for path in ["/healthz", "/readyz"] {
        let reply = get(Fake::hello().router_with(settings.clone()), path).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}");
    }
    let dialect = |path: &'static str| get(Fake::hello().router_with(settings.clone()), path);
    let anthropic = dialect("/v1/messages").await.body;
    assert!(
        anthropic.contains(r#""type":"authentication_error""#),
        "{anthropic}"
    );
    assert!(
        dialect("/api/tags")
            .await
            .body
            .starts_with(r#"{"error":"this server asks"#)
    );
    let closed = get(Fake::hello().router_with(settings), "/metrics").await;
    assert_eq!(closed.status, StatusCode::UNAUTHORIZED);
}

async fn from_origin(settings: Settings, method: Method, origin: &str) -> Reply {
    let request = Request::builder()
        .method(method)
        .uri("/v1/models")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .body(Body::empty())
        .unwrap();
    call(Fake::hello().router_with(settings), request).await
}

#[tokio::test]
async fn pages_of_other_origins_may_ask_only_if_they_are_named() {
    const ALLOW: &str = "access-control-allow-origin";
    let closed = from_origin(Settings::default(), Method::OPTIONS, "https://a.example").await;
    assert_eq!(closed.status, StatusCode::METHOD_NOT_ALLOWED);
    assert!(!closed.headers.contains_key(ALLOW));

    let (_, keys) = with_key();
    let settings = Settings {
        cors_origins: vec!["https://a.example".to_owned()],
        ..keys
    };
    let asked = from_origin(settings.clone(), Method::OPTIONS, "https://a.example").await;
    assert_eq!(asked.status, StatusCode::NO_CONTENT);
    assert_eq!(asked.headers[ALLOW], "https://a.example");
    let other = from_origin(settings.clone(), Method::OPTIONS, "https://b.example").await;
    assert!(!other.headers.contains_key(ALLOW));
    // Even an error is for the page to read.
    let refused = from_origin(settings, Method::GET, "https://a.example").await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(refused.headers[ALLOW], "https://a.example");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_takes_too_long_is_ended() {
    let settings = Settings {
        timeout: Some(Duration::from_secs(30)),
        ..Settings::default()
    };
    let senders = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = senders.clone();
    let fake = Fake::new(move || {
        let (generation, sender) = open();
        send_text(&sender, "Hel", 1);
        kept.lock().unwrap().push(sender);
        Ok(generation)
    });
    let whole = chat(fake.router_with(settings.clone()), json!({})).await;
    assert_eq!(whole.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(
        whole.json()["error"]["message"],
        "the request took longer than 30 s"
    );
    let streamed = chat(fake.router_with(settings), json!({"stream": true})).await;
    let last = streamed.body.split_terminator("\n\n").last().unwrap();
    assert!(last.contains("\"code\":\"timeout\""), "{last}");
    assert!(
        senders
            .lock()
            .unwrap()
            .iter()
            .all(UnboundedSender::is_closed),
        "the work goes on"
    );
}

/// The time that its model takes to be loaded is a part of a request's own.
#[tokio::test(start_paused = true)]
async fn a_request_waits_for_its_model_within_its_time() {
    let seconds = Duration::from_secs;
    let within = |limit| Settings {
        timeout: Some(seconds(limit)),
        ..Settings::default()
    };
    let body = json!({"model": "tiny:latest", "prompt": "Once", "stream": false}).to_string();
    let fake = Fake::hello().loading_for(seconds(3));
    // Who only looks at it does not load it.
    let shown = post(fake.router(), "/api/show", r#"{"model": "tiny"}"#).await;
    assert_eq!(shown.status, StatusCode::NOT_FOUND);
    let begun = Instant::now();
    let late = post(fake.router_with(within(2)), "/api/generate", body.clone()).await;
    assert_eq!(late.status, StatusCode::GATEWAY_TIMEOUT, "{}", late.body);
    assert_eq!(begun.elapsed().as_secs(), 2);
    let other = chat(fake.router(), json!({"model": "other"})).await;
    assert_eq!(other.status, StatusCode::NOT_FOUND);
    let answered = post(fake.router_with(within(4)), "/api/generate", body).await;
    assert_eq!(answered.status, StatusCode::OK, "{}", answered.body);
    assert_eq!(begun.elapsed().as_secs(), 5);

    let (held, _generations) = held();
    let held = held.loading_for(seconds(3));
    let begun = Instant::now();
    let endless = chat(held.router_with(within(5)), json!({})).await;
    assert_eq!(endless.status, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(begun.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_not_waited_for() {
    let body = Body::from_stream(tokio_stream::pending::<Result<&[u8], std::io::Error>>());
    let reply = post(Fake::hello().router(), "/v1/chat/completions", body).await;
    assert_eq!(reply.status, StatusCode::REQUEST_TIMEOUT);
    assert_eq!(reply.json()["error"]["code"], "request_timeout");
}

#[tokio::test]
async fn operators_are_told() {
    let fake = Fake::hello();
    let router = fake.router();
    assert_eq!(get(router.clone(), "/healthz").await.body, "ok\n");
    let ready = get(router.clone(), "/readyz").await;
    assert_eq!(ready.json(), json!({"waiting": 3, "active": 2}));
    assert_eq!(chat(router.clone(), json!({})).await.status, StatusCode::OK);
    assert_eq!(
        chat(router.clone(), json!({"n": 0})).await.status,
        StatusCode::BAD_REQUEST
    );
    let metrics = get(router, "/metrics").await;
    assert!(
        metrics.headers["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain; version=0.0.4")
    );
    for line in [
        "brigade_requests_total{outcome=\"done\"} 1",
        "brigade_prompt_tokens_total 11",
        "brigade_completion_tokens_total 6",
        "brigade_http_responses_total{status=\"4xx\"} 1",
        "brigade_requests_in_progress 0",
        "brigade_up 1",
    ] {
        assert!(
            metrics.body.lines().any(|other| other == line),
            "{line}\n{}",
            metrics.body
        );
    }

    let dead = Fake::unavailable("node-2 died");
    let ready = get(dead.router(), "/readyz").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(ready.json()["error"]["message"], "node-2 died");
    assert!(
        get(dead.router(), "/metrics")
            .await
            .body
            .contains("brigade_up 0\n")
    );
    assert_eq!(get(dead.router(), "/healthz").await.status, StatusCode::OK);
}

#[tokio::test]
async fn counters_survive_the_model() {
    let settings = Settings::default();
    let first = Fake::hello().router_with(settings.clone());
    assert_eq!(chat(first, json!({})).await.status, StatusCode::OK);
    let none = Fake::unavailable("no model").router_with(settings.clone());
    let between = get(none, "/metrics").await.body;
    assert!(between.contains("brigade_up 0\n"), "{between}");
    let second = Fake::hello().router_with(settings);
    assert_eq!(chat(second.clone(), json!({})).await.status, StatusCode::OK);
    let after = get(second, "/metrics").await.body;
    for (text, line) in [
        (&between, "brigade_requests_total{outcome=\"done\"} 1\n"),
        (&after, "brigade_requests_total{outcome=\"done\"} 2\n"),
        (&after, "brigade_completion_tokens_total 12\n"),
        (&after, "brigade_requests_in_progress 0\n"),
        // The two chats and the metrics in between.
        (&after, "brigade_http_responses_total{status=\"2xx\"} 3\n"),
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}
