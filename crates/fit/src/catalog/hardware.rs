//! `hardware.toml`: processors, machines that are sold, and limits.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::read::{Entry, File, Row, is_date};
use crate::error::FitError;
use crate::machine::limit::{LimitRule, limit};
use crate::machine::{Machine, Pool, PoolKind};
use crate::memory::{Overhead, runtime_bytes};

const GIB: f64 = 1_073_741_824.0;

/// Hardware families, by which speeds are fitted and backends chosen.
pub const FAMILIES: [&str; 10] = [
    "apple",
    "nvidia-consumer",
    "nvidia-pro",
    "nvidia-datacenter",
    "nvidia-gb10",
    "amd-discrete",
    "amd-datacenter",
    "amd-apu",
    "intel-gpu",
    "cpu",
];

/// A processor: a chip with its memory beside it, a discrete GPU, or a CPU.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    /// Its id, such as `rtx-3090` or `m4-pro-20`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Other names that people write, such as `DGX Spark`.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// One of [`FAMILIES`].
    pub family: String,
    /// A discrete GPU's own memory, in GiB; none for a chip that works on the machine's memory.
    pub memory_gib: Option<f64>,
    /// Bandwidth of the memory, in 10⁹ bytes a second, of the data sheet.
    pub bandwidth_gb_s: Option<f64>,
    /// Dense 16-bit matrix throughput, in 10¹² operations a second.
    pub fp16_tflops: Option<f64>,
    /// 32-bit throughput of the shader cores, in 10¹² operations a second.
    pub fp32_tflops: Option<f64>,
    /// Where the values come from.
    pub source: String,
    /// When they were read.
    pub date: String,
    /// How much the source is worth.
    pub confidence: Confidence,
    /// What a reader should know.
    pub note: Option<String>,
}

/// How much a source is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Confidence {
    /// Several sources agree, or a primary one.
    High,
    /// A well-kept catalogue.
    Medium,
    /// One page.
    Low,
}

/// A machine of the catalog, of one memory size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SoldMachine {
    /// The machine, with its pools.
    pub machine: Machine,
    /// Its id without the size.
    pub line: String,
    /// Ids of the links that it has ports for.
    pub links: Vec<String>,
    /// Whether its ports can do RDMA.
    pub rdma: bool,
    /// Where the facts come from.
    pub source: String,
    /// When they were read.
    pub date: String,
    /// What a reader should know.
    pub note: Option<String>,
}

/// A machine as it stands in the file: one entry for all its memory sizes.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MachineLine {
    id: String,
    name: String,
    device: String,
    #[serde(default)]
    gpus: Vec<String>,
    memory_gib: Vec<u32>,
    links: Vec<String>,
    #[serde(default)]
    rdma: bool,
    source: String,
    date: String,
    note: Option<String>,
}

/// The file's tables.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    device: Vec<Spanned<Device>>,
    #[serde(default)]
    machine: Vec<Spanned<MachineLine>>,
    #[serde(default)]
    limit: Vec<Spanned<LimitRule>>,
}

/// What the file holds.
pub(crate) struct Hardware {
    pub(crate) devices: Vec<Row<Device>>,
    pub(crate) lines: Vec<Row<MachineLine>>,
    pub(crate) limits: Vec<Row<LimitRule>>,
}

impl Entry for Device {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Entry for MachineLine {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Device {
    /// Whether it is a discrete GPU, with a memory of its own.
    pub fn is_gpu(&self) -> bool {
        self.memory_gib.is_some()
    }

    /// Its memory as a pool; `bytes` where the memory is the machine's. `None` where no limit is
    /// known for its family.
    pub(crate) fn pool(
        &self,
        bytes: Option<u64>,
        limits: &[LimitRule],
        overheads: &[Overhead],
    ) -> Option<Pool> {
        let own = self.memory_gib.map(|gib| (gib * GIB) as u64);
        let memory_bytes = own.or(bytes)?;
        let kind = match (own, self.family.as_str()) {
            (Some(_), _) => PoolKind::Vram,
            (None, "cpu") => PoolKind::Ram,
            (None, _) => PoolKind::Unified,
        };
        let limit = limit(limits, &self.family, &self.id, memory_bytes)?;
        Some(Pool {
            kind,
            device: self.id.clone(),
            device_name: self.name.clone(),
            family: self.family.clone(),
            memory_bytes,
            limit_bytes: limit.bytes,
            limit_reason: limit.reason,
            runtime_bytes: runtime_bytes(overheads, kind, &self.family),
            bandwidth_gb_s: self.bandwidth_gb_s,
            fp16_tflops: self.fp16_tflops,
            fp32_tflops: self.fp32_tflops,
            calibration: None,
            note: self.caution(),
        })
    }

    /// Its note, and that its values are those of one page only where they are.
    fn caution(&self) -> Option<String> {
        let one_page = (self.confidence == Confidence::Low && self.bandwidth_gb_s.is_some())
            .then(|| "its bandwidth and throughput are stated by one page only".to_owned());
        match (self.note.clone(), one_page) {
            (Some(note), Some(one_page)) => Some(format!("{note}; {one_page}")),
            (note, one_page) => note.or(one_page),
        }
    }

