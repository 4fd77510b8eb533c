//! `brigade lab` at work.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use brigade_gguf::Source;
use brigade_gguf::testing::TinyModel;
use serde_json::{Value, json};

use crate::support::{
    Event, Lab, Scratch, Signal, Stream, chat, command_line, get, is_alive, post, smollm2, text,
};

/// Four nodes with one thread each, so that an answer does not depend on its company.
fn four() -> Lab {
    Lab::start(
        Scratch::new(),
        &smollm2(),
        &["--nodes", "4", "--threads", "1"],
    )
}

fn content(answer: &(u16, Value)) -> &str {
    assert_eq!(answer.0, 200, "{}", answer.1);
    answer.1["choices"][0]["message"]["content"]
        .as_str()
        .unwrap()
}

#[test]
fn four_nodes_hold_a_quarter_each() {
    let lab = four();
    assert_eq!(lab.ready["schema"], "brigade.lab/1");
    let nodes = lab.ready["nodes"].as_array().unwrap();
    let names: Vec<_> = nodes
        .iter()
        .map(|node| node["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["node-1", "node-2", "node-3", "node-4"]);

    let mut pids: HashSet<u32> = [lab.pid()].into();
    pids.extend(lab.pids("pid"));
    pids.extend(lab.pids("stage_pid"));
    assert_eq!(pids.len(), 1 + 4 + 4);
    assert!(pids.iter().all(|&pid| is_alive(pid)));
    for pid in lab.pids("stage_pid") {
        assert_eq!(command_line(pid).split_whitespace().nth(1), Some("stage"));
    }

    let layers: Vec<_> = nodes
        .iter()
        .map(|node| serde_json::from_value::<(u32, u32)>(node["layers"].clone()).unwrap())
        .collect();
    let covered: Vec<u32> = layers.iter().flat_map(|&(start, end)| start..end).collect();
    assert_eq!(covered, (0..30).collect::<Vec<_>>());
    // The last one has the head as well.
    let counts: Vec<u32> = layers.iter().map(|(start, end)| end - start).collect();
    assert_eq!(counts, [8, 8, 8, 6]);

    // The embedding, which is the head as well, lies on the first and on the last node.
    let source = Source::open(&smollm2()).unwrap();
    let embedding = source
        .model()
        .tensor("token_embd.weight")
        .unwrap()
        .info
        .bytes();
    let expected = source.model().tensor_bytes() + embedding;
    let bytes: u64 = nodes
        .iter()
        .map(|node| node["bytes"].as_u64().unwrap())
        .sum();
    assert!(
        bytes.abs_diff(expected) < expected / 100,
        "{bytes} for {expected}"
    );

    let folder = fs::read_dir(lab.scratch.cache().join("stages"))
        .unwrap()
        .next();
    let folder = folder.unwrap().unwrap().path();
    for ((start, end), node) in layers.iter().zip(nodes) {
        let stage = fs::metadata(folder.join(format!("{start}-{end}.gguf"))).unwrap();
        assert!(stage.len() < source.model().file_bytes() * 2 / 3, "{node}");
    }
    lab.end(Signal::TERM);
}

#[test]
fn streamed_and_whole_answers_are_the_same() {
    let lab = four();
    for extra in [
        json!({}),
        json!({"temperature": 1.0, "seed": 7, "top_p": 0.9}),
        json!({"stop": [" is"]}),
    ] {
        let body = chat("What is the capital of France?", 24, &extra);
        let whole = post(lab.api(), &body);
        let text = content(&whole).to_owned();
        assert!(!text.is_empty());
        assert!(!text.contains(" is") || extra.get("stop").is_none());

        let mut streaming = body.clone();
        streaming["stream_options"] = json!({"include_usage": true});
        let events = Stream::open(lab.api(), &streaming).rest();
        let streamed: String = events.iter().map(Event::text).collect();
        assert_eq!(streamed, text, "{extra}");
        let [.., usage, done] = events.as_slice() else {
            panic!("{events:?}");
        };
        assert_eq!(*done, Event::Done);
        let Event::Data(usage) = usage else {
            panic!("{usage:?}");
        };
        assert_eq!(usage["usage"], whole.1["usage"]);
        assert_eq!(content(&post(lab.api(), &body)), text, "repeated: {extra}");
    }
    let (status, models) = get(lab.api(), "/v1/models");
    assert_eq!(status, 200);
    assert_eq!(models["data"][0]["id"], "SmolLM2-135M-Instruct.Q4_1");
    assert_eq!(models["data"][0]["max_model_len"], 512);
    lab.end(Signal::INT);
}

#[test]
fn more_requests_than_sequences() {
    const QUESTIONS: [&str; 6] = [
        "What is the capital of France?",
        "Name three colours.",
        "Count from one to ten.",
        "Who wrote Hamlet? Say it in one long sentence, with the year and the place.",
        "What is water?",
        "Say hello.",
    ];
    let lab = four();
    let api = lab.api();
    let ask = |question| content(&post(api, &chat(question, 24, &json!({})))).to_owned();
    let alone = QUESTIONS.map(ask);
    let together = thread::scope(|scope| {
        let asked = QUESTIONS.map(|question| scope.spawn(move || ask(question)));
        asked.map(|answer| answer.join().unwrap())
    });
    assert_eq!(together, alone);
    assert_eq!(alone.iter().collect::<HashSet<_>>().len(), QUESTIONS.len());
}

#[test]
fn a_client_that_leaves_makes_room() {
    let lab = Lab::start(Scratch::new(), &smollm2(), &["--nodes", "2"]);
    let story = chat("Tell me a long story.", 450, &json!({}));
    for _ in 0..8 {
        let stream = Stream::open(lab.api(), &story);
        stream.some_text(1);
        stream
            .connection
            .shutdown(std::net::Shutdown::Both)
            .unwrap();
    }
    // All four sequences would be busy for long otherwise.
    let answer = post(lab.api(), &chat("Say hello.", 4, &json!({})));
    assert!(!content(&answer).is_empty());
}

#[test]
fn one_node_runs_the_file_itself() {
    let scratch = Scratch::new();
    let model = scratch.tiny("tiny.gguf", &TinyModel::llama(3));
    let lab = Lab::start(scratch, &model, &["--nodes", "1"]);
    assert_eq!(lab.ready["nodes"][0]["layers"], json!([0, 3]));
    assert!(!lab.scratch.cache().join("stages").exists());
    assert_eq!(post(lab.api(), &chat("hi", 4, &json!({}))).0, 200);
    lab.end(Signal::TERM);
}

#[test]
fn once_answers_and_ends() {
    let scratch = Scratch::new();
    let model = smollm2();
    let question = "What is the capital of France?";
    let args = [
        "--ctx",
        "512",
        "--max-tokens",
        "16",
        "--nodes",
        "2",
        "--once",
        question,
    ];
    let lab = [&["lab", "--model", text(&model)][..], &args].concat();
    let plain = scratch.run(&lab);
    assert_eq!(plain.code, Some(0), "{}", plain.stderr);
    assert!(
        plain.stderr.contains("llama, 30 layers over 2 nodes"),
        "{}",
        plain.stderr
    );

    let ended = scratch.run(&[&lab[..], &["--json"]].concat());
    let lines: Vec<Value> = ended
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let [ready, answer] = lines.as_slice() else {
        panic!("{lines:?}");
    };
    assert_eq!(ready["api"], Value::Null);
    assert_eq!(answer["schema"], "brigade.answer/1");
    assert_eq!(answer["text"].as_str().unwrap(), plain.stdout.trim_end());
}

#[test]
fn the_demo_model_is_the_default() {
    let scratch = Scratch::new();
    let model = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let mut command = scratch.command(&["lab", "--once", "hi", "--max-tokens", "2"]);
    command.env("BRIGADE_DEMO_MODEL", &model);
    let ended = scratch.finish(command, "");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("over 4 nodes"), "{}", ended.stderr);
}

#[test]
fn a_question_before_serving() {
    let scratch = Scratch::new();
    let model = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let ask = ["--nodes", "2", "--ask", "hi", "--max-tokens", "3"];
    let lab = Lab::start(scratch, &model, &ask);
    let answer: Value = serde_json::from_str(&lab.line()).unwrap();
    assert_eq!(answer["schema"], "brigade.answer/1");
    assert_eq!(answer["completion_tokens"], 3);
    assert_eq!(post(lab.api(), &chat("hi", 2, &json!({}))).0, 200);
    lab.end(Signal::TERM);
}

/// Two labs want to write the same stage files at the same time.
#[test]
fn two_labs_share_a_cache() {
    let scratch = Scratch::new();
    scratch.tiny("tiny.gguf", &TinyModel::llama(6));
    let once = [
        "lab",
        "--nodes",
        "3",
        "--model",
        "tiny.gguf",
        "--once",
        "hi",
        "--max-tokens",
        "8",
    ];
    let both = [(); 2].map(|()| scratch.command(&once).spawn().unwrap());
    let both = both.map(|child| child.wait_with_output().unwrap());
    for output in &both {
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    assert_eq!(both[0].stdout, both[1].stdout);
    scratch.assert_nothing_runs();
}

/// The nodes of a lab are daemons: the commands of a cluster work with them.
#[test]
fn a_lab_is_a_cluster() {
    // Other programs on this machine may hold up its disk or its cores.
    let mut times = Vec::new();
    let (lab, model) = loop {
        let scratch = Scratch::new();
        let model = scratch.tiny("tiny.gguf", &TinyModel::llama(6));
        let start = Instant::now();
        let lab = Lab::start(scratch, &model, &["--nodes", "4"]);
        times.push(start.elapsed());
        if times.last() < Some(&Duration::from_secs(5)) {
            break (lab, model);
        }
        assert!(times.len() < 3, "{times:?}");
        lab.end(Signal::TERM);
    };
    let home = |index: usize| {
        lab.ready["nodes"][index]["home"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let run = |index: usize, args: &[&str]| {
        let mut command = lab.scratch.command(&[args, &["--json"]].concat());
        let output = command.env("BRIGADE_HOME", home(index)).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    for index in 0..4 {
        let nodes = run(index, &["nodes"]);
        let nodes = nodes["nodes"].as_array().unwrap();
        assert!(nodes.len() == 4 && nodes.iter().all(|node| node["state"] == "up"));
    }
    let running = run(0, &["ps"]);
    assert_eq!(running["models"][0]["model"], "tiny");
    let unload = lab
        .scratch
        .command(&["unload"])
        .env("BRIGADE_HOME", home(0))
        .output();
    assert!(unload.unwrap().status.success());
    assert_eq!(get(lab.api(), "/v1/models").1["data"], json!([]));
    let again = run(0, &["load", text(&model), "--on", "node-2,node-4"]);
    assert_eq!(again["models"][0]["stages"][1]["node"], "node-4");
    assert_eq!(post(lab.api(), &chat("hi", 4, &json!({}))).0, 200);
    let folder = Path::new(&home(0)).parent().unwrap().to_owned();
    lab.end(Signal::TERM);
    assert!(!folder.exists());
}

/// What a token costs is what the links cost, and nothing is waited for twice.
#[test]
fn links_that_are_shaped_cost_what_they_should() {
    let scratch = Scratch::new();
    let model = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let links = ["--link", "wifi6", "--link", "2-1:rtt=30ms,bw=1gbit"];
    let once = [
        "--nodes",
        "2",
        "--once",
        "hi",
        "--max-tokens",
        "24",
        "--json",
    ];
    let lab = ["lab", "--model", text(&model)];
    let ended = scratch.run(&[&lab[..], &links, &once].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let answer: Value = serde_json::from_str(ended.stdout.lines().last().unwrap()).unwrap();
    let (tokens, speed) = (
        &answer["completion_tokens"],
        answer["decode_tok_s"].as_f64(),
    );
    assert_eq!(tokens, 24);
    // Fifteen milliseconds there and as many back: 33 tokens a second if nothing else took time.
    let speed = speed.unwrap();
    assert!(speed < 33.4 && speed > 15.0, "{speed}");
    // The planner knows of them.
    let predicted = answer["predicted_decode_tok_s"]["mid"].as_f64().unwrap();
    assert!(predicted < 33.4 && predicted > 25.0, "{predicted}");

    let shown = scratch.run(&[&lab[..], &links, &once[..6]].concat());
    let line = "link of node-2 and node-1: round trip 30 ms, 1 Gbit/s";
    assert!(shown.stderr.contains(line), "{}", shown.stderr);
    let bad = scratch.run(&[&lab[..], &["--link", "1-3:tb5"], &once[..2]].concat());
    assert_eq!(bad.code, Some(1));
    assert_eq!(
        bad.stderr,
        "brigade: --link 1-3:tb5: the nodes are 1 to 2\n"
    );
}
