//! The official `openai` client for Python.

use std::process::Command;

use crate::support::{Lab, Scratch, Signal, python, smollm2};

#[test]
fn the_openai_client_holds_a_conversation() {
    let python = python();
    let lab = Lab::start(
        Scratch::new(),
        &smollm2(),
        &["--nodes", "2", "--threads", "1"],
    );
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/python/openai_client.py");
    let output = Command::new(python)
        .args([script, &format!("http://{}/v1", lab.api())])
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
