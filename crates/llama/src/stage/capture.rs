//! How hidden states come out of llama.cpp's graph.

use std::ffi::{CStr, CString, c_void};

use llama_cpp_sys_2 as sys;

/// What the graph callback copies.
#[derive(Debug)]
pub(super) struct Capture {
    pub(super) name: CString,
    pub(super) rows: Vec<f32>,
    /// Micro-batches that llama.cpp made of the batch. More than one may come in another order
    /// than the rows went in.
    pub(super) calls: u32,
}

/// Copies the last layer's output out of the graph.
///
/// # Safety
/// Called by ggml with a valid tensor and the [`Capture`] of the context. It must not unwind
/// into C, so it does nothing that panics.
pub(super) unsafe extern "C" fn copy_hidden_state(
    tensor: *mut sys::ggml_tensor,
    ask: bool,
    user: *mut c_void,
) -> bool {
    // SAFETY: see above; names are null-terminated.
    unsafe {
        let capture = &mut *user.cast::<Capture>();
        if CStr::from_ptr((*tensor).name.as_ptr()) != capture.name.as_c_str() {
            // Not asked for. The answer to the second question is never "stop".
            return !ask;
        }
        if ask {
            return true;
        }
        let bytes = sys::ggml_nbytes(tensor);
        capture.calls += 1;
        let start = capture.rows.len();
        capture.rows.resize(start + bytes / 4, 0.0);
        sys::ggml_backend_tensor_get(tensor, capture.rows[start..].as_mut_ptr().cast(), 0, bytes);
        true
    }
}
