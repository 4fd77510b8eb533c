//! `brigade doctor`, with and without a daemon.

use serde_json::Value;

use crate::support::{Fleet, SOON, Signal, send, wait_until};

/// The exit status, and a check's outcomes and reasons.
fn checked(fleet: &Fleet, node: &str, name: &str) -> (Option<i32>, Vec<(String, String)>) {
    let ended = fleet.run(node, &["doctor", "--json"]);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["schema"], "brigade.doctor/1");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = report["checks"].as_array().unwrap().iter();
    let of = checks.filter(|check| check["name"] == name);
    let found = of.map(|check| (text(&check["outcome"]), text(&check["why"])));
    (ended.code, found.collect())
}

#[test]
fn a_node_that_is_gone_is_named() {
    let fleet = Fleet::cluster(&["a", "b"]);
    let (_, nodes) = checked(&fleet, "a", "nodes");
    assert_eq!(nodes, [("ok".into(), "all 2 see each other".into())]);
    let (_, state) = checked(&fleet, "a", "state folder");
    assert_eq!(state[0].0, "ok");
    let nobody = checked(&fleet, "nobody", "nodes").1;
    assert_eq!(nobody[0].0, "not-applicable");
    send(fleet.node("b").pid(), Signal::KILL);
    wait_until("b is missed", SOON, || {
        let (code, nodes) = checked(&fleet, "a", "nodes");
        code == Some(1) && nodes[0].0 == "problem" && nodes[0].1.starts_with("b (127.0.0.1:")
    });
}
