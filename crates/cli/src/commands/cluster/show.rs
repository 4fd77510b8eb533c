//! What the cluster's commands show.

use std::fmt::Write as _;
use std::net::IpAddr;

use brigade_fit::catalog::Catalog;
use brigade_node::{LinkKind, LinkView, NearbyNode, NodeState, NodeView};
use serde_json::{Value, json};

use crate::about::About;
use crate::commands::up::only_inside;
use crate::control::{Invited, Running};
use crate::model::Engine;
use crate::output::bytes;
use crate::this_machine::devices::Device;

/// What to do with a token.
pub(super) fn invitation(invited: &Invited) -> String {
    let minutes = invited.seconds.div_ceil(60);
    let mut text = format!(
        "Paste this line on the next machine within {minutes} min; it lets one node in. Where a \
         daemon runs already, `brigade join` takes the same token."
    );
    if only_inside(&invited.addresses) {
        text.push_str(
            "\nThis node listens where only this machine reaches it: for others start it with \
             `brigade up --listen [::]`.",
        );
    }
    text
}

/// The cluster as a table.
pub(super) fn nodes(nodes: &[NodeView], catalog: &Catalog) -> String {
    let names = nodes.iter().map(|node| node.name.len());
    let width = names.max().unwrap_or(0).max(4);
    let mut table = format!(
        "{:<width$}  {:<16}  {:<21}  {:<6}  {:>8}  {:>18}  {:>5}  {:>5}  {:>8}  {:<10}\n",
        "node",
        "id",
        "address",
        "state",
        "trip",
        "for models",
        "cores",
        "load",
        "disk",
        "calibrated"
    );
    for node in nodes {
        let state = match node.state {
            NodeState::Up => "up",
            NodeState::Partly => "partly",
            NodeState::Down => "down",
        };
        let trip = match node.round_trip_ms {
            Some(time) => format!("{time:.2} ms"),
            None if node.is_self => "here".to_owned(),
            None => "-".to_owned(),
        };
        let about = about(node);
        let told = |of: &dyn Fn(&About) -> Option<String>| {
            about
                .as_ref()
                .and_then(of)
                .unwrap_or_else(|| "-".to_owned())
        };
        let memory = told(&|about| {
            let (pool, limit) = about.largest_pool(catalog)?;
            let held = node.facts.iter().flat_map(|facts| &facts.held);
            let held = held.filter(|held| held.amount.pool == pool);
            let held: u64 = held.map(|held| held.amount.bytes).sum();
            let (free, all) = (limit.saturating_sub(held) as f64 / 1e9, limit as f64 / 1e9);
            Some(format!("{free:.1} of {all:.1} GB"))
        });
        let _ = write!(
            table,
            "{:<width$}  {:<16}  {:<21}  {state:<6}  {trip:>8}  {memory:>18}  {:>5}  {:>5}  {:>8}  {:<10}",
            node.name,
            node.id,
            address_of(node),
            told(&|about| Some(about.facts.cores.to_string())),
            told(&|about| Some(format!("{:.1}", about.load?))),
            told(&|about| Some(bytes(about.disk_free_bytes?))),
            told(&|about| Some(
                match (about.calibrating, about.calibrations.is_empty()) {
                    (true, _) => "under way",
                    (false, true) => "no",
                    (false, false) => "yes",
                }
                .to_owned()
            )),
        );
        if let Some(trouble) = &node.trouble {
            let _ = write!(table, "  {trouble}");
        }
        while table.ends_with(' ') {
            table.pop();
        }
        table.push('\n');
    }
    table
}

