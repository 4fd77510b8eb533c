//! Models that no node has: each gets what it needs, from the hub or from the others.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use brigade_gguf::{Layers, Source, stage_bytes};
use brigade_hub::testing::{Content, TestHub};
use serde_json::json;

use crate::support::{
    Fleet, GONE, SOON, Signal, chat, post, send, smollm2, text, wait_until, wait_until_gone,
};

const NAME: &str = "hf:someone/smollm2:Q4_1";

/// A hub with one real model.
fn hub() -> TestHub {
    let file = smollm2();
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let content = Content::Bytes(Arc::new(fs::read(&file).unwrap()));
    TestHub::start("someone/smollm2", &[(&name, content)])
}

/// A plan for two nodes, which holds whatever memory they have now.
fn plan(fleet: &Fleet, nodes: [&str; 2], cut: u32) -> PathBuf {
    let stage = |node: &str, layers: [u32; 2]| json!({ "node": node, "layers": layers });
    let stages = [stage(nodes[0], [0, cut]), stage(nodes[1], [cut, 30])];
    let plan = json!({ "schema": "brigade.plan/1", "stages": stages });
    let path = fleet.scratch.path("plan.json");
    fs::write(&path, plan.to_string()).unwrap();
    path
}

const USUAL: [&str; 6] = ["load", NAME, "--ctx=512", "--threads=1", "--yes", "--plan"];

fn load(fleet: &Fleet, nodes: [&str; 2], cut: u32) {
    let plan = plan(fleet, nodes, cut);
    fleet.json("a", &[&USUAL[..], &[text(&plan)]].concat());
}

fn answer(fleet: &Fleet, node: &str) -> String {
    let body = chat("What is the capital of France?", 12, &json!({}));
    let (status, answer) = post(fleet.node(node).api(), &body);
    assert_eq!(status, 200, "{answer}");
    let content = &answer["choices"][0]["message"]["content"];
    content.as_str().unwrap().trim_end().to_owned()
}

/// Loads the file that the hub has, which lies on every node.
fn load_file(fleet: &Fleet) {
    let (path, plan) = (smollm2(), plan(fleet, ["a", "b"], 15));
    let mut args = USUAL;
    args[1] = text(&path);
    fleet.json("a", &[&args[..], &[text(&plan)]].concat());
}

/// Bytes of the tensors of both halves of the model.
fn tensors() -> u64 {
    let source = Source::open(&smollm2()).unwrap();
    let bytes = |(start, end)| {
        let layers = Layers::new(start, end);
        stage_bytes(source.model(), layers).unwrap().total()
    };
    [(0, 15), (15, 30)].map(bytes).iter().sum()
}

/// Files below a folder with this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if text(&path).ends_with(ending) {
            found.push(path);
        }
    }
    found
}

#[test]
fn each_node_fetches_its_own_part_once() {
    let hub = hub();
    let fleet = Fleet::apart(&["a", "b"], hub.endpoint());
    load(&fleet, ["a", "b"], 15);
    // Dummies are not fetched, so that a little less may come than a stage holds.
    let (served, wanted) = (hub.served_bytes() as f64, tensors() as f64);
    assert!(
        (0.97..1.03).contains(&(served / wanted)),
        "{served} for {wanted}"
    );
    let from_stages = answer(&fleet, "a");
    // No node has the other's part, and none the whole.
    let stage = |node: &str| files(&fleet.cache(node), "-30.gguf").len();
    assert_eq!((stage("a"), stage("b")), (0, 1));
    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));

    // The second time only the header is read; the same by a path.
    let before = hub.served_bytes();
    load(&fleet, ["a", "b"], 15);
    assert!(hub.served_bytes() - before <= 4 << 20);
    assert_eq!(answer(&fleet, "a"), from_stages);
    fleet.run("a", &["unload"]);
    load_file(&fleet);
    assert_eq!(answer(&fleet, "a"), from_stages);
    fleet.run("a", &["unload"]);
    fleet.end();
}

