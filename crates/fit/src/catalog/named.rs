//! `names.toml`: models that are known by what decides their speed only, so that measured rows of
//! them can be used. What a plan is made for stands in `models.toml`.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::hardware::Confidence;
use super::read::{Entry, File, Row};
use crate::error::FitError;

/// A model that measured rows are about.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedModel {
    /// Its name with its size, as a row's name has it somewhere.
    pub id: String,
    /// Other names.
    #[serde(default)]
    pub names: Vec<String>,
    /// All parameters, in 10⁹.
    pub params_b: f64,
    /// Parameters that a token touches, in 10⁹; absent for a dense model.
    pub active_params_b: Option<f64>,
    /// Layers.
    pub layers: u32,
    /// Width of a hidden state.
    pub hidden: u32,
    /// Tokens of the vocabulary.
    pub vocab: u32,
    /// Whether the head is the embedding.
    #[serde(default)]
    pub tied: bool,
    /// Bytes of keys and values a token, all layers together, in 16 bits.
    pub kv_bytes: u32,
    /// Whether some layers are linear attention or state-space layers.
    #[serde(default)]
    pub recurrent: bool,
    /// Where the facts come from.
    pub source: String,
    /// How much that is worth.
    pub confidence: Confidence,
}

impl Entry for NamedModel {
    fn id(&self) -> &str {
        &self.id
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    model: Vec<Spanned<NamedModel>>,
}

/// Reads the file.
pub(crate) fn read(file: File<'_>) -> Result<Vec<Row<NamedModel>>, FitError> {
    let tables: Tables = file.parse()?;
    for entry in &tables.model {
        let model = entry.get_ref();
        let active = model.active_params_b.unwrap_or(model.params_b);
        let fault = if !(0.001..100_000.0).contains(&model.params_b) {
            Some("params_b")
        } else if !(0.001..=model.params_b).contains(&active) {
            Some("active_params_b")
        } else if !(1..=1024).contains(&model.layers) {
            Some("layers")
        } else if !(1..=131_072).contains(&model.hidden) {
            Some("hidden")
        } else if !(1..=16_777_216).contains(&model.vocab) {
            Some("vocab")
        } else if model.source.trim().is_empty() {
            Some("source")
        } else {
            None
        };
        if let Some(field) = fault {
            return Err(file.fault(&entry.span(), field, "not plausible"));
        }
    }
    file.rows(tables.model)
}
