//! Requests for a model of another process: there and back through a gateway.

use std::{sync::atomic::Ordering, time::Duration};

use axum::{
    body::Body,
    http::{Request, StatusCode},
};
use brigade_api::{ApiKeys, BackendError, Settings, new_key};
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tower::ServiceExt;

use crate::{
    fake::{Fake, Reply, call, chat, get, held, post, send_text},
    pair::Pair,
};

fn conversation(stream: bool) -> Value {
    json!({
        "model": "tiny", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 9,
        "stream": stream,
    })
}

/// Every route that means a model, with a body for it.
fn requests() -> Vec<(&'static str, Value)> {
    let text = |stream: bool| json!({"model": "tiny", "prompt": "Once", "stream": stream});
    let mut requests = vec![("/api/show", json!({"model": "tiny"}))];
    for stream in [false, true] {
        requests.extend([
            ("/v1/chat/completions", conversation(stream)),
            ("/v1/completions", text(stream)),
            ("/v1/messages", conversation(stream)),
            ("/api/generate", text(stream)),
        ]);
    }
    requests
}

/// The lines of a body, without what differs from run to run.
fn plain(body: &str) -> Vec<String> {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(object) => {
                object.retain(|name, _| {
                    let differs = ["id", "created", "created_at", "timings"];
                    !differs.contains(&name.as_str()) && !name.ends_with("_duration")
                });
                object.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let lines = body.lines().map(|line| {
        let (prefix, json) = line.split_at(line.find('{').unwrap_or(line.len()));
        let Ok(mut value) = serde_json::from_str(json) else {
            return line.to_owned();
        };
        strip(&mut value);
        format!("{prefix}{value}")
    });
    lines.collect()
}

#[tokio::test]
async fn every_route_answers_through_a_gateway_as_it_does_itself() {
    let fake = Fake::hello();
    let pair = Pair::new(&fake);
    for (path, body) in requests() {
        let here = post(fake.router(), path, body.to_string()).await;
        let there = post(pair.router(), path, body.to_string()).await;
        assert_eq!(here.status, StatusCode::OK, "{path}: {}", here.body);
        assert_eq!(there.status, here.status, "{path}: {}", there.body);
        assert_eq!(
            there.headers.get("content-type"),
            here.headers.get("content-type")
        );
        assert_eq!(plain(&there.body), plain(&here.body), "{path}");
    }
    assert_eq!(
        pair.gateway.connected.load(Ordering::Relaxed),
        requests().len()
    );
    let metrics = get(pair.router(), "/metrics").await.body;
    assert!(
        metrics.contains("brigade_requests_total{outcome=\"done\"} 0"),
        "{metrics}"
    );
    for path in ["/v1/models", "/api/tags", "/v1/models/tiny"] {
        let (here, there) = (
            get(fake.router(), path).await,
            get(pair.router(), path).await,
        );
        assert_eq!(
            (there.status, there.body),
            (StatusCode::OK, here.body),
            "{path}"
        );
    }
}

#[tokio::test]
async fn without_a_name_the_only_model_is_meant_and_latest_is_no_part_of_one() {
    let fake = Fake::hello();
    let pair = Pair::new(&fake);
    let body = json!({"messages": [{"role": "user", "content": "hi"}]});
    let reply = post(pair.router(), "/v1/chat/completions", body.to_string()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    let body = json!({"model": "tiny:latest", "prompt": "a", "stream": false});
    let reply = post(pair.router(), "/api/generate", body.to_string()).await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.body);
    assert_eq!(fake.requests.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn refusals_come_back_as_they_are() {
    let busy = || {
        Fake::refusing(BackendError::Busy {
            queued: 64,
            retry_after_s: 7,
        })
    };
    let pair = Pair::new(&busy());
    let (here, there) = (
        chat(busy().router(), json!({})).await,
        chat(pair.router(), json!({})).await,
    );
    assert_eq!(there.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(there.headers["retry-after"], "7");
    assert_eq!(there.body, here.body);
    let body = json!({"model": "tiny", "messages": [], "colour": 1}).to_string();
    for path in ["/v1/chat/completions", "/v1/messages", "/api/chat"] {
        let here = post(busy().router(), path, body.clone()).await;
        let there = post(pair.router(), path, body.clone()).await;
        assert_eq!(
            (there.status, there.body),
            (here.status, here.body),
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_cannot_be_passed_on_is_refused_at_the_gateway() {
    let pair = Pair::new(&Fake::hello());
    let reply = chat(pair.router(), json!({"model": "other"})).await;
    assert_eq!(reply.status, StatusCode::NOT_FOUND);
    assert_eq!(
        reply.json()["error"]["message"],
        "model 'other' is not loaded; loaded: tiny. `brigade load` loads one"
    );
    let reply = chat(pair.router(), json!({"model": "lost"})).await;
    assert_eq!(reply.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(reply.json()["error"]["message"], "far is not up");
    let broken = post(pair.router(), "/v1/chat/completions", "{").await;
    assert_eq!(broken.status, StatusCode::BAD_REQUEST);
    let no_json = Request::post("/v1/messages")
        .header("content-type", "text/plain")
        .body(Body::from("{}"))
        .unwrap();
    let reply = call(pair.router(), no_json).await;
    assert_eq!(reply.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert!(
        reply.body.starts_with(r#"{"type":"error""#),
        "{}",
        reply.body
    );
    assert_eq!(pair.gateway.connected.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn the_gateway_checks_the_key_and_says_whose_it_was() {
    let fake = Fake::hello();
    let pair = Pair::new(&fake);
    let (key, line) = new_key("ann", [9; 32]);
    let settings = Settings {
        keys: Some(ApiKeys::parse(&line).unwrap()),
        ..Settings::default()
    };
    let ask = |key: Option<&str>| {
        let mut request = Request::post("/v1/chat/completions")
            .header("content-type", "application/json")
            // What a client says of itself is not believed.
            .header("x-brigade-owner", "root");
        if let Some(key) = key {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        let request = request
            .body(conversation(false).to_string().into())
            .unwrap();
        call(pair.router_with(settings.clone()), request)
    };
    assert_eq!(ask(None).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        ask(Some("brigade-00")).await.status,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(ask(Some(&key)).await.status, StatusCode::OK);
    // Nor where no keys are asked for.
    let anybody = Request::post("/v1/chat/completions")
        .header("content-type", "application/json")
        .header("x-brigade-owner", "root")
        .body(conversation(false).to_string().into())
        .unwrap();
    assert_eq!(call(pair.router(), anybody).await.status, StatusCode::OK);
    let requests = fake.requests.lock().unwrap();
    let users: Vec<_> = requests
        .iter()
        .map(|request| request.user.as_deref())
        .collect();
    assert_eq!(users, [Some("ann"), None]);
}

fn request(path: &str, stream: bool) -> Request<Body> {
    let mut body = conversation(stream);
    if path == "/api/generate" {
        body = json!({"model": "tiny", "prompt": "a", "stream": stream});
    }
    Request::post(path)
        .header("content-type", "application/json")
        .body(body.to_string().into())
        .unwrap()
}

#[tokio::test]
async fn a_client_that_leaves_the_gateway_cancels_the_work_behind_it() {
    let (fake, mut generations) = held();
    let pair = Pair::new(&fake);
    let streaming = pair
        .router()
        .oneshot(request("/v1/chat/completions", true))
        .await
        .unwrap();
    let mut body = streaming.into_body().into_data_stream();
    let mut text = String::new();
    while !text.contains("word") {
        text += std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap();
    }
    let generation = generations.recv().await.unwrap();
    assert!(!generation.is_closed());
    drop(body);
    generation.closed().await;

    let waiting = tokio::spawn(
        pair.router()
            .oneshot(request("/v1/chat/completions", false)),
    );
    let generation = generations.recv().await.unwrap();
    assert!(!generation.is_closed());
    waiting.abort();
    generation.closed().await;
}

#[tokio::test]
async fn a_process_that_dies_leaves_an_error_in_the_clients_dialect() {
    for (path, end) in [
        (
            "/v1/chat/completions",
            "data: {\"error\":{\"message\":\"far, which runs tiny, is gone: try again\",\
             \"type\":\"server_error\",\"param\":null,\"code\":\"unavailable\"}}\n\n",
        ),
        (
            "/v1/messages",
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\
             \"message\":\"far, which runs tiny, is gone: try again\"}}\n\n",
        ),
        (
            "/api/generate",
            "{\"error\":\"far, which runs tiny, is gone: try again\"}\n",
        ),
    ] {
        for stream in [true, false] {
            let (fake, mut generations) = held();
            let pair = Pair::new(&fake);
            let answer = tokio::spawn(call(pair.router(), request(path, stream)));
            let generation = generations.recv().await.unwrap();
            for wire in pair.gateway.wires.lock().unwrap().iter() {
                wire.abort();
            }
            let answer: Reply = answer.await.unwrap();
            drop(generation);
            if stream {
                assert_eq!(answer.status, StatusCode::OK);
                assert!(answer.body.ends_with(end), "{}", answer.body);
            } else {
                assert_eq!(
                    answer.status,
                    StatusCode::SERVICE_UNAVAILABLE,
                    "{}",
                    answer.body
                );
                assert!(
                    answer.body.contains("is gone: try again"),
                    "{}",
                    answer.body
                );
            }
        }
    }
}

/// Text that comes in pieces is passed on in whole lines, and nothing of it is lost.
#[tokio::test]
async fn an_event_is_never_broken_in_two() {
    let (fake, mut generations) = held();
    let pair = Pair::new(&fake);
    let answer = pair
        .router()
        .oneshot(request("/v1/chat/completions", true))
        .await
        .unwrap();
    let generation = generations.recv().await.unwrap();
    let long = "long ".repeat(3000);
    send_text(&generation, &long, 2);
    let mut body = answer.into_body().into_data_stream();
    let mut text = String::new();
    while !text.contains(&long) {
        text += std::str::from_utf8(&body.next().await.unwrap().unwrap()).unwrap();
        assert!(text.ends_with('\n'), "{text}");
    }
    send_text(&generation, &long, 3);
    for wire in pair.gateway.wires.lock().unwrap().iter() {
        wire.abort();
    }
    while let Some(data) = body.next().await {
        text += std::str::from_utf8(&data.unwrap()).unwrap();
    }
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    for event in events {
        serde_json::from_str::<Value>(event).unwrap();
    }
    assert!(text.ends_with("\n\n"), "{text}");
    assert!(text.contains("is gone"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_keeps_its_own_time_limit() {
    let (fake, _generations) = held();
    let pair = Pair::new(&fake);
    let settings = Settings {
        timeout: Some(Duration::from_secs(5)),
        ..Settings::default()
    };
    let router = || pair.router_with(settings.clone());
    let whole = call(router(), request("/v1/chat/completions", false)).await;
    assert_eq!(whole.status, StatusCode::GATEWAY_TIMEOUT, "{}", whole.body);
    let streamed = call(router(), request("/v1/chat/completions", true)).await;
    assert!(
        streamed.body.contains(r#""code":"timeout""#),
        "{}",
        streamed.body
    );
    let metrics = get(router(), "/metrics").await.body;
    let failed = "brigade_requests_passed_on_total{outcome=\"failed\"} 2";
    assert!(metrics.contains(failed), "{metrics}");
}
