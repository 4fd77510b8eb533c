//! Decode: how long the next token takes.
//!
//! ```text
//! t = weights ÷ (e · bandwidth)        dense part, and m · what a mixture of experts touches
//!   + spilled ÷ host memory            what does not fit the GPU
//!   + c · 2 · active params ÷ fp32     arithmetic on unpacked weights
//!   + k · KV ÷ bandwidth               the cache, at its mean depth
//!   + o · layers (+ om: experts, + oh: linear attention)      launches
//!   + h · handovers between GPUs + f + v · vocabulary ÷ 10⁵   once a token
//! ```
//!
//! `e` is a product over the hardware family, the quantization and the program, `o` one over the
//! backend. With the arithmetic on its own, `e` differs little between families.

use super::classes::{Engine, Family};
use super::quants::QuantClass;
use super::sum::{Factors, Parameter, Sum};

pub(super) const fn effect(name: &'static str, sd: f64) -> Parameter {
    Parameter {
        name,
        prior: 1.0,
        sd,
    }
}

pub(super) const fn value(name: &'static str, prior: f64, sd: f64) -> Parameter {
    Parameter { name, prior, sd }
}

/// The factors. `layer`, `layer with experts`, `linear-attention layer`, `handover` and `token` are
/// in milliseconds, `vocabulary` in milliseconds for 100,000 tokens of it, `host memory` in seconds
/// for 10⁹ bytes; the others have no unit.
pub const PARAMETERS: [Parameter; 41] = [
    value("efficiency", 0.8, 0.5),
    effect("efficiency: 16-bit", 0.15),
    effect("efficiency: 8-bit", 0.15),
    effect("efficiency: Q4_0", 0.15),
    effect("efficiency: MXFP4", 0.15),
    effect("efficiency: 3-bit", 0.15),
    effect("efficiency: 2-bit", 0.15),
    effect("efficiency: 4-bit (MLX)", 0.15),
    effect("efficiency: NVFP4", 0.15),
    effect("efficiency: nvidia", 0.2),
    effect("efficiency: nvidia-hbm", 0.2),
    effect("efficiency: nvidia-gb10", 0.2),
    effect("efficiency: apple", 0.2),
    effect("efficiency: apple-ultra", 0.2),
    effect("efficiency: amd-apu", 0.2),
    effect("efficiency: amd-discrete", 0.2),
    effect("efficiency: llama.cpp CUDA 2024", 0.15),
    effect("efficiency: llama.cpp Metal 2024", 0.15),
    effect("efficiency: mlx", 0.15),
    effect("efficiency: llama.cpp Vulkan", 0.15),
    effect("efficiency: ds4", 0.15),
    effect("efficiency: vllm", 0.15),
    value("layer", 0.06, 0.5),
    effect("layer: CUDA 2024", 0.4),
    effect("layer: Metal", 0.4),
    effect("layer: CUDA", 0.4),
    effect("layer: AMD and Intel", 0.4),
    effect("layer: GB10", 0.4),
    effect("layer: MLX", 0.4),
    effect("layer: Ultra", 0.4),
    effect("layer: stacked memory", 0.4),
    effect("experts", 0.1),
    value("layer with experts", 0.03, 0.6),
    value("cache", 1.3, 0.3),
    value("cache without flash attention", 3.0, 0.3),
    value("handover", 0.15, 0.5),
    value("host memory", 0.025, 0.1),
    value("token", 0.3, 0.6),
    value("vocabulary", 0.1, 0.7),
    value("linear-attention layer", 0.03, 0.7),
    value("arithmetic", 2.0, 0.7),
];

/// Efficiency of the bandwidth.
const E: usize = 0;
/// A launch for each layer.
const LAYER: usize = 22;
/// Bytes that a mixture of experts touches.
const EXPERTS: usize = 31;
const EXPERT_LAYER: usize = 32;
pub(super) const CACHE: usize = 33;
const CACHE_OLD: usize = 34;
const HANDOVER: usize = 35;
const HOST: usize = 36;
const TOKEN: usize = 37;
const VOCABULARY: usize = 38;
const RECURRENT_LAYER: usize = 39;
const ARITHMETIC: usize = 40;

/// What one token takes, or a step of several.
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
    /// 32-bit shader throughput, in 10¹² operations a second.
    pub fp32_tflops: f64,
    /// Weights that every token touches, in 10⁹ bytes; of a mixture of experts, the head only.
    pub dense_gb: f64,
    /// Other weights that the step touches in a mixture of experts, in 10⁹ bytes.
    pub expert_gb: f64,
    /// Share of the weights that lies in host memory.
    pub spilled: f64,
    /// Parameters that are multiplied with, in 10⁹, all tokens of the step together.
    pub active_b: f64,
    /// Keys and values that are read, in 10⁹ bytes.
    pub kv_gb: f64,
    /// Layers.
    pub layers: f64,
    /// Whether it is a mixture of experts.
    pub moe: bool,
    /// Whether some layers are linear attention.
    pub recurrent: bool,
    /// Handovers between the GPUs of one host.
    pub handovers: f64,
    /// Tokens that are sampled: 0 but on the last stage.
    pub sampled: f64,
    /// Tokens of the vocabulary.
    pub vocab: f64,
}

