//! What a client gets when all goes well, and when it goes wrong half-way.

use std::time::Duration;

use axum::http::StatusCode;
use brigade_api::{
    Account, BackendError, Event, FinishReason, PhaseSpent, Prompt, Settings, Spent, router,
};
use insta::assert_json_snapshot;
use serde_json::{Value, json};

use crate::fake::{Fake, chat, complete, get, open, send_text};

fn sorted<T>(check: impl FnOnce() -> T) -> T {
    let mut settings = insta::Settings::clone_current();
    settings.set_sort_maps(true);
    settings.set_prepend_module_to_snapshot(false);
    settings.bind(check)
}

#[tokio::test]
async fn models_are_listed_and_found() {
    let fake = Fake::with_models(&["tiny", "org/large"], || unreachable!());
    let list = get(fake.router(), "/v1/models").await;
    assert_eq!(list.status, StatusCode::OK);
    sorted(|| assert_json_snapshot!("models", list.json()));
    let one = get(fake.router(), "/v1/models/org/large").await;
    assert_eq!(one.status, StatusCode::OK);
    assert_eq!(one.json(), list.json()["data"][1]);
}

#[tokio::test]
async fn chat_answers_with_one_object() {
    let fake = Fake::hello();
    let reply = chat(fake.router(), json!({"stop": "x", "max_tokens": 9})).await;
    assert_eq!(reply.status, StatusCode::OK);
    sorted(|| assert_json_snapshot!("chat", reply.json()));
    let requests = fake.requests.lock().unwrap();
    assert_eq!(requests[0].model, "tiny");
    assert_eq!(
        requests[0].prompt,
        Prompt::Rendered("<user>hi<assistant>".to_owned())
    );
    assert_eq!(requests[0].stop, ["x"]);
    assert_eq!(requests[0].max_tokens, Some(9));
}

#[tokio::test]
async fn chat_streams() {
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let reply = chat(Fake::hello().router(), options).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.headers["content-type"], "text/event-stream");
    sorted(|| assert_json_snapshot!("chat_stream", reply.events()));

    let without = chat(Fake::hello().router(), json!({"stream": true})).await;
    let mut expected = reply.events();
    let usage = expected.len() - 2;
    assert_eq!(expected.remove(usage)["choices"], json!([]));
    for chunk in &mut expected {
        if let Some(object) = chunk.as_object_mut() {
            assert_eq!(object.remove("usage"), Some(json!(null)));
        }
    }
    assert_eq!(without.events(), expected);
}

#[tokio::test]
async fn all_chunks_of_a_stream_have_one_id() {
    let reply = chat(Fake::hello().router(), json!({"stream": true})).await;
    let mut ids: Vec<_> = reply
        .body
        .split("\n\n")
        .filter_map(|event| event.split("\"id\":\"").nth(1)?.split('"').next())
        .collect();
    assert_eq!(ids.len(), 5);
    ids.dedup();
    assert_eq!(ids.len(), 1);
}

#[tokio::test]
async fn completions_answer_and_stream() {
    let fake = Fake::hello();
    let reply = complete(fake.router(), json!({})).await;
    assert_eq!(reply.status, StatusCode::OK);
    sorted(|| assert_json_snapshot!("completion", reply.json()));
    let request = fake.requests.lock().unwrap().remove(0);
    assert_eq!(request.prompt, Prompt::Raw("Once".to_owned()));
    assert_eq!(request.max_tokens, Some(16));

    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let stream = complete(Fake::hello().router(), options).await;
    sorted(|| assert_json_snapshot!("completion_stream", stream.events()));
}

#[tokio::test]
async fn content_parts_and_developer_messages_reach_the_template() {
    let fake = Fake::hello();
    let messages = json!([
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": "c", "refusal": null, "tool_calls": [], "annotations": []},
        {"role": "user", "content": "", "name": "Ann"},
    ]);
    let reply = chat(fake.router(), json!({"messages": messages})).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(
        fake.requests.lock().unwrap()[0].prompt,
        Prompt::Rendered("<system>be brief<user>a\nb<assistant>c<user><assistant>".to_owned())
    );
}

