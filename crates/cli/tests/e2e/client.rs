//! The official clients for Python, unmodified: `openai`, `anthropic` and `ollama`; and
//! schemathesis, which asks whatever the `OpenAPI` document lets it.

use std::process::Command;

use brigade_gguf::testing::TinyModel;

use crate::support::{Lab, Scratch, Signal, python, smollm2};

/// A file beside this one.
fn file(name: &str) -> String {
    format!("{}/tests/e2e/python/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A lab of two nodes, with arguments more.
fn lab(arguments: &[&str]) -> Lab {
    let mut all = vec!["--nodes", "2", "--threads", "1"];
    all.extend(arguments);
    Lab::start(Scratch::new(), &smollm2(), &all)
}

/// Runs a script against a lab, which must find everything good.
fn converse(lab: Lab, script: &str, path: &str) {
    let output = Command::new(python())
        .args([&file(script), &format!("http://{}{path}", lab.api())])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\nthe lab: {}",
        String::from_utf8_lossy(&output.stderr),
        lab.stderr()
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "all good\n");
    lab.end(Signal::TERM);
}

#[test]
fn the_openai_client_holds_a_conversation() {
    converse(lab(&[]), "openai_client.py", "/v1");
}

#[test]
fn the_openai_client_asks_for_more_than_text() {
    let lab = lab(&["--chat-template", &file("tools.jinja")]);
    converse(lab, "openai_features.py", "/v1");
}

#[test]
fn the_anthropic_client_holds_a_conversation() {
    let lab = lab(&["--chat-template", &file("tools.jinja")]);
    converse(lab, "anthropic_client.py", "");
}

#[test]
fn the_ollama_client_holds_a_conversation() {
    let lab = lab(&["--chat-template", &file("tools.jinja")]);
    converse(lab, "ollama_client.py", "");
}

#[test]
fn schemathesis_finds_no_fault_of_the_server() {
    let scratch = Scratch::new();
    // What it answers does not matter, so the smallest model does.
    let model = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let template = file("tools.jinja");
    let lab = Lab::start(
        scratch,
        &model,
        &["--nodes", "2", "--chat-template", &template],
    );
    let mut schemathesis = python();
    schemathesis.set_file_name("schemathesis");
    let output = Command::new(schemathesis)
        .current_dir(lab.scratch.path(""))
        .args([
            "run",
            &format!("http://{}/openapi.json", lab.api()),
            "--checks",
            "not_a_server_error",
            "--mode",
            "all",
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "12",
            "--seed",
            "1",
            "--generation-database",
            "none",
            "--request-timeout",
            "60",
            "--no-color",
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}\nthe lab: {}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
        lab.stderr()
    );
    lab.end(Signal::TERM);
}
