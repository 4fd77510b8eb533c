//! What the processes of an instance say to each other.
//!
//! An instance is a chain: the coordinator opens a connection to the first stage and sends
//! [`Hello`] with the way that is left to go; each stage checks it, opens a connection to the
//! next one and passes it on; the last stage connects back to the coordinator. From then on
//! everything flows one way round the ring, in order: [`Step`]s downstream, [`StepResult`]s from
//! the last stage straight to the coordinator. KV operations ride inside the steps that they
//! precede, so no stage can see them in another order than the tokens.
//!
//! A connection is an epoch: when any link of the chain breaks, every stage drops its
//! connections and its KV cache and waits for the next [`Hello`].
//!
//! Around it, what makes a cluster of nodes: [`members`] is the table of who belongs to it,
//! [`presence`] judges whether each of them is there, and a [`token`] lets one more in.
//!
//! This crate is types and bytes only. It opens no socket; [`frame`] reads and writes any
//! `Read` / `Write`.

mod build;
pub mod frame;
mod key;
pub mod members;
mod message;
pub mod presence;
pub mod scoped;
pub mod token;

pub use build::compare_builds;
pub use frame::{FrameError, FrameLimits};
pub use key::{BadNodeId, NodeId, NodeKey};
pub use message::{
    Hello, Hop, KvOp, Message, Output, SamplingParams, SeqId, Span, StageParams, Step, StepId,
    StepResult, Token, Want, WireError,
};

/// Version of this protocol; a peer that speaks another one is refused by name.
pub const PROTOCOL_VERSION: u16 = 6;

/// The longest grammar of [`SamplingParams`], in bytes. A step that starts one sequence fits its
/// frame with it.
pub const MAX_GRAMMAR_BYTES: usize = 256 * 1024;

/// The most tokens that [`SamplingParams`] may have a bias for.
pub const MAX_LOGIT_BIAS: usize = 1024;

/// The most of the likely tokens that [`SamplingParams`] may ask for.
pub const MAX_TOP_LOGPROBS: u32 = 20;