#[tokio::test]
async fn the_only_model_needs_no_name() {
    let fake = Fake::hello();
    let reply = chat(fake.router(), json!({"model": null})).await;
    assert_eq!(reply.status, StatusCode::OK);
    assert_eq!(reply.json()["model"], "tiny");
}

#[tokio::test]
async fn a_failure_within_a_stream_is_its_last_event() {
    let fake = Fake::new(|| {
        let (generation, sender) = open();
        send_text(&sender, "Hel", 1);
        let error = BackendError::Unavailable("stage 2 died".to_owned());
        sender.send(Event::Failed(error)).unwrap();
        Ok(generation)
    });
    let streamed = chat(fake.router(), json!({"stream": true})).await;
    assert_eq!(streamed.status, StatusCode::OK);
    sorted(|| assert_json_snapshot!("chat_stream_failure", streamed.events()));

    let whole = chat(fake.router(), json!({})).await;
    assert_eq!(whole.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(whole.json(), *streamed.events().last().unwrap());
}

#[tokio::test]
async fn a_backend_that_goes_away_is_an_error() {
    let fake = Fake::new(|| Ok(open().0));
    let streamed = chat(fake.router(), json!({"stream": true})).await;
    let whole = chat(fake.router(), json!({})).await;
    assert_eq!(whole.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(whole.json()["error"]["type"], "server_error");
    assert_eq!(*streamed.events().last().unwrap(), whole.json());
}

#[tokio::test]
async fn without_a_template_chat_is_refused_and_completions_work() {
    let fake = Fake::hello();
    let reply = chat(router(fake.clone(), None, Settings::default()), json!({})).await;
    assert_eq!(reply.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        reply.json()["error"]["message"],
        "the model has no chat template; use /v1/completions"
    );
    let reply = complete(router(fake, None, Settings::default()), json!({})).await;
    assert_eq!(reply.status, StatusCode::OK);
}

#[tokio::test(start_paused = true)]
async fn the_time_of_an_answer_is_divided_and_adds_up() {
    let ms = Duration::from_millis;
    let fake = Fake::new(move || {
        let (mut generation, sender) = open();
        let phase = |stages: [u64; 2], network: u64| PhaseSpent {
            stages: stages.map(ms).to_vec(),
            network: ms(network),
        };
        let spent = Spent {
            prefill: phase([3, 2], 1),
            decode: phase([8, 4], 5),
            ..Spent::default()
        };
        generation.account = Some(Account::new(move || spent.clone()));
        tokio::spawn(async move {
            tokio::time::sleep(ms(5)).await;
            let cached_tokens = 0;
            sender.send(Event::Started { cached_tokens }).unwrap();
            tokio::time::sleep(ms(10)).await;
            send_text(&sender, "Hello", 1);
            tokio::time::sleep(ms(25)).await;
            let done = Event::Done {
                reason: FinishReason::Stop,
                completion_tokens: 1,
            };
            sender.send(done).unwrap();
        });
        Ok(generation)
    });
    let expected = json!({
        "queue_ms": 5.0, "prefill_ms": 10.0, "decode_ms": 25.0,
        "prefill": {"stages_ms": [3.0, 2.0], "network_ms": 1.0, "waiting_ms": 4.0},
        "decode": {"stages_ms": [8.0, 4.0], "network_ms": 5.0, "waiting_ms": 8.0},
    });
    let whole = chat(fake.router(), json!({})).await;
    let whole: Value = serde_json::from_str(&whole.body).unwrap();
    assert_eq!(whole["timings"], expected);
    let streamed = chat(fake.router(), json!({"stream": true})).await;
    let last = streamed.body.rsplit("data: ").nth(1).unwrap();
    let last: Value = serde_json::from_str(last).unwrap();
    assert_eq!(last["timings"], expected);
}
