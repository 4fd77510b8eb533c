//! The devices that ggml computes on, and what of ggml lies in a shared library in a build that
//! fits every machine (feature `portable`).

use std::ffi::{CStr, CString};

use llama_cpp_sys_2 as sys;

use crate::{LlamaError, initialize};

/// A device of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// ggml's name for it, such as `CUDA0`.
    pub name: String,
    /// What it is, such as `NVIDIA GeForce RTX 3090`.
    pub description: String,
    /// Whether it is a processor or a GPU.
    pub kind: DeviceKind,
    /// Its memory, in bytes; 0 where the backend does not tell.
    pub memory_bytes: u64,
    /// What of it is free, in bytes.
    pub free_bytes: u64,
    /// Its place on the bus, such as `0000:01:00.0`, where the backend tells: two backends may find
    /// one device.
    pub bus_id: Option<String>,
}

/// Kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// A GPU with a memory of its own, or Apple's.
    Gpu,
    /// A GPU on the processor's memory.
    IntegratedGpu,
    /// What helps the processor, such as a BLAS library.
    Accelerator,
}

/// The devices of the backends in this build, the CPU among them.
pub fn devices() -> Vec<Device> {
    initialize();
    // SAFETY: the registry is filled; every index below the count gives a device that lives until
    // the process ends, and its texts are null-terminated.
    unsafe {
        (0..sys::ggml_backend_dev_count())
            .map(|index| describe(sys::ggml_backend_dev_get(index)))
            .collect()
    }
}

/// # Safety
/// The device is one of the registry's.
unsafe fn describe(device: sys::ggml_backend_dev_t) -> Device {
    // SAFETY: see above. Plain numbers and pointers may be zero; the struct outlives the call, which
    // fills it with texts that are null-terminated, or null where there is no place on a bus.
    unsafe {
        let mut props: sys::ggml_backend_dev_props = std::mem::zeroed();
        sys::ggml_backend_dev_get_props(device, &raw mut props);
        let text = |text| CStr::from_ptr(text).to_string_lossy().into_owned();
        Device {
            name: text(props.name),
            description: text(props.description),
            kind: match props.type_ {
                sys::GGML_BACKEND_DEVICE_TYPE_CPU => DeviceKind::Cpu,
                sys::GGML_BACKEND_DEVICE_TYPE_IGPU => DeviceKind::IntegratedGpu,
                sys::GGML_BACKEND_DEVICE_TYPE_GPU => DeviceKind::Gpu,
                _ => DeviceKind::Accelerator,
            },
            memory_bytes: props.memory_total as u64,
            free_bytes: props.memory_free as u64,
            bus_id: (!props.device_id.is_null()).then(|| text(props.device_id)),
        }
    }
}

/// The devices of these names. The CPU is none of them: without any, it is what computes.
pub(crate) fn find(names: &[String]) -> Result<Vec<sys::ggml_backend_dev_t>, LlamaError> {
    initialize();
    let find = |name: &String| {
        let c_name = CString::new(name.as_str()).unwrap_or_default();
        // SAFETY: the name is a C string; the device lives until the process ends.
        let device = unsafe { sys::ggml_backend_dev_by_name(c_name.as_ptr()) };
        if device.is_null() {
            let all: Vec<String> = devices().into_iter().map(|device| device.name).collect();
            return Err(LlamaError::Device {
                name: name.clone(),
                all: all.join(", "),
            });
        }
        Ok(device)
    };
    let found = names.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    // SAFETY: the devices are the registry's.
    let is_cpu = |&device: &sys::ggml_backend_dev_t| unsafe {
        sys::ggml_backend_dev_type(device) == sys::GGML_BACKEND_DEVICE_TYPE_CPU
    };
    Ok(found.into_iter().filter(|device| !is_cpu(device)).collect())
}

/// Loads the backends that lie beside the program, of the CPU's the best that runs here. ggml would
/// look in the current folder too, where anybody may have put one.
#[cfg(feature = "portable")]
pub(crate) fn load_backends() {
    use std::os::unix::ffi::OsStrExt;
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let folder = program.parent().unwrap_or(&program).as_os_str();
    if let Ok(folder) = CString::new(folder.as_bytes()) {
        // SAFETY: the path is a C string that outlives the call.
        unsafe { sys::ggml_backend_load_all_from_path(folder.as_ptr()) };
    }
}

/// The backends are in the program.
#[cfg(not(feature = "portable"))]
pub(crate) fn load_backends() {}

type NewThreadpool =
    unsafe extern "C" fn(*mut sys::ggml_threadpool_params) -> *mut sys::ggml_threadpool;
type FreeThreadpool = unsafe extern "C" fn(*mut sys::ggml_threadpool);

/// A function of the CPU's backend, which may lie in a library that was loaded; null if it has none.
fn cpu_function(name: &CStr) -> *mut std::ffi::c_void {
    initialize();
    // SAFETY: names are C strings; a missing backend gives a null registry, which is not asked.
    unsafe {
        let registry = sys::ggml_backend_reg_by_name(c"CPU".as_ptr());
        if registry.is_null() {
            return std::ptr::null_mut();
        }
        sys::ggml_backend_reg_get_proc_address(registry, name.as_ptr())
    }
}

/// `ggml_threadpool_new`; null where there is none.
pub(crate) fn new_threadpool(
    params: &mut sys::ggml_threadpool_params,
) -> *mut sys::ggml_threadpool {
    let function = cpu_function(c"ggml_threadpool_new");
    if function.is_null() {
        return std::ptr::null_mut();
    }
    // SAFETY: the address is that of the function with this signature (ggml-cpu.h), and the
    // parameters outlive the call.
    unsafe { std::mem::transmute::<*mut std::ffi::c_void, NewThreadpool>(function)(params) }
}

/// `ggml_threadpool_free`.
///
/// # Safety
/// The pool came from [`new_threadpool`], and nothing uses it any more.
pub(crate) unsafe fn free_threadpool(pool: *mut sys::ggml_threadpool) {
    let function = cpu_function(c"ggml_threadpool_free");
    if !function.is_null() {
        // SAFETY: the address is that of the function with this signature (ggml-cpu.h); see above.
        unsafe { std::mem::transmute::<*mut std::ffi::c_void, FreeThreadpool>(function)(pool) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_a_device_and_an_unknown_one_is_refused() {
        let devices = devices();
        let cpu = devices.iter().find(|device| device.kind == DeviceKind::Cpu);
        let cpu = cpu.unwrap();
        assert!(cpu.memory_bytes > 0 && !cpu.description.is_empty());
        // What is left is the CPU alone.
        assert!(find(std::slice::from_ref(&cpu.name)).unwrap().is_empty());
        let error = find(&["CUDA99".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("no device CUDA99"), "{error}");
        assert!(error.contains(&cpu.name), "{error}");
    }
}
