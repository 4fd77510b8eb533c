//! What the daemon knows: the nodes, and why some are not there.

use brigade_node::{NodeState, NodeView};

use super::Check;
use crate::commands::cluster::address_of;

const NODES: &str = "nodes";
const PERMISSION: &str = "local network";

/// What a node's connection fails with where macOS keeps a program from the local network:
/// EHOSTUNREACH (Apple's TN3179).
const NO_ROUTE: &str = "No route to host";

/// `None` where no daemon answers.
pub(super) fn nodes(nodes: Option<&[NodeView]>) -> Vec<Check> {
    let Some(nodes) = nodes else {
        return vec![Check::not_applicable(
            NODES,
            "no daemon runs: `brigade up` starts one",
        )];
    };
    let mut checks: Vec<Check> = nodes
        .iter()
        .filter(|node| node.state != NodeState::Up)
        .map(broken)
        .collect();
    if checks.is_empty() {
        checks.push(match nodes.len() {
            1 => Check::ok(NODES, "this one alone; `brigade invite` lets another in"),
            count => Check::ok(NODES, format!("all {count} see each other")),
        });
    }
    let own = nodes.iter().find(|node| node.is_self);
    if let Some(own) = own.filter(|own| own.is_inside())
        && nodes.iter().any(|node| !node.is_inside())
    {
        checks.push(Check::problem(
            "address",
            format!(
                "this node listens at {}, where no other machine reaches it",
                address_of(own)
            ),
            "start it with `brigade up --listen [::]`",
        ));
    }
    checks
}

fn broken(node: &NodeView) -> Check {
    let how = match node.state {
        NodeState::Partly => "is seen by some nodes only",
        _ => "is seen by nobody",
    };
    let trouble = node.trouble.as_deref();
    let why = match trouble {
        Some(trouble) => format!("{} ({}) {how}: {trouble}", node.name, address_of(node)),
        None => format!("{} ({}) {how}", node.name, address_of(node)),
    };
    let fix = match trouble {
        Some(trouble) if trouble.contains("upgrade brigade") => {
            "give all nodes the same release of brigade"
        }
        Some(trouble) if trouble.contains(NO_ROUTE) => {
            "see that both are in one network, and on a Mac that brigade may use the local network"
        }
        _ => "start `brigade up` there, run `brigade doctor` there, or `brigade forget` it",
    };
    Check::problem(NODES, why, fix)
}

/// Clocks that are further apart than this are told of, in seconds.
const CLOCKS_APART_S: f64 = 60.0;

/// Whether the other nodes' clocks show what this one's does. No part of a cluster compares clocks, and
/// the life of an invitation is counted by the node that gave it; what others sign for a time does:
/// certificates of the servers that models come from, and keys of theirs. And logs of several nodes
/// cannot be read together.
pub(super) fn clocks(nodes: Option<&[NodeView]>) -> Check {
    let name = "clocks";
    let others = || nodes.into_iter().flatten().filter(|node| !node.is_self);
    if others().next().is_none() {
        return Check::not_applicable(name, "there are no other nodes");
    }
    let known = others().filter_map(|node| Some((&node.name, node.clock_ahead_s?)));
    let known: Vec<_> = known.collect();
    let off: Vec<String> = known
        .iter()
        .filter(|(_, ahead)| ahead.abs() > CLOCKS_APART_S)
        .map(|(name, ahead)| {
            let direction = if *ahead > 0.0 { "ahead of" } else { "behind" };
            format!("{name}'s is {} {direction} this one's", time(ahead.abs()))
        })
        .collect();
    if !off.is_empty() {
        return Check::warning(
            name,
            format!(
                "{}: stages do not mind, downloads over HTTPS may fail where it is wrong, and logs do not \
                 fit together",
                off.join(", ")
            ),
            "on the machine that is wrong: sudo timedatectl set-ntp true, on a Mac System Settings, \
             General, Date & Time",
        );
    }
    let silent: Vec<&str> = others()
        .filter(|node| node.clock_ahead_s.is_none())
        .map(|node| node.name.as_str())
        .collect();
    if silent.is_empty() {
        let most = known
            .iter()
            .map(|(_, ahead)| ahead.abs())
            .fold(0.0, f64::max);
        Check::ok(
            name,
            format!("the nodes' are at most {most:.1} s apart from this one's"),
        )
    } else {
        Check::unknown(name, format!("{} cannot be asked now", silent.join(", ")))
    }
}

/// A time for people.
fn time(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..7200.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

/// Whether macOS lets the daemon speak to its neighbours: no program may ask, but what is
/// refused fails in a way of its own.
pub(super) fn local_network(nodes: Option<&[NodeView]>) -> Check {
    let refused = nodes.into_iter().flatten().any(|node| {
        let trouble = node.trouble.as_deref();
        trouble.is_some_and(|trouble| trouble.contains(NO_ROUTE))
    });
    let fix = "System Settings, Privacy & Security, Local Network: turn brigade on; a system \
               service needs no permission";
    if refused {
        Check::problem(PERMISSION, "macOS keeps brigade from other machines", fix)
    } else if nodes.is_some_and(|nodes| nodes.iter().any(|node| node.round_trip_ms.is_some())) {
        Check::ok(PERMISSION, "this Mac speaks to other nodes")
    } else {
        Check::unknown(PERMISSION, "macOS tells no program whether it may").with_fix(fix)
    }
}
