//! What a node says of its machine, as the text that daemons carry, and what it was measured to do.

use std::fs;
use std::path::Path;

use anyhow::Context;
use brigade_fit::catalog::Catalog;
use brigade_fit::machine::{Machine, PoolKind};
use brigade_fit::speed::calibration::Calibration;
use brigade_node::{Amount, Held};
use serde::{Deserialize, Serialize};

use crate::devices;
use crate::this_machine::devices::{Device, DeviceKind};
use crate::this_machine::{self, Facts};

/// A change of free memory below this is none, in bytes.
const MEMORY_STEP: u64 = 128 << 20;

/// A change of free disk space below this is none, in bytes.
const DISK_STEP: u64 = 1 << 30;

/// What a node says of its machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct About {
    /// As its system tells; what stages of this program hold counts as free.
    pub(crate) facts: Facts,
    /// Processes that wanted to run, on average of the last minute.
    pub(crate) load: Option<f64>,
    /// Free where stage files are kept.
    pub(crate) disk_free_bytes: Option<u64>,
    /// What it was measured to do, by threads.
    pub(crate) calibrations: Vec<Calibration>,
    /// It is being measured.
    #[serde(default)]
    pub(crate) calibrating: bool,
}

impl About {
    /// Looks at this machine.
    pub(crate) fn look(catalog: &Catalog) -> Self {
        Self {
            facts: facts(catalog, None),
            ..Self::default()
        }
    }

    /// Looks at the GPUs again, if stages compute on any: others may take their memory, or give it
    /// back. `held` is what of it stages have.
    pub(crate) fn look_at_gpus(&mut self, held: &[Held], catalog: &Catalog) {
        let is_gpu = |device: &Device| device.used && device.kind != DeviceKind::Cpu;
        if self.facts.devices.iter().any(is_gpu) {
            self.facts.ask_devices();
            self.count_as_free(held, catalog);
        }
    }

    /// Counts as free what stages of this program hold of the GPUs.
    fn count_as_free(&mut self, held: &[Held], catalog: &Catalog) {
        let (machine, _) = this_machine::machine(&self.facts, catalog);
        let cards = machine.pool_names().into_iter().zip(&machine.pools);
        let cards = cards.filter(|(_, pool)| pool.kind == PoolKind::Vram);
        // Pools are in the order of the devices.
        let devices = self.facts.devices.iter_mut();
        let devices = devices.filter(|device| device.used && device.kind == DeviceKind::Gpu);
        for (device, (name, _)) in devices.zip(cards) {
            let own = held
                .iter()
                .filter(|held| held.loaded && held.amount.pool == name);
            let own: u64 = own.map(|held| held.amount.bytes).sum();
            device.free_bytes = (device.free_bytes + own).min(device.memory_bytes);
        }
    }

    /// Looks again at what changes; `held` is what of its memory stages have.
    pub(crate) fn refresh(&mut self, held: &[Held], cache: &Path, home: &Path) {
        let own = held.iter().filter(|held| held.loaded);
        // Names of other pools stand for memory of their own, or for a share of this one.
        let own: u64 = own
            .filter(|held| held.amount.pool == "cpu")
            .map(|held| held.amount.bytes)
            .sum();
        let free = this_machine::available_bytes();
        self.facts.available_bytes = free.map(|free| (free + own).min(self.facts.memory_bytes));
        let devices = self.facts.devices.iter_mut();
        for cpu in devices.filter(|device| device.kind == DeviceKind::Cpu) {
            cpu.free_bytes = self.facts.available_bytes.unwrap_or(cpu.free_bytes);
        }
        self.load = fs::read_to_string("/proc/loadavg")
            .ok()
            .and_then(|text| text.split_whitespace().next()?.parse().ok());
        self.disk_free_bytes = disk_free_bytes(cache);
        self.calibrations = Calibrations::of(home, &self.facts);
    }

    /// Whether others need not hear of the difference.
    pub(crate) fn is_like(&self, other: &Self) -> bool {
        let near = |one: Option<u64>, other: Option<u64>, step: u64| match (one, other) {
            (Some(one), Some(other)) => one.abs_diff(other) < step,
            (one, other) => one == other,
        };
        let load = |about: &Self| about.load.unwrap_or(0.0);
        near(
            self.facts.available_bytes,
            other.facts.available_bytes,
            MEMORY_STEP,
        ) && near(self.disk_free_bytes, other.disk_free_bytes, DISK_STEP)
            && (load(self) - load(other)).abs() < 0.5
            && are_like(&self.facts.devices, &other.facts.devices)
            && self.facts.devices_trouble == other.facts.devices_trouble
            && self.calibrations == other.calibrations
            && self.calibrating == other.calibrating
    }

