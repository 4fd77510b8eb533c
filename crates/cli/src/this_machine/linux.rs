//! What Linux tells.

use std::fs;
use std::path::{Path, PathBuf};

use super::{Facts, Gpu, output_of};

/// A control group without a limit shows a number near 2⁶³.
const NO_LIMIT: u64 = 1 << 60;

/// CPU, memory and GPUs, by `/proc`, `/sys` and `nvidia-smi`.
pub(super) fn facts() -> Facts {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let memory = memory_here();
    let query = [
        "--query-gpu=name,memory.total",
        "--format=csv,noheader,nounits",
    ];
    let nvidia = output_of("nvidia-smi", &query).unwrap_or_default();
    Facts {
        cpu: cpu(&read("/proc/cpuinfo")).unwrap_or("CPU").to_owned(),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory.total,
        available_bytes: memory.available,
        gpus: nvidia_gpus(&nvidia)
            .chain(amd_gpus(Path::new("/sys/class/drm")))
            .collect(),
        ..Facts::default()
    }
}

/// The memory of this process's machine or container.
fn memory_here() -> Memory {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let mut memory = memory(&read("/proc/meminfo")).unwrap_or_default();
    for group in groups(&read("/proc/self/cgroup")) {
        let file = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
        let (limit, used) = if group.join("memory.max").exists() {
            (file("memory.max"), file("memory.current"))
        } else {
            (file("memory.limit_in_bytes"), file("memory.usage_in_bytes"))
        };
        memory = memory.within(&limit, &used, &file("memory.stat"));
    }
    memory
}

/// What of it nobody uses.
#[cfg(feature = "engine")]
pub(super) fn available_bytes() -> Option<u64> {
    memory_here().available
}

/// The CPU's name in `/proc/cpuinfo`'s text.
fn cpu(cpuinfo: &str) -> Option<&str> {
    let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    lines
        .map(|(key, value)| (key.trim(), value.trim()))
        // Boards with Arm name themselves in another line.
        .find(|(key, value)| matches!(*key, "model name" | "Model") && !value.is_empty())
        .map(|(_, value)| value)
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Memory {
    total: u64,
    available: Option<u64>,
}

/// The machine's memory in `/proc/meminfo`'s text.
fn memory(meminfo: &str) -> Option<Memory> {
    let bytes = |name: &str| {
        let lines = meminfo.lines().filter_map(|line| line.split_once(':'));
        let value = lines
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value)
            .next()?;
        let kib = value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?;
        Some(kib << 10)
    };
    Some(Memory {
        total: bytes("MemTotal")?,
        available: bytes("MemAvailable"),
    })
}

impl Memory {
    /// What a control group leaves of it: its limit, what it uses, and `memory.stat`, which tells
    /// how much of that is cached files.
    fn within(self, limit: &str, used: &str, stat: &str) -> Self {
        let number = |text: &str| text.trim().parse::<u64>().ok();
        let Some(limit) = number(limit).filter(|limit| *limit < NO_LIMIT.min(self.total)) else {
            return self;
        };
        let cached = stat
            .lines()
            .find_map(|line| number(line.strip_prefix("inactive_file ")?))
            .unwrap_or(0);
        let used = number(used).unwrap_or(0).saturating_sub(cached);
        let free = limit.saturating_sub(used);
        Self {
            total: limit,
            available: Some(self.available.map_or(free, |available| available.min(free))),
        }
    }
}

/// The folders of this process's control groups that may limit its memory, in
/// `/proc/self/cgroup`'s text: version 2 and version 1, each with those above it.
fn groups(cgroup: &str) -> Vec<PathBuf> {
    let mut groups = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next(), fields.next(), fields.next());
        let root = match controllers {
            Some("") => "/sys/fs/cgroup",
            Some(list) if list.split(',').any(|name| name == "memory") => "/sys/fs/cgroup/memory",
            _ => continue,
        };
        let path = path.unwrap_or("/").trim_start_matches('/');
        let folder = Path::new(root).join(path);
        // A container sees its own group as the root.
        let above = folder
            .ancestors()
            .take_while(|folder| folder.starts_with(root));
        groups.extend(above.map(Path::to_owned));
    }
    groups
}

/// GPUs in `nvidia-smi`'s lines of name and MiB.
fn nvidia_gpus(csv: &str) -> impl Iterator<Item = Gpu> {
    csv.lines().filter_map(|line| {
        let (name, mib) = line.rsplit_once(',')?;
        Some(Gpu {
            name: name.trim().to_owned(),
            // `[N/A]` where the memory is the machine's.
            memory_bytes: mib.trim().parse::<u64>().ok().map(|mib| mib << 20),
        })
    })
}

