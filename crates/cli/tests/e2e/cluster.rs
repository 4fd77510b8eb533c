//! A cluster of daemons: `brigade up`, `invite`, `join`, `nodes`, `forget`, `load`.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use brigade_gguf::testing::TinyModel;
use serde_json::{Value, json};

use crate::support::{
    Event, Fleet, GONE, SOON, Scratch, Signal, Stream, chat, command_line, get, post, python, send,
    smollm2, status, text, wait_until, wait_until_gone,
};

const FOUR: [&str; 4] = ["a", "b", "c", "d"];

/// Within so much time a node that has gone must be noticed.
const NOTICED: Duration = Duration::from_secs(2);

#[test]
fn four_nodes_from_nothing_to_a_cluster_with_one_view() {
    let scratch = Scratch::new();
    let start = Instant::now();
    let fleet = Fleet::cluster_in(scratch, &FOUR);
    let taken = start.elapsed();
    assert!(taken < Duration::from_secs(5), "{taken:?}");
    let view = fleet.view("a");
    assert_eq!(view.iter().map(|node| &node.0).collect::<Vec<_>>(), FOUR);
    for name in FOUR {
        assert_eq!(fleet.view(name), view);
        let ready = &fleet.node(name).ready;
        assert_eq!(ready["schema"], "brigade.up/1");
        let own = view.iter().find(|node| node.0 == name).unwrap();
        assert_eq!(
            (&ready["id"], &ready["listen"]),
            (&json!(own.1), &json!(own.2))
        );
        // Nobody was refused on the way.
        assert!(
            !fleet.node(name).stderr().contains("WARN"),
            "{}",
            fleet.node(name).stderr()
        );
    }
    fleet.end();
}

/// What the whole model answers, by `brigade run`.
fn whole(scratch: &Scratch, question: &str) -> String {
    let model = smollm2();
    let settings = [
        "--ctx",
        "512",
        "--max-tokens",
        "40",
        "--threads",
        "1",
        "--temperature",
        "0",
    ];
    let ended = scratch.run(&[&["run", text(&model), question], &settings[..]].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stdout.trim_end().to_owned()
}

fn answer(api: &str, question: &str) -> String {
    let (status, answer) = post(api, &chat(question, 40, &json!({})));
    assert_eq!(status, 200, "{answer}");
    let content = &answer["choices"][0]["message"]["content"];
    content.as_str().unwrap().trim_end().to_owned()
}

fn load(fleet: &Fleet, node: &str, model: &Path, args: &[&str]) -> Value {
    let usual = ["load", text(model), "--ctx", "512", "--threads", "1"];
    let on = if args.contains(&"--on") {
        &[][..]
    } else {
        &["--on", "all"]
    };
    fleet.json(node, &[&usual[..], on, args].concat())
}

#[test]
fn a_cluster_answers_as_the_whole_model_does_and_to_any_client() {
    let scratch = Scratch::new();
    let questions = [
        "What is the capital of France?",
        "Write a poem about the sea.",
    ];
    let expected = questions.map(|question| whole(&scratch, question));
    let fleet = Fleet::cluster_in(scratch, &FOUR);
    let gateway = fleet.node("b").api();
    assert_eq!(get(gateway, "/v1/models").1["data"], json!([]));
    assert_eq!(post(gateway, &chat("hi", 4, &json!({"model": "m"}))).0, 404);

    let running = load(&fleet, "b", &smollm2(), &[]);
    let stages = running["models"][0]["stages"].as_array().unwrap();
    let nodes: Vec<_> = stages.iter().map(|stage| &stage["node"]).collect();
    // The gateway's own node is the first.
    assert_eq!(nodes, ["b", "a", "c", "d"]);
    let layers: Vec<(u32, u32)> = stages
        .iter()
        .map(|stage| serde_json::from_value(stage["layers"].clone()).unwrap())
        .collect();
    assert_eq!((layers[0].0, layers[3].1), (0, 30));
    for stage in stages {
        let pid = stage["pid"].as_u64().unwrap() as u32;
        assert_eq!(command_line(pid).split_whitespace().nth(1), Some("stage"));
    }
    for (question, expected) in questions.iter().zip(&expected) {
        assert_eq!(&answer(gateway, question), expected);
    }
    assert_eq!(fleet.json("b", &["ps"]), running);

    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/e2e/python/openai_client.py"
    );
    let url = format!("http://{gateway}/v1");
    let client = Command::new(python())
        .args([script, &url])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&client.stderr);
    assert!(client.status.success(), "{complaint}");

    // Refused at once, without a plan.
    let again = fleet.run("b", &["load", text(&smollm2())]).stderr;
    assert!(
        again.lines().count() == 1
            && again
                .trim_end()
                .ends_with("is loaded here: `brigade unload` it first"),
        "{again}"
    );
    assert_eq!(fleet.run("b", &["unload"]).code, Some(0));
    let pids: Vec<_> = stages
        .iter()
        .map(|stage| stage["pid"].as_u64().unwrap() as u32)
        .collect();
    wait_until_gone(&pids, GONE);
    assert_eq!(get(gateway, "/v1/models").1["data"], json!([]));
    // Another node may be the gateway, and the order another one.
    let running = load(&fleet, "d", &smollm2(), &["--on", "c,a"]);
    assert_eq!(running["models"][0]["stages"][0]["node"], "c");
    assert_eq!(answer(fleet.node("d").api(), questions[0]), expected[0]);
    fleet.end();
}

