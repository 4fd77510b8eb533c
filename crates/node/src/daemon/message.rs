//! What daemons say to each other.
//!
//! Every connection is opened by one side and answered by the other, turn by turn: nobody needs
//! to read and write one link at the same time.

use std::io::{Read, Write};
use std::net::SocketAddr;

use brigade_wire::frame::{read_preamble, write_preamble};
use brigade_wire::members::Member;
use brigade_wire::token::{Proof, TokenId};
use brigade_wire::{FrameError, NodeKey, compare_builds};
use serde::{Deserialize, Serialize};

use super::memory::{Claim, Held};
use crate::interfaces::LinkKind;
use crate::worker::Job;

/// The most bytes of a message of a node that is not known yet: an order for a stage of a model
/// in hundreds of files fits.
pub(super) const STRANGER_LIMIT: u32 = 256 * 1024;

/// The most bytes of a message between members: the longest table fits.
pub(super) const MEMBER_LIMIT: u32 = 1 << 20;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// Build of llama.cpp.
    pub(super) build: String,
    /// Drawn at each start: two nodes with one identity differ in it.
    pub(super) boot: u64,
    /// What people call it.
    pub(super) name: String,
    /// Where it listens.
    pub(super) addresses: Vec<SocketAddr>,
}

/// First from the side that connects: what it wants.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Opening {
    /// To be a member's peer: pulses follow.
    Peer(Greeting),
    /// To become a member.
    Join {
        /// With this token,
        token: TokenId,
        /// whose secret it knows.
        proof: Proof,
        /// Who it is.
        greeting: Greeting,
    },
    /// Something that computes and takes this of the node's memory, for as long as the connection
    /// stands.
    /// [`NodeReport`](crate::worker::NodeReport)s follow.
    Run(Job, Claim),
    /// A way to the RPC server that listens at this port of the node's loopback and runs for
    /// whoever asks. What the server and its client say to each other follows.
    Tunnel(u16),
    /// Pieces of the model with this key. Which are here follows, as half-open ranges; then what
    /// [`crate::delivery::peer`] has.
    Pieces(String),
    /// To say that the RPC servers of this model, which run for whoever asks, have their weights.
    Filled(String),
    /// A connection to the API, where this node passes on requests of its clients. HTTP follows.
    Api,
}

/// The answer to an [`Opening`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// To a peer.
    Peer(Greeting),
    /// To a node that has joined: it is in the table.
    Joined {
        /// The inviter knows the secret as well.
        proof: Proof,
        /// The inviter's name.
        name: String,
        /// The cluster.
        members: Vec<Member>,
    },
    /// To who wants something that runs, a way to it, pieces of a model or the API: it comes. To
    /// who says something: it is noted.
    Granted,
    /// To anybody.
    Refused(Refusal),
}

/// What peers say to each other, both ways.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum PeerMessage {
    /// Now and then.
    Pulse(Pulse),
    /// Where digests differ: everything that the sender knows.
    Table(Vec<Member>),
    /// May so many bytes follow, to see how long they take?
    Burst(u64),
    /// They may.
    Go,
    /// Not now.
    Later,
    /// They are all there.
    Arrived,
    /// What is the machine like? Where a pulse says that there is news of it.
    AskFacts,
    /// The answer, and which state of things it is.
    Facts(u64, Box<NodeFacts>),
    /// The peer is no member any more.
    Refused(Refusal),
}

/// What a node says of its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// For whoever plans; the daemon carries it and does not read it.
    pub about: String,
    /// Memory that is taken.
    pub held: Vec<Held>,
    /// The models that it coordinates, for gateways; not read by the daemon either.
    pub models: String,
}

/// That a node is there, and what it sees.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pulse {
    /// Digest of its table.
    pub(super) digest: [u8; 32],
    /// Another number where what the sender says of its machine is another.
    pub(super) facts: u64,
    /// The nodes that it sees.
    pub(super) sees: Vec<NodeKey>,
    /// What each of these says that it sees: for those that cannot hear it from them.
    pub(super) heard: Vec<(NodeKey, Vec<NodeKey>)>,
    /// How it reaches each of them.
    pub(super) links: Vec<LinkFact>,
    /// Whether it has a stage or coordinates one.
    pub(super) busy: bool,
    /// What its clock shows, in milliseconds since 1970: for `brigade doctor`, nothing else reads it.
    pub(super) clock_ms: u64,
}

/// The best way from a node to another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct LinkFact {
    /// The other one.
    pub(super) to: NodeKey,
    /// Where it is found from there.
    #[serde(with = "brigade_wire::scoped")]
    pub(super) address: SocketAddr,
    /// Over what.
    pub(super) kind: Option<LinkKind>,
    /// How fast.
    pub(super) measured: Measured,
}

