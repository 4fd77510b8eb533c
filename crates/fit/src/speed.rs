//! How fast a step is on a pool.

use crate::error::FitError;
use crate::machine::Pool;

/// What one pool does in one step of a stage: the bytes and operations of all tokens of the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Tokens of the step: 1 for one stream's decode, the streams for a batch, a chunk for prefill.
    pub tokens: u32,
    /// Layers that this pool computes.
    pub layers: u32,
    /// Bytes of weights that the step touches, experts by what the tokens choose.
    pub weight_bytes: u64,
    /// Bytes of the KV cache that the step reads.
    pub kv_bytes: u64,
    /// Multiply-adds counted as two operations.
    pub flops: f64,
    /// Mean bits of a weight.
    pub bits_per_weight: f64,
}

/// The speed model: a roofline with fitted efficiencies.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeedModel {}

impl SpeedModel {
    /// Seconds of one step of a stage on this pool, without any link.
    pub fn step_s(&self, pool: &Pool, runtime: &str, work: &Work) -> Result<f64, FitError> {
        let _ = (runtime, work);
        Err(FitError::Missing {
            of: pool.device_name.clone(),
            fact: "speed".into(),
        })
    }
}