/// What llama.cpp finds on each node; layers lie on those with a mark.
pub(super) fn devices(nodes: &[NodeView]) -> String {
    let mut rows = Vec::new();
    for node in nodes {
        let Some(About { facts, .. }) = about(node) else {
            continue;
        };
        for device in facts.devices {
            let memory = match device.memory_bytes {
                0 => "-".to_owned(),
                all => format!("{} of {}", bytes(device.free_bytes), bytes(all)),
            };
            rows.push((node.name.clone(), device, memory));
        }
    }
    let width = |least: usize, of: &dyn Fn(&(String, Device, String)) -> &str| {
        let lengths = rows.iter().map(|row| of(row).chars().count());
        lengths.max().unwrap_or(0).max(least)
    };
    let names = width(4, &|row| row.0.as_str());
    let devices = width(6, &|row| row.1.name.as_str());
    let memories = width(11, &|row| row.2.as_str());
    let mut table = String::new();
    if !rows.is_empty() {
        let _ = writeln!(
            table,
            "\n  {:<names$}  {:<devices$}  {:>memories$}  what it is",
            "node", "device", "free memory"
        );
    }
    for (node, device, memory) in &rows {
        let mark = if device.used { '*' } else { ' ' };
        let _ = writeln!(
            table,
            "{mark} {node:<names$}  {:<devices$}  {memory:>memories$}  {}",
            device.name, device.description
        );
    }
    for node in nodes {
        if let Some(trouble) = about(node).and_then(|about| about.facts.devices_trouble) {
            let _ = writeln!(table, "{}: {trouble}", node.name);
        }
    }
    table
}

/// Nodes that are no members; nothing where there are none.
pub(super) fn nearby(nearby: &[NearbyNode]) -> String {
    if nearby.is_empty() {
        return String::new();
    }
    let mut text = "\nNearby and not in this cluster, by what they announce:\n".to_owned();
    for node in nearby {
        let addresses: Vec<_> = node.addresses.iter().map(ToString::to_string).collect();
        let _ = writeln!(text, "{}  {}  {}", node.name, node.id, addresses.join(" "));
    }
    text.push_str("`brigade invite` prints the line that lets one of them in.\n");
    text
}

/// A node's address for people.
pub(crate) fn address_of(node: &NodeView) -> String {
    let address = node.address();
    address.map_or_else(|| "-".to_owned(), |address| address.to_string())
}

/// The ways between the nodes as a table; those in use have a mark.
pub(super) fn links(links: &[LinkView]) -> String {
    if links.is_empty() {
        return "There are no links: this node is alone.\n".to_owned();
    }
    // A link-local address is tried over every interface, and stands over one of them at most.
    let is_link_local = |link: &LinkView| match link.address.ip() {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let links: Vec<_> = links
        .iter()
        .filter(|link| link.measured.round_trip_ms.is_some() || !is_link_local(link))
        .collect();
    let name = |link: &LinkView| format!("{} → {}", link.from, link.to);
    let width = |length: fn(&LinkView) -> usize, least: usize| {
        links
            .iter()
            .map(|link| length(link))
            .max()
            .unwrap_or(0)
            .max(least)
    };
    let names = width(
        |link| link.from.chars().count() + link.to.chars().count() + 3,
        4,
    );
    let addresses = width(|link| link.address.to_string().len(), 7);
    let mut table = format!(
        "  {:<names$}  {:<addresses$}  {:<22}  {:>9}  {:>9}  {:>12}\n",
        "link", "address", "over", "trip", "jitter", "bandwidth"
    );
    for link in links {
        let mark = if link.in_use { '*' } else { ' ' };
        let ms =
            |time: Option<f64>| time.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.2} ms"));
        let _ = write!(
            table,
            "{mark} {:<names$}  {:<addresses$}  {:<22}  {:>9}  {:>9}  {:>12}",
            name(link),
            link.address.to_string(),
            over(link),
            ms(link.measured.round_trip_ms),
            ms(link.measured.jitter_ms),
            link.measured
                .bandwidth_gbit_s
                .map_or_else(|| "-".to_owned(), rate),
        );
        if let Some(trouble) = &link.trouble {
            let _ = write!(table, "  {trouble}");
        }
        table.push('\n');
    }
    table
}

/// A bandwidth for people.
fn rate(gbit_s: f64) -> String {
    if gbit_s < 1.0 {
        format!("{:.0} Mbit/s", gbit_s * 1e3)
    } else {
        format!("{gbit_s:.1} Gbit/s")
    }
}

