//! How a stage's context of llama.cpp is set up.

use std::ffi::c_void;
use std::ptr::NonNull;

use brigade_wire::StageParams;
use llama_cpp_sys_2 as sys;

use super::capture::copy_hidden_state;
use crate::device;

/// # Safety
/// llama.cpp must be initialized; `capture` is null or a [`Capture`] that outlives the context.
pub(super) unsafe fn context_params(
    params: &StageParams,
    cells: u32,
    threads: u32,
    gives_logits: bool,
    capture: *mut c_void,
) -> sys::llama_context_params {
    // SAFETY: no preconditions.
    let mut raw = unsafe { sys::llama_context_default_params() };
    raw.n_ctx = cells;
    raw.n_batch = params.batch_tokens.max(params.sequences);
    raw.n_ubatch = raw.n_batch;
    raw.n_seq_max = params.sequences;
    if gives_logits {
        // Fewer than the sequences aborts; more reserves rows of the vocabulary for nothing.
        let rows = params.draft_tokens.saturating_add(1);
        let most = params.sequences.saturating_mul(rows).min(raw.n_batch);
        raw.n_outputs_max = most.max(params.sequences);
    }
    raw.n_threads = threads as i32;
    raw.n_threads_batch = threads as i32;
    raw.flash_attn_type = if params.flash_attention {
        sys::LLAMA_FLASH_ATTN_TYPE_ENABLED
    } else {
        sys::LLAMA_FLASH_ATTN_TYPE_DISABLED
    };
    raw.swa_full = false;
    raw.no_perf = true;
    if !capture.is_null() {
        raw.cb_eval = Some(copy_hidden_state);
        raw.cb_eval_user_data = capture;
    }
    raw
}

/// Gives the context threads that sleep between steps: spinning ones would take the cores of
/// other stages on this machine. Null where ggml cannot make them; it then makes its own.
pub(super) fn quiet_threadpool(
    context: NonNull<sys::llama_context>,
    threads: u32,
) -> *mut sys::ggml_threadpool {
    // SAFETY: the parameters are ggml's defaults with one field changed; the pool is freed after
    // the context that it is attached to.
    unsafe {
        let mut params = sys::ggml_threadpool_params_default(threads as i32);
        params.poll = 0;
        let pool = device::new_threadpool(&mut params);
        if !pool.is_null() {
            sys::llama_attach_threadpool(context.as_ptr(), pool, pool);
        }
        pool
    }
}
