//! `combos.toml`: named sets of machines and the links between them.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::hardware::sourced;
use super::read::{Entry, File, Row};
use crate::cluster::Cluster;
use crate::error::FitError;

/// A named set of machines.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Combo {
    /// Its machines and links; the combo's id and title are the cluster's.
    pub cluster: Cluster,
    /// What it is for, in a sentence.
    pub role: String,
    /// How the machines are cabled, in words.
    pub topology: String,
    /// Where the facts of the combo come from.
    pub sources: Vec<String>,
    /// When they were read.
    pub date: String,
}

/// A combo as it stands in the file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ComboLine {
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) role: String,
    pub(crate) topology: String,
    /// As on the command line: `4x mac-mini-m4-pro-64gb, link=tb5`.
    pub(crate) machines: String,
    /// Links that differ from the one in `machines`, by the numbers of the nodes, from 1.
    #[serde(default)]
    pub(crate) pairs: Vec<PairLine>,
    pub(crate) sources: Vec<String>,
    pub(crate) date: String,
}

/// A link between two nodes of a combo.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PairLine {
    /// One node, from 1.
    pub(crate) a: usize,
    /// The other one.
    pub(crate) b: usize,
    /// The link's id.
    pub(crate) link: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    combo: Vec<Spanned<ComboLine>>,
}

impl Entry for ComboLine {
    fn id(&self) -> &str {
        &self.id
    }
}

/// Reads the file; the machines are looked up later.
pub(crate) fn read(file: File<'_>) -> Result<Vec<Row<ComboLine>>, FitError> {
    let tables: Tables = file.parse()?;
    for entry in &tables.combo {
        let line = entry.get_ref();
        let fault = match line.sources.first() {
            Some(source) => sourced(source, &line.date),
            None => Some(("sources", "names no source".to_owned())),
        };
        if let Some((field, reason)) = fault {
            return Err(file.fault(&entry.span(), field, reason));
        }
    }
    file.rows(tables.combo)
}
