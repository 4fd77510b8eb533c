//! This machine as the planner sees it.
//!
//! Facts come from the system, each from a text that is read by a pure function; the catalog adds
//! what systems do not tell (limits, bandwidth, throughput). A processor that the catalog does
//! not have keeps its name and size, and its speed stays unknown.

mod bandwidth;
pub(crate) mod devices;
mod linux;
mod macos;
mod names;
#[cfg(test)]
mod tests;

use std::process::{Command, Stdio};

use brigade_fit::catalog::Catalog;
use brigade_fit::machine::{Machine, Pool, PoolKind};
use devices::{Device, DeviceKind};
use names::Known;
use serde::{Deserialize, Serialize};

use crate::output;

/// What the system tells.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The CPU's name, or the chip's.
    pub(crate) cpu: String,
    /// Cores that this process may use.
    pub(crate) cores: usize,
    /// Memory of the machine, or of the container that this process is confined to.
    pub(crate) memory_bytes: u64,
    /// What of it nobody uses, where that is told.
    pub(crate) available_bytes: Option<u64>,
    pub(crate) gpus: Vec<Gpu>,
    /// Cores of a Mac's GPU.
    pub(crate) apple_gpu_cores: Option<u32>,
    /// `iogpu.wired_limit_mb`, in MiB, where it is set.
    pub(crate) wired_limit_mib: Option<u64>,
    /// What the CPU was seen to read from memory.
    pub(crate) read: Option<Reading>,
    /// What this build of llama.cpp finds; nothing where it was not asked. What it does not find
    /// computes nothing here, whatever else the system tells.
    #[serde(default)]
    pub(crate) devices: Vec<Device>,
    /// Why the devices could not be asked for.
    #[serde(default)]
    pub(crate) devices_trouble: Option<String>,
}

/// A GPU as its driver tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Gpu {
    pub(crate) name: String,
    /// Its own memory; `None` where it has none.
    pub(crate) memory_bytes: Option<u64>,
}

/// Kinds of processors.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A card with a memory of its own.
    Gpu,
    /// A chip whose GPU works on the machine's memory.
    Chip,
}

const GIB: f64 = (1u64 << 30) as f64;

/// What this machine is. `threads` compute on the CPU; without a number, one on each core.
pub(crate) fn facts(catalog: &Catalog, threads: Option<usize>) -> Facts {
    let mut facts = of_system();
    // The bandwidth of a known chip is in the catalog; a CPU's depends on what was plugged in.
    if unified(&facts, catalog).is_none() {
        facts.read = Reading::take(threads.unwrap_or(facts.cores));
    }
    facts
}

/// What the system tells of this machine, without measuring anything.
pub(crate) fn of_system() -> Facts {
    if cfg!(target_os = "macos") {
        macos::facts()
    } else {
        linux::facts()
    }
}

/// What of this machine's memory nobody uses, where the system tells it at once.
#[cfg(feature = "engine")]
pub(crate) fn available_bytes() -> Option<u64> {
    if cfg!(target_os = "macos") {
        return None;
    }
    linux::available_bytes()
}

/// What some threads were seen to read from memory.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Reading {
    threads: usize,
    gb_s: f64,
}

impl Reading {
    fn take(threads: usize) -> Option<Self> {
        let gb_s = bandwidth::read_gb_s(threads)?;
        Some(Self { threads, gb_s })
    }
}

