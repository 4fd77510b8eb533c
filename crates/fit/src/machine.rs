//! Machines as the planner sees them: pools of memory with a processor each.

pub mod limit;

use serde::Serialize;

use crate::speed::calibration::Calibration;

/// One machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Machine {
    /// Its id in the catalog, such as `mac-mini-m4-pro-64gb`, or one made of its parts.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its pools, fastest first: each GPU's memory, then the RAM; a unified memory is one pool.
    /// Pools are never summed: a layer lies in one of them.
    pub pools: Vec<Pool>,
}

/// A memory and the processor that works on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pool {
    /// What kind of memory it is.
    pub kind: PoolKind,
    /// The processor's id in the catalog, such as `m4-pro-20`, `rtx-3090`, `cpu`.
    pub device: String,
    /// The processor's name for people.
    pub device_name: String,
    /// Hardware family, by which efficiencies are fitted, such as `apple`, `nvidia-consumer`.
    pub family: String,
    /// All of it, in bytes.
    pub memory_bytes: u64,
    /// What its OS or driver lets a model use at most, in bytes.
    pub limit_bytes: u64,
    /// Why the limit is what it is, with its source, in one sentence.
    pub limit_reason: String,
    /// What a runtime takes in it besides weights, cache and compute buffers, in bytes.
    pub runtime_bytes: u64,
    /// Bandwidth of the memory, in 10⁹ bytes a second.
    pub bandwidth_gb_s: Option<f64>,
    /// Dense 16-bit matrix throughput at the chip's full rate, in 10¹² operations a second.
    pub fp16_tflops: Option<f64>,
    /// 32-bit throughput of the shader cores, in 10¹² operations a second.
    pub fp32_tflops: Option<f64>,
    /// What it was measured to do, where it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calibration: Option<Calibration>,
    /// What a reader should know of these facts, in the catalog's words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Kinds of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PoolKind {
    /// One memory for CPU and GPU.
    Unified,
    /// A discrete GPU's own memory.
    Vram,
    /// System memory, worked on by the CPU.
    Ram,
}

impl Machine {
    /// The names of its pools, in their order: the device's, numbered where there are several alike.
    pub fn pool_names(&self) -> Vec<String> {
        let named = |(index, pool): (usize, &Pool)| {
            let alike = |other: &&Pool| other.device == pool.device;
            if self.pools.iter().filter(alike).count() > 1 {
                let before = self.pools[..index].iter().filter(alike).count();
                format!("{}-{}", pool.device, before + 1)
            } else {
                pool.device.clone()
            }
        };
        self.pools.iter().enumerate().map(named).collect()
    }

    /// All memory that a model can lie in, in bytes: for display only, pools do not add up.
    pub fn memory_bytes(&self) -> u64 {
        self.pools.iter().map(|pool| pool.memory_bytes).sum()
    }
}