#[test]
fn a_node_gets_from_another_what_the_hub_does_not_give_and_no_lies() {
    let hub = hub();
    let fleet = Fleet::apart(&["a", "b", "c"], hub.endpoint());
    load(&fleet, ["a", "b"], 15);
    let expected = answer(&fleet, "a");
    fleet.run("a", &["unload"]);
    // From now on the hub tells what there is, and sends next to nothing of it. What c needs, no
    // other node has all of.
    let known = hub.served_bytes();
    hub.set_speed_after(4 << 20, 1000);
    load(&fleet, ["c", "b"], 20);
    assert_eq!(answer(&fleet, "a"), expected);
    fleet.run("a", &["unload"]);
    let more = hub.served_bytes() - known;
    // The header, and what four requests get while the hub is still fast: of some 60 MB.
    assert!(more < 24 << 20, "{more}");

    // b changes a byte of what it has, and keeps that to itself.
    for stage in files(&fleet.cache("b"), "-30.gguf") {
        let time = fs::metadata(&stage).unwrap().modified().unwrap();
        let mut bytes = fs::read(&stage).unwrap();
        // In one of the last layers, which nobody else has.
        let place = bytes.len() / 4 * 3;
        bytes[place] ^= 1;
        fs::write(&stage, bytes).unwrap();
        let file = fs::File::options().write(true).open(&stage).unwrap();
        file.set_modified(time).unwrap();
    }
    hub.set_files_down(true);
    let refused = fleet.complaint(
        "a",
        &[&USUAL[..], &[text(&plan(&fleet, ["a", "c"], 15))]].concat(),
    );
    assert!(
        refused.contains("b: it sent bytes that are not the model's"),
        "{refused}"
    );
    assert!(refused.contains("are here and stay"), "{refused}");
    // With an honest source again, it goes on from there.
    hub.set_files_down(false);
    hub.set_speed_after(u64::MAX, 1000);
    load(&fleet, ["a", "c"], 15);
    assert_eq!(answer(&fleet, "a"), expected);
    fleet.end();
}

#[test]
fn what_was_fetched_before_a_crash_is_not_fetched_again() {
    let hub = hub();
    let mut fleet = Fleet::apart(&["a"], hub.endpoint());
    let token = fleet.token("a");
    fleet.start("b", &["--join", &token]);
    fleet.wait_until_all_up();
    hub.set_speed_after(4 << 20, 4_000_000);
    let plan = plan(&fleet, ["a", "b"], 15);
    let mut loading = fleet.spawn("a", &[&USUAL[..], &[text(&plan)]].concat());
    wait_until("b has some of it", SOON, || {
        let journal = files(&fleet.cache("b"), "journal");
        journal
            .iter()
            .any(|path| fs::read_to_string(path).unwrap().lines().count() > 20)
    });
    send(fleet.node("b").pid(), Signal::KILL);
    assert_eq!(loading.wait().unwrap().code(), Some(1));
    fleet.run("a", &["unload"]);
    let before = hub.served_bytes();
    hub.set_speed_after(u64::MAX, 1000);
    fleet.restart("b");
    fleet.wait_until_all_up();
    load(&fleet, ["a", "b"], 15);
    let (served, all) = (hub.served_bytes() - before, tensors());
    // Also of what a had on its way.
    assert!(served < all, "{served} of {all}");
    let fetched = answer(&fleet, "a");
    fleet.run("a", &["unload"]);
    load_file(&fleet);
    assert_eq!(answer(&fleet, "a"), fetched);
    fleet.run("a", &["unload"]);

    // After a power cut it comes back, while the hub gives nothing at all.
    load(&fleet, ["a", "b"], 15);
    let listens = ["a", "b"].map(|name| {
        fleet.node(name).ready["listen"]
            .as_str()
            .unwrap()
            .to_owned()
    });
    for name in ["a", "b"] {
        fleet.kill(name);
    }
    let pids: Vec<u32> = fleet.nodes.drain(..).map(|node| node.pid()).collect();
    wait_until_gone(&pids, SOON);
    hub.set_down(true);
    for (name, listen) in ["a", "b"].into_iter().zip(&listens) {
        fleet.start(name, &["--listen", listen]);
    }
    let ask = || post(fleet.node("a").api(), &chat("hi", 4, &json!({}))).0;
    wait_until("it is back", SOON, || ask() == 200);
    assert_eq!(answer(&fleet, "a"), fetched);
    fleet.end();
}

