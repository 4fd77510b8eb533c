//! [`Stage`](brigade_engine::Stage) on stock llama.cpp: the only crate with `unsafe`.
//!
//! What has to be known to read it:
//!
//! - A stage is an ordinary GGUF of a few layers. Every stage but the last has no vocabulary and
//!   a dummy head of 32 rows, so llama.cpp reserves no logits that nobody reads.
//! - Hidden states go in through `llama_batch.embd`; they come out by a callback of the graph
//!   scheduler that copies the tensor `l_out-<last layer>` and never stops the graph.
//! - The first stage turns tokens into hidden states itself ([`EmbeddingTable`]), with ggml's own
//!   dequantization, so that it needs no vocabulary either.
//! - One thread owns a stage. An abort inside llama.cpp ends the process: run stages, tokenizers
//!   and RPC clients in child processes.

mod device;
mod embedding;
mod error;
mod grammar;
mod log;
mod model;
pub mod rpc;
mod stage;
mod vocabulary;

use std::ffi::CStr;
use std::sync::Once;

use llama_cpp_sys_2 as sys;

pub use device::{Device, DeviceKind, devices};
pub use embedding::EmbeddingTable;
pub use error::LlamaError;
pub use log::MemoryUse;
pub use stage::{LlamaStage, Role, Setup, StageConfig};
pub use vocabulary::Vocabulary;

/// Starts llama.cpp's backends and sends its log to `tracing`; any number of calls is one.
fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::install();
        device::load_backends();
        // SAFETY: called once, before any other llama.cpp function of this process.
        unsafe { sys::llama_backend_init() };
    });
}

/// The llama.cpp that this binary carries: its version and that of ggml. Stages of one instance
/// must agree on it.
pub fn build() -> String {
    // SAFETY: both functions return pointers to static, null-terminated strings.
    let (llama, ggml) = unsafe {
        (
            CStr::from_ptr(sys::llama_version()),
            CStr::from_ptr(sys::ggml_version()),
        )
    };
    format!(
        "llama.cpp {} ggml {} ({})",
        llama.to_string_lossy(),
        ggml.to_string_lossy(),
        env!("BRIGADE_LLAMA_SYS_VERSION"),
    )
}

/// Instruction sets and features that ggml was compiled for and the CPU has, as
/// `("AVX2", "1")` pairs under the backend's name.
pub fn cpu_features() -> Vec<String> {
    initialize();
    // SAFETY: returns a pointer to a static, null-terminated string.
    let info = unsafe { CStr::from_ptr(sys::llama_print_system_info()) };
    // "CPU : SSE3 = 1 | AVX = 1 | … | REPACK = 1 | ", with those of other backends before or after.
    let info = info.to_string_lossy();
    let (_, cpu) = info.rsplit_once("CPU : ").unwrap_or(("", &info));
    cpu.split(['|', ':'])
        .filter_map(|part| part.trim().strip_suffix("= 1"))
        .map(|name| name.trim().to_owned())
        .collect()
}

/// Whether llama.cpp was compiled with its RPC backend.
pub fn supports_rpc() -> bool {
    initialize();
    // SAFETY: no preconditions after initialization.
    unsafe { sys::llama_supports_rpc() }
}
