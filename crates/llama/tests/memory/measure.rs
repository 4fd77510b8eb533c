//! What llama.cpp allocates, as it says itself.
//!
//! [`LlamaStage`] keeps 16-bit keys and values, so other types are measured in contexts that are
//! set up here in the same way; that it is the same way is asserted for 16 bits.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Mutex, MutexGuard, PoisonError};

use brigade_fit::memory::{KvType, Load};
use brigade_llama::{LlamaStage, MemoryUse, Role, Setup, StageConfig};
use brigade_wire::StageParams;
use llama_cpp_sys_2 as sys;

/// llama.cpp says what it allocates in a log that the whole process shares.
static LOG: Mutex<()> = Mutex::new(());

static BUFFERS: Mutex<Allocated> = Mutex::new(NOTHING);

/// What llama.cpp allocated, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocated {
    pub(crate) weights: u64,
    pub(crate) kv: u64,
    pub(crate) state: u64,
    pub(crate) compute: u64,
}

const NOTHING: Allocated = Allocated {
    weights: 0,
    kv: 0,
    state: 0,
    compute: 0,
};

impl Allocated {
    pub(crate) fn total(self) -> u64 {
        self.weights + self.kv + self.state + self.compute
    }

    /// As a stage of Brigade adds it up.
    fn memory_use(self) -> MemoryUse {
        MemoryUse {
            weights_bytes: self.weights,
            kv_bytes: self.kv + self.state,
            compute_bytes: self.compute,
        }
    }
}

fn alone() -> MutexGuard<'static, ()> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Loads a stage of Brigade, and the same file as it is measured for other types of keys and
/// values: what is allocated for 16 bits is the same.
pub(crate) fn stage(path: &Path, role: Role, load: &Load) -> Loaded {
    let gives_logits = matches!(role, Role::Whole | Role::Last);
    let brigade = brigade(path, role, load);
    let loaded = Loaded::new(path, gives_logits);
    let load = Load {
        kv_type: KvType::F16,
        ..*load
    };
    assert_eq!(brigade, loaded.with(&load).memory_use(), "{load:?}");
    loaded
}

/// What a stage of Brigade allocates on the CPU, with 16-bit keys and values.
fn brigade(path: &Path, role: Role, load: &Load) -> MemoryUse {
    let config = StageConfig {
        path: path.to_owned(),
        role,
        params: StageParams {
            context_tokens: load.context,
            sequences: load.sequences,
            batch_tokens: load.micro_batch,
            flash_attention: true,
            draft_tokens: 0,
        },
        threads: 1,
        rpc: Vec::new(),
        setup: Setup::Stage,
        devices: Some(Vec::new()),
    };
    let _alone = alone();
    LlamaStage::load(config)
        .expect("the stage loads")
        .memory_use()
}

/// A file that llama.cpp has loaded for the CPU.
pub(crate) struct Loaded {
    model: NonNull<sys::llama_model>,
    gives_logits: bool,
    weights: u64,
}

impl Loaded {
    /// Loads a file as a stage does; a stage was loaded before, so that the backends are there.
    fn new(path: &Path, gives_logits: bool) -> Self {
        let path = path.to_str().expect("a path in Unicode");
        let path = CString::new(path).expect("a path without zeros");
        let mut no_gpu = [std::ptr::null_mut()];
        let (model, noted) = noted(|| {
            // SAFETY: the parameters are llama.cpp's defaults with fields changed; the path and the
            // null-terminated list outlive the call.
            unsafe {
                let mut params = sys::llama_model_default_params();
                params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
                params.devices = no_gpu.as_mut_ptr();
                sys::llama_model_load_from_file(path.as_ptr(), params)
            }
        });
        Self {
            model: NonNull::new(model).expect("the file loads"),
            gives_logits,
            weights: noted.weights,
        }
    }

    /// What a context for a load allocates, with the weights.
    pub(crate) fn with(&self, load: &Load) -> Allocated {
        let (context, noted) = noted(|| {
            // SAFETY: the parameters are llama.cpp's defaults with numbers changed; the model is
            // alive.
            unsafe {
                let mut params = sys::llama_context_default_params();
                params.n_ctx = load.context * load.sequences;
                params.n_batch = load.micro_batch.max(load.sequences);
                params.n_ubatch = params.n_batch;
                params.n_seq_max = load.sequences;
                if self.gives_logits {
                    params.n_outputs_max = load.sequences;
                }
                params.flash_attn_type = sys::LLAMA_FLASH_ATTN_TYPE_ENABLED;
                params.swa_full = false;
                params.kv_unified = false;
                params.type_k = ggml_type(load.kv_type);
                params.type_v = params.type_k;
                sys::llama_init_from_model(self.model.as_ptr(), params)
            }
        });
        assert!(!context.is_null(), "no context for {load:?}");
        // SAFETY: the context is freed once, before its model.
        unsafe { sys::llama_free(context) };
        Allocated {
            weights: self.weights,
            ..noted
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: the model came from llama.cpp and is freed once.
        unsafe { sys::llama_model_free(self.model.as_ptr()) };
    }
}

fn ggml_type(kv_type: KvType) -> sys::ggml_type {
    match kv_type {
        KvType::F16 => sys::GGML_TYPE_F16,
        KvType::Q8_0 => sys::GGML_TYPE_Q8_0,
        KvType::Q4_0 => sys::GGML_TYPE_Q4_0,
    }
}

/// What is allocated meanwhile.
fn noted<T>(run: impl FnOnce() -> T) -> (T, Allocated) {
    let _alone = alone();
    let mut before = None;
    let mut data: *mut c_void = std::ptr::null_mut();
    *BUFFERS.lock().unwrap_or_else(PoisonError::into_inner) = NOTHING;
    // SAFETY: the callback is a plain function without user data; what was set before is set again,
    // with the data that it had.
    let result = unsafe {
        sys::llama_log_get(&raw mut before, &raw mut data);
        sys::llama_log_set(Some(note), std::ptr::null_mut());
        let result = run();
        sys::llama_log_set(before, data);
        result
    };
    let noted = *BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    (result, noted)
}

/// Adds up lines like `llama_kv_cache:        CPU KV buffer size =    22.50 MiB`.
///
/// # Safety
/// Called by llama.cpp with a null-terminated text. It must not unwind, so nothing here panics.
unsafe extern "C" fn note(_level: sys::ggml_log_level, text: *const c_char, _: *mut c_void) {
    // SAFETY: see above.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let Some((what, size)) = text.split_once("buffer size = ") else {
        return;
    };
    let number = size.split_whitespace().next();
    let Some(Ok(mebibytes)) = number.map(str::parse::<f64>) else {
        return;
    };
    let bytes = (mebibytes * 1024.0 * 1024.0) as u64;
    let mut buffers = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    match what.split_whitespace().next_back() {
        Some("model") => buffers.weights += bytes,
        Some("KV") => buffers.kv += bytes,
        Some("RS") => buffers.state += bytes,
        Some("compute" | "output") => buffers.compute += bytes,
        _ => {}
    }
}
