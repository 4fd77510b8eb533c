//! What a machine has too little of: memory, and room on its disk.

use std::fs;
use std::sync::Arc;

use brigade_gguf::testing::TinyModel;
use brigade_hub::testing::{Content, TestHub};
use serde_json::{Value, json};

use crate::support::{Fleet, Mount, SOON, chat, meminfo, post, smollm2, text, wait_until};

const GIB: u64 = 1 << 30;

/// What stays with the system (`reserve_mib` of CPUs in `catalog/hardware.toml`).
const RESERVE: u64 = 2 * GIB;

/// Plenty.
const FREE: u64 = 8 * GIB;

/// Some 0.9 GB on each of two nodes, nearly all of it KV caches.
const LARGE: [&str; 4] = ["--ctx=8192", "--streams=8", "--threads=1", "--on=a,b"];

/// From now on so much of a node's memory is free.
fn set_free(fleet: &Fleet, node: &str, bytes: u64) {
    meminfo(&fleet.scratch, node, 16 * GIB, bytes);
}

/// Nodes of one cluster, of each of which so much is free; none where there can be no mounts.
fn fleet(nodes: &[(&str, u64)]) -> Option<Fleet> {
    if !Mount::possible() {
        return None;
    }
    let mut fleet = Fleet::new();
    for (index, &(name, free)) in nodes.iter().enumerate() {
        set_free(&fleet, name, free);
        let mounts = vec![Mount::Memory(fleet.scratch.path(name))];
        if index == 0 {
            fleet.start_with(mounts, name, &[]);
        } else {
            let token = fleet.token(nodes[0].0);
            fleet.start_with(mounts, name, &["--join", &token]);
        }
    }
    fleet.wait_until_all_up();
    Some(fleet)
}

/// What a plan says of the fullest node: what it takes there, in bytes, and of how much.
fn fullest(plan: &Value) -> (u64, f64) {
    let nodes = plan["verdict"]["ledger"].as_array().unwrap().iter();
    let pools = nodes.filter_map(|node| node["pools"].as_array()?.first());
    pools
        .map(|pool| {
            let bytes = pool["working_set_bytes"].as_u64().unwrap();
            (bytes, pool["utilization"].as_f64().unwrap())
        })
        .max_by_key(|(bytes, _)| *bytes)
        .unwrap()
}

#[test]
fn two_loads_at_once_do_not_get_the_same_memory() {
    let Some(fleet) = fleet(&[("a", FREE), ("b", FREE)]) else {
        return;
    };
    let (first, second) = (smollm2(), fleet.scratch.path("second.gguf"));
    fs::copy(&first, &second).unwrap();
    let load = |model| [&["load", text(model), "--yes"], &LARGE[..]].concat();
    for engine in ["stages", "llama-rpc"] {
        let engine = format!("--engine={engine}");
        let plan = [&load(&first)[..], &[&engine, "--dry-run"]].concat();
        wait_until("all of it is free", SOON, || {
            let planned = fleet.run("a", &plan);
            planned.code == Some(0) && !planned.stdout.contains("borderline")
        });
        let (takes, _) = fullest(&fleet.json("a", &plan));
        // Enough for one of them.
        for node in ["a", "b"] {
            set_free(&fleet, node, RESERVE + takes * 3 / 2);
        }
        wait_until("the nodes say so", SOON, || {
            let plan = fleet.json("a", &plan);
            plan["verdict"]["utilization"].as_f64().unwrap() > 0.6
        });
        let loads = [("a", &first), ("b", &second)]
            .map(|(node, model)| fleet.spawn(node, &[&load(model)[..], &[&engine]].concat()));
        let ended = loads.map(|load| load.wait_with_output().unwrap());
        let mut codes = [&ended[0], &ended[1]].map(|ended| ended.status.code());
        codes.sort_unstable();
        let said = ended.map(|ended| String::from_utf8(ended.stderr).unwrap());
        assert_eq!(codes, [Some(0), Some(1)], "{said:?}");
        // Who was second is told so, by the planner or by the node.
        let loser = said.iter().find(|said| said.contains("brigade: ")).unwrap();
        assert!(
            loser.contains("does not fit") || loser.contains("`brigade unload` there frees it"),
            "{loser}"
        );
        let winner = if coordinated(&fleet, "a") == 1 {
            "a"
        } else {
            "b"
        };
        let api = fleet.node(winner).api();
        assert_eq!(post(api, &chat("hi", 4, &json!({}))).0, 200);
        assert_eq!(fleet.run(winner, &["unload"]).code, Some(0));
        // It was no more than that: now there is room for the other.
        let (other, model) = if winner == "a" {
            ("b", &second)
        } else {
            ("a", &first)
        };
        wait_until("the other node has heard of it", SOON, || {
            let nodes = fleet.json(other, &["nodes"]);
            let mut nodes = nodes["nodes"].as_array().unwrap().iter();
            nodes.all(|node| node["held"] == json!([]))
        });
        let again = fleet.run(other, &[&load(model)[..], &[&engine]].concat());
        assert_eq!(again.code, Some(0), "{}", again.stderr);
        assert_eq!(fleet.run(other, &["unload"]).code, Some(0));
        for node in ["a", "b"] {
            set_free(&fleet, node, FREE);
        }
    }
    fleet.end();
}

/// How many models a node coordinates.
fn coordinated(fleet: &Fleet, node: &str) -> usize {
    fleet.json(node, &["ps"])["models"]
        .as_array()
        .unwrap()
        .len()
}