    /// The machine for the planner; what was measured holds for as many threads only.
    pub(crate) fn machine(&self, catalog: &Catalog, threads: Option<u32>) -> Machine {
        let (mut machine, _) = this_machine::machine(&self.facts, catalog);
        calibrate(&mut machine, self.calibration(threads).cloned());
        machine
    }

    /// What it was measured to do with so many threads, or with one on each core.
    pub(crate) fn calibration(&self, threads: Option<u32>) -> Option<&Calibration> {
        let threads = threads.unwrap_or(self.facts.cores as u32);
        self.calibrations.iter().find(|own| own.threads == threads)
    }

    /// What models may take of each pool.
    pub(crate) fn limits(&self, catalog: &Catalog) -> Vec<Amount> {
        let machine = self.machine(catalog, None);
        let pools = machine.pool_names().into_iter().zip(&machine.pools);
        pools
            .map(|(pool, own)| Amount {
                pool,
                bytes: own.limit_bytes,
            })
            .collect()
    }

    /// Memory of it that a model can lie in at best.
    pub(crate) fn largest_pool(&self, catalog: &Catalog) -> Option<(String, u64)> {
        let machine = self.machine(catalog, None);
        let pools = machine.pool_names().into_iter().zip(&machine.pools);
        let (name, pool) = pools.max_by_key(|(_, pool)| {
            (
                pool.kind != PoolKind::Ram || machine.pools.len() == 1,
                pool.limit_bytes,
            )
        })?;
        Some((name, pool.limit_bytes))
    }
}

/// What the system and ggml tell of this machine.
pub(crate) fn facts(catalog: &Catalog, threads: Option<usize>) -> Facts {
    let mut facts = this_machine::facts(catalog, threads);
    facts.ask_devices();
    facts
}

impl Facts {
    /// Asks ggml for the devices; where it cannot tell, those that are known stay.
    pub(crate) fn ask_devices(&mut self) {
        match devices::ask() {
            Ok(devices) => {
                self.devices = devices;
                self.devices_trouble = None;
            }
            Err(error) => {
                tracing::warn!(%error, "the devices are not known");
                self.devices_trouble = Some(format!("{error:#}"));
            }
        }
    }
}

/// Whether devices are the same, with about as much memory free. The processor's is the system's to
/// tell.
fn are_like(one: &[Device], other: &[Device]) -> bool {
    let pairs = || one.iter().zip(other);
    let same = |(one, other): (&Device, &Device)| {
        let free = one.free_bytes.abs_diff(other.free_bytes);
        (&one.name, one.used) == (&other.name, other.used)
            && (one.kind == DeviceKind::Cpu || free < MEMORY_STEP)
    };
    one.len() == other.len() && pairs().all(same)
}

#[cfg(unix)]
fn disk_free_bytes(folder: &Path) -> Option<u64> {
    // The folder may not be there yet.
    let known = folder.ancestors().find(|folder| folder.exists())?;
    let stat = rustix::fs::statvfs(known).ok()?;
    Some(stat.f_bavail * stat.f_frsize)
}

#[cfg(not(unix))]
fn disk_free_bytes(_folder: &Path) -> Option<u64> {
    None
}

/// The file with what this machine was measured to do: for this hardware and this build of
/// llama.cpp only.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Calibrations {
    hardware: String,
    build: String,
    by_threads: Vec<Calibration>,
}

impl Calibrations {
    /// What was measured with this hardware and build.
    pub(crate) fn of(home: &Path, facts: &Facts) -> Vec<Calibration> {
        let text = fs::read_to_string(home.join(CALIBRATION)).unwrap_or_default();
        let known: Self = serde_json::from_str(&text).unwrap_or_default();
        if known.hardware == hardware(facts) && known.build == brigade_llama::build() {
            known.by_threads
        } else {
            Vec::new()
        }
    }