/// A machine by what its system told, and what its owner should know of that.
pub(crate) fn machine(facts: &Facts, catalog: &Catalog) -> (Machine, Vec<String>) {
    let read = facts.read;
    let mut notes = Vec::new();
    let mut pools = Vec::new();
    for card in cards(facts, catalog) {
        let Card { name, bytes, .. } = card;
        let pool = if let Some(id) = names::find(name, Some(bytes), known(catalog, Kind::Gpu)) {
            catalog.pool(id, None)
        } else {
            notes.push(format!(
                "the catalog has no '{name}': its bandwidth is unknown, and so is its speed"
            ));
            unknown_gpu(catalog, name, bytes)
        };
        pools.extend(pool.map(|pool| card.within(pool)));
    }
    match unified(facts, catalog) {
        Some(pool) => pools.push(pool),
        None => pools.push(ram(facts, catalog, read)),
    }
    if let Some(Reading { threads, gb_s }) = read {
        let threads = match threads {
            1 => "one thread reads".to_owned(),
            many => format!("{many} threads read"),
        };
        notes.push(format!("{threads} memory at {gb_s:.1} GB/s, measured now"));
    }
    let mut machine = Machine {
        id: "this-machine".to_owned(),
        name: format!("{}, {} cores", plain(&facts.cpu), facts.cores),
        pools,
    };
    // Where the device itself was asked, it has told this limit.
    if let (Some(mib), true) = (facts.wired_limit_mib, facts.devices.is_empty()) {
        machine = machine.with_wired_limit(mib);
    }
    (machine, notes)
}

/// A GPU with a memory of its own.
#[derive(Debug, Clone, Copy)]
struct Card<'a> {
    name: &'a str,
    bytes: u64,
    /// What nobody else has of it, where that is told.
    free_bytes: Option<u64>,
}

impl Card<'_> {
    /// A pool of which others may have taken something.
    fn within(self, mut pool: Pool) -> Pool {
        if let Some(free) = self.free_bytes.filter(|free| *free < pool.limit_bytes) {
            pool.limit_reason = format!(
                "{} of {} are free now, as the device tells",
                output::bytes(free),
                output::bytes(pool.memory_bytes)
            );
            pool.limit_bytes = free;
        }
        pool
    }
}

/// The GPUs that weights can lie on: those that llama.cpp takes, in its order, where it was asked;
/// else those that drivers tell of.
fn cards<'a>(facts: &'a Facts, catalog: &Catalog) -> Vec<Card<'a>> {
    if facts.devices.is_empty() {
        let own = |gpu: &'a Gpu| {
            Some(Card {
                name: &gpu.name,
                bytes: gpu.memory_bytes?,
                free_bytes: None,
            })
        };
        return facts.gpus.iter().filter_map(own).collect();
    }
    let devices = facts.devices.iter();
    devices
        .filter(|device| device.used && device.kind == DeviceKind::Gpu)
        .filter(|device| !shares_memory(device, facts, catalog))
        .map(|device| Card {
            name: &device.description,
            bytes: device.memory_bytes,
            free_bytes: Some(device.free_bytes),
        })
        .collect()
}

/// Whether a device works on the machine's memory. CUDA and Metal call such a GPU one like others.
fn shares_memory(device: &Device, facts: &Facts, catalog: &Catalog) -> bool {
    match device.kind {
        DeviceKind::IntegratedGpu => true,
        DeviceKind::Gpu => {
            facts.apple_gpu_cores.is_some()
                || names::find(&device.description, None, known(catalog, Kind::Chip)).is_some()
        }
        DeviceKind::Cpu | DeviceKind::Accelerator => false,
    }
}

/// The one memory of a chip with a GPU in it, where that GPU computes.
fn unified(facts: &Facts, catalog: &Catalog) -> Option<Pool> {
    let mut sharing = facts.devices.iter().filter(|device| device.used);
    let sharing = sharing.find(|device| shares_memory(device, facts, catalog));
    if sharing.is_none() && !facts.devices.is_empty() {
        return None;
    }
    let names = facts
        .apple_gpu_cores
        .map(|cores| format!("{} {cores} core", facts.cpu))
        .into_iter()
        .chain(
            facts
                .gpus
                .iter()
                .filter(|gpu| gpu.memory_bytes.is_none())
                .map(|gpu| gpu.name.clone()),
        )
        .chain(sharing.map(|device| device.description.clone()))
        .chain([facts.cpu.clone()]);
    let mut found = names.filter_map(|name| names::find(&name, None, known(catalog, Kind::Chip)));
    let pool = match (found.next(), sharing) {
        (Some(id), _) => catalog.pool(id, Some(facts.memory_bytes))?,
        (None, Some(device)) => unknown_chip(device, facts, catalog),
        (None, None) => return None,
    };
    Some(match sharing {
        Some(device) => limited(pool, device, facts),
        None => pool,
    })
}

