//! The quantizations of `catalog/quantizations.toml`.

use brigade_gguf::GgmlType;
use serde::Deserialize;
use toml::Spanned;

use super::{Cell, Class, Layers, Mix, Rule, When};
use crate::catalog::read::{Entry, File, is_date};
use crate::error::FitError;
use crate::model::Format;

const FILE: &str = "quantizations.toml";
const TEXT: &str = include_str!("../../../../../catalog/quantizations.toml");

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    quantization: Vec<Spanned<Written>>,
}

/// A quantization as the file has it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    name: String,
    format: Format,
    #[serde(default)]
    production: bool,
    #[serde(default)]
    experts_only: bool,
    base: String,
    float: String,
    head: String,
    embedding: Option<String>,
    #[serde(default)]
    rules: Vec<WrittenRule>,
    source: String,
    date: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRule {
    tensor: Class,
    #[serde(default)]
    layers: Layers,
    #[serde(default)]
    when: When,
    #[serde(rename = "type")]
    cell: String,
}

impl Entry for Written {
    fn id(&self) -> &str {
        &self.id
    }
}

/// The quantizations that the binary carries.
pub fn builtin() -> Result<Vec<Mix>, FitError> {
    parse(FILE, TEXT)
}

/// Reads quantizations; an error names the line and the field.
pub fn parse(file: &str, text: &str) -> Result<Vec<Mix>, FitError> {
    let file = File::new(file, text);
    let table: Table = file.parse()?;
    let rows = file.rows(table.quantization)?;
    let mix = |row: crate::catalog::read::Row<Written>| {
        let written = &row.value;
        let cell = |field: &str, name: &str| {
            cell(name).ok_or_else(|| row.fault(field, format!("no type is called '{name}'")))
        };
        let rule = |rule: &WrittenRule| {
            let cell = cell("rules", &rule.cell)?;
            Ok(Rule {
                tensor: rule.tensor,
                layers: rule.layers,
                when: rule.when,
                cell,
            })
        };
        if !is_date(&written.date) {
            return Err(row.fault("date", format!("'{}' is no date", written.date)));
        }
        if written.source.is_empty() {
            return Err(row.fault("source", "is empty"));
        }
        let base = cell("base", &written.base)?;
        Ok(Mix {
            name: written.name.clone(),
            format: written.format,
            production: written.production,
            experts_only: written.experts_only,
            base,
            float: cell("float", &written.float)?,
            head: cell("head", &written.head)?,
            embedding: written
                .embedding
                .as_deref()
                .map_or(Ok(base), |name| cell("embedding", name))?,
            rules: written
                .rules
                .iter()
                .map(rule)
                .collect::<Result<_, FitError>>()?,
            source: written.source.clone(),
            date: written.date.clone(),
        })
    };
    rows.into_iter().map(mix).collect()
}

/// A type by name: ggml's, MLX's affine ones (`affine-4`: 64 weights with a scale and a bias of 16
/// bits each), 8-bit floats with their scales (`fp8`), or `nvfp4` (16 weights with an 8-bit scale).
fn cell(name: &str) -> Option<Cell> {
    let plain = |elements, bytes| {
        Some(Cell {
            elements,
            bytes,
            ggml: None,
        })
    };
    match name {
        "fp8" => plain(1, 1),
        "mxfp8" => plain(32, 33),
        "mxfp4" => plain(32, 17),
        "nvfp4" => plain(16, 9),
        "int4-32" => plain(32, 18),
        _ => match name.strip_prefix("affine-") {
            Some(bits) => {
                let bits: u64 = bits.parse().ok().filter(|bits| (2..=8).contains(bits))?;
                plain(64, 8 * bits + 4)
            }
            None => ggml_cell(name),
        },
    }
}

/// ggml's type of this name.
pub(super) fn ggml_cell(name: &str) -> Option<Cell> {
    let ggml = GgmlType::all().find(|kind| kind.name() == name)?;
    Some(Cell {
        elements: ggml.block_elements(),
        bytes: ggml.block_bytes(),
        ggml: Some(ggml),
    })
}
