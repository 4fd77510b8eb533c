//! What a cluster looks like.

use std::net::SocketAddr;
use std::time::Duration;

use brigade_wire::presence::{Sight, Standing};
use brigade_wire::{NodeId, NodeKey};
use serde::{Deserialize, Serialize};

use super::message::NodeFacts;
use super::state::State;

/// A node of the cluster, for people and programs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// Its id.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Where it listens, the likeliest to be reached first.
    pub addresses: Vec<SocketAddr>,
    /// The one of them over which the node that was asked reaches it.
    pub in_use: Option<SocketAddr>,
    /// Whether it is the node that was asked.
    pub is_self: bool,
    /// Whether it is there.
    pub state: NodeState,
    /// The median of the last pulses' ways there and back from the node that was asked, in
    /// milliseconds.
    pub round_trip_ms: Option<f64>,
    /// How far its clock is ahead of that of the node that was asked, in seconds, give or take half of
    /// a round trip.
    pub clock_ahead_s: Option<f64>,
    /// Why the node that was asked has no connection to it.
    pub trouble: Option<String>,
    /// What it says of its machine, as it last did.
    pub facts: Option<NodeFacts>,
}

impl NodeView {
    /// The address that matters: where the node is reached, else where it is likeliest to be.
    pub fn address(&self) -> Option<SocketAddr> {
        self.in_use.or_else(|| self.addresses.first().copied())
    }

    /// Whether no other machine reaches it.
    pub fn is_inside(&self) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.all(|address| address.ip().is_loopback())
    }
}

/// Whether a node is there, as all that the asked node is connected to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Every other node sees it.
    Up,
    /// Some see it, others do not: a link is broken or not yet trusted again.
    Partly,
    /// Nobody sees it.
    Down,
}

pub(super) fn nodes(state: &State, own: NodeKey, now: Duration) -> Vec<NodeView> {
    let keys: Vec<_> = state.members.present().map(|member| member.key).collect();
    // Whether each node sees a node, as far as that is known. Of themselves others say nothing; this
    // one is up, also where nobody else has heard of it yet.
    let reports = |key: NodeKey| {
        keys.iter().filter_map(move |&from| match from {
            _ if from == own => Some(key == own || state.is_up(key, now)),
            _ if from == key => None,
            _ => Some(state.report(from, now)?.contains(&key)),
        })
    };
    let mut views: Vec<_> = state
        .members
        .present()
        .map(|member| {
            let key = member.key;
            let peer = state.peek(key);
            let up = peer.is_some_and(|peer| peer.presence.sight(now) != Sight::Down);
            NodeView {
                id: NodeId::to_string(&key.id()),
                name: member.name.clone(),
                addresses: member.addresses.clone(),
                in_use: peer.and_then(|peer| peer.in_use),
                is_self: key == own,
                state: match Standing::of(reports(key)) {
                    Standing::Up => NodeState::Up,
                    Standing::Partly => NodeState::Partly,
                    Standing::Down => NodeState::Down,
                },
                round_trip_ms: peer
                    .filter(|_| up)
                    .and_then(|peer| peer.path()?.round_trip())
                    .map(|time| time.as_secs_f64() * 1e3),
                clock_ahead_s: peer
                    .filter(|_| up)
                    .and_then(|peer| Some(peer.clock_ahead_ms? as f64 / 1e3)),
                facts: if key == own {
                    Some(state.own_facts().1)
                } else {
                    peer.and_then(|peer| Some(peer.facts.as_ref()?.1.clone()))
                },
                trouble: peer
                    .filter(|_| !up)
                    .and_then(|peer| peer.trouble().map(ToOwned::to_owned)),
            }
        })
        .collect();
    views.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    views
}
