//! `backtest.toml`: what is known of pipelines from publications, and why some predictions miss.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::read::{Entry, File, Row};
use crate::error::FitError;

/// What the backtest needs besides measurements.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Notes {
    /// Pipelines over nodes.
    pub pipeline: Pipeline,
    /// Misses that can be explained.
    pub misses: Vec<MissNote>,
}

/// What published pipelines over nodes say.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipeline {
    /// What a hop between nodes takes a token, in milliseconds.
    pub hop_ms: f64,
    /// The least and the most that was published.
    pub range_ms: [f64; 2],
    /// Where it comes from.
    pub source: String,
}

/// Why a prediction is far off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissNote {
    /// The measurement's id.
    pub id: String,
    /// Why, in a sentence.
    pub why: String,
}

impl Entry for MissNote {
    fn id(&self) -> &str {
        &self.id
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    pipeline: Option<Spanned<Pipeline>>,
    #[serde(default)]
    miss: Vec<Spanned<MissNote>>,
}

/// Reads the file.
pub(crate) fn read(file: File<'_>) -> Result<(Option<Pipeline>, Vec<Row<MissNote>>), FitError> {
    let tables: Tables = file.parse()?;
    let pipeline = match tables.pipeline {
        Some(entry) if !(0.0..1000.0).contains(&entry.get_ref().hop_ms) => {
            return Err(file.fault(&entry.span(), "hop_ms", "not plausible"));
        }
        entry => entry.map(Spanned::into_inner),
    };
    Ok((pipeline, file.rows(tables.miss)?))
}
