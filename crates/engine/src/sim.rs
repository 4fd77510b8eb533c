//! A simulated model for tests: stages that compute integers instead of tensors, and a chain of
//! them in virtual time.
//!
//! Every logit depends on every token of the sequence and its place, by way of the KV cache, so
//! that a lost, repeated or misplaced token changes the answer. How the layers are cut, how the
//! prompt is chunked and what else is in the batch change nothing.
//!
//! Time is virtual and everything follows from the model's seed: a day of traffic takes seconds
//! and can be repeated exactly.

mod chain;
mod stage;

pub use chain::{SimChain, SimSpeed, SimTiming};
pub use stage::{SimModel, SimStage};

fn mix(a: u64, b: u64) -> u64 {
    let mut x = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}
