//! A model that llama.cpp loaded.

use std::ptr::NonNull;

use llama_cpp_sys_2 as sys;

/// A loaded model; freed with the last one who uses it.
#[derive(Debug)]
pub(crate) struct Model(pub(crate) NonNull<sys::llama_model>);

impl Model {
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
