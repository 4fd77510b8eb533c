//! The other engine: llama.cpp's RPC.

use std::fs;

use brigade_gguf::testing::TinyModel;
use serde_json::{Value, json};

use crate::support::{
    Event, Fleet, GONE, Lab, SOON, Scratch, Signal, Stream, chat, command_line, internlm2,
    is_alive, post, resident, send, smollm2, text, tree, wait_until, wait_until_gone,
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
        message.contains("node-2") || message.contains("client"),
        "{message}"
    );
    assert_eq!(post(lab.api(), &story).0, 503);
    lab.end_failed();
}

#[test]
fn a_killed_lab_takes_its_processes_along() {
    let mut lab = lab();
    let family: Vec<u32> = tree(lab.pid()).into_iter().map(|(pid, _)| pid).collect();
    // Two daemons, each with a node and its server, the client's node with its stage, and the
    // tokenizer.
    assert_eq!(family.len(), 9);
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
    assert_eq!(lab.ready["nodes"][0]["layers"], json!([0, 31]));
    assert_eq!(post(lab.api(), &chat("hi", 4, &json!({}))).0, 200);
    lab.end(Signal::TERM);
}

/// Servers on other nodes, which listen on loopback only, behind encrypted links.
#[test]
fn on_a_cluster_servers_are_reached_through_its_links() {
    let fleet = Fleet::cluster(&["a", "b", "c"]);
    let file = smollm2();
    let load = ["load", text(&file), "--ctx", "512", "--threads", "1"];
    let running = fleet.json("b", &[&load[..], &["--engine", "llama-rpc"]].concat());
    let model = &running["models"][0];
    assert_eq!(model["engine"], "llama-rpc");
    let stages = model["stages"].as_array().unwrap();
    let nodes: Vec<_> = stages.iter().map(|stage| &stage["node"]).collect();
    assert_eq!(nodes, ["b", "a", "c"]);
    let pids: Vec<_> = stages
        .iter()
        .map(|stage| stage["pid"].as_u64().unwrap() as u32)
        .collect();
    for &pid in &pids {
        let command = command_line(pid);
        assert_eq!(command.split_whitespace().nth(1), Some("rpc-server"));
    }
    let question = "What is the capital of France?";
    let api = fleet.node("b").api();
    let (status, body) = post(api, &chat(question, 24, &json!({})));
    assert_eq!(status, 200, "{body}");
    let args = ["--ctx", "512", "--threads", "1", "--temperature", "0"];
    let run = ["run", text(&file), question, "--max-tokens", "24"];
    let whole = fleet.run("a", &[&run[..], &args].concat());
    assert_eq!(
        whole.stdout.trim_end(),
        body["choices"][0]["message"]["content"].as_str().unwrap()
    );

    // A node that dies ends the answer, and what ran for it elsewhere.
    let stream = Stream::open(api, &chat("Tell me a long story.", 450, &json!({})));
    stream.some_text(2);
    fleet.kill("c");
    let events = stream.rest();
    let Some(Event::Data(last)) = events.last() else {
        panic!("no error, but {:?}", events.last());
    };
    let message = last["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("c is gone") || message.contains("client lost its stage"),
        "{message}"
    );
    assert_eq!(post(api, &chat("hi", 4, &json!({}))).0, 503);
    assert_eq!(fleet.run("b", &["unload"]).code, Some(0));
    wait_until_gone(&pids, GONE);
}

/// A plan is a plan for either engine: servers hold what it says, and its nodes reserve it.
#[test]
fn servers_hold_the_layers_of_the_plan() {
    let fleet = Fleet::cluster(&["a", "b"]);
    let file = smollm2();
    let stages = json!([{"node": "a", "layers": [0, 4]}, {"node": "b", "layers": [4, 30]}]);
    let plan = fleet.scratch.path("plan.json");
    let said = json!({"schema": "brigade.plan/1", "stages": stages});
    fs::write(&plan, said.to_string()).unwrap();
    let load = [
        "load",
        text(&file),
        "--ctx",
        "512",
        "--threads",
        "1",
        "--yes",
    ];
    let engine = ["--engine", "llama-rpc", "--plan", text(&plan)];
    let running = fleet.json("a", &[&load[..], &engine].concat());
    let stages = running["models"][0]["stages"].as_array().unwrap();
    assert_eq!(stages[1]["layers"], json!([4, 30]));
    let resident = |stage: &Value| {
        let pid = stage["pid"].as_u64().unwrap() as u32;
        resident(&[pid]) as f64
    };
    let (few, many) = (resident(&stages[0]), resident(&stages[1]));
    assert!(many > 2.0 * few, "{many} with 26 layers, {few} with 4");
    wait_until("it is held and known to be in use", SOON, || {
        let nodes = fleet.json("a", &["nodes"]);
        let nodes = nodes["nodes"].as_array().unwrap();
        nodes.iter().all(|node| node["held"][0]["loaded"] == true)
    });
    assert_eq!(
        post(fleet.node("a").api(), &chat("hi", 4, &json!({}))).0,
        200
    );
    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));
    let nodes = fleet.json("a", &["nodes"]);
    let nodes = nodes["nodes"].as_array().unwrap();
    assert!(nodes.iter().all(|node| node["held"] == json!([])));
    fleet.end();
}

/// What stages refuse, a cluster runs by itself with the other engine, and says so.
#[test]
fn a_cluster_says_which_engine_it_takes() {
    let fleet = Fleet::cluster(&["a", "b"]);
    let path = fleet.scratch.path("internlm2.gguf");
    internlm2(&path);
    let loaded = fleet.run("a", &["load", text(&path)]);
    assert_eq!(loaded.code, Some(0), "{}", loaded.stderr);
    let remark = "Stages do not support the architecture 'internlm2' yet: llama-rpc runs it.";
    assert!(loaded.stdout.contains(remark), "{}", loaded.stdout);
    assert_eq!(
        post(fleet.node("a").api(), &chat("hi", 4, &json!({}))).0,
        200
    );
    fleet.end();
}
