//! Where models go on a cluster of daemons, and that they come back.

use std::fs;

use brigade_gguf::testing::TinyModel;
use serde_json::{Value, json};

use crate::support::{
    Fleet, GONE, SOON, Signal, chat, children, get, is_alive, post, send, text, wait_until,
    wait_until_gone,
};

fn running(fleet: &Fleet, node: &str) -> Vec<Value> {
    fleet.json(node, &["ps"])["models"]
        .as_array()
        .unwrap()
        .clone()
}

fn ask(fleet: &Fleet, node: &str, model: &str) -> u16 {
    let request = chat("hi", 4, &json!({ "model": model }));
    post(fleet.node(node).api(), &request).0
}

#[test]
fn every_node_knows_every_machine() {
    let fleet = Fleet::cluster(&["a", "b"]);
    let none = Vec::new();
    for by in ["a", "b"] {
        wait_until("both are known", SOON, || {
            let nodes = fleet.json(by, &["nodes"]);
            let nodes = nodes["nodes"].as_array().unwrap().clone();
            nodes.iter().all(|node| {
                let facts = &node["machine"]["facts"];
                let devices = facts["devices"].as_array().unwrap_or(&none);
                let cpu = devices.iter().find(|device| device["name"] == "CPU");
                facts["cores"].as_u64() > Some(0)
                    && facts["memory_bytes"].as_u64() > Some(1 << 28)
                    && cpu.is_some_and(|cpu| cpu["memory_bytes"].as_u64() > Some(1 << 28))
            })
        });
        let table = fleet.run(by, &["nodes"]).stdout;
        assert!(table.contains("for models"), "{table}");
        assert!(table.contains("* b     CPU  "), "{table}");
    }
    // The planner answers for them as for any machines.
    let model = fleet.scratch.tiny("tiny.gguf", &TinyModel::llama(6));
    let page = fleet.json("b", &["fit", text(&model), "--cluster"]);
    assert_eq!(page["name"], "this cluster (b, a)", "{page}");
    assert_eq!(page["nodes"].as_array().map(Vec::len), Some(2), "{page}");
    let plan = fleet.json("b", &["plan", text(&model), "--cluster"]);
    assert_eq!(plan["schema"], "brigade.plan/1", "{plan}");
    fleet.end();
}

