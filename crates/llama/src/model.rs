//! A model that llama.cpp loaded.

use std::path::Path;
use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

use crate::vocabulary::c_path;
use crate::{LlamaError, log};

/// A loaded model; freed with the last one who uses it.
#[derive(Debug)]
pub(crate) struct Model(pub(crate) NonNull<sys::llama_model>);

impl Model {
    /// Loads a file with all of its weights, on these devices or on all GPUs, else the CPU; `split` says
    /// what part of it goes to which device, with an entry for each that llama.cpp may have.
    pub(crate) fn load(
        path: &Path,
        devices: Option<Vec<sys::ggml_backend_dev_t>>,
        split: Option<&[f32]>,
    ) -> Result<Self, LlamaError> {
        let c_path = c_path(path)?;
        let mut devices = devices;
        // SAFETY: the parameters are llama.cpp's defaults with fields changed; the path, the
        // null-terminated device list and the split, as long as llama.cpp reads, outlive the call.
        let model = unsafe {
            let mut params = sys::llama_model_default_params();
            // Mapped weights that ggml repacks would be held twice; read into place instead.
            params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
            params.n_gpu_layers = -1;
            if let Some(devices) = &mut devices {
                devices.push(std::ptr::null_mut());
                params.devices = devices.as_mut_ptr();
            }
            if let Some(split) = split {
                params.tensor_split = split.as_ptr();
            }
            sys::llama_model_load_from_file(c_path.as_ptr(), params)
        };
        NonNull::new(model)
            .map(Self)
            .ok_or_else(|| LlamaError::Load {
                path: path.to_owned(),
                reason: log::take_errors(),
            })
    }

    pub(crate) fn as_ptr(&self) -> *mut sys::llama_model {
        self.0.as_ptr()
    }

    pub(crate) fn vocab(&self) -> *const sys::llama_vocab {
        // SAFETY: the model is alive as long as `self`, and so is its vocabulary.
        unsafe { sys::llama_model_get_vocab(self.as_ptr()) }
    }
}

impl Drop for Model {
    fn drop(&mut self) {
        // SAFETY: the model came from llama.cpp and is freed once.
        unsafe { sys::llama_model_free(self.as_ptr()) };
    }
}
