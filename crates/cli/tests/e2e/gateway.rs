//! Any node is a gateway: it lists the cluster's models and passes requests on.

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Event, Fleet, SOON, Stream, chat, get, metric, post, post_with, python, smollm2, status, text,
    wait_until,
};

/// Within so much time a client hears that a coordinator is gone.
const TOLD: Duration = Duration::from_secs(3);

fn load(fleet: &Fleet, node: &str, on: &str) {
    let model = smollm2();
    let args = [
        "load",
        text(&model),
        "--ctx",
        "512",
        "--threads",
        "1",
        "--on",
        on,
    ];
    fleet.json(node, &args);
}

/// The names of the models that a node lists.
fn models(api: &str) -> Vec<Value> {
    let (_, list) = get(api, "/v1/models");
    let list = list["data"].as_array().unwrap().iter();
    list.map(|model| model["id"].clone()).collect()
}

fn wait_for_models(fleet: &Fleet, node: &str, count: usize) {
    wait_until("the models are listed", SOON, || {
        models(fleet.node(node).api()).len() == count
    });
}

fn content(answer: &Value) -> &str {
    answer["choices"][0]["message"]["content"].as_str().unwrap()
}

#[test]
fn every_node_answers_for_every_model_of_the_cluster() {
    let script = |name: &str| format!("{}/tests/e2e/python/{name}", env!("CARGO_MANIFEST_DIR"));
    let mut fleet = Fleet::new();
    // Templates, too, are the coordinator's.
    fleet.start("a", &["--chat-template", &script("tools.jinja")]);
    for name in ["b", "c"] {
        let token = fleet.token("a");
        fleet.start(name, &["--join", &token]);
    }
    fleet.wait_until_all_up();
    let (a, c) = (fleet.node("a").api(), fleet.node("c").api());
    assert_eq!((models(c).len(), status(c, "/readyz")), (0, 503));
    load(&fleet, "a", "a,b");
    wait_for_models(&fleet, "c", 1);
    for path in ["/v1/models", "/api/tags"] {
        assert_eq!(get(c, path), get(a, path), "{path}");
    }
    assert_eq!(status(c, "/readyz"), 200);
    let question = chat("What is the capital of France?", 24, &json!({}));
    let ((_, here), (status_there, there)) = (post(a, &question), post(c, &question));
    assert_eq!(status_there, 200, "{there}");
    assert_eq!(content(&there), content(&here));
    let streamed: String = Stream::open(c, &question)
        .rest()
        .iter()
        .map(Event::text)
        .collect();
    assert_eq!(streamed, content(&here));
    for (name, path) in [
        ("openai_features.py", "/v1"),
        ("anthropic_client.py", ""),
        ("ollama_client.py", ""),
    ] {
        let client = Command::new(python())
            .args([script(name), format!("http://{c}{path}")])
            .output()
            .unwrap();
        let complaint = String::from_utf8_lossy(&client.stderr);
        assert!(client.status.success(), "{name}: {complaint}");
    }

    // A client that goes away frees the sequence where the model is.
    let before = metric(a, "brigade_requests_total{outcome=\"cancelled\"}");
    let stream = Stream::open(c, &chat("A very long story.", 400, &json!({})));
    stream.some_text(3);
    assert_eq!(metric(a, "brigade_sequences_active"), 1);
    stream
        .connection
        .shutdown(std::net::Shutdown::Both)
        .unwrap();
    wait_until("the sequence is free", SOON, || {
        metric(a, "brigade_sequences_active") == 0
    });
    assert_eq!(
        metric(a, "brigade_requests_total{outcome=\"cancelled\"}"),
        before + 1
    );
    wait_until("the gateway has counted it", SOON, || {
        metric(c, "brigade_requests_passed_on_total{outcome=\"cancelled\"}") == 1
    });
    assert_eq!(metric(c, "brigade_requests_total{outcome=\"done\"}"), 0);

    // Unloaded there, it is gone here.
    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));
    wait_for_models(&fleet, "c", 0);
    let (code, refused) = post(c, &chat("hi", 4, &json!({"model": "gone"})));
    assert_eq!(
        (code, &refused["error"]["code"]),
        (404, &json!("model_not_found"))
    );
    fleet.end();
}

#[test]
fn a_coordinator_that_dies_is_told_at_once_by_the_gateway() {
    let fleet = Fleet::cluster(&["a", "b", "c"]);
    let c = fleet.node("c").api();
    load(&fleet, "a", "a,b");
    wait_for_models(&fleet, "c", 1);
    let name = models(c)[0].clone();
    let story = chat("A very long story.", 400, &json!({"model": name}));
    let stream = Stream::open(c, &story);
    stream.some_text(3);
    let (gateway, whole) = (c.to_owned(), story.clone());
    let waiting = thread::spawn(move || post(&gateway, &whole));
    wait_until("both are there", SOON, || {
        metric(fleet.node("a").api(), "brigade_requests_in_progress") == 2
    });
    fleet.kill("a");
    let killed = Instant::now();
    let events = stream.rest();
    let (code, answer) = waiting.join().unwrap();
    assert!(killed.elapsed() < TOLD, "{:?}", killed.elapsed());
    let Some(Event::Data(last)) = events.last() else {
        panic!("no error, but {:?}", events.last());
    };
    let message = &last["error"]["message"];
    let expected = format!(
        "a, which runs {}, is gone: try again",
        name.as_str().unwrap()
    );
    assert_eq!(message, &json!(expected));
    assert_eq!((code, &answer["error"]["message"]), (503, &json!(expected)));
    wait_until("it is off the list", SOON, || models(c).is_empty());
    let (code, answer) = post(c, &story);
    assert_eq!(
        (code, &answer["error"]["code"]),
        (503, &json!("unavailable"))
    );
    let expected = format!("a, which runs {}, is not up", name.as_str().unwrap());
    assert_eq!(answer["error"]["message"], expected);
    assert_eq!(status(c, "/readyz"), 503);
}

/// The key is that of the gateway that is asked, and goes no further.
#[test]
fn a_gateway_asks_for_its_own_key() {
    let mut fleet = Fleet::new();
    let keys = fleet.scratch.path("keys");
    let made = fleet.scratch.run(&["key", "ann", "--file", text(&keys)]);
    let key = made.stdout.trim_end().to_owned();
    fleet.start("a", &[]);
    let token = fleet.token("a");
    fleet.start("b", &["--join", &token, "--api-key-file", text(&keys)]);
    fleet.wait_until_all_up();
    let tiny = brigade_gguf::testing::TinyModel::llama(4);
    let model = fleet.scratch.tiny("tiny.gguf", &tiny);
    fleet.json("a", &["load", text(&model), "--ctx", "512", "--on", "a"]);
    let b = fleet.node("b").api();
    wait_until("the gateway is ready", SOON, || status(b, "/readyz") == 200);
    let body = json!({"model": "tiny", "prompt": "a", "max_tokens": 4});
    let ask = |api: &str, header: &str| post_with(api, "/v1/completions", header, &body);
    assert_eq!(ask(b, "").0, 401);
    assert_eq!(ask(b, "authorization: Bearer brigade-00\r\n").0, 401);
    let (code, answer) = ask(b, &format!("authorization: Bearer {key}\r\n"));
    assert_eq!(code, 200, "{answer}");
    assert_eq!(ask(fleet.node("a").api(), "").0, 200);
    fleet.end();
}
