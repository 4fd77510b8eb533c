//! llama.cpp's log: to `tracing`, its last errors kept for our own messages, and the buffer
//! sizes that it prints, which its C interface does not give otherwise.

use std::collections::VecDeque;
use std::ffi::{CStr, c_char, c_void};
use std::sync::{Mutex, PoisonError};

use llama_cpp_sys_2 as sys;

const KEPT_LINES: usize = 4;

static LAST_ERRORS: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

static BUFFERS: Mutex<MemoryUse> = Mutex::new(MemoryUse {
    weights_bytes: 0,
    kv_bytes: 0,
    compute_bytes: 0,
});

/// Bytes that llama.cpp says it allocated, rounded as it prints them (0.01 MiB).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// Weights.
    pub weights_bytes: u64,
    /// KV cache and recurrent state of all sequences.
    pub kv_bytes: u64,
    /// Compute buffers and logits.
    pub compute_bytes: u64,
}

pub(crate) fn install() {
    // SAFETY: the callback is a plain function that lives as long as the process, and it uses no
    // user data.
    unsafe { sys::llama_log_set(Some(on_log), std::ptr::null_mut()) };
}

/// llama.cpp's last error lines, oldest first, and forgets them.
pub(crate) fn take_errors() -> String {
    let mut lines = LAST_ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
    if lines.is_empty() {
        return "it gave no reason".to_owned();
    }
    lines.drain(..).collect::<Vec<_>>().join("; ")
}

/// The buffers that were allocated since the last call.
pub(crate) fn take_buffers() -> MemoryUse {
    std::mem::take(&mut BUFFERS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Adds a line like `llama_kv_cache:        CPU KV buffer size =    22.50 MiB`.
fn note_buffer(line: &str) {
    let Some((what, size)) = line.split_once("buffer size = ") else {
        return;
    };
    let Some(mebibytes) = size
        .split_whitespace()
        .next()
        .and_then(|number| number.parse::<f64>().ok())
    else {
        return;
    };
    let bytes = (mebibytes * 1024.0 * 1024.0) as u64;
    let mut buffers = BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
    match what.split_whitespace().next_back() {
        Some("model") => buffers.weights_bytes += bytes,
        Some("KV" | "RS") => buffers.kv_bytes += bytes,
        Some("compute" | "output") => buffers.compute_bytes += bytes,
        _ => {}
    }
}

/// # Safety
/// Called by llama.cpp with a valid, null-terminated `text`. It must not unwind into C, so it
/// does nothing that panics.
unsafe extern "C" fn on_log(level: sys::ggml_log_level, text: *const c_char, _user: *mut c_void) {
    // SAFETY: llama.cpp passes a valid, null-terminated string.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let text = text.trim_end();
    if text.is_empty() || text == "." {
        return;
    }
    match level {
        sys::GGML_LOG_LEVEL_ERROR => {
            tracing::warn!(target: "llama.cpp", "{text}");
            let mut lines = LAST_ERRORS.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == KEPT_LINES {
                lines.pop_front();
            }
            lines.push_back(text.to_owned());
        }
        sys::GGML_LOG_LEVEL_WARN => tracing::debug!(target: "llama.cpp", "{text}"),
        _ => {
            note_buffer(text);
            tracing::trace!(target: "llama.cpp", "{text}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffer_lines_are_counted() {
        note_buffer("load_tensors:          CPU model buffer size =    93.50 MiB");
        note_buffer("llama_kv_cache:        CPU KV buffer size =    22.50 MiB");
        note_buffer("sched_reserve:        CPU compute buffer size =     1.00 MiB");
        note_buffer("llama_context:        CPU  output buffer size =     0.50 MiB");
        note_buffer("something else");
        let mebibyte = 1024 * 1024;
        assert_eq!(
            take_buffers(),
            MemoryUse {
                weights_bytes: 93 * mebibyte + mebibyte / 2,
                kv_bytes: 22 * mebibyte + mebibyte / 2,
                compute_bytes: mebibyte + mebibyte / 2,
            }
        );
        assert_eq!(take_buffers(), MemoryUse::default());
    }
}
