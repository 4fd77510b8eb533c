//! Kinds of hardware, programs and quantizations that have an efficiency of their own.

use super::calibration::Mix;
use super::quants::QuantClass;
use crate::machine::{Pool, PoolKind};
use crate::model::{Attention, Model, Quantization};

/// Kinds of hardware that are fitted together: the catalog's families, with some of them divided
/// by the kind of memory or chip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// NVIDIA GPUs with graphics memory.
    Nvidia,
    /// NVIDIA GPUs with stacked memory (A100, H100 and later).
    NvidiaHbm,
    /// NVIDIA GB10.
    Gb10,
    /// NVIDIA Jetson.
    Jetson,
    /// Apple chips.
    Apple,
    /// Apple chips of two dies.
    AppleUltra,
    /// AMD chips that work on the machine's memory.
    AmdApu,
    /// AMD GPUs with graphics memory.
    Amd,
    /// AMD GPUs with stacked memory.
    AmdHbm,
    /// Intel GPUs.
    Intel,
    /// CPUs.
    Cpu,
    /// Nothing is known but a bandwidth.
    Other,
}

impl Family {
    /// Of a device of the catalog, by its family and id.
    pub fn of(family: &str, device: &str) -> Self {
        let stacked = ["a100", "h100", "h200", "b200", "b300", "v100", "gh200"];
        match family {
            "apple" if device.contains("-ultra") => Self::AppleUltra,
            "apple" => Self::Apple,
            "nvidia-gb10" if device.starts_with("jetson") => Self::Jetson,
            "nvidia-gb10" => Self::Gb10,
            "nvidia-datacenter" if stacked.iter().any(|name| device.starts_with(name)) => {
                Self::NvidiaHbm
            }
            "nvidia-consumer" | "nvidia-pro" | "nvidia-datacenter" => Self::Nvidia,
            "amd-apu" => Self::AmdApu,
            "amd-discrete" => Self::Amd,
            "amd-datacenter" => Self::AmdHbm,
            "intel-gpu" => Self::Intel,
            "cpu" => Self::Cpu,
            _ => Self::Other,
        }
    }

    /// Of a pool.
    pub fn of_pool(pool: &Pool) -> Self {
        match pool.kind {
            PoolKind::Ram => Self::Cpu,
            PoolKind::Unified | PoolKind::Vram => Self::of(&pool.family, &pool.device),
        }
    }

    /// Its name in files and output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nvidia => "nvidia",
            Self::NvidiaHbm => "nvidia-hbm",
            Self::Gb10 => "nvidia-gb10",
            Self::Jetson => "nvidia-jetson",
            Self::Apple => "apple",
            Self::AppleUltra => "apple-ultra",
            Self::AmdApu => "amd-apu",
            Self::Amd => "amd-discrete",
            Self::AmdHbm => "amd-datacenter",
            Self::Intel => "intel-gpu",
            Self::Cpu => "cpu",
            Self::Other => "other",
        }
    }

    /// Whether it is a GPU with a memory of its own, beside which weights may spill into RAM.
    pub fn is_discrete(self) -> bool {
        matches!(
            self,
            Self::Nvidia | Self::NvidiaHbm | Self::Amd | Self::AmdHbm | Self::Intel
        )
    }

    /// Whether it is Apple's.
    pub fn is_apple(self) -> bool {
        matches!(self, Self::Apple | Self::AppleUltra)
    }

    /// 32-bit shader throughput to assume where none is stated, in 10¹² operations a second.
    ///
    /// Graphics chips are built with about one operation for 20 bytes a second of bandwidth (30
    /// on Apple's), CPUs with one for 60.
    pub fn assumed_fp32_tflops(self, bandwidth_gb_s: f64) -> f64 {
        bandwidth_gb_s
            / match self {
                Self::Apple | Self::AppleUltra => 30.0,
                Self::Cpu => 60.0,
                _ => 20.0,
            }
    }
}

/// Kinds of programs that have an efficiency of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Engine {
    /// llama.cpp and what is built on it, on the chip's own backend.
    Llama,
    /// llama.cpp of spring 2024 on CUDA, without flash attention.
    Cuda2024,
    /// llama.cpp of spring 2024 on Metal, without flash attention.
    Metal2024,
    /// MLX and what is built on it.
    Mlx,
    /// llama.cpp on Vulkan.
    Vulkan,
    /// ds4.
    Ds4,
    /// vLLM and its like.
    Vllm,
    /// llama.cpp on the CPU.
    Cpu,
}

impl Engine {
    /// By a runtime's name as a plan has it.
    pub fn of(runtime: &str, family: Family) -> Self {
        match runtime {
            _ if family == Family::Cpu => Self::Cpu,
            "mlx" => Self::Mlx,
            "vllm" => Self::Vllm,
            _ => Self::Llama,
        }
    }

    /// Its name in files and output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama.cpp",
            Self::Cuda2024 => "llama.cpp CUDA 2024",
            Self::Metal2024 => "llama.cpp Metal 2024",
            Self::Mlx => "mlx",
            Self::Vulkan => "llama.cpp Vulkan",
            Self::Ds4 => "ds4",
            Self::Vllm => "vllm",
            Self::Cpu => "llama.cpp CPU",
        }
    }

    /// The current version of the same program on the same kind of backend, for which older or other
    /// builds of it are near.
    #[must_use]
    pub fn line(self) -> Self {
        match self {
            Self::Cuda2024 | Self::Metal2024 | Self::Vulkan => Self::Llama,
            own => own,
        }
    }

    /// Whether its attention reads the cache without flash attention.
    pub fn is_old(self) -> bool {
        matches!(self, Self::Cuda2024 | Self::Metal2024)
    }
}

/// What decides the efficiency of a model in a quantization, whatever part of it runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traits {
    /// The quantization.
    pub quant: QuantClass,
    /// Whether a token touches some experts only.
    pub moe: bool,
    /// Whether some layers are linear attention or state-space layers.
    pub recurrent: bool,
    /// Its types of weights.
    pub mix: Mix,
    /// Width of a hidden state, which most rows of its matrices are as long as.
    pub width: u32,
}

impl Traits {
    /// Of a model in a quantization.
    pub fn of(model: &Model, quant: &Quantization) -> Self {
        Self {
            quant: QuantClass::of(quant),
            moe: model.experts > 0,
            recurrent: is_recurrent(model),
            mix: Mix::of(quant),
            width: model.hidden,
        }
    }
}

/// Whether some layers are linear attention or state-space layers.
pub(crate) fn is_recurrent(model: &Model) -> bool {
    let mut layers = model.layers.iter();
    layers.any(|layer| matches!(layer.attention, Attention::Recurrent { .. }))
}