    /// Adds what was just measured, in place of what was measured before with as many threads.
    pub(crate) fn keep(home: &Path, facts: &Facts, new: &Calibration) -> anyhow::Result<()> {
        let mut by_threads = Self::of(home, facts);
        by_threads.retain(|known| known.threads != new.threads);
        by_threads.push(new.clone());
        let all = Self {
            hardware: hardware(facts),
            build: brigade_llama::build(),
            by_threads,
        };
        let path = home.join(CALIBRATION);
        brigade_node::write_private(&path, &serde_json::to_vec_pretty(&all)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Lets the planner know what a machine was measured to do. llama.cpp computed where it computes by
/// itself: on the fastest device.
pub(crate) fn calibrate(machine: &mut Machine, calibration: Option<Calibration>) {
    if let Some(pool) = machine.pools.first_mut() {
        pool.calibration = calibration;
    }
}

/// What is known of this machine with so many threads.
pub(crate) fn calibration(home: &Path, facts: &Facts, threads: u32) -> Option<Calibration> {
    let known = Calibrations::of(home, facts);
    known.into_iter().find(|own| own.threads == threads)
}

const CALIBRATION: &str = "calibration.json";

fn hardware(facts: &Facts) -> String {
    let told = facts.gpus.iter().map(|gpu| gpu.name.as_str());
    let used = facts.devices.iter().filter(|device| device.used);
    let used = used.filter(|device| device.kind != DeviceKind::Cpu);
    let gpus = told.chain(used.map(|device| device.name.as_str()));
    let gpus = gpus.map(|name| format!(" + {name}"));
    let gib = facts.memory_bytes >> 30;
    format!(
        "{}, {} cores, {gib} GiB{}",
        facts.cpu,
        facts.cores,
        gpus.collect::<String>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(free: u64) -> About {
        About {
            facts: Facts {
                cpu: "Some CPU".into(),
                cores: 4,
                memory_bytes: 16 << 30,
                available_bytes: Some(free),
                ..Facts::default()
            },
            ..About::default()
        }
    }

    fn calibration(threads: u32) -> Calibration {
        Calibration {
            threads,
            step_ms: 0.1,
            layer_ms: 0.1,
            kv_gb_s: 1.0,
            vocabulary_ms: 0.1,
            types: Vec::new(),
            checks: Vec::new(),
        }
    }

    #[test]
    fn small_changes_are_none() {
        let before = about(8 << 30);
        assert!(before.is_like(&about((8 << 30) + (64 << 20))));
        assert!(!before.is_like(&about(7 << 30)));
        let mut calibrated = before.clone();
        calibrated.calibrations.push(calibration(4));
        assert!(!before.is_like(&calibrated));
    }

    #[test]
    fn what_was_measured_holds_for_its_threads_and_its_hardware() {
        let home = tempfile::tempdir().unwrap();
        let mut about = about(8 << 30);
        for threads in [2, 4, 2] {
            Calibrations::keep(home.path(), &about.facts, &calibration(threads)).unwrap();
        }
        about.calibrations = Calibrations::of(home.path(), &about.facts);
        assert_eq!(about.calibrations.len(), 2);
        let catalog = Catalog::embedded().unwrap();
        let threads = |threads| {
            let machine = about.machine(&catalog, threads);
            machine.pools[0].calibration.as_ref().map(|own| own.threads)
        };
        assert_eq!(
            (threads(None), threads(Some(2)), threads(Some(3))),
            (Some(4), Some(2), None)
        );
        let mut other = about.facts.clone();
        other.cores = 8;
        assert!(Calibrations::of(home.path(), &other).is_empty());
    }

    #[test]
    fn what_stages_hold_of_a_gpu_counts_as_free() {
        let catalog = Catalog::embedded().unwrap();
        let card = |name: &str| Device {
            name: name.to_owned(),
            description: "NVIDIA GeForce RTX 3090".to_owned(),
            kind: DeviceKind::Gpu,
            bus_id: None,
            memory_bytes: 24 << 30,
            free_bytes: 10 << 30,
            used: true,
        };
        let mut about = about(8 << 30);
        about.facts.devices = vec![card("CUDA0"), card("CUDA1")];
        let held = |pool: &str, gib: u64, loaded| Held {
            model: "m".to_owned(),
            coordinator: "a".to_owned(),
            amount: Amount {
                pool: pool.to_owned(),
                bytes: gib << 30,
            },
            loaded,
        };
        let before = about.clone();
        let held = [
            held("rtx-3090-2", 8, true),
            held("rtx-3090-1", 8, false),
            held("cpu", 9, true),
        ];
        about.count_as_free(&held, &catalog);
        let free = |index: usize| about.facts.devices[index].free_bytes >> 30;
        assert_eq!((free(0), free(1)), (10, 18));
        assert!(!about.is_like(&before));
        let limits = about.limits(&catalog);
        assert_eq!(limits[1].bytes >> 30, 18);
    }

    #[test]
    fn text_and_back() {
        let about = about(8 << 30);
        let text = serde_json::to_string(&about).unwrap();
        assert_eq!(serde_json::from_str::<About>(&text).unwrap(), about);
    }
}
