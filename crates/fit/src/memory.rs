//! What a stage holds, item by item.

mod cache;
mod compute;
pub(crate) mod runtime;
mod stage;
mod weights;

use std::ops::Range;

use serde::Serialize;

pub(crate) use cache::cells;
pub use cache::{kv_bytes, layer_kv_bytes, layer_state_bytes, state_bytes};
pub use compute::compute_bytes;
pub use runtime::{Overhead, runtime_bytes};
pub use stage::{StageBytes, stage};
pub(crate) use weights::end_bytes;
pub use weights::{Backend, Cpu, Runner, weight_bytes};

/// How a model is asked to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Tokens of context for each sequence.
    pub context: u32,
    /// Sequences at once.
    pub sequences: u32,
    /// Type of keys and values in the cache.
    pub kv_type: KvType,
    /// Tokens that are computed at once, llama.cpp's micro-batch.
    pub micro_batch: u32,
}

/// Type of keys and values in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KvType {
    /// 16 bits.
    F16,
    /// 8.5 bits: blocks of 32 with a scale.
    Q8_0,
    /// 4.5 bits: blocks of 32 with a scale.
    Q4_0,
}

impl KvType {
    /// Bits a value, with its share of the block's scale.
    pub fn bits(self) -> f64 {
        let (values, bytes) = self.block();
        bytes as f64 * 8.0 / values as f64
    }

    /// Values and bytes of a block, as in ggml.
    pub fn block(self) -> (u64, u64) {
        match self {
            Self::F16 => (1, 2),
            Self::Q8_0 => (32, 34),
            Self::Q4_0 => (32, 18),
        }
    }

    /// Its name, as ggml writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "f16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        }
    }
}

/// A part of what a node holds, or of what is taken off its limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Item {
    /// What it is, such as `weights`, `KV cache`, `compute buffers`, `runtime`.
    pub item: String,
    /// Its bytes.
    pub bytes: u64,
}

/// What one pool of a node holds, with its limits. Items add up to the working set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolLedger {
    /// The pool's device, such as `rtx-3090`; with a number where a node has several alike.
    pub pool: String,
    /// All of its memory.
    pub memory_bytes: u64,
    /// What a model may use at most.
    pub limit_bytes: u64,
    /// What is wise to plan with.
    pub effective_bytes: u64,
    /// Sum of the items.
    pub working_set_bytes: u64,
    /// What makes it up.
    pub items: Vec<Item>,
    /// Working set ÷ effective memory.
    pub utilization: f64,
}

/// What one node holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeLedger {
    /// The node's name.
    pub node: String,
    /// The machine's name.
    pub machine: String,
    /// Its layers (half-open, from 0); empty for a node that the plan leaves out.
    pub layers: Range<u32>,
    /// Its pools that hold something.
    pub pools: Vec<PoolLedger>,
    /// Bytes on its disk.
    pub disk_bytes: u64,
}
