//! The other engine: llama.cpp's RPC.

use brigade_gguf::testing::TinyModel;
use serde_json::{Value, json};

use crate::support::{
    Event, GONE, Lab, Scratch, Signal, Stream, chat, internlm2, is_alive, post, send, smollm2,
    text, tree, wait_until,
};

fn lab() -> Lab {
    let args = ["--engine", "llama-rpc", "--nodes", "2", "--threads", "1"];
    Lab::start(Scratch::new(), &smollm2(), &args)
}

#[test]
fn two_nodes_answer_like_one() {
    let lab = lab();
    assert_eq!(lab.ready["nodes"].as_array().unwrap().len(), 2);
    assert!(is_alive(
        lab.ready["client"]["stage_pid"].as_u64().unwrap() as u32
    ));
    let question = "What is the capital of France?";
    let (status, body) = post(lab.api(), &chat(question, 24, &json!({})));
    assert_eq!(status, 200, "{body}");

    let model = smollm2();
    let args = [
        "--ctx",
        "512",
        "--threads",
        "1",
        "--temperature",
        "0",
        "--max-tokens",
        "24",
    ];
    for engine in ["stages", "llama-rpc"] {
        let run = ["run", text(&model), question, "--engine", engine];
        let ended = lab
            .scratch
            .command(&[&run[..], &args].concat())
            .output()
            .unwrap();
        assert!(
            ended.status.success(),
            "{}",
            String::from_utf8_lossy(&ended.stderr)
        );
        assert_eq!(
            String::from_utf8(ended.stdout).unwrap().trim_end(),
            body["choices"][0]["message"]["content"].as_str().unwrap(),
            "{engine}"
        );
    }
    lab.end(Signal::TERM);
}

#[test]
fn a_killed_server_is_an_error() {
    let lab = lab();
    let story = chat("Tell me a long story.", 450, &json!({}));
    let stream = Stream::open(lab.api(), &story);
    stream.some_text(2);
    send(lab.pids("stage_pid")[1], Signal::KILL);
    let events = stream.rest();
    let Some(Event::Data(last)) = events.last() else {
        panic!("no error, but {:?}", events.last());
    };
    let message = last["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("node-2") || message.contains("RPC client"),
        "{message}"
    );
    assert_eq!(post(lab.api(), &story).0, 503);
    lab.end_failed();
}

#[test]
fn a_killed_lab_takes_its_processes_along() {
    let mut lab = lab();
    let family: Vec<u32> = tree(lab.pid()).into_iter().map(|(pid, _)| pid).collect();
    // Two nodes with their servers, the client's node with its stage, and the tokenizer.
    assert_eq!(family.len(), 7);
    send(lab.pid(), Signal::KILL);
    assert!(lab.wait(GONE).is_some());
    wait_until("every process is gone", GONE, || {
        !family.iter().any(|&pid| is_alive(pid))
    });
}

/// What stages refuse, the other engine runs, and the lab says so.
#[test]
fn an_architecture_that_stages_do_not_know() {
    let scratch = Scratch::new();
    let path = scratch.path("internlm2.gguf");
    internlm2(&path);
    let args = [
        "lab",
        "--model",
        text(&path),
        "--nodes",
        "2",
        "--once",
        "hi",
        "--max-tokens",
        "4",
    ];
    let ended = scratch.run(&args);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    insta::assert_snapshot!(ended.stderr.lines().next().unwrap(), @"Stages do not support the architecture 'internlm2' yet: llama-rpc runs it.");
}

#[test]
fn gemma3_with_62_layers() {
    let scratch = Scratch::new();
    let model = scratch.tiny("tiny.gguf", &TinyModel::gemma3(62));
    let args = ["--engine", "llama-rpc", "--nodes", "2"];
    let lab = Lab::start(scratch, &model, &args);
    assert_eq!(lab.ready["nodes"][0]["layers"], Value::Null);
    assert_eq!(post(lab.api(), &chat("hi", 4, &json!({}))).0, 200);
    lab.end(Signal::TERM);
}