/// What a link leads over: the kind of network and this machine's interface.
fn over(link: &LinkView) -> String {
    let kind = link.kind.map(|kind| match kind {
        LinkKind::Loopback => "loopback",
        LinkKind::Thunderbolt => "Thunderbolt",
        LinkKind::Ethernet => "Ethernet",
        LinkKind::Wifi => "Wi-Fi",
        LinkKind::Tunnel => "tunnel",
    });
    match (kind, &link.interface) {
        (Some(kind), Some(interface)) => format!("{kind} ({interface})"),
        (Some(kind), None) => kind.to_owned(),
        (None, Some(interface)) => interface.clone(),
        (None, None) => "-".to_owned(),
    }
}

fn about(node: &NodeView) -> Option<About> {
    serde_json::from_str(&node.facts.as_ref()?.about).ok()
}

/// The same for programs: what a node says of its machine stands under `machine`.
pub(super) fn nodes_json(nodes: &[NodeView]) -> anyhow::Result<Value> {
    let node = |node: &NodeView| {
        let mut json = serde_json::to_value(node)?;
        json["machine"] = serde_json::to_value(about(node))?;
        json["held"] = serde_json::to_value(node.facts.as_ref().map(|facts| &facts.held))?;
        if let Some(json) = json.as_object_mut() {
            json.remove("facts");
        }
        Ok(json)
    };
    let nodes = nodes.iter().map(node).collect::<anyhow::Result<Vec<_>>>()?;
    Ok(json!({ "schema": "brigade.nodes/1", "nodes": nodes }))
}

/// A model that runs, as a table.
pub(super) fn running(running: &Running) -> String {
    let nodes = running.stages.iter().map(|stage| stage.node.len());
    let width = nodes.max().unwrap_or(0).max(4);
    let mut table = format!(
        "{} with {} tokens of context at http://{}/v1\n\n{:<width$}  {:>9}  {:>10}\n",
        running.model, running.context_tokens, running.api, "node", "layers", "weights"
    );
    for stage in &running.stages {
        let layers = stage
            .layers
            .map_or_else(String::new, |layers| layers.to_string());
        let weights = stage.bytes.map_or_else(String::new, bytes);
        let _ = writeln!(table, "{:<width$}  {layers:>9}  {weights:>10}", stage.node);
    }
    if running.engine == Engine::LlamaRpc {
        let _ = writeln!(
            table,
            "\nllama.cpp's RPC runs them, one node at a time (llama-rpc)."
        );
    }
    if let Some(remark) = &running.remark {
        let _ = writeln!(table, "{remark}");
    }
    if let Some(failure) = &running.failure {
        let _ = writeln!(table, "\nIt does not answer any more: {failure}");
    }
    if let Some(waits) = &running.waits {
        let _ = writeln!(
            table,
            "\nIt is tried again and again; now it waits: {waits}"
        );
    }
    table
}

pub(super) fn running_json(running: &[Running]) -> Value {
    let model = |running: &Running| {
        json!({
            "model": running.model,
            "context_tokens": running.context_tokens,
            "api": format!("http://{}", running.api),
            "engine": running.engine,
            "stages": running.stages,
            "failure": running.failure,
            "waits": running.waits,
        })
    };
    let models: Vec<_> = running.iter().map(model).collect();
    json!({ "schema": "brigade.ps/1", "models": models })
}

/// How to ask it something.
pub(super) fn try_it(running: &Running) -> String {
    let (route, input) = if running.chats {
        (
            "chat/completions",
            r#""messages": [{"role": "user", "content": "Hello!"}]"#,
        )
    } else {
        ("completions", r#""prompt": "Once upon a time""#)
    };
    format!(
        "\ncurl http://{}/v1/{route} -H 'content-type: application/json' \\\n  \
         -d '{{\"model\": \"{}\", {input}, \"temperature\": 0}}'",
        running.api, running.model
    )
}
