//! What runs on a machine: stages behind sockets, the processes that hold them, and the instance
//! that drives them.
//!
//! The way of a request: a `tokenizer` process turns the text into tokens; the `instance`
//! asks the scheduler for steps and sends them into the `chain`; each `stage_process` computes
//! its layers and passes the hidden states on; the last one samples and answers straight to the
//! instance, which turns tokens into text again.
//!
//! The processes, parents first, each living no longer than its parent ([`child`]):
//!
//! ```text
//! brigade up ─┬─ tokenizer
//!             └─ node ── stage      (one pair for each layer range)
//! ```
//!
//! This crate knows no llama.cpp: the binary gives `brigade stage` a
//! [`Stage`](brigade_engine::Stage) to serve.

mod cache;
mod chain;
pub mod child;
mod cluster;
#[cfg(unix)]
pub mod control;
mod daemon;
mod delivery;
mod error;
mod home;
mod instance;
mod interfaces;
mod link;
mod listen;
mod node_process;
mod stage_process;
mod tokenizer;
mod worker;

pub use cache::{
    Cache, CachedModel, CachedPart, Came, Pin, Removed, What, Why, cache_dir, cached, remove_cached,
};
pub use cluster::{BreakOff, Cluster, ClusterSpec, Links, NodeInfo, Placement, Progress, Seat};
pub use daemon::{
    Amount, Claim, Daemon, DaemonConfig, Discovery, Held, Host, LinkView, Measured, NearbyNode,
    NodeFacts, NodeState, NodeView, Refusal,
};
pub use delivery::fetch_model;
pub use error::NodeError;
pub use home::{Home, home_dir, write_private};
pub use instance::{Account, Answer, End, Event, Instance, Prompt};
pub use interfaces::LinkKind;
pub use link::{BadShape, Encrypted, Expected, Guard, KeyPair, Link, LinkShape, Peer, Wiring};
pub use listen::{BadPorts, Listen, Ports};
pub use node_process::run as run_node;
pub use stage_process::{StageIdentity, serve as serve_stage};
pub use tokenizer::{
    Order as TokenizerOrder, Report as TokenizerReport, Text, Tokenizer, VocabularyFacts,
};
pub use worker::{Memory, RpcOrder, RpcReport, StageOrder, StageReady, StageReport, StageSource};
