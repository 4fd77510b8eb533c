//! Models of the catalog: the keys of their `config.json`, what is published of them, and the
//! sizes of their files.

use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;

use super::read::{Entry, File, Row, is_date};
use crate::error::FitError;
use crate::model::Model;
use crate::model::config::Facts;
use crate::model::mix::Mix;

/// No model has more parameters, in 10⁹.
const MAX_PARAMS_B: f64 = 100_000.0;

/// A file of models.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    model: Vec<Spanned<Written>>,
}

/// A model as the file has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Written {
    id: String,
    name: String,
    repo: Option<String>,
    #[serde(default)]
    aliases: Vec<String>,
    /// What the vendor states, in 10⁹; the lint compares it with what the config's widths give.
    params_b: Option<f64>,
    active_params_b: Option<f64>,
    /// What the published number has in it besides the language model: vision, draft layers.
    params_include: Option<String>,
    /// Bytes that a file's sum has besides the language model: the vision tower.
    #[serde(default)]
    vision_bytes: u64,
    /// Names of the quantizations that people serve; absent: those of `quantizations.toml`.
    production: Option<Vec<String>>,
    /// Facts that decide and are not known.
    #[serde(default)]
    missing: Vec<String>,
    /// Keys of the `config.json`.
    config: toml::Table,
    #[serde(default)]
    file: Vec<WrittenFile>,
    source: String,
    date: String,
    /// Where sources differ, and which is taken.
    note: Option<String>,
}

/// A published file's sum.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WrittenFile {
    quant: String,
    bytes: u64,
    source: String,
}

impl Entry for Written {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Written {
    /// The keys of the `config.json`, as it would have them.
    fn config(&self) -> Map<String, Value> {
        match serde_json::to_value(&self.config) {
            Ok(Value::Object(map)) => map,
            // A table with names is an object.
            _ => Map::new(),
        }
    }

    /// What is wrong with the numbers, if anything: the field and the reason.
    fn fault(&self) -> Option<(&str, &'static str)> {
        let outside = |value: Option<f64>, most: f64| {
            value.is_some_and(|value| !(0.001..=most).contains(&value))
        };
        let most = self.params_b.unwrap_or(MAX_PARAMS_B);
        if outside(self.params_b, MAX_PARAMS_B) {
            return Some(("params_b", "not plausible"));
        }
        if outside(self.active_params_b, most) {
            return Some(("active_params_b", "not plausible"));
        }
        // JSON has no such numbers: the key would pass for one that is not there.
        not_finite(&self.config).map(|key| (key, "not finite"))
    }
}

/// The first key with a number that is not finite, at any depth.
fn not_finite(table: &toml::Table) -> Option<&str> {
    fn inside<'a>(key: &'a str, value: &'a toml::Value) -> Option<&'a str> {
        match value {
            toml::Value::Float(number) => (!number.is_finite()).then_some(key),
            toml::Value::Array(list) => list.iter().find_map(|value| inside(key, value)),
            toml::Value::Table(table) => not_finite(table),
            _ => None,
        }
    }
    table.iter().find_map(|(key, value)| inside(key, value))
}

/// Reads a file's models.
pub(crate) fn read(file: File<'_>) -> Result<Vec<Row<Written>>, FitError> {
    let table: Table = file.parse()?;
    for entry in &table.model {
        if let Some((field, reason)) = entry.get_ref().fault() {
            return Err(file.fault(&entry.span(), field, reason));
        }
    }
    file.rows(table.model)
}

/// The models of rows, with all quantizations that `mixes` has for them.
pub(crate) fn models(rows: &[Row<Written>], mixes: &[Mix]) -> Result<Vec<Model>, FitError> {
    rows.iter().map(|row| model(row, mixes)).collect()
}

fn model(row: &Row<Written>, mixes: &[Mix]) -> Result<Model, FitError> {
    let written = &row.value;
    if !is_date(&written.date) {
        return Err(row.fault("date", format!("'{}' is no date", written.date)));
    }
    for (field, text) in [("source", &written.source), ("name", &written.name)] {
        if text.trim().is_empty() {
            return Err(row.fault(field, "is empty"));
        }
    }
    let facts = Facts::read(&written.config());
    let mut facts = facts.map_err(|error| row.fault("config", error.to_string()))?;
    facts.missing.extend(written.missing.iter().cloned());
    let mut model = facts.into_model(&written.id, mixes);
    let params = model.params;
    for file in &written.file {
        let near = || {
            row.dangling(
                "file.quant",
                &file.quant,
                mixes.iter().map(|mix| mix.name.as_str()),
            )
        };
        if !mixes.iter().any(|mix| mix.name == file.quant) {
            return Err(near());
        }
        let bytes = file
            .bytes
            .checked_sub(written.vision_bytes)
            .filter(|bytes| *bytes > 0);
        let bytes =
            bytes.ok_or_else(|| row.fault("file.bytes", "is no more than the vision tower"))?;
        model.quants = model
            .quants
            .into_iter()
            .map(|quant| {
                if quant.name == file.quant {
                    quant.with_total(bytes, params, &file.source)
                } else {
                    quant
                }
            })
            .collect();
    }
    // Best known first; the order of the mixes within.
    model.quants.sort_by_key(|quant| quant.exactness as u8);
    if let Some(names) = &written.production {
        let unknown = names
            .iter()
            .find(|name| !mixes.iter().any(|mix| mix.name == **name));
        if let Some(name) = unknown {
            return Err(row.dangling(
                "production",
                name,
                mixes.iter().map(|mix| mix.name.as_str()),
            ));
        }
        model.production.clone_from(names);
    }
    model.name.clone_from(&written.name);
    model.repo.clone_from(&written.repo);
    model.aliases.clone_from(&written.aliases);
    model.source.clone_from(&written.source);
    model.date.clone_from(&written.date);
    model.note.clone_from(&written.note);
    Ok(model)
}

#[cfg(test)]
mod tests;
