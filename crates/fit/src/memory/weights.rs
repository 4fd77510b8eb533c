//! Which tensors a stage holds: those of its layers, and those outside of them, which may lie
//! elsewhere or in memory twice.
//!
//! After llama.cpp's `llama-model.cpp` (`load_tensors`, `make_cpu_buft_list`) and
//! `llama-model-loader.cpp` (`create_tensor`), with weights that are not mapped: rows of the
//! embedding are looked up by the CPU, in system memory; the head lies where the last layer is
//! computed, and in a CPU's memory in the order in which its kernels read it. A file that has one
//! tensor for both, as that of each last stage, gives two copies unless both are the same.
//!
//! What lies in system memory for the sake of a GPU with its own is not counted: looked-up rows, and
//! what the backend copies through.

use std::ops::Range;

use brigade_gguf::GgmlType;

use crate::machine::{Machine, Pool, PoolKind};
use crate::model::{Model, Quantization, Weights};
use crate::program::Program;

/// Who runs a stage, and on what: as far as that decides what of a model is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Runner {
    /// The program, if the model is cut. A whole GGUF file is llama.cpp's in any case.
    pub program: Program,
    /// What computes.
    pub backend: Backend,
}

/// What computes a stage, in the memory that it computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Backend {
    /// A CPU, in system memory.
    Cpu(Cpu),
    /// A CPU beside GPUs: it has the first layers, or experts.
    CpuBesideGpu,
    /// A GPU that shares its memory with the CPU.
    UnifiedGpu,
    /// A GPU, in its own memory.
    Gpu,
}

/// Kinds of CPUs for which ggml has kernels of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cpu {
    /// x86-64 with AVX2.
    X86,
    /// 64-bit Arm with dot products.
    Arm,
}

impl Backend {
    /// Of a machine's pool, by its index.
    pub fn of(machine: &Machine, pool: usize) -> Self {
        let of = &machine.pools[pool];
        match of.kind {
            PoolKind::Unified => Self::UnifiedGpu,
            PoolKind::Vram => Self::Gpu,
            PoolKind::Ram if machine.pools.len() > 1 => Self::CpuBesideGpu,
            PoolKind::Ram => Self::Cpu(Cpu::of(of)),
        }
    }

    /// Whether a tensor that is both the embedding and the head is in this memory twice.
    fn doubles(self, head: Option<GgmlType>, rows: u32) -> bool {
        match self {
            Self::Cpu(cpu) => head.is_some_and(|head| cpu.repacks(head, rows)),
            Self::UnifiedGpu => true,
            Self::CpuBesideGpu | Self::Gpu => false,
        }
    }
}

impl Cpu {
    /// Of a pool's processor. The catalog has no instruction sets, but names: an Arm CPU that it
    /// does not know by one of these is taken for an x86-64 one.
    fn of(pool: &Pool) -> Self {
        let arm = ["ampere", "cortex", "graviton", "neoverse"];
        if arm.iter().any(|name| pool.device.starts_with(name)) {
            Self::Arm
        } else {
            Self::X86
        }
    }

    /// Whether ggml lays out a matrix of this type and number of rows anew to multiply with it:
    /// `ggml_repack_get_optimal_repack_type` in `ggml-cpu/repack.cpp`. Left out are what AVX-512
    /// adds (`Q2_K`, which no head is) and what AMX does instead (most types, with padding).
    pub fn repacks(self, matrix: GgmlType, rows: u32) -> bool {
        let (x86, arm) = match matrix.name() {
            "Q4_0" | "IQ4_NL" | "MXFP4" => (Some(8), Some(4)),
            "Q4_K" => (Some(8), Some(8)),
            "Q5_K" | "Q6_K" => (None, Some(8)),
            "Q8_0" | "Q1_0" => (None, Some(4)),
            _ => (None, None),
        };
        let step = match self {
            Self::X86 => x86,
            Self::Arm => arm,
        };
        step.is_some_and(|step: u32| rows.is_multiple_of(step))
    }
}

/// Bytes of the tensors that a stage with these layers (half-open, from 0) holds.
pub fn weight_bytes(
    model: &Model,
    quant: &Quantization,
    layers: Range<u32>,
    runner: Runner,
) -> u64 {
    let weights = &quant.weights;
    let own = weights
        .layers
        .get(layers.start as usize..layers.end as usize);
    let blocks = own.unwrap_or_default().iter().map(|layer| layer.total());
    let ends = end_bytes(model, weights, layers, runner);
    blocks
        .chain([ends, weights.shared_bytes])
        .fold(0, u64::saturating_add)
}

/// Bytes of the embedding and the head that a stage with these layers holds.
pub(crate) fn end_bytes(
    model: &Model,
    weights: &Weights,
    layers: Range<u32>,
    runner: Runner,
) -> u64 {
    let first = layers.start == 0;
    let last = layers.end as usize == weights.layers.len();
    let if_so = |so: bool, bytes: u64| if so { bytes } else { 0 };
    let embedding = weights.embedding_bytes;
    let head = if_so(last, weights.head_bytes);
    let tied_head = head.saturating_add(if_so(last && weights.tied, embedding));
    let Runner { program, backend } = runner;
    let each_once = match program {
        Program::Brigade => backend == Backend::CpuBesideGpu,
        Program::LlamaRpc => backend == Backend::CpuBesideGpu || !(first && last),
        Program::Exo | Program::Vllm => true,
    };
    let doubles = last && backend.doubles(weights.head_type, model.vocab);
    match (first, last) {
        (true, _) if each_once => embedding.saturating_add(head),
        _ if each_once => tied_head,
        // Rows are looked up in system memory.
        _ if backend == Backend::Gpu => tied_head,
        // Rows are looked up in a file.
        (true, false) => 0,
        (true, true) => embedding
            .saturating_add(head)
            .saturating_add(if_so(weights.tied && doubles, embedding)),
        // llama.cpp insists on an embedding: the head is that of the stage's file.
        (false, _) => tied_head.saturating_add(if_so(doubles, tied_head)),
    }
}