impl Amounts {
    /// The step as a sum.
    pub fn sum(&self) -> Sum {
        let mut sum = Sum::default();
        let on_gpu = (1.0 - self.spilled) / self.bandwidth_gb_s * 1e3;
        let read = self.efficiency();
        sum.add(self.dense_gb * on_gpu, read);
        sum.add(self.expert_gb * on_gpu, read.times(EXPERTS));
        let spilled = self.spilled * (self.dense_gb + self.expert_gb);
        sum.add(spilled * 1e3, Factors::ONE.times(HOST));
        sum.add(
            2.0 * self.active_b / self.fp32_tflops,
            Factors::ONE.times(ARITHMETIC),
        );
        let cache = if self.engine.is_old() {
            CACHE_OLD
        } else {
            CACHE
        };
        let kv = self.kv_gb / self.bandwidth_gb_s * 1e3;
        sum.add(kv, Factors::ONE.times(cache));
        sum.add(self.layers, self.launch());
        if self.moe {
            sum.add(self.layers, Factors::ONE.times(EXPERT_LAYER));
        }
        if self.recurrent {
            sum.add(self.layers, Factors::ONE.times(RECURRENT_LAYER));
        }
        sum.add(self.handovers, Factors::ONE.times(HANDOVER));
        if self.sampled > 0.0 {
            sum.add(1.0, Factors::ONE.times(TOKEN));
            sum.add(
                self.sampled * self.vocab / 1e5,
                Factors::ONE.times(VOCABULARY),
            );
        }
        sum
    }

    /// Division by the efficiency.
    fn efficiency(&self) -> Factors {
        let effects = [
            of_quant(self.quant),
            of_family(self.family),
            of_engine(self.engine),
        ];
        let all = Factors::ONE.over(E);
        effects.into_iter().flatten().fold(all, Factors::over)
    }

    fn launch(&self) -> Factors {
        let launch = Factors::ONE.times(LAYER);
        let backend: &[usize] = match self.family {
            _ if self.engine == Engine::Cuda2024 => &[23],
            Family::Nvidia | Family::NvidiaHbm | Family::Jetson => &[25],
            Family::Gb10 => &[25, 27],
            Family::AmdApu | Family::Amd | Family::AmdHbm | Family::Intel => &[26],
            Family::Apple | Family::AppleUltra => &[24],
            Family::Cpu | Family::Other => &[],
        };
        let of_chip = match self.family {
            Family::AppleUltra => Some(29),
            Family::NvidiaHbm => Some(30),
            _ => None,
        };
        let mlx = (self.engine == Engine::Mlx).then_some(28);
        let all = backend.iter().copied().chain(of_chip).chain(mlx);
        all.fold(launch, Factors::times)
    }
}

fn of_quant(quant: QuantClass) -> Option<usize> {
    match quant {
        QuantClass::F16 => Some(1),
        QuantClass::Q8 => Some(2),
        QuantClass::Q40 => Some(3),
        QuantClass::Mxfp4 => Some(4),
        QuantClass::Q3 => Some(5),
        QuantClass::Q2 => Some(6),
        QuantClass::Mlx4 => Some(7),
        QuantClass::Nvfp4 => Some(8),
        _ => None,
    }
}

/// One row of a family is an anecdote: it has no effect of its own.
fn of_family(family: Family) -> Option<usize> {
    match family {
        Family::Nvidia => Some(9),
        Family::NvidiaHbm => Some(10),
        Family::Gb10 => Some(11),
        Family::Apple => Some(12),
        Family::AppleUltra => Some(13),
        Family::AmdApu => Some(14),
        Family::Amd => Some(15),
        Family::Jetson | Family::Intel | Family::Cpu | Family::AmdHbm | Family::Other => None,
    }
}

fn of_engine(engine: Engine) -> Option<usize> {
    match engine {
        Engine::Llama | Engine::Cpu => None,
        Engine::Cuda2024 => Some(16),
        Engine::Metal2024 => Some(17),
        Engine::Mlx => Some(18),
        Engine::Vulkan => Some(19),
        Engine::Ds4 => Some(20),
        Engine::Vllm => Some(21),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_has_the_name_of_what_it_is_of() {
        let named = |at: Option<usize>, name: &str| {
            let own = at.map(|at| PARAMETERS[at].name.to_owned());
            assert_eq!(own.unwrap_or_default(), format!("efficiency: {name}"));
        };
        for family in [
            Family::Nvidia,
            Family::NvidiaHbm,
            Family::Gb10,
            Family::Apple,
            Family::AppleUltra,
            Family::AmdApu,
            Family::Amd,
        ] {
            named(of_family(family), family.name());
        }
        for engine in [
            Engine::Cuda2024,
            Engine::Metal2024,
            Engine::Mlx,
            Engine::Vulkan,
            Engine::Ds4,
            Engine::Vllm,
        ] {
            named(of_engine(engine), engine.name());
        }
        for quant in [
            QuantClass::F16,
            QuantClass::Q8,
            QuantClass::Q40,
            QuantClass::Mxfp4,
            QuantClass::Q3,
            QuantClass::Q2,
            QuantClass::Mlx4,
            QuantClass::Nvfp4,
        ] {
            named(of_quant(quant), quant.name());
        }
        let at = |name: &str| PARAMETERS.iter().position(|known| known.name == name);
        for (index, name) in [
            (E, "efficiency"),
            (LAYER, "layer"),
            (EXPERTS, "experts"),
            (EXPERT_LAYER, "layer with experts"),
            (CACHE, "cache"),
            (CACHE_OLD, "cache without flash attention"),
            (HANDOVER, "handover"),
            (HOST, "host memory"),
            (TOKEN, "token"),
            (VOCABULARY, "vocabulary"),
            (RECURRENT_LAYER, "linear-attention layer"),
            (ARITHMETIC, "arithmetic"),
        ] {
            assert_eq!(at(name), Some(index));
        }
    }
}