/// Beyond loopback, with keys, over encrypted links: what the lab's API can, a cluster's can.
#[test]
fn a_cluster_with_keys_serves_tools_and_schemas_beyond_loopback() {
    let script = |name: &str| format!("{}/tests/e2e/python/{name}", env!("CARGO_MANIFEST_DIR"));
    let template = script("tools.jinja");
    let mut fleet = Fleet::new();
    let keys = fleet.scratch.path("keys");
    let made = fleet.scratch.run(&["key", "ann", "--file", text(&keys)]);
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let key = made.stdout.trim_end();
    let api = ["--api", "0.0.0.0:0", "--api-key-file", text(&keys)];
    fleet.start("a", &[&api[..], &["--chat-template", &template]].concat());
    for name in ["b", "c"] {
        let token = fleet.token("a");
        fleet.start(name, &["--join", &token]);
    }
    fleet.wait_until_all_up();

    let port = fleet.node("a").api().rsplit_once(':').unwrap().1;
    let gateway = format!("127.0.0.1:{port}");
    let statuses = || ["/v1/models", "/readyz"].map(|path| status(&gateway, path));
    assert_eq!(statuses(), [401, 503]);
    load(&fleet, "a", &smollm2(), &[]);
    assert_eq!(statuses(), [401, 200]);
    let client = Command::new(python())
        .args([
            &script("openai_features.py"),
            &format!("http://{gateway}/v1"),
            key,
        ])
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&client.stderr);
    assert!(
        client.status.success(),
        "{complaint}\n{}",
        fleet.node("a").stderr()
    );
    assert_eq!(client.stdout, b"all good\n");
    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));
    assert_eq!(statuses(), [401, 503]);
    fleet.end();
}

#[test]
fn a_node_that_dies_is_noticed_at_once_and_named() {
    let fleet = Fleet::cluster(&FOUR);
    let running = load(&fleet, "a", &smollm2(), &[]);
    let stages = running["models"][0]["stages"].as_array().unwrap().clone();
    let pid = |index: usize| stages[index]["pid"].as_u64().unwrap() as u32;
    let stream = Stream::open(
        fleet.node("a").api(),
        &chat("A long story.", 400, &json!({})),
    );
    stream.some_text(3);
    fleet.kill("c");
    let killed = Instant::now();
    let events = stream.rest();
    assert!(killed.elapsed() < NOTICED, "{:?}", killed.elapsed());
    let Some(Event::Data(last)) = events.last() else {
        panic!("no error, but {:?}", events.last());
    };
    let message = last["error"]["message"].as_str().unwrap();
    assert_eq!(message, "c is gone: the connection to it is closed");
    for by in ["a", "b", "d"] {
        wait_until("it is shown as down", SOON, || {
            fleet.state("c", by).as_deref() == Some("down")
        });
    }
    wait_until_gone(&[pid(2)], GONE);
    let failure = &fleet.json("a", &["ps"])["models"][0]["failure"];
    assert_eq!(failure, message);
    assert_eq!(
        post(fleet.node("a").api(), &chat("hi", 4, &json!({}))).0,
        503
    );

    // The rest of them carry the model, and what was left of the first try is gone.
    let running = load(&fleet, "a", &smollm2(), &[]);
    assert_eq!(running["models"][0]["stages"].as_array().unwrap().len(), 3);
    wait_until_gone(&[pid(0), pid(1), pid(3)], GONE);
    assert_eq!(
        post(fleet.node("a").api(), &chat("hi", 4, &json!({}))).0,
        200
    );

    // A coordinator that dies leaves no stage on any node.
    let stages = running["models"][0]["stages"].as_array().unwrap();
    let pids: Vec<_> = stages
        .iter()
        .map(|stage| stage["pid"].as_u64().unwrap() as u32)
        .collect();
    fleet.kill("a");
    wait_until_gone(&pids, GONE);
}