/// The machine's memory below a GPU that the catalog does not have: its speed is not known.
fn unknown_chip(device: &Device, facts: &Facts, catalog: &Catalog) -> Pool {
    Pool {
        kind: PoolKind::Unified,
        device: "unknown-gpu".to_owned(),
        device_name: device.description.clone(),
        ..ram(facts, catalog, None)
    }
}

/// A pool as its device limits it: on a Mac the device's own word, Metal's working-set limit;
/// elsewhere no more than the device reaches.
fn limited(mut pool: Pool, device: &Device, facts: &Facts) -> Pool {
    let bytes = device.memory_bytes;
    let is_metal = facts.apple_gpu_cores.is_some();
    if bytes > 0 && (is_metal || bytes < pool.limit_bytes) {
        pool.limit_bytes = bytes.min(pool.memory_bytes);
        pool.limit_reason = if is_metal {
            "Metal's working-set limit, as the device tells".to_owned()
        } else {
            format!(
                "{} are in the reach of {}",
                output::bytes(bytes),
                device.name
            )
        };
    }
    pool
}

/// The system's memory, of which a model gets what is free, less a reserve; a Mac's whose chip
/// the catalog does not have is the GPU's too.
fn ram(facts: &Facts, catalog: &Catalog, read: Option<Reading>) -> Pool {
    let (kind, family) = match facts.apple_gpu_cores {
        Some(_) => (PoolKind::Unified, "apple"),
        None => (PoolKind::Ram, "cpu"),
    };
    let free = facts.available_bytes.unwrap_or(facts.memory_bytes);
    let (limit_bytes, rule) = catalog.limit(family, "", free).unwrap_or_default();
    let limit_reason = match facts.available_bytes {
        Some(free) => format!("{} are free now; {rule}", output::bytes(free)),
        None => rule,
    };
    Pool {
        kind,
        device: "cpu".to_owned(),
        device_name: plain(&facts.cpu),
        family: family.to_owned(),
        memory_bytes: facts.memory_bytes,
        limit_bytes,
        limit_reason,
        runtime_bytes: catalog.runtime_bytes(kind, family),
        bandwidth_gb_s: read.map(|read| read.gb_s),
        fp16_tflops: None,
        fp32_tflops: None,
        calibration: None,
        note: None,
    }
}

/// A CPU's name without the signs of its maker's lawyers.
fn plain(cpu: &str) -> String {
    let words = cpu.replace("(R)", " ").replace("(TM)", " ");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A GPU that the catalog does not have: a place for weights, with no speed.
fn unknown_gpu(catalog: &Catalog, name: &str, bytes: u64) -> Option<Pool> {
    let family = if name.starts_with("AMD") {
        "amd-discrete"
    } else {
        "nvidia-consumer"
    };
    let (limit_bytes, limit_reason) = catalog.limit(family, "", bytes)?;
    Some(Pool {
        kind: PoolKind::Vram,
        device: "unknown-gpu".to_owned(),
        device_name: name.to_owned(),
        family: family.to_owned(),
        memory_bytes: bytes,
        limit_bytes,
        limit_reason,
        runtime_bytes: catalog.runtime_bytes(PoolKind::Vram, family),
        bandwidth_gb_s: None,
        fp16_tflops: None,
        fp32_tflops: None,
        calibration: None,
        note: None,
    })
}

/// The processors of the catalog that have a memory of their own, or share the machine's.
fn known(catalog: &Catalog, kind: Kind) -> impl Iterator<Item = Known<'_>> {
    let devices = catalog.devices.iter().filter(move |device| match kind {
        Kind::Gpu => device.memory_gib.is_some(),
        Kind::Chip => device.memory_gib.is_none() && device.family != "cpu",
    });
    devices.map(|device| Known {
        id: &device.id,
        name: &device.name,
        memory_bytes: device.memory_gib.map(|gib| (gib * GIB) as u64),
    })
}

/// What a program prints; `None` where there is no such program, or nothing was printed. Its exit
/// status does not count: `sysctl` fails when one of several names is not known.
fn output_of(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (!text.trim().is_empty()).then_some(text)
}
