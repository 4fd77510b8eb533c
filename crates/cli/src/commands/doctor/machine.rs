//! This machine itself: folders, disk, processor, memory, clock.

use super::Check;
use crate::output;
use crate::this_machine::Facts;
use crate::this_machine::devices::DeviceKind;

/// What the state folder looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Folder {
    /// Of the folder.
    pub(super) mode: u32,
    pub(super) is_ours: bool,
    /// Of the file with the key, if there is one.
    pub(super) key_mode: Option<u32>,
}

pub(super) fn state(path: &str, folder: Option<Folder>) -> Check {
    let name = "state folder";
    let Some(folder) = folder else {
        return Check::ok(name, format!("{path} is made by the first `brigade up`"));
    };
    if !folder.is_ours {
        return Check::problem(
            name,
            format!("{path} belongs to another user"),
            format!("chown -R it to this user, or name another one in BRIGADE_HOME (not {path})"),
        );
    }
    match folder.key_mode {
        Some(mode) if mode & 0o077 != 0 => Check::problem(
            name,
            format!("others may read this node's key (mode {:o})", mode & 0o777),
            format!("if nobody has: chmod 600 '{path}/identity'; else delete it and join again"),
        ),
        _ if folder.mode & 0o077 != 0 => Check::warning(
            name,
            format!("others may enter {path} (mode {:o})", folder.mode & 0o777),
            format!("chmod 700 '{path}'"),
        ),
        _ => Check::ok(name, format!("{path} is this user's alone")),
    }
}

/// The least free space with which a stage of a small model can be written.
const LITTLE_BYTES: u64 = 2_000_000_000;

/// A stage of a model that needs several machines.
const USUAL_BYTES: u64 = 50_000_000_000;

/// `free_bytes` are those that this user may write.
pub(super) fn disk(cache: &str, free_bytes: Option<u64>) -> Check {
    let name = "disk";
    let Some(free) = free_bytes else {
        return Check::unknown(name, format!("the space at {cache} cannot be told"));
    };
    let why = format!("{} free for stage files at {cache}", output::bytes(free));
    let fix = format!(
        "delete '{cache}/stages' while nothing runs, or name a larger disk in BRIGADE_CACHE"
    );
    if free < LITTLE_BYTES {
        Check::problem(name, why, fix)
    } else if free < USUAL_BYTES {
        Check::warning(name, why, fix)
    } else {
        Check::ok(name, why)
    }
}

/// Instruction sets that make llama.cpp several times faster, as it and `/proc/cpuinfo` call them.
const SPEEDS: [(&str, &str); 4] = [
    ("AVX2", "avx2"),
    ("FMA", "fma"),
    ("AVX512", "avx512f"),
    ("DOTPROD", "asimddp"),
];

/// Compares what this program was compiled for with what the processor has: `compiled` as Rust
/// names it, `llama` as llama.cpp does, `flags` the words of `/proc/cpuinfo`.
pub(super) fn processor(compiled: &[&str], llama: &[String], flags: &[&str]) -> Check {
    let name = "processor";
    if flags.is_empty() {
        return Check::not_applicable(name, "this system lists no instruction sets");
    }
    let lacks: Vec<&str> = compiled
        .iter()
        .copied()
        .filter(|feature| !flags.contains(feature))
        .collect();
    if !lacks.is_empty() {
        return Check::problem(
            name,
            format!(
                "this program was built for a processor with {}",
                lacks.join(", ")
            ),
            "build it on this machine, or install the release, which fits every processor",
        );
    }
    let unused: Vec<&str> = SPEEDS
        .iter()
        .filter(|(theirs, flag)| flags.contains(flag) && !llama.iter().any(|one| one == theirs))
        .map(|(theirs, _)| *theirs)
        .collect();
    if unused.is_empty() {
        Check::ok(name, "llama.cpp uses what this processor has")
    } else {
        Check::warning(
            name,
            format!(
                "llama.cpp was built without {}, which this processor has",
                unused.join(", ")
            ),
            "`cargo xtask build` on this machine, or the release, which fits every processor",
        )
    }
}

/// The instruction sets in `/proc/cpuinfo`'s text: `flags` on x86, `Features` on Arm.
pub(super) fn flags(cpuinfo: &str) -> Vec<&str> {
    let mut lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
    let line = lines.find(|(key, _)| matches!(key.trim(), "flags" | "Features"));
    line.map(|(_, flags)| flags.split_whitespace().collect())
        .unwrap_or_default()
}

/// `/proc/sys/vm/overcommit_memory`'s text.
pub(super) fn overcommit(setting: &str) -> Check {
    let name = "overcommit";
    match setting.trim() {
        "2" => Check::warning(
            name,
            "the system grants no more memory than it has (vm.overcommit_memory=2): a model that \
             fits may be refused",
            "sudo sysctl vm.overcommit_memory=0",
        ),
        "" => Check::not_applicable(name, "this system has no such setting"),
        _ => Check::ok(name, "the system grants memory as usual"),
    }
}