/// A machine without power closes no connection.
#[test]
fn a_node_that_falls_silent_is_noticed_in_time_and_comes_back() {
    let fleet = Fleet::cluster(&["a", "b", "c"]);
    let model = fleet.scratch.tiny("tiny.gguf", &TinyModel::llama(6));
    let running = load(&fleet, "a", &model, &[]);
    let stages = running["models"][0]["stages"].as_array().unwrap();
    let pids: Vec<_> = stages
        .iter()
        .map(|stage| stage["pid"].as_u64().unwrap() as u32)
        .collect();
    let pid = fleet.node("c").pid();
    send(pid, Signal::STOP);
    let stopped = Instant::now();
    wait_until("it is missed", SOON, || {
        fleet.state("c", "a").as_deref() != Some("up")
    });
    assert!(stopped.elapsed() < NOTICED, "{:?}", stopped.elapsed());
    for by in ["a", "b"] {
        wait_until("it is shown as down", SOON, || {
            fleet.state("c", by).as_deref() == Some("down")
        });
    }
    let failure = fleet.json("a", &["ps"])["models"][0]["failure"].clone();
    assert_eq!(failure, "c is gone: the connection to it is closed");
    send(pid, Signal::CONT);
    fleet.wait_until_all_up();
    // It has ended its stage, which nobody wants any more.
    wait_until_gone(&pids[2..], GONE);
    fleet.end();
}

#[test]
fn a_forgotten_node_ends_what_it_runs_and_is_told_why() {
    let fleet = Fleet::cluster(&["a", "b", "c"]);
    let model = fleet.scratch.tiny("tiny.gguf", &TinyModel::llama(6));
    let running = load(&fleet, "b", &model, &[]);
    let stages = running["models"][0]["stages"].as_array().unwrap();
    let of_c = stages.iter().find(|stage| stage["node"] == "c").unwrap();
    let pid = of_c["pid"].as_u64().unwrap() as u32;
    assert_eq!(fleet.run("a", &["forget", "c"]).code, Some(0));
    wait_until_gone(&[pid], GONE);
    for by in ["a", "b"] {
        wait_until("it is off the list", SOON, || {
            fleet.state("c", by).is_none()
        });
    }
    wait_until("it is told", SOON, || {
        fleet
            .run("c", &["nodes"])
            .stdout
            .matches("forgotten this node")
            .count()
            == 2
    });
    assert_eq!(
        fleet.complaint("a", &["forget", "c"]),
        "no node is called 'c'; `brigade nodes` lists them"
    );
    assert_eq!(
        fleet.complaint("a", &["forget", "a"]),
        "'a' is this node: forget it on another one"
    );
    let token = fleet.token("b");
    assert_eq!(fleet.run("c", &["join", &token]).code, Some(0));
    fleet.wait_until_all_up();
    fleet.end();
}

/// The state folder holds all that a node needs to be itself again.
#[test]
fn a_node_that_is_started_again_needs_no_invitation() {
    let mut fleet = Fleet::cluster(&["a", "b"]);
    let before = fleet.view("a");
    fleet.kill("b");
    let b = fleet.nodes.pop().unwrap();
    wait_until_gone(&[b.pid()], GONE);
    drop(b);
    fleet.start("b", &[]);
    fleet.wait_until_all_up();
    let after = fleet.view("a");
    assert_eq!(after[1].1, before[1].1, "it is the same node");
    // Nor the name that it was given once.
    fleet.kill("b");
    let b = fleet.nodes.pop().unwrap();
    wait_until_gone(&[b.pid()], GONE);
    drop(b);
    assert_eq!(fleet.start_unnamed("b").name(), "b");
    fleet.wait_until_all_up();
    fleet.end();
}

#[test]
fn a_token_that_is_no_good_gets_a_reason() {
    let mut fleet = Fleet::new();
    fleet.start("a", &[]);
    fleet.start("b", &[]);
    fleet.start("c", &[]);
    let join = |name, token: &str| fleet.complaint(name, &["join", token]);
    let token = fleet.token("a");
    assert_eq!(fleet.run("b", &["join", &token]).code, Some(0));
    let inviter = format!(
        "the inviting node at {} refuses: ",
        fleet.node("a").ready["listen"].as_str().unwrap()
    );
    assert_eq!(
        join("c", &token),
        format!(
            "{inviter}the token was used already: `brigade invite` prints a new one for each node"
        )
    );
    assert!(
        fleet
            .node("a")
            .stderr()
            .contains("the token was used already")
    );
    assert_eq!(
        join("c", "hello"),
        "a token begins with brigade1-; `brigade invite` on a node of the cluster prints one"
    );
    let damaged = &token[..token.len() - 3];
    assert_eq!(
        join("c", damaged),
        "the token is damaged: copy the whole of it again"
    );
    assert_eq!(
        fleet.complaint("a", &["invite", "--minutes", "0"]),
        "an invitation for no time invites nobody"
    );
    fleet.end();
}

