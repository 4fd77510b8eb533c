//! What the cluster's commands show.

use std::fmt::Write as _;

use brigade_node::{NodeState, NodeView};
use serde_json::{Value, json};

use crate::control::{Invited, Running};
use crate::model::Engine;
use crate::output::bytes;

/// What to do with a token.
pub(super) fn invitation(invited: &Invited) -> String {
    let minutes = invited.seconds.div_ceil(60);
    let mut text = format!(
        "Paste this line on the next machine within {minutes} min; it lets one node in. Where a \
         daemon runs already, `brigade join` takes the same token."
    );
    if invited.listen.ip().is_loopback() {
        let _ = write!(
            text,
            "\nThis node listens at {}, which only this machine reaches: for others start it with \
             `brigade up --listen ADDR`.",
            invited.listen
        );
    }
    text
}

/// The cluster as a table.
pub(super) fn nodes(nodes: &[NodeView]) -> String {
    let width = nodes
        .iter()
        .map(|node| node.name.len())
        .max()
        .unwrap_or(0)
        .max(4);
    let mut table = format!(
        "{:<width$}  {:<16}  {:<21}  {:<6}  {:>8}\n",
        "node", "id", "address", "state", "trip"
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
        let _ = write!(
            table,
            "{:<width$}  {:<16}  {:<21}  {state:<6}  {trip:>8}",
            node.name, node.id, node.address
        );
        if let Some(trouble) = &node.trouble {
            let _ = write!(table, "  {trouble}");
        }
        table.push('\n');
    }
    table
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
            "\nllama.cpp spreads the layers by itself (llama-rpc)."
        );
    }
    if let Some(remark) = &running.remark {
        let _ = writeln!(table, "{remark}");
    }
    if let Some(failure) = &running.failure {
        let _ = writeln!(table, "\nIt does not answer any more: {failure}");
    }
    table
}

pub(super) fn running_json(running: Option<&Running>) -> Value {
    let model = running.map(|running| {
        json!({
            "model": running.model,
            "context_tokens": running.context_tokens,
            "api": format!("http://{}", running.api),
            "engine": running.engine,
            "stages": running.stages,
            "failure": running.failure,
        })
    });
    json!({ "schema": "brigade.ps/1", "models": model.into_iter().collect::<Vec<_>>() })
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
