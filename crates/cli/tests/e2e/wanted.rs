//! Models that are loaded because a request names them.

use std::fs;
use std::thread;

use brigade_gguf::testing::TinyModel;
use serde_json::{Value, json};

use crate::support::{Fleet, GONE, SOON, get, huge, post_with, status, text, wait_until};

/// Asks for a few tokens of a model.
fn ask(api: &str, model: &str) -> (u16, Value) {
    let body = json!({"model": model, "prompt": "a", "max_tokens": 4, "temperature": 0});
    post_with(api, "/v1/completions", "", &body)
}

fn message(answer: &Value) -> &str {
    answer["error"]["message"].as_str().unwrap()
}

/// How many models a node coordinates.
fn coordinated(fleet: &Fleet, node: &str) -> usize {
    fleet.json(node, &["ps"])["models"]
        .as_array()
        .unwrap()
        .len()
}

/// The names of the models that a node lists.
fn listed(api: &str) -> Vec<Value> {
    let (_, list) = get(api, "/v1/models");
    let list = list["data"].as_array().unwrap().iter();
    list.map(|model| model["id"].clone()).collect()
}

/// `a` and `b` load on request from the same folder, `c` does not.
fn fleet() -> Fleet {
    let mut fleet = Fleet::new();
    let folder = fleet.scratch.path("models");
    fs::create_dir(&folder).unwrap();
    let on = ["--load-on-request", text(&folder)];
    for (name, args) in [("a", &on[..]), ("b", &on[..]), ("c", &[][..])] {
        let mut args = args.to_vec();
        let token = (name != "a").then(|| fleet.token("a"));
        if let Some(token) = &token {
            args.extend(["--join", token.as_str()]);
        }
        fleet.start(name, &args);
    }
    fleet.wait_until_all_up();
    fleet
}

#[test]
fn a_model_that_requests_name_is_loaded_once_whichever_nodes_are_asked() {
    let fleet = fleet();
    let [a, b, c] = ["a", "b", "c"].map(|name| fleet.node(name).api());
    // What is put there later can be named too.
    fleet.scratch.tiny("models/tiny.gguf", &TinyModel::llama(4));
    fleet.scratch.tiny("outside.gguf", &TinyModel::llama(4));
    assert_eq!(ask(c, "tiny").0, 404);
    for name in ["other", "tiny.gguf", "../outside", "models/tiny"] {
        let (code, answer) = ask(a, name);
        assert_eq!(code, 404, "{name}: {answer}");
        assert_eq!(answer["error"]["code"], "model_not_found");
    }
    let shown = post_with(a, "/api/show", "", &json!({"model": "tiny"}));
    assert_eq!(shown.0, 404);
    assert!(listed(a).is_empty() && listed(b).is_empty());

    let answers: Vec<_> = thread::scope(|scope| {
        let ask = |api| move || ask(api, "tiny");
        let asked: Vec<_> = [a, b, a, b].map(|api| scope.spawn(ask(api))).into();
        asked
            .into_iter()
            .map(|asked| asked.join().unwrap())
            .collect()
    });
    for (code, answer) in &answers {
        assert_eq!(*code, 200, "{answer}");
        assert_eq!(
            answer["choices"][0]["text"],
            answers[0].1["choices"][0]["text"]
        );
    }
    let [here, there] = ["a", "b"].map(|name| coordinated(&fleet, name));
    assert_eq!(here + there, 1, "{here} and {there}");
    wait_until("it is listed", SOON, || listed(c) == ["tiny"]);
    assert_eq!(ask(c, "tiny").0, 200);

    // Unloaded, it comes again with the next request.
    let owner = if here == 1 { "a" } else { "b" };
    assert_eq!(fleet.run(owner, &["unload"]).code, Some(0));
    wait_until("it is off the list", GONE, || listed(a).is_empty());
    let body = json!({"model": "tiny:latest", "prompt": "a", "raw": true, "stream": false});
    let (code, answer) = post_with(a, "/api/generate", "", &body);
    assert_eq!(code, 200, "{answer}");
    fleet.end();
}

#[test]
fn what_does_not_fit_is_refused_with_the_verdict() {
    let fleet = fleet();
    let a = fleet.node("a").api();
    huge(&fleet.scratch.path("models/huge.gguf"));
    let (code, answer) = ask(a, "huge");
    assert_eq!(
        (code, &answer["error"]["code"]),
        (404, &json!("model_not_found")),
        "{answer}"
    );
    // The verdict has the name that the file itself has.
    let expected =
        "model 'huge' is not loaded, and not for this request either: tiny llama does not fit: ";
    assert!(message(&answer).starts_with(expected), "{answer}");
    // As the command says it, figures of the moment apart.
    let huge = fleet.scratch.path("models/huge.gguf");
    let planned = fleet.complaint("a", &["load", text(&huge)]);
    assert!(
        planned.starts_with("tiny llama does not fit: "),
        "{planned}"
    );
    // What is no model is said, and blocks nothing.
    fs::write(fleet.scratch.path("models/broken.gguf"), "not a model").unwrap();
    let (code, answer) = ask(a, "broken");
    assert_eq!(code, 503, "{answer}");
    assert!(
        message(&answer).starts_with("broken could not be loaded: "),
        "{answer}"
    );
    // Where the folder is, clients do not learn.
    let folder = fleet.scratch.path("models");
    assert!(!message(&answer).contains(text(&folder)), "{answer}");
    assert_eq!((coordinated(&fleet, "a"), status(a, "/readyz")), (0, 503));
    fleet.end();
}