/// `/sys/kernel/mm/transparent_hugepage/enabled`'s text, such as `always [madvise] never`.
pub(super) fn huge_pages(setting: &str) -> Check {
    let name = "huge pages";
    if setting.contains("[never]") {
        Check::warning(
            name,
            "off: decode is about a tenth slower",
            "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled",
        )
    } else if setting.contains('[') {
        Check::ok(name, "weights lie in huge pages")
    } else {
        Check::not_applicable(name, "this system has no such setting")
    }
}

/// The most files that this process, and so a node that is started like it, may hold open.
pub(super) fn open_files(limit: Option<u64>) -> Check {
    let name = "open files";
    match limit {
        Some(limit) if limit < 1024 => Check::warning(
            name,
            format!("{limit} at most: many requests at a time may be refused"),
            "ulimit -n 65536 before `brigade up`; `brigade service install` sets it",
        ),
        Some(limit) => Check::ok(name, format!("{limit} at most")),
        None => Check::ok(name, "as many as needed"),
    }
}

/// What llama.cpp finds of this machine's GPUs, against what the system tells of them.
pub(super) fn devices(facts: &Facts) -> Check {
    let name = "devices";
    if let Some(trouble) = &facts.devices_trouble {
        return Check::problem(
            name,
            format!("llama.cpp cannot be asked for its devices: {trouble}"),
            "see that the GPU's driver works, or compute without it: `brigade up --device CPU`",
        );
    }
    let used = facts.devices.iter().filter(|device| device.used);
    let names: Vec<&str> = used.clone().map(|device| device.name.as_str()).collect();
    let found = |kind| facts.devices.iter().any(|device| device.kind == kind);
    let finds_gpu = found(DeviceKind::Gpu) || found(DeviceKind::IntegratedGpu);
    let told: Vec<&str> = facts.gpus.iter().map(|gpu| gpu.name.as_str()).collect();
    if names.is_empty() {
        Check::unknown(name, "llama.cpp names no device")
    } else if !finds_gpu && !told.is_empty() {
        Check::warning(
            name,
            format!(
                "llama.cpp finds no GPU here, the system has {}",
                told.join(", ")
            ),
            "take the release for it (BRIGADE_FLAVOR), or build with its feature, such as cuda",
        )
    } else {
        Check::ok(name, format!("stages compute on {}", names.join(", ")))
    }
}

/// A Mac's limit of memory for its GPU: `sysctl -n iogpu.wired_limit_mb` (0 for the system's own)
/// and `sysctl -n hw.memsize`.
pub(super) fn metal_limit(wired_mib: &str, memory_bytes: &str) -> Check {
    let name = "GPU memory";
    let (Ok(mib), Ok(memory)) = (
        wired_mib.trim().parse::<u64>(),
        memory_bytes.trim().parse::<u64>(),
    ) else {
        return Check::unknown(name, "sysctl tells nothing of iogpu.wired_limit_mb");
    };
    // What the system and a node need beside a model.
    let rest = memory.saturating_sub(mib << 20);
    if mib == 0 {
        Check::ok(
            name,
            "the system's own limit; `sudo sysctl iogpu.wired_limit_mb=N` raises it until the next start",
        )
    } else if rest < 4 << 30 {
        Check::warning(
            name,
            format!(
                "the GPU may take all but {} of the memory: macOS may stall",
                output::bytes(rest)
            ),
            format!(
                "sudo sysctl iogpu.wired_limit_mb={}",
                (memory >> 20).saturating_sub(8 << 10)
            ),
        )
    } else {
        Check::ok(name, format!("raised to {}", output::bytes(mib << 20)))
    }
}

/// What `timedatectl show --property=NTPSynchronized` (systemd 252) prints, and the times now and
/// when this program's file was written, in seconds since 1970. No part of a cluster compares
/// clocks; downloads over HTTPS and logs need them.
pub(super) fn clock(timedatectl: &str, now: u64, built: Option<u64>) -> Check {
    let name = "clock";
    let fix = "turn on the network's time: sudo timedatectl set-ntp true";
    if built.is_some_and(|built| now < built) {
        return Check::problem(
            name,
            "it shows a time before this program was installed: downloads will be refused",
            fix,
        );
    }
    match timedatectl.trim() {
        "NTPSynchronized=yes" => Check::ok(name, "synchronized"),
        "NTPSynchronized=no" => Check::warning(name, "not synchronized with any server", fix),
        _ => Check::unknown(name, "the system does not say whether it is synchronized"),
    }
}