/// How many pieces a node has noted of what it fetches.
fn noted(fleet: &Fleet, node: &str) -> usize {
    let journals = files(&fleet.cache(node), "journal");
    let lines = |path: &PathBuf| fs::read_to_string(path).unwrap().lines().count();
    journals.iter().map(lines).sum()
}

/// Whether no node says that a model has some of its memory.
fn nothing_is_held(fleet: &Fleet, by: &str) -> bool {
    let nodes = fleet.json(by, &["nodes"]);
    let nodes = nodes["nodes"].as_array().unwrap();
    nodes.iter().all(|node| node["held"] == json!([]))
}

#[test]
fn unloading_ends_a_fetch_on_every_node_and_keeps_what_came() {
    let hub = hub();
    let fleet = Fleet::apart(&["a", "b"], hub.endpoint());
    hub.set_speed_after(4 << 20, 2_000_000);
    let plan = plan(&fleet, ["a", "b"], 15);
    let loading = fleet.spawn("a", &[&USUAL[..], &[text(&plan)]].concat());
    wait_until("both have some of it", SOON, || {
        noted(&fleet, "a").min(noted(&fleet, "b")) > 5
    });
    // What is left takes half an hour.
    hub.set_speed_after(4 << 20, 10_000);
    wait_until("both wait for more", SOON, || hub.sending() > 4);
    let name = &fleet.json("a", &["ps"])["models"][0]["model"];
    let name = name.as_str().unwrap().to_owned();
    let begun = Instant::now();
    assert_eq!(fleet.run("a", &["unload", &name]).code, Some(0));
    assert!(begun.elapsed() < GONE, "{:?}", begun.elapsed());
    assert!(nothing_is_held(&fleet, "a"));
    let ended = loading.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8(ended.stderr).unwrap();
    assert!(
        said.trim_end()
            .ends_with("was unloaded while it was being loaded"),
        "{said}"
    );
    wait_until("nobody fetches any more", GONE, || hub.sending() == 0);
    assert_eq!(fleet.json("a", &["ps"])["models"], json!([]));

    let before = hub.served_bytes();
    hub.set_speed_after(u64::MAX, 1000);
    fleet.json("a", &[&USUAL[..], &[text(&plan)]].concat());
    let (served, all) = (hub.served_bytes() - before, tensors());
    assert!(served < all, "{served} of {all}");
    let fetched = answer(&fleet, "a");
    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));
    load_file(&fleet);
    assert_eq!(answer(&fleet, "a"), fetched);
    fleet.end();
}

#[test]
fn a_model_of_a_hub_runs_on_one_machine() {
    let hub = hub();
    let scratch = crate::support::Scratch::new();
    let run = |model: &str| {
        let args = [
            "run",
            model,
            "What is the capital of France?",
            "--ctx",
            "512",
        ];
        let mut command = scratch.command(&args);
        command.args(["--temperature", "0", "--max-tokens", "12", "--threads", "1"]);
        command.env("HF_ENDPOINT", hub.endpoint());
        scratch.finish(command, "")
    };
    let ended = run(NAME);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(run(text(&smollm2())).stdout, ended.stdout);
    let [whole] = &files(&scratch.cache(), ".gguf")
        .into_iter()
        .filter(|path| text(path).contains("/whole/"))
        .collect::<Vec<_>>()[..]
    else {
        panic!("not fetched whole");
    };
    assert!(fs::read(whole).unwrap() == fs::read(smollm2()).unwrap());
    let before = hub.served_bytes();
    assert_eq!(run(NAME).code, Some(0));
    assert!(hub.served_bytes() - before <= 4 << 20);
}