    /// What is wrong with the values, if anything: the field and the reason.
    fn fault(&self) -> Option<(&'static str, String)> {
        let outside = |value: Option<f64>, low: f64, high: f64| {
            value.is_some_and(|value| !(low..=high).contains(&value))
        };
        let positive = "not plausible".to_owned();
        if !FAMILIES.contains(&self.family.as_str()) {
            let near = crate::nearest::nearest(&self.family, FAMILIES.into_iter());
            let near = if near.is_empty() {
                &FAMILIES.map(String::from)[..]
            } else {
                &near
            };
            return Some((
                "family",
                format!("no such family; one of {}", near.join(", ")),
            ));
        }
        if outside(self.memory_gib, 0.5, 1024.0) {
            return Some(("memory_gib", positive));
        }
        if outside(self.bandwidth_gb_s, 1.0, 50_000.0) {
            return Some(("bandwidth_gb_s", positive));
        }
        if outside(self.fp16_tflops, 0.01, 50_000.0) {
            return Some(("fp16_tflops", positive));
        }
        if outside(self.fp32_tflops, 0.01, 1_000.0) {
            return Some(("fp32_tflops", positive));
        }
        sourced(&self.source, &self.date)
    }
}

/// What is wrong with a source or a date, if anything.
pub(crate) fn sourced(source: &str, date: &str) -> Option<(&'static str, String)> {
    if source.trim().is_empty() {
        return Some(("source", "is empty".into()));
    }
    (!is_date(date)).then(|| ("date", format!("'{date}' is no day such as 2026-11-24")))
}

/// Reads the file.
pub(crate) fn read(file: File<'_>) -> Result<Hardware, FitError> {
    let tables: Tables = file.parse()?;
    for entry in &tables.device {
        if let Some((field, reason)) = entry.get_ref().fault() {
            return Err(file.fault(&entry.span(), field, reason));
        }
    }
    for entry in &tables.limit {
        let rule = entry.get_ref();
        let fault = rule.fault().or_else(|| sourced(&rule.source, &rule.date));
        if let Some((field, reason)) = fault {
            return Err(file.fault(&entry.span(), field, reason));
        }
    }
    for entry in &tables.machine {
        let line = entry.get_ref();
        let sizes = &line.memory_gib;
        if sizes.is_empty() || sizes.iter().any(|gib| !(1..=16_384).contains(gib)) {
            return Err(file.fault(&entry.span(), "memory_gib", "no plausible memory size"));
        }
        if let Some((field, reason)) = sourced(&line.source, &line.date) {
            return Err(file.fault(&entry.span(), field, reason));
        }
    }
    Ok(Hardware {
        devices: file.rows(tables.device)?,
        lines: file.rows(tables.machine)?,
        limits: file.rows(tables.limit)?,
    })
}

impl Hardware {
    /// Every machine in every size, its pools with their limits.
    pub(crate) fn machines(&self, overheads: &[Overhead]) -> Result<Vec<SoldMachine>, FitError> {
        let limits: Vec<LimitRule> = self.limits.iter().map(|row| row.value.clone()).collect();
        let mut machines = Vec::new();
        for row in &self.lines {
            for gib in &row.value.memory_gib {
                machines.push(self.machine(row, *gib, &limits, overheads)?);
            }
        }
        Ok(machines)
    }

    fn machine(
        &self,
        row: &Row<MachineLine>,
        gib: u32,
        limits: &[LimitRule],
        overheads: &[Overhead],
    ) -> Result<SoldMachine, FitError> {
        let line = &row.value;
        let bytes = u64::from(gib) << 30;
        let gpus = line.gpus.iter().map(|gpu| ("gpus", gpu));
        let mut pools = Vec::with_capacity(gpus.len() + 1);
        for (field, id) in gpus.chain([("device", &line.device)]) {
            let device = self.devices.iter().find(|device| device.value.id == *id);
            let device = device.ok_or_else(|| {
                let valid = self.devices.iter().map(|device| device.value.id.as_str());
                row.dangling(field, id, valid)
            })?;
            if (field == "gpus") != device.value.is_gpu() {
                return Err(row.fault(field, format!("'{id}' is of the other kind")));
            }
            let pool = device.value.pool(Some(bytes), limits, overheads);
            let pool = pool.ok_or_else(|| {
                let family = &device.value.family;
                row.fault(field, format!("no limit is known for the family {family}"))
            })?;
            pools.push(pool);
        }
        Ok(SoldMachine {
            machine: Machine {
                id: format!("{}-{gib}gb", line.id),
                name: format!("{} {gib} GB", line.name),
                pools,
            },
            line: line.id.clone(),
            links: line.links.clone(),
            rdma: line.rdma,
            source: line.source.clone(),
            date: line.date.clone(),
            note: line.note.clone(),
        })
    }
}
