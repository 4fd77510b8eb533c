//! llama.cpp's own distributed engine: its server and its client side.
//!
//! Both ends abort their process on many errors, the client already when a server cannot be
//! reached: each runs in a child process of its own.

use std::ffi::{CString, c_char};
use std::net::SocketAddr;

use llama_cpp_sys_2 as sys;

use crate::{LlamaError, initialize};

type StartServer =
    unsafe extern "C" fn(*const c_char, *const c_char, usize, usize, *mut sys::ggml_backend_dev_t);
type AddServer = unsafe extern "C" fn(*const c_char) -> sys::ggml_backend_reg_t;

/// Looks a function of the RPC backend up by name.
fn function(name: &std::ffi::CStr) -> Result<*mut std::ffi::c_void, LlamaError> {
    initialize();
    // SAFETY: the names are valid C strings; a missing backend gives a null registry, which is
    // not asked further.
    let address = unsafe {
        let registry = sys::ggml_backend_reg_by_name(c"RPC".as_ptr());
        if registry.is_null() {
            return Err(LlamaError::Rpc(
                "this build has no RPC backend; build with GGML_RPC=ON".to_owned(),
            ));
        }
        sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr())
    };
    if address.is_null() {
        return Err(LlamaError::Rpc(format!(
            "the RPC backend has no function {}",
            name.to_string_lossy()
        )));
    }
    Ok(address)
}

/// Serves this machine's CPU with `threads` threads at `address`, one client after the other.
/// Returns only when it failed.
pub fn serve(address: SocketAddr, threads: u32) -> Result<(), LlamaError> {
    let start = function(c"ggml_backend_rpc_start_server")?;
    let endpoint = endpoint(address)?;
    // SAFETY: the address is that of the function with this signature (ggml-rpc.h); the endpoint
    // and the device array outlive the call, which does not return while it serves.
    unsafe {
        let start = std::mem::transmute::<*mut std::ffi::c_void, StartServer>(start);
        let mut device = sys::ggml_backend_dev_by_type(sys::GGML_BACKEND_DEVICE_TYPE_CPU);
        start(
            endpoint.as_ptr(),
            std::ptr::null(),
            threads as usize,
            1,
            &raw mut device,
        );
    }
    Err(LlamaError::Rpc(format!("the server at {address} ended")))
}

/// The devices that the servers at `addresses` offer, in order. Aborts the process when one
/// cannot be reached.
pub(crate) fn devices(
    addresses: &[SocketAddr],
) -> Result<Vec<sys::ggml_backend_dev_t>, LlamaError> {
    let add = function(c"ggml_backend_rpc_add_server")?;
    let mut devices = Vec::new();
    for &address in addresses {
        let endpoint = endpoint(address)?;
        // SAFETY: the address is that of the function with this signature (ggml-rpc.h); the
        // endpoint outlives the call. The registry and its devices live until the process ends.
        unsafe {
            let add = std::mem::transmute::<*mut std::ffi::c_void, AddServer>(add);
            let registry = add(endpoint.as_ptr());
            if registry.is_null() {
                return Err(LlamaError::Rpc(format!("no device at {address}")));
            }
            for index in 0..sys::ggml_backend_reg_dev_count(registry) {
                devices.push(sys::ggml_backend_reg_dev_get(registry, index));
            }
        }
    }
    Ok(devices)
}

fn endpoint(address: SocketAddr) -> Result<CString, LlamaError> {
    CString::new(address.to_string()).map_err(|_| LlamaError::Rpc("bad address".to_owned()))
}
