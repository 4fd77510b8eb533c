//! The devices that llama.cpp finds here, as ggml tells of them.

use serde::{Deserialize, Serialize};

/// A device of ggml's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Device {
    /// ggml's name for it, such as `CUDA0`, by which `--device` chooses it.
    pub(crate) name: String,
    /// What it is, such as `NVIDIA GeForce RTX 3090`.
    pub(crate) description: String,
    /// What it is for.
    pub(crate) kind: DeviceKind,
    /// Its place on the bus, where it is told: backends may find one device twice.
    pub(crate) bus_id: Option<String>,
    /// Its memory, in bytes; 0 where that is not told.
    pub(crate) memory_bytes: u64,
    /// What of it nobody has, in bytes. What stages of this program hold counts as free.
    pub(crate) free_bytes: u64,
    /// Whether layers of a stage lie there.
    pub(crate) used: bool,
}

/// Kinds of devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum DeviceKind {
    /// The processor.
    Cpu,
    /// A GPU with a memory of its own, or Apple's.
    Gpu,
    /// A GPU on the processor's memory.
    IntegratedGpu,
    /// What helps the processor, such as a BLAS library.
    Accelerator,
}

/// Marks the devices that a stage's layers lie on: those that were chosen, by name; else those that
/// llama.cpp takes by itself, which are all GPUs, or the integrated ones where there is no other,
/// or the processor.
#[cfg_attr(
    not(any(feature = "engine", test)),
    expect(dead_code, reason = "only the engine asks for devices")
)]
pub(crate) fn mark(devices: &mut [Device], chosen: Option<&[String]>) {
    let is_gpu =
        |device: &Device| matches!(device.kind, DeviceKind::Gpu | DeviceKind::IntegratedGpu);
    let discrete = devices.iter().any(|device| device.kind == DeviceKind::Gpu);
    for index in 0..devices.len() {
        let (before, rest) = devices.split_at(index);
        let device = &rest[0];
        // A build with two backends finds a card by both.
        let again = device.bus_id.is_some()
            && before
                .iter()
                .any(|one| one.used && one.bus_id == device.bus_id);
        let used = match chosen {
            Some(names) => is_gpu(device) && names.contains(&device.name),
            None => match device.kind {
                DeviceKind::Gpu => !again,
                DeviceKind::IntegratedGpu => !discrete && !again,
                DeviceKind::Cpu | DeviceKind::Accelerator => false,
            },
        };
        devices[index].used = used;
    }
    if !devices.iter().any(|device| device.used) {
        for device in devices {
            device.used = device.kind == DeviceKind::Cpu;
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A device as ggml tells of it.
    pub(in crate::this_machine) fn device(
        name: &str,
        description: &str,
        kind: DeviceKind,
        (memory_mib, free_mib): (u64, u64),
    ) -> Device {
        Device {
            name: name.to_owned(),
            description: description.to_owned(),
            kind,
            bus_id: None,
            memory_bytes: memory_mib << 20,
            free_bytes: free_mib << 20,
            used: false,
        }
    }

    fn used(mut devices: Vec<Device>, chosen: Option<&[&str]>) -> Vec<String> {
        let chosen: Option<Vec<String>> =
            chosen.map(|names| names.iter().map(|&name| name.to_owned()).collect());
        mark(&mut devices, chosen.as_deref());
        let used = devices.into_iter().filter(|device| device.used);
        used.map(|device| device.name).collect()
    }

    #[test]
    fn what_llama_cpp_takes_by_itself() {
        let cpu = || device("CPU", "Some CPU", DeviceKind::Cpu, (32_000, 30_000));
        let card = |name: &str, bus: &str| Device {
            bus_id: Some(bus.to_owned()),
            ..device(name, "RTX", DeviceKind::Gpu, (24_576, 24_000))
        };
        let inside = || {
            device(
                "Vulkan2",
                "Graphics",
                DeviceKind::IntegratedGpu,
                (16_000, 0),
            )
        };
        let blas = || device("BLAS", "BLAS", DeviceKind::Accelerator, (0, 0));
        assert_eq!(used(vec![blas(), cpu()], None), ["CPU"]);
        assert_eq!(used(vec![inside(), cpu()], None), ["Vulkan2"]);
        // The same card by two backends, and a second one.
        let all = || {
            vec![
                card("CUDA0", "0000:01:00.0"),
                card("Vulkan0", "0000:01:00.0"),
                card("Vulkan1", "0000:02:00.0"),
                inside(),
                cpu(),
            ]
        };
        assert_eq!(used(all(), None), ["CUDA0", "Vulkan1"]);
        assert_eq!(
            used(all(), Some(&["Vulkan0", "Vulkan2"])),
            ["Vulkan0", "Vulkan2"]
        );
        assert_eq!(used(all(), Some(&["CPU"])), ["CPU"]);
    }
}
