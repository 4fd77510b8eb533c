//! Prefill: how long a token of a prompt takes.
//!
//! ```text
//! t = (2 · active params · mm + a · attention) ÷ (e · fp16)    arithmetic; mm: experts
//!   + b · weights ÷ bandwidth ÷ micro-batch                    weights, read for each micro-batch
//!   + o · layers ÷ micro-batch                                 launches
//! rate = 1 ÷ t · (G · M ÷ (M + G − 1))^p                       G GPUs, M micro-batches
//! ```
//!
//! `e` is a product over the vendor, the hardware family, the quantization and the program.

use super::classes::{Engine, Family};
use super::decode::{effect, value};
use super::quants::QuantClass;
use super::sum::{Factors, Parameter, Sum};

/// Tokens that are computed at once.
pub const MICRO_BATCH: f64 = 512.0;

/// The factors; `layer` is in milliseconds, the others have no unit.
pub const PARAMETERS: [Parameter; 27] = [
    value("efficiency", 0.45, 0.5),
    effect("efficiency: NVIDIA", 0.4),
    effect("efficiency: Apple", 0.4),
    effect("efficiency: AMD and Intel", 0.4),
    effect("efficiency: nvidia", 0.3),
    effect("efficiency: nvidia-hbm", 0.3),
    effect("efficiency: nvidia-gb10", 0.3),
    effect("efficiency: apple", 0.3),
    effect("efficiency: apple-ultra", 0.3),
    effect("efficiency: amd-apu", 0.3),
    effect("efficiency: amd-discrete", 0.3),
    effect("efficiency: 16-bit", 0.2),
    effect("efficiency: 8-bit", 0.2),
    effect("efficiency: Q4_0", 0.2),
    effect("efficiency: MXFP4", 0.2),
    effect("efficiency: 3-bit", 0.2),
    effect("efficiency: 2-bit", 0.2),
    effect("efficiency: llama.cpp CUDA 2024", 0.3),
    effect("efficiency: llama.cpp Metal 2024", 0.3),
    effect("efficiency: llama.cpp Vulkan", 0.3),
    effect("efficiency: ds4", 0.3),
    value("weights", 1.2, 0.3),
    value("layer", 0.1, 0.7),
    value("experts", 1.5, 0.4),
    value("attention", 1.5, 0.5),
    value("attention without flash attention", 4.0, 0.5),
    value("overlap of GPUs", 0.6, 0.4),
];

const WEIGHTS: usize = 21;
const LAYER: usize = 22;
const EXPERTS: usize = 23;
const ATTENTION: usize = 24;
const ATTENTION_OLD: usize = 25;
const OVERLAP: usize = 26;

/// What one micro-batch takes, or a token of one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Amounts {
    /// The hardware.
    pub family: Family,
    /// The program.
    pub engine: Engine,
    /// The quantization.
    pub quant: QuantClass,
    /// Bandwidth of the pool, in 10⁹ bytes a second.
    pub bandwidth_gb_s: f64,
    /// 16-bit matrix throughput, in 10¹² operations a second.
    pub fp16_tflops: f64,
    /// Operations with weights, in 10⁹.
    pub gflop: f64,
    /// Operations of attention, in 10⁹.
    pub attention_gflop: f64,
    /// Weights that are read, in 10⁹ bytes.
    pub weight_gb: f64,
    /// Layers that are launched.
    pub layers: f64,
    /// Whether it is a mixture of experts.
    pub moe: bool,
}

impl Amounts {
    /// The arithmetic alone.
    pub fn arithmetic(&self) -> Sum {
        let mut sum = Sum::default();
        let all = self.efficiency();
        let weights = if self.moe { all.times(EXPERTS) } else { all };
        sum.add(self.gflop / self.fp16_tflops, weights);
        let attention = if self.engine.is_old() {
            ATTENTION_OLD
        } else {
            ATTENTION
        };
        let scores = self.attention_gflop / self.fp16_tflops;
        sum.add(scores, all.times(attention));
        sum
    }

    /// The micro-batch as a sum.
    pub fn sum(&self) -> Sum {
        let mut sum = self.arithmetic();
        let weights = self.weight_gb / self.bandwidth_gb_s * 1e3;
        sum.add(weights, Factors::ONE.times(WEIGHTS));
        sum.add(self.layers, Factors::ONE.times(LAYER));
        sum
    }

    /// A token of a prompt of so many tokens on several GPUs of a host, each with a share of the
    /// layers: `self` is one token's part of a micro-batch.
    pub fn on(&self, gpus: f64, tokens: f64) -> Sum {
        let batches = (tokens / MICRO_BATCH).max(1.0);
        let gain = gpus * batches / (batches + gpus - 1.0);
        Sum {
            gain: (gpus > 1.0).then_some((gain.ln(), OVERLAP)),
            ..self.sum()
        }
    }

    fn efficiency(&self) -> Factors {
        let (vendor, family) = match self.family {
            Family::Nvidia => (1, Some(4)),
            Family::NvidiaHbm => (1, Some(5)),
            Family::Gb10 => (1, Some(6)),
            Family::Jetson => (1, None),
            Family::Apple => (2, Some(7)),
            Family::AppleUltra => (2, Some(8)),
            Family::AmdApu => (3, Some(9)),
            Family::Amd => (3, Some(10)),
            Family::Intel | Family::AmdHbm | Family::Cpu | Family::Other => (3, None),
        };
        let quant = match self.quant {
            QuantClass::F16 => Some(11),
            QuantClass::Q8 => Some(12),
            QuantClass::Q40 => Some(13),
            QuantClass::Mxfp4 => Some(14),
            QuantClass::Q3 => Some(15),
            QuantClass::Q2 => Some(16),
            _ => None,
        };
        let engine = match self.engine {
            Engine::Cuda2024 => Some(17),
            Engine::Metal2024 => Some(18),
            Engine::Vulkan => Some(19),
            Engine::Ds4 => Some(20),
            _ => None,
        };
        let effects = [Some(vendor), family, quant, engine];
        let all = Factors::ONE.over(0);
        effects.into_iter().flatten().fold(all, Factors::over)
    }
}

/// How much faster some GPUs of a host are than one, on a prompt of so many micro-batches.
pub(crate) fn overlap(values: &[f64], gpus: f64, batches: f64) -> f64 {
    let gain = gpus * batches / (batches + gpus - 1.0);
    gain.powf(values[OVERLAP])
}
