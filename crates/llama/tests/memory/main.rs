//! The planner's memory ledger against what llama.cpp allocates on the CPU: for whole models and
//! for each stage of a cut, of nine architectures and of the demo's models, at three contexts and
//! with keys and values of three types. The ledger is taken as it is, item by item and as a sum.
//!
//! Not compared, because this machine cannot say it: what GPUs hold, and what an Arm CPU repacks
//! where this is none. What a runtime takes beside its buffers, llama.cpp does not log.

mod compare;
mod cut;
mod large;
mod measure;
mod printed;
mod real;
mod stages;
mod whole;

use std::path::{Path, PathBuf};

use brigade_fit::memory::{Backend, Cpu, KvType, Load, Runner};
use brigade_fit::program::Program;
use brigade_gguf::testing::{Shape, TinyModel};

const CONTEXTS: [u32; 3] = [512, 4096, 16_384];
const KV_TYPES: [KvType; 3] = [KvType::F16, KvType::Q8_0, KvType::Q4_0];

/// A stage of Brigade, or a whole model, on this machine's CPU.
const HERE: Runner = Runner {
    program: Program::Brigade,
    backend: Backend::Cpu(if cfg!(target_arch = "aarch64") {
        Cpu::Arm
    } else {
        Cpu::X86
    }),
};

/// Whether this CPU's kernels lay out weights by a rule that the planner has not; says so then.
fn has_amx(test: &str) -> bool {
    let amx = brigade_llama::cpu_features().contains(&"AMX_INT8".to_owned());
    if amx {
        skip(test, "weights for AMX are larger than in the file");
    }
    amx
}

/// Says on standard error that a test is skipped; not by `eprintln!`, which nobody sees of one that
/// passes.
fn skip(test: &str, why: &str) {
    use std::io::Write as _;
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").expect("standard error is open");
}

/// Wide enough for every term to count, with few enough weights to be quick.
const SHAPE: Shape = Shape {
    width: 512,
    heads: 8,
    kv_heads: 4,
    head_width: 64,
    feed_forward: 1024,
    experts: 6,
    experts_used: 2,
    window: 300,
};

fn load(context: u32, sequences: u32, micro_batch: u32) -> Load {
    Load {
        context,
        sequences,
        kv_type: KvType::F16,
        micro_batch,
    }
}

/// The loads with each type of keys and values.
fn of_each_type(loads: &[Load]) -> Vec<Load> {
    let with = |&load: &Load| KV_TYPES.map(|kv_type| Load { kv_type, ..load });
    loads.iter().flat_map(with).collect()
}

fn write(folder: &Path, name: &str, model: &TinyModel) -> PathBuf {
    let path = folder.join(format!("{name}.gguf"));
    model.write(&path).expect("the model is written");
    path
}