/// What is known of a way to a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// The median of the last pulses' ways there and back, in milliseconds.
    pub round_trip_ms: Option<f64>,
    /// How far they are from it at the median, in milliseconds.
    pub jitter_ms: Option<f64>,
    /// What a short burst reached, encrypted, in one direction; unknown until both nodes had time.
    pub bandwidth_gbit_s: Option<f64>,
    /// How long ago that was measured, in seconds.
    pub bandwidth_age_s: Option<u64>,
}

/// Why a node wants nothing to do with another. Written for whoever is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The key is in no table.
    #[error(
        "the cluster does not know this node's key: run `brigade invite` on one of its nodes, \
         and join with the token"
    )]
    UnknownKey,
    /// The key was in the table.
    #[error(
        "the cluster has forgotten this node: run `brigade invite` on one of its nodes, and join \
         again with the token"
    )]
    Forgotten,
    /// The builds of llama.cpp differ.
    #[error("{}", describe_builds(here, there))]
    Build {
        /// Of the node that refuses.
        here: String,
        /// Of the node that is refused.
        there: String,
    },
    /// Another node with the same key is up.
    #[error(
        "another node with the same identity is up at {0}: every machine needs its own; delete \
         the state folder that was copied, and join again"
    )]
    Duplicate(SocketAddr),
    /// The token was never given out, or the secret is wrong.
    #[error(
        "the token is not one of this node's: it may be from before its last start; \
         `brigade invite` prints a new one"
    )]
    UnknownToken,
    /// The token let another node in.
    #[error("the token was used already: `brigade invite` prints a new one for each node")]
    UsedToken,
    /// The token is too old.
    #[error("the token has expired: `brigade invite` prints a new one")]
    ExpiredToken,
    /// A tunnel to something else than an RPC server of the coordinator's.
    #[error("no RPC server runs here for this node at that port")]
    NoServer,
    /// Nobody answers requests there.
    #[error("its API is not up")]
    NoApi,
    /// Its memory is taken.
    #[error("{}", describe_memory(pool, *asked, *free, holders))]
    Memory {
        /// Which of its memories.
        pool: String,
        /// What the stage takes, in bytes.
        asked: u64,
        /// What is free for models, in bytes.
        free: u64,
        /// What holds the rest.
        holders: Vec<Held>,
    },
    /// The name cannot be kept.
    #[error("the node's name is no name: choose one without blanks with --name")]
    BadName,
    /// The node has none, or too many.
    #[error("the node tells no addresses, or too many: name one with --listen")]
    BadAddresses,
}

fn describe_builds(here: &str, there: &str) -> String {
    let advice = match compare_builds(here, there) {
        std::cmp::Ordering::Less => "upgrade brigade on that node",
        std::cmp::Ordering::Greater => "upgrade brigade on this node",
        std::cmp::Ordering::Equal => "install the same build on both",
    };
    format!("it runs {here}, this node {there}: {advice}")
}

fn describe_memory(pool: &str, asked: u64, free: u64, holders: &[Held]) -> String {
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let (asked, free) = (gb(asked), gb(free));
    let held = |held: &Held| {
        let Held {
            model, coordinator, ..
        } = held;
        let bytes = gb(held.amount.bytes);
        format!("{model}, loaded on {coordinator}, holds {bytes:.2} GB")
    };
    let holders: Vec<_> = holders.iter().map(held).collect();
    let hint = if holders.is_empty() {
        String::new()
    } else {
        format!(": {}; `brigade unload` there frees it", holders.join(", "))
    };
    format!(
        "the stage takes {asked:.2} GB of its {pool} memory, of which {free:.2} GB are free for \
         models{hint}"
    )
}

/// Opens a conversation: both sides say which protocol they speak, then the caller what it wants.
pub(super) fn open(
    stream: &mut (impl Read + Write),
    opening: &Opening,
) -> Result<Answer, FrameError> {
    write_preamble(stream)?;
    brigade_wire::frame::send_value(stream, opening)?;
    read_preamble(stream)?;
    brigade_wire::frame::receive_value(stream, MEMBER_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_differs_names_the_side_to_upgrade() {
        let build = |n| format!("llama.cpp 0.0.{n}");
        let said = |here, there| {
            Refusal::Build {
                here: build(here),
                there: build(there),
            }
            .to_string()
        };
        assert_eq!(
            said(2, 1),
            "it runs llama.cpp 0.0.2, this node llama.cpp 0.0.1: upgrade brigade on this node"
        );
        assert!(said(1, 2).ends_with("upgrade brigade on that node"));
    }
}
