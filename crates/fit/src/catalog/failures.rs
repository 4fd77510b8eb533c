//! `failures.toml`: what goes wrong with clusters, and when.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::hardware::sourced;
use super::links::LinkKind;
use super::read::{Entry, File, Row};
use crate::cluster::Cluster;
use crate::error::FitError;
use crate::machine::PoolKind;
use crate::split::Split;

/// A way for a cluster to disappoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// Its id.
    pub id: String,
    /// Where it happens, in words.
    pub scope: String,
    /// What one sees.
    pub symptom: String,
    /// Why.
    pub cause: String,
    /// What to do.
    pub remedy: String,
    /// When it can happen; without conditions, always.
    #[serde(default)]
    pub applies_to: Conditions,
    /// Where it was told.
    pub source: String,
    /// When that was read.
    pub date: String,
}

/// Conditions that must all hold; an empty one holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Conditions {
    /// Some node has a processor of one of these families.
    pub families: Vec<String>,
    /// Some machine's id starts with one of these.
    pub machines: Vec<String>,
    /// Some link between nodes is of one of these kinds.
    pub links: Vec<LinkKind>,
    /// Some link can do RDMA.
    pub rdma: bool,
    /// At least this many nodes.
    pub min_nodes: usize,
    /// Some node has at least this many discrete GPUs.
    pub min_gpus: usize,
    /// It happens only with this split; for a plan to decide.
    pub splits: Vec<Split>,
    /// It happens only with this program, by its id; for a plan to decide.
    pub runtimes: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    failure: Vec<Spanned<Failure>>,
}

impl Entry for Failure {
    fn id(&self) -> &str {
        &self.id
    }
}

/// Reads the file.
pub(crate) fn read(file: File<'_>) -> Result<Vec<Row<Failure>>, FitError> {
    let tables: Tables = file.parse()?;
    for entry in &tables.failure {
        let failure = entry.get_ref();
        let empty = [
            ("scope", &failure.scope),
            ("symptom", &failure.symptom),
            ("cause", &failure.cause),
            ("remedy", &failure.remedy),
        ]
        .into_iter()
        .find(|(_, text)| text.trim().is_empty());
        let fault = empty.map(|(field, _)| (field, "is empty".to_owned()));
        let fault = fault.or_else(|| sourced(&failure.source, &failure.date));
        if let Some((field, reason)) = fault {
            return Err(file.fault(&entry.span(), field, reason));
        }
    }
    file.rows(tables.failure)
}

impl Conditions {
    /// Whether it can happen on this cluster, whatever the model and the split.
    ///
    /// `kind` tells the kind of a link by its id.
    pub(crate) fn hold(&self, cluster: &Cluster, kind: impl Fn(&str) -> Option<LinkKind>) -> bool {
        let machines = || cluster.nodes.iter().map(|node| &node.machine);
        let links = cluster.distinct_links();
        let family = machines()
            .flat_map(|machine| &machine.pools)
            .any(|pool| self.families.contains(&pool.family));
        let named = machines().any(|machine| {
            let mut prefixes = self.machines.iter();
            prefixes.any(|prefix| machine.id.starts_with(prefix.as_str()))
        });
        let linked = links
            .iter()
            .any(|link| kind(&link.id).is_some_and(|kind| self.links.contains(&kind)));
        let gpus = machines()
            .map(|machine| {
                let vram = |pool: &&crate::machine::Pool| pool.kind == PoolKind::Vram;
                machine.pools.iter().filter(vram).count()
            })
            .max();
        (self.families.is_empty() || family)
            && (self.machines.is_empty() || named)
            && (self.links.is_empty() || linked)
            && (!self.rdma || links.iter().any(|link| link.rdma.is_some()))
            && cluster.nodes.len() >= self.min_nodes
            && gpus.unwrap_or(0) >= self.min_gpus
    }
}