#[test]
fn one_node_where_that_is_comfortable_and_what_a_plan_says_otherwise() {
    let fleet = Fleet::cluster(&["a", "b"]);
    let model = fleet.scratch.tiny("tiny.gguf", &TinyModel::llama(6));
    let load = |args: &[&str]| {
        let usual = ["load", text(&model), "--ctx", "256", "--threads", "1"];
        fleet.json("a", &[&usual[..], args].concat())
    };
    let dry = load(&["--dry-run"]);
    assert_eq!(dry["schema"], "brigade.plan/1");
    assert_eq!(dry["stages"].as_array().unwrap().len(), 1);
    assert!(running(&fleet, "a").is_empty());
    let plan = load(&["--dry-run", "--on", "b,a"]);
    let nodes: Vec<_> = plan["stages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|stage| &stage["node"])
        .collect();
    assert_eq!(nodes, ["b", "a"]);

    // Another division than the planner's.
    let file = fleet.scratch.path("plan.json");
    let mut own = plan.clone();
    own["stages"][0]["layers"] = json!([0, 1]);
    own["stages"][1]["layers"] = json!([1, 6]);
    fs::write(&file, own.to_string()).unwrap();
    load(&["--plan", text(&file)]);
    let models = running(&fleet, "a");
    assert_eq!(models[0]["stages"][1]["layers"], json!([1, 6]));
    assert_eq!(ask(&fleet, "a", "tiny"), 200);
    // The nodes say what is taken of them.
    wait_until("it is held", SOON, || {
        let nodes = fleet.json("a", &["nodes"]);
        let nodes = nodes["nodes"].as_array().unwrap().clone();
        nodes.iter().all(|node| node["held"][0]["model"] == "tiny")
    });

    let complaint = |stages: Value| {
        let plan = json!({ "schema": "brigade.plan/1", "stages": stages });
        fs::write(&file, plan.to_string()).unwrap();
        fleet.complaint("b", &["load", text(&model), "--plan", text(&file)])
    };
    let stage = |node: &str, start: u32, end: u32| json!({ "node": node, "layers": [start, end] });
    let gap = complaint(json!([stage("a", 0, 2), stage("b", 3, 6)]));
    assert!(
        gap.contains("stage 2 begins at layer 3, where 2 is next"),
        "{gap}"
    );
    let short = complaint(json!([stage("a", 0, 5)]));
    assert!(
        short.contains("the plan has 5 layers, the model 6"),
        "{short}"
    );
    let unknown = complaint(json!([stage("x", 0, 6)]));
    assert!(unknown.contains("no node is called 'x'"), "{unknown}");
    assert!(complaint(json!([])).ends_with("has no stages: the model did not fit"));
    fs::write(&file, "{}").unwrap();
    let none = fleet.complaint("b", &["load", text(&model), "--plan", text(&file)]);
    assert!(none.contains("is no plan"), "{none}");
    fleet.end();
}

#[test]
fn several_models_at_once_and_each_goes_by_its_name() {
    let fleet = Fleet::cluster(&["a", "b"]);
    for (name, layers) in [("one", 4), ("two", 5)] {
        let model = fleet
            .scratch
            .tiny(&format!("{name}.gguf"), &TinyModel::llama(layers));
        let args = [
            "load",
            text(&model),
            "--ctx",
            "256",
            "--on",
            "all",
            "--threads",
            "1",
        ];
        fleet.json("a", &args);
    }
    let list = get(fleet.node("a").api(), "/v1/models").1;
    assert_eq!(list["data"].as_array().unwrap().len(), 2);
    assert_eq!(
        ["one", "two", "three"].map(|name| ask(&fleet, "a", name)),
        [200, 200, 404]
    );
    assert_eq!(
        fleet.complaint("a", &["unload"]),
        "several models are loaded here, name one: one, two"
    );
    assert_eq!(fleet.run("a", &["unload", "one"]).code, Some(0));
    assert_eq!(
        ["one", "two"].map(|name| ask(&fleet, "a", name)),
        [404, 200]
    );
    fleet.end();
}

/// A process that hangs does not keep its memory: who unloads is told the truth.
#[test]
fn what_hangs_is_ended_when_it_is_unloaded() {
    let fleet = Fleet::cluster(&["a", "b"]);
    let model = fleet.scratch.tiny("tiny.gguf", &TinyModel::llama(6));
    for engine in ["stages", "llama-rpc"] {
        let args = ["load", text(&model), "--ctx", "256", "--on", "a,b"];
        let engine = ["--threads", "1", "--engine", engine];
        let running = fleet.json("a", &[&args[..], &engine].concat());
        let pid = running["models"][0]["stages"][1]["pid"].as_u64().unwrap() as u32;
        let mut nodes = children(fleet.node("b").pid()).into_iter();
        let runs_it = |node: u32| children(node).iter().any(|&(child, _)| child == pid);
        let (node, _) = nodes.find(|&(node, _)| runs_it(node)).unwrap();
        send(node, Signal::STOP);
        assert_eq!(fleet.run("a", &["unload"]).code, Some(0));
        assert!(!is_alive(node), "it is left");
        let nodes = fleet.json("b", &["nodes"])["nodes"].clone();
        let mut nodes = nodes.as_array().unwrap().iter();
        assert!(nodes.all(|node| node["held"] == json!([])));
        wait_until_gone(&[pid], GONE);
    }
    fleet.end();
}

/// Whoever forgets a node hears of the models that it takes away, and `ps` says so.
#[test]
fn a_forgotten_nodes_models_say_what_became_of_them() {
    let fleet = Fleet::cluster(&["a", "b"]);
    let model = fleet.scratch.tiny("tiny.gguf", &TinyModel::llama(6));
    let args = ["--ctx", "256", "--on", "a,b", "--threads", "1"];
    fleet.json("a", &[&["load", text(&model)][..], &args].concat());
    let forgot = fleet.run("a", &["forget", "b"]);
    assert_eq!(forgot.code, Some(0));
    let hint = "`brigade unload tiny`, then load it again";
    assert!(forgot.stderr.contains(hint), "{}", forgot.stderr);
    wait_until("it says what it waits for", SOON, || {
        let models = running(&fleet, "a");
        models[0]["waits"] == format!("b was forgotten: {hint}")
    });
    assert_eq!(fleet.run("a", &["unload", "tiny"]).code, Some(0));
    fleet.end();
}

/// A power cut of the whole cluster: every daemon is killed, and starts again.
#[test]
fn what_was_loaded_comes_back_by_itself() {
    let mut fleet = Fleet::cluster(&["a", "b"]);
    let model = fleet.scratch.tiny("tiny.gguf", &TinyModel::llama(6));
    let args = [
        "load",
        text(&model),
        "--ctx",
        "256",
        "--on",
        "a,b",
        "--threads",
        "1",
    ];
    let before = fleet.json("a", &args);
    let listens: Vec<String> = fleet
        .nodes
        .iter()
        .map(|node| node.ready["listen"].as_str().unwrap().to_owned())
        .collect();
    let cut = |fleet: &mut Fleet| {
        for name in ["a", "b"] {
            fleet.kill(name);
        }
        let pids: Vec<u32> = fleet.nodes.drain(..).map(|node| node.pid()).collect();
        wait_until_gone(&pids, SOON);
    };
    cut(&mut fleet);
    fleet.start("a", &["--listen", &listens[0]]);
    wait_until("it says what it waits for", SOON, || {
        let models = running(&fleet, "a");
        models.len() == 1 && models[0]["waits"] == "b is not up"
    });
    assert_eq!(ask(&fleet, "a", "tiny"), 503);
    fleet.start("b", &["--listen", &listens[1]]);
    wait_until("it is back", SOON, || ask(&fleet, "a", "tiny") == 200);
    let layers = |model: &Value| {
        let stages = model["stages"].as_array().unwrap().clone();
        stages
            .iter()
            .map(|stage| stage["layers"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        layers(&running(&fleet, "a")[0]),
        layers(&before["models"][0])
    );
    // What was unloaded stays away.
    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));
    cut(&mut fleet);
    fleet.start("a", &["--listen", &listens[0]]);
    assert!(running(&fleet, "a").is_empty());
    fleet.end();
}
