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

/// A server and how many layers it holds.
pub type Share = (SocketAddr, u32);

/// The devices of the servers, in order. Aborts the process when one cannot be reached.
pub(crate) fn devices(servers: &[Share]) -> Result<Vec<sys::ggml_backend_dev_t>, LlamaError> {
    let add = function(c"ggml_backend_rpc_add_server")?;
    let mut devices = Vec::new();
    for &(address, _) in servers {
        let endpoint = endpoint(address)?;
        // SAFETY: the address is that of the function with this signature (ggml-rpc.h); the
        // endpoint outlives the call. The registry and its devices live until the process ends.
        unsafe {
            let add = std::mem::transmute::<*mut std::ffi::c_void, AddServer>(add);
            let registry = add(endpoint.as_ptr());
            // Each serves the one device that [`serve`] gives it.
            if registry.is_null() || sys::ggml_backend_reg_dev_count(registry) != 1 {
                return Err(LlamaError::Rpc(format!("no device at {address}")));
            }
            devices.push(sys::ggml_backend_reg_dev_get(registry, 0));
        }
    }
    Ok(devices)
}

/// llama.cpp's `tensor_split`: what part of the layers, and of the head after them, each device
/// holds. Layer `i` of `n`, the head being the last, goes to the first device at which the sum of
/// the parts exceeds `i / n`; the sums lie half a layer before each cut, so that rounding moves
/// nothing.
pub(crate) fn split(servers: &[Share]) -> Vec<f32> {
    let last = servers.len().saturating_sub(1);
    let part = |(index, &(_, layers)): (usize, &Share)| {
        let before_cut = if index == 0 && last > 0 { -0.5 } else { 0.0 };
        let head = match index == last {
            true if last > 0 => 1.5,
            true => 1.0,
            false => 0.0,
        };
        layers as f32 + before_cut + head
    };
    // SAFETY: reads a constant.
    let devices = unsafe { sys::llama_max_devices() };
    let mut split: Vec<f32> = servers.iter().enumerate().map(part).collect();
    split.resize(split.len().max(devices), 0.0);
    split
}

fn endpoint(address: SocketAddr) -> Result<CString, LlamaError> {
    CString::new(address.to_string()).map_err(|_| LlamaError::Rpc("bad address".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    /// Where llama.cpp puts each layer, and the head after them (`llama-model.cpp`, `load_tensors`).
    fn places(split: &[f32], layers: u32) -> Vec<usize> {
        let mut sum = 0.0;
        let mut sums: Vec<f32> = Vec::new();
        for part in split {
            sum += part;
            sums.push(sum);
        }
        let count = layers + 1;
        let place = |layer: u32| {
            let at = layer as f32 / count as f32;
            sums.iter().position(|&up_to| up_to / sum > at).unwrap()
        };
        (0..count).map(place).collect()
    }

    #[test]
    fn each_server_gets_the_layers_that_were_planned_for_it() {
        for shares in [
            &[30][..],
            &[16, 14],
            &[1, 1],
            &[7, 11, 2, 13],
            &[40, 1, 40, 19],
            &[3; 20],
        ] {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
            let servers: Vec<Share> = shares.iter().map(|&layers| (address, layers)).collect();
            let split = split(&servers);
            let mut expected: Vec<usize> = (0..shares.len())
                .flat_map(|server| std::iter::repeat_n(server, shares[server] as usize))
                .collect();
            expected.push(shares.len() - 1);
            assert_eq!(places(&split, shares.iter().sum()), expected, "{shares:?}");
        }
    }
}
