//! `evidence.toml`: the kinds of source that measurements come from, and what each is worth.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::read::{Entry, File, Row};
use crate::error::FitError;
use crate::evidence::Evidence;

/// A kind of source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceKind {
    /// Its id.
    pub id: String,
    /// As it stands in the column `source_tier`.
    pub source_tier: String,
    /// The tier of a row from such a source.
    pub evidence: Evidence,
    /// Why.
    pub reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    source: Vec<Spanned<SourceKind>>,
}

impl Entry for SourceKind {
    fn id(&self) -> &str {
        &self.id
    }
}

/// Reads the file.
pub(crate) fn read(file: File<'_>) -> Result<Vec<Row<SourceKind>>, FitError> {
    let tables: Tables = file.parse()?;
    file.rows(tables.source)
}

/// The tier of a row whose column `source_tier` says this; the longest text that it starts with
/// decides, so that an addition in brackets needs no entry of its own.
pub(crate) fn tier(kinds: &[SourceKind], source_tier: &str) -> Option<Evidence> {
    let fitting = kinds
        .iter()
        .filter(|kind| source_tier.starts_with(kind.source_tier.as_str()));
    let best = fitting.max_by_key(|kind| kind.source_tier.len());
    best.map(|kind| kind.evidence)
}