/// A state folder that was copied to a second machine.
#[test]
fn two_nodes_with_one_identity_are_not_both_let_in() {
    let mut fleet = Fleet::cluster(&["a", "b"]);
    fs::create_dir(fleet.home("copy")).unwrap();
    for file in ["identity", "members.json"] {
        fs::copy(fleet.home("b").join(file), fleet.home("copy").join(file)).unwrap();
    }
    fleet.start("copy", &[]);
    let at = fleet.node("b").ready["listen"].as_str().unwrap().to_owned();
    let reason = format!("another node with the same identity is up at {at}");
    wait_until("the copy is told", SOON, || {
        fleet.run("copy", &["nodes"]).stdout.contains(&reason)
    });
    assert!(fleet.node("a").stderr().contains(&reason));
    assert_eq!(fleet.state("b", "a").as_deref(), Some("up"));
    fleet.end();
}

#[test]
fn what_a_daemon_cannot_do_gets_one_sentence() {
    let mut fleet = Fleet::new();
    let none = "no daemon is running here: start one with `brigade up`";
    for args in [
        &["invite"][..],
        &["nodes"],
        &["forget", "x"],
        &["unload"],
        &["ps"],
    ] {
        assert_eq!(fleet.complaint("a", args), none);
    }
    fleet.start("a", &["--device", "CPU"]);
    let up = |fleet: &Fleet, name: &str, args: &[&str]| {
        let complaint = fleet.complaint(name, &[&["up", "--name", name], args].concat());
        complaint.replace(text(&fleet.home(name)), "[HOME]")
    };
    assert_eq!(
        up(&fleet, "a", &[]),
        "brigade is already running with the state folder [HOME]"
    );
    let unknown = up(&fleet, "b", &["--device", "CPU,CUDA99"]);
    assert!(
        unknown.starts_with("there is no device CUDA99; this machine has "),
        "{unknown}"
    );
    let busy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = busy.local_addr().unwrap().to_string();
    let complaint = up(&fleet, "b", &["--listen", &address]);
    assert!(
        complaint.starts_with(&format!(
            "cannot listen at {address}; choose another address"
        )),
        "{complaint}"
    );
    let complaint = up(&fleet, "b", &["--listen", "127.0.0.1:0", "--api", &address]);
    assert!(
        complaint.starts_with(&format!("cannot listen at {address}")),
        "{complaint}"
    );
    let complaint = up(
        &fleet,
        "b",
        &["--listen", "127.0.0.1:0", "--api", "0.0.0.0:8811"],
    );
    assert!(
        complaint.starts_with("without keys the API listens on loopback only"),
        "{complaint}"
    );
    let home = fleet.home("a");
    let mode = |name: &str| fs::metadata(home.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode("."), mode("identity"), mode("control.sock")),
        (0o700, 0o600, 0o600)
    );

    let model = fleet.scratch.tiny("tiny.gguf", &TinyModel::llama(6));
    let other = fleet.scratch.tiny("other.gguf", &TinyModel::llama(5));
    let token = fleet.token("a");
    fleet.start("b", &["--join", &token]);
    fleet.wait_until_all_up();
    let folder = fleet.scratch.path("");
    let load = |args: &[&str]| {
        let complaint = fleet.complaint("a", &[&["load", text(&model)], args].concat());
        let complaint = complaint.replace(text(&folder).trim_end_matches('/'), "[DIR]");
        complaint.replace(" (os error 2)", "")
    };
    let on = |seat: &str| load(&["--on", &format!("a,{seat}")]);
    assert_eq!(
        on("b=/nowhere.gguf"),
        "b: /nowhere.gguf: cannot read: No such file or directory"
    );
    assert_eq!(
        on(&format!("b={}", text(&other))),
        "b: [DIR]/other.gguf is another file here than on the node that loads it: copy that \
         node's file here, or name another path for this node"
    );
    assert_eq!(on("a"), "a is named twice: a node has one stage of a model");
    assert!(on("x").contains("no node is called 'x'"));
    assert!(load(&["--ctx", "100000000"]).contains("the model was made for a context"));
    assert_eq!(fleet.complaint("a", &["unload"]), "no model is loaded here");
    // None of these has left anything.
    wait_until("no stage is left", GONE, || {
        fleet.scratch.processes().len() == fleet.nodes.len()
    });
    // The same file under another name is the same model.
    let copy = fleet.scratch.path("copy.gguf");
    fs::copy(&model, &copy).unwrap();
    let seat = format!("a,b={}", text(&copy));
    assert_eq!(
        fleet.run("a", &["load", text(&model), "--on", &seat]).code,
        Some(0)
    );
    assert_eq!(
        post(fleet.node("a").api(), &chat("hi", 4, &json!({}))).0,
        200
    );
    fleet.end();
}
