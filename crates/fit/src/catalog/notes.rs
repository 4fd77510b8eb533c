//! `backtest.toml`: why some predictions miss.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::read::{Entry, File, Row};
use crate::error::FitError;

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
    #[serde(default)]
    miss: Vec<Spanned<MissNote>>,
}

/// Reads the file.
pub(crate) fn read(file: File<'_>) -> Result<Vec<Row<MissNote>>, FitError> {
    let tables: Tables = file.parse()?;
    file.rows(tables.miss)
}