/// AMD's GPUs with a memory of their own.
fn amd_gpus(drm: &Path) -> Vec<Gpu> {
    let cards = fs::read_dir(drm).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = cards
        // Not `card0-DP-1`, which is a socket.
        .filter(|card| !card.file_name().to_string_lossy().contains('-'))
        .map(|card| card.path().join("device"))
        .collect();
    folders.sort();
    let gpus = folders.iter().filter_map(|folder| {
        let read = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
        amd_gpu(
            read("vendor").trim(),
            read("device").trim(),
            read("product_name").trim(),
            read("mem_info_vram_total").trim(),
        )
    });
    gpus.collect()
}

/// A GPU by its PCI numbers, as in `0x1002`; the driver names only few.
fn amd_gpu(vendor: &str, device: &str, product: &str, vram_bytes: &str) -> Option<Gpu> {
    let bytes = vram_bytes
        .parse::<u64>()
        .ok()
        .filter(|_| vendor == "0x1002")?;
    // Less is the part of the machine's memory that firmware set aside for a built-in GPU.
    if bytes < 3 << 30 {
        return None;
    }
    // One number for three cards that differ in their memory.
    let name = match (product, device, bytes >> 30) {
        ("", "0x744c", 23..=24) => "AMD Radeon RX 7900 XTX".to_owned(),
        ("", "0x744c", 19..=20) => "AMD Radeon RX 7900 XT".to_owned(),
        ("", "0x744c", 15..=16) => "AMD Radeon RX 7900 GRE".to_owned(),
        ("", _, _) => format!("AMD GPU with PCI number {device}"),
        (product, _, _) => product.to_owned(),
    };
    Some(Gpu {
        name,
        memory_bytes: Some(bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: &str =
        "MemTotal:       24684092 kB\nMemFree:        22000000 kB\nMemAvailable:   23500000 kB\n";

    #[test]
    fn memory_of_a_machine() {
        let expected = Memory {
            total: 24_684_092 << 10,
            available: Some(23_500_000 << 10),
        };
        assert_eq!(memory(MEMINFO), Some(expected));
        assert_eq!(memory("MemTotal: 1 GB"), None);
    }

    #[test]
    fn memory_of_a_container() {
        let machine = memory(MEMINFO).unwrap();
        let gib = |count: u64| (count << 30).to_string();
        let container = machine.within(&gib(8), &gib(3), "anon 1\ninactive_file 1073741824\n");
        let expected = Memory {
            total: 8 << 30,
            available: Some(6 << 30),
        };
        assert_eq!(container, expected);
        for none in ["max\n", "9223372036854771712\n", "", &gib(64)] {
            assert_eq!(machine.within(none, &gib(3), ""), machine, "{none}");
        }
        // More is used than the limit, as while one is lowered.
        assert_eq!(machine.within(&gib(1), &gib(2), "").available, Some(0));
    }

    #[test]
    fn control_groups() {
        let text = "4:memory:/a/b\n3:cpuset:/\n0::/user.slice/x\n";
        let expected = [
            "/sys/fs/cgroup/memory/a/b",
            "/sys/fs/cgroup/memory/a",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/user.slice/x",
            "/sys/fs/cgroup/user.slice",
            "/sys/fs/cgroup",
        ];
        assert_eq!(groups(text), expected.map(PathBuf::from));
        assert!(groups("").is_empty());
    }

    #[test]
    fn cpus() {
        let x86 = "processor\t: 0\nmodel name\t: AMD Ryzen 9 9950X 16-Core Processor\n";
        assert_eq!(cpu(x86), Some("AMD Ryzen 9 9950X 16-Core Processor"));
        let arm = "processor\t: 0\nFeatures\t: fp\n\nModel\t\t: Raspberry Pi 5 Model B\n";
        assert_eq!(cpu(arm), Some("Raspberry Pi 5 Model B"));
        assert_eq!(cpu(""), None);
    }

    #[test]
    fn gpus_of_nvidia() {
        let csv = "NVIDIA GeForce RTX 3090, 24576\nNVIDIA GB10, [N/A]\nNo devices were found\n";
        let gpu = |name: &str, memory_bytes| Gpu {
            name: name.into(),
            memory_bytes,
        };
        let expected = [
            gpu("NVIDIA GeForce RTX 3090", Some(24 << 30)),
            gpu("NVIDIA GB10", None),
        ];
        assert_eq!(nvidia_gpus(csv).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn gpus_of_amd() {
        let gpu = amd_gpu("0x1002", "0x744c", "", "25753026560").unwrap();
        assert_eq!(gpu.name, "AMD Radeon RX 7900 XTX");
        let named = amd_gpu("0x1002", "0x7550", "Some Radeon", "17095983104").unwrap();
        assert_eq!(named.name, "Some Radeon");
        let unnamed = amd_gpu("0x1002", "0x7550", "", "17095983104").unwrap();
        assert_eq!(unnamed.name, "AMD GPU with PCI number 0x7550");
        assert_eq!(amd_gpu("0x1002", "0x150e", "", "536870912"), None);
        assert_eq!(amd_gpu("0x8086", "0x56a0", "", ""), None);
    }
}