#[test]
fn a_borderline_fit_needs_somebodys_word() {
    let Some(mut fleet) = fleet(&[("a", FREE), ("b", FREE)]) else {
        return;
    };
    let folder = fleet.scratch.path("models");
    fs::create_dir(&folder).unwrap();
    let model = folder.join("smollm2.gguf");
    fs::copy(smollm2(), &model).unwrap();
    let load = [&["load", text(&model)], &LARGE[..]].concat();
    let plan = [&load[..], &["--dry-run"]].concat();
    let (takes, _) = fullest(&fleet.json("a", &plan));
    for node in ["a", "b"] {
        set_free(&fleet, node, RESERVE + takes * 109 / 100);
    }
    wait_until("it is borderline", SOON, || {
        fleet.json("a", &plan)["verdict"]["tier"] == "borderline"
    });
    let refused = fleet.complaint("a", &load);
    let (says, asks) = refused.split_once(" would use ").unwrap();
    assert!(says.contains("is a borderline fit: "), "{refused}");
    assert!(
        asks.ends_with(" % of the memory that is wise to plan with; --yes loads it all the same"),
        "{refused}"
    );
    assert_eq!(coordinated(&fleet, "a"), 0);
    let loaded = fleet.run("a", &[&load[..], &["--yes"]].concat());
    assert_eq!(loaded.code, Some(0), "{}", loaded.stderr);
    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));

    // A request is nobody's word.
    let token = fleet.token("a");
    let mount = Mount::Memory(fleet.scratch.path("c"));
    set_free(&fleet, "c", FREE);
    let args = ["--join", &token, "--load-on-request", text(&folder)];
    fleet.start_with(vec![mount], "c", &args);
    fleet.wait_until_all_up();
    let alone = ["load", text(&model), "--on=c", "--dry-run"];
    let (takes, _) = fullest(&fleet.json("c", &alone));
    for node in ["a", "b"] {
        set_free(&fleet, node, RESERVE + takes / 100);
    }
    set_free(&fleet, "c", RESERVE + takes * 109 / 100);
    wait_until("it is borderline", SOON, || {
        let plan = fleet.json("c", &["load", text(&model), "--dry-run"]);
        plan["verdict"]["tier"] == "borderline"
    });
    let ask = chat("hi", 4, &json!({"model": "smollm2"}));
    let (status, answer) = post(fleet.node("c").api(), &ask);
    assert_eq!(status, 404, "{answer}");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(
        message.contains("is a borderline fit: ")
            && message.ends_with("; `brigade load` asks whether it shall be loaded all the same"),
        "{message}"
    );
    fleet.end();
}

#[test]
fn a_node_without_usable_memory_is_a_member_that_holds_nothing() {
    let Some(fleet) = fleet(&[("a", RESERVE / 2), ("b", FREE)]) else {
        return;
    };
    let model = fleet.scratch.tiny("tiny.gguf", &TinyModel::llama(6));
    let load = ["load", text(&model), "--ctx=256", "--threads=1"];
    // The planner passes it over, also where it coordinates.
    let running = fleet.json("a", &load);
    let stages = running["models"][0]["stages"].as_array().unwrap();
    let nodes: Vec<_> = stages.iter().map(|stage| &stage["node"]).collect();
    assert_eq!(nodes, ["b"]);
    assert_eq!(
        post(fleet.node("a").api(), &chat("hi", 4, &json!({}))).0,
        200
    );
    assert_eq!(fleet.run("a", &["unload"]).code, Some(0));
    for engine in ["stages", "llama-rpc"] {
        let engine = format!("--engine={engine}");
        let refused = fleet.complaint("b", &[&load[..], &["--on=all", "--yes", &engine]].concat());
        assert!(
            refused.contains("cannot be divided over all of the nodes that were named"),
            "{refused}"
        );
    }
    fleet.end();
}

/// What has come before a disk was full is kept, and goes on when there is room.
#[test]
fn a_full_disk_is_said_and_what_came_is_kept() {
    if !Mount::possible() {
        return;
    }
    let file = smollm2();
    let name = file.file_name().unwrap().to_str().unwrap();
    let content = Content::Bytes(Arc::new(fs::read(&file).unwrap()));
    let hub = TestHub::start("someone/smollm2", &[(name, content)]);
    let mut fleet = Fleet::apart(&["a"], hub.endpoint());
    let token = fleet.token("a");
    let cache = fleet.cache("b");
    let disk = Mount::Disk(cache.clone(), 30);
    fleet.start_with(vec![disk], "b", &["--join", &token]);
    fleet.wait_until_all_up();
    let plan = fleet.scratch.path("plan.json");
    let stages = json!([{"node": "b", "layers": [0, 30]}]);
    let said = json!({"schema": "brigade.plan/1", "stages": stages});
    fs::write(&plan, said.to_string()).unwrap();
    let load = [
        "load",
        "hf:someone/smollm2:Q4_1",
        "--ctx=512",
        "--threads=1",
        "--yes",
        "--plan",
        text(&plan),
    ];
    let refused = fleet.complaint("a", &load);
    assert!(refused.contains("b: "), "{refused}");
    assert!(refused.contains("No space left on device"), "{refused}");
    let before = hub.served_bytes();
    Mount::resize(fleet.node("b").pid(), &cache, 400);
    fleet.json("a", &load);
    let (more, all) = (
        hub.served_bytes() - before,
        fs::metadata(&file).unwrap().len(),
    );
    // Most of 30 MB of some 98 were there.
    assert!(more < all - (15 << 20), "{more} of {all}");
    let (status, answer) = post(fleet.node("a").api(), &chat("hi", 4, &json!({})));
    assert_eq!(status, 200, "{answer}");
    fleet.end();
}
