//! `runtimes.toml`: programs that run models, and what each can do on a cluster.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::Catalog;
use super::hardware::sourced;
use super::read::{Entry, File, Row};
use crate::cluster::Cluster;
use crate::error::FitError;
use crate::model::Format;
use crate::placement::HOP_SOFTWARE_MS;
use crate::program::Program;
use crate::split::Split;

/// Ways for a program to use a processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Backend {
    /// Apple GPUs.
    Metal,
    /// NVIDIA GPUs.
    Cuda,
    /// AMD GPUs.
    Rocm,
    /// Any GPU but Apple's.
    Vulkan,
    /// Intel GPUs.
    Sycl,
    /// Any CPU.
    Cpu,
}

/// A program that runs models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// Its id, such as `llama.cpp-rpc`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// How it can spread a model.
    pub splits: Vec<Split>,
    /// Which processors it can use.
    pub backends: Vec<Backend>,
    /// Which files it reads; empty for a format of its own.
    pub formats: Vec<Format>,
    /// What it reads, in words, where that says more.
    pub formats_note: Option<String>,
    /// Which links it works over, in words.
    pub links: String,
    /// Whether it can use several machines.
    pub several_machines: bool,
    /// Whether all nodes must be alike.
    #[serde(default)]
    pub alike: bool,
    /// Whether the number of nodes must be a power of two.
    #[serde(default)]
    pub power_of_two: bool,
    /// What a hop of its pipelines takes a token beside the link's latency, in milliseconds, where
    /// that was published.
    pub hop_ms: Option<f64>,
    /// Where that comes from.
    pub hop_source: Option<String>,
    /// What a user should know, in a sentence.
    pub note: String,
    /// Where the facts come from.
    pub source: String,
    /// When they were read.
    pub date: String,
}

/// Whether a program can use a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuntimeFit {
    /// The program's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it can use all of the cluster.
    pub can: bool,
    /// Why, or why not, in a sentence.
    pub reason: String,
    /// How it could spread a model over this cluster.
    pub splits: Vec<Split>,
    /// What a user should know.
    pub note: String,
    /// Where the facts come from.
    pub source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    runtime: Vec<Spanned<Runtime>>,
}

impl Entry for Runtime {
    fn id(&self) -> &str {
        &self.id
    }
}

/// Reads the file.
pub(crate) fn read(file: File<'_>) -> Result<Vec<Row<Runtime>>, FitError> {
    let tables: Tables = file.parse()?;
    for entry in &tables.runtime {
        let runtime = entry.get_ref();
        let fault = if runtime.splits.is_empty() {
            Some(("splits", "names no way to run a model".to_owned()))
        } else if runtime.backends.is_empty() {
            Some(("backends", "names no backend".to_owned()))
        } else if runtime
            .hop_ms
            .is_some_and(|ms| !(0.0..1000.0).contains(&ms))
        {
            Some(("hop_ms", "not plausible".to_owned()))
        } else if runtime.hop_ms.is_some() != runtime.hop_source.is_some() {
            Some(("hop_source", "goes with hop_ms".to_owned()))
        } else {
            sourced(&runtime.source, &runtime.date)
        };
        if let Some((field, reason)) = fault {
            return Err(file.fault(&entry.span(), field, reason));
        }
    }
    file.rows(tables.runtime)
}

impl Catalog {
    /// What a hop between nodes takes in a program beside the link, in milliseconds: Brigade's own
    /// as measured, another's as published, else Brigade's.
    pub fn hop_software_ms(&self, program: Program) -> f64 {
        let mut runtimes = self.runtimes.iter();
        let runtime = runtimes.find(|runtime| runtime.id == program.id());
        runtime
            .and_then(|runtime| runtime.hop_ms)
            .unwrap_or(HOP_SOFTWARE_MS)
    }
}

impl Backend {
    /// Whether it can use processors of this family.
    pub fn runs_on(self, family: &str) -> bool {
        match self {
            Self::Metal => family == "apple",
            Self::Cuda => family.starts_with("nvidia"),
            Self::Rocm => family.starts_with("amd"),
            Self::Vulkan => !matches!(family, "apple" | "cpu"),
            Self::Sycl => family == "intel-gpu",
            Self::Cpu => family == "cpu",
        }
    }
}

impl Runtime {
    /// Whether it can use every node of the cluster, and why.
    pub fn on(&self, cluster: &Cluster) -> RuntimeFit {
        let reason = self.obstacle(cluster);
        let several = cluster.nodes.len() > 1;
        let spreads = |split: &Split| several || matches!(split, Split::OneNode);
        let splits: Vec<Split> = self.splits.iter().copied().filter(spreads).collect();
        RuntimeFit {
            id: self.id.clone(),
            name: self.name.clone(),
            can: reason.is_none(),
            splits: if reason.is_some() { Vec::new() } else { splits },
            reason: reason.unwrap_or_else(|| self.ability(several)),
            note: self.note.clone(),
            source: self.source.clone(),
        }
    }

    /// The name of a device that it has no backend for, the first in the order of the nodes.
    pub fn foreign_device<'a>(&self, cluster: &'a Cluster) -> Option<&'a str> {
        let used = |family: &str| self.backends.iter().any(|backend| backend.runs_on(family));
        let mut pools = cluster
            .nodes
            .iter()
            .filter_map(|node| node.machine.pools.first());
        let foreign = pools.find(|pool| !used(&pool.family));
        foreign.map(|pool| pool.device_name.as_str())
    }

    fn ability(&self, several: bool) -> String {
        if several {
            format!("uses all nodes over {}", self.links)
        } else {
            "runs on this machine".to_owned()
        }
    }

    /// What keeps it from using the whole cluster.
    fn obstacle(&self, cluster: &Cluster) -> Option<String> {
        let nodes = cluster.nodes.len();
        if let Some(device) = self.foreign_device(cluster) {
            return Some(format!("has no backend for {device}"));
        }
        if nodes > 1 && !self.several_machines {
            return Some(
                "runs on one machine only; a copy on each can serve more users".to_owned(),
            );
        }
        if nodes > 1 && self.power_of_two && !nodes.is_power_of_two() {
            return Some(format!(
                "needs 2, 4, 8 or more nodes by doubling, not {nodes}"
            ));
        }
        let first = cluster.nodes.first().map(|node| &node.machine.pools);
        if self.alike
            && cluster
                .nodes
                .iter()
                .any(|node| Some(&node.machine.pools) != first)
        {
            return Some("needs nodes that are all alike".to_owned());
        }
        None
    }
}
