//! `measurements.csv`: what was measured, by whom, with everything that a row states.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::evidence::{SourceKind, tier};
use super::read::{Entry, File, Row};
use crate::error::FitError;
use crate::evidence::Evidence;

/// A measured row, as stated; blank columns are `None`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measurement {
    /// Its id, such as `m0001`.
    pub id: String,
    /// The model, as the source names it.
    pub model: String,
    /// All parameters, in 10⁹.
    pub params_b: Option<f64>,
    /// Parameters that a token touches, in 10⁹.
    pub active_params_b: Option<f64>,
    /// The quantization, as the source names it.
    pub quant: Option<String>,
    /// Size of the file, in GiB.
    pub file_size_gib: Option<f64>,
    /// The machine or GPU, as the source names it.
    pub machine: String,
    /// GPUs of each node.
    pub gpus: Option<u32>,
    /// Memory of each node, all GPUs together, in GB as sold or GiB as seen.
    pub memory_gb: Option<f64>,
    /// Bandwidth of one GPU's memory, in 10⁹ bytes a second; `None` where two machines differ.
    pub bandwidth_gb_s: Option<f64>,
    /// Nodes.
    pub nodes: u32,
    /// The link between nodes, or between the GPUs of one.
    pub link: Option<String>,
    /// How the model was spread.
    pub split: Option<String>,
    /// The program, often with a version.
    pub runtime: String,
    /// Tokens in the cache when the measurement began.
    pub context: Option<u32>,
    /// What was computed in the prompt test, such as `pp512`.
    pub prefill_test: Option<String>,
    /// Prompt tokens a second.
    pub prefill_tok_s: Option<f64>,
    /// What was computed in the decode test, such as `tg128`.
    pub decode_test: Option<String>,
    /// Tokens a second.
    pub decode_tok_s: Option<f64>,
    /// What kind of source it is, in the source's words.
    pub source_tier: String,
    /// What that makes of it.
    pub evidence: Evidence,
    /// Where it was published.
    pub source: String,
    /// What a reader should know.
    pub note: Option<String>,
    /// The line in its file, from 1.
    pub line: usize,
}

/// A row that is known to be wrong and informs nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// The measurement's id.
    pub id: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Entry for Refusal {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Entry for Measurement {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Measurement {
    /// Whether both are one measurement: ids are unique within a file only.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.id == other.id
            && self.model == other.model
            && self.machine == other.machine
            && self.decode_tok_s == other.decode_tok_s
            && self.prefill_tok_s == other.prefill_tok_s
    }
}

/// The columns, which a file may have in any order, with others beside them.
const COLUMNS: [&str; 22] = [
    "id",
    "model",
    "params_b",
    "active_params_b",
    "quant",
    "file_size_gib",
    "machine",
    "gpu_count_per_node",
    "memory_gb_per_node",
    "mem_bandwidth_gbs",
    "nodes",
    "link",
    "split",
    "runtime",
    "context",
    "pp_test",
    "pp_tok_s",
    "tg_test",
    "tg_tok_s",
    "source_tier",
    "source",
    "note",
];

/// A row of the file.
#[derive(Deserialize)]
struct CsvRow<'a> {
    id: &'a str,
    model: &'a str,
    params_b: &'a str,
    active_params_b: &'a str,
    quant: &'a str,
    file_size_gib: &'a str,
    machine: &'a str,
    gpu_count_per_node: &'a str,
    memory_gb_per_node: &'a str,
    mem_bandwidth_gbs: &'a str,
    nodes: &'a str,
    link: &'a str,
    split: &'a str,
    runtime: &'a str,
    context: &'a str,
    pp_test: &'a str,
    pp_tok_s: &'a str,
    tg_test: &'a str,
    tg_tok_s: &'a str,
    source_tier: &'a str,
    source: &'a str,
    note: &'a str,
}

/// Reads rows in the columns of `measurements.csv`, which a contributor or a backtest gives.
///
/// `kinds` say what a source is worth; one that they do not name counts as
/// [`Evidence::Community`]. An error names the row's line and the column.
pub fn read(text: &str, file: &str, kinds: &[SourceKind]) -> Result<Vec<Measurement>, FitError> {
    let fault = |line: usize, field: &str, reason: String| FitError::Catalog {
        file: file.to_owned(),
        line,
        field: field.to_owned(),
        reason,
    };
    let mut reader = csv::ReaderBuilder::new()
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let header = reader.headers().cloned();
    let header = header.map_err(|error| fault(1, "header", error.to_string()))?;
    let missing: Vec<&str> = COLUMNS
        .into_iter()
        .filter(|column| !header.iter().any(|own| own == *column))
        .collect();
    if !missing.is_empty() {
        let reason = format!("lacks the columns {}", missing.join(", "));
        return Err(fault(1, "header", reason));
    }
    let mut record = csv::StringRecord::new();
    let mut measurements = Vec::new();
    let mut ids: HashMap<String, usize> = HashMap::new();
    loop {
        let line = reader.position().line() as usize;
        match reader.read_record(&mut record) {
            Ok(true) => {}
            Ok(false) => return Ok(measurements),
            Err(error) => return Err(fault(line, "row", error.to_string())),
        }
        let line = record.position().map_or(line, |at| {
            // Of "\r\n" the reader leaves the "\n" to the next row.
            let late = text.as_bytes().get(at.byte() as usize) == Some(&b'\n');
            at.line() as usize + usize::from(late)
        });
        let row: CsvRow<'_> = record
            .deserialize(Some(&header))
            .map_err(|error| fault(line, "row", error.to_string()))?;
        let measurement = row.measurement(line, kinds);
        let measurement = measurement.map_err(|(field, reason)| fault(line, field, reason))?;
        if let Some(before) = ids.insert(measurement.id.clone(), line) {
            let reason = format!("'{}' is the row of line {before} already", measurement.id);
            return Err(fault(line, "id", reason));
        }
        measurements.push(measurement);
    }
}

impl CsvRow<'_> {
    fn measurement(&self, line: usize, kinds: &[SourceKind]) -> Result<Measurement, Fault> {
        for (field, value) in [
            ("id", self.id),
            ("model", self.model),
            ("machine", self.machine),
        ] {
            if value.is_empty() {
                return Err((field, "is blank".to_owned()));
            }
        }
        let billions = 0.001..=100_000.0;
        let gpus = count("gpu_count_per_node", self.gpu_count_per_node, &(1..=1024))?;
        let nodes = count("nodes", self.nodes, &(1..=1024))?;
        Ok(Measurement {
            id: self.id.to_owned(),
            model: self.model.to_owned(),
            params_b: number("params_b", self.params_b, &billions)?,
            active_params_b: number("active_params_b", self.active_params_b, &billions)?,
            quant: words(self.quant),
            file_size_gib: number("file_size_gib", self.file_size_gib, &(1e-4..=1e5))?,
            machine: self.machine.to_owned(),
            gpus,
            memory_gb: number("memory_gb_per_node", self.memory_gb_per_node, &(0.1..=1e5))?,
            // "546/614" stands where two machines differ.
            bandwidth_gb_s: match self.mem_bandwidth_gbs {
                two if two.contains('/') => None,
                one => number("mem_bandwidth_gbs", one, &(1.0..=50_000.0))?,
            },
            nodes: nodes.unwrap_or(1),
            link: named(self.link),
            split: named(self.split),
            runtime: self.runtime.to_owned(),
            context: count("context", self.context, &(0..=1 << 30))?,
            prefill_test: words(self.pp_test),
            prefill_tok_s: number("pp_tok_s", self.pp_tok_s, &(0.01..=1e7))?,
            decode_test: words(self.tg_test),
            decode_tok_s: number("tg_tok_s", self.tg_tok_s, &(0.001..=1e5))?,
            source_tier: self.source_tier.to_owned(),
            evidence: tier(kinds, self.source_tier).unwrap_or(Evidence::Community),
            source: self.source.to_owned(),
            note: words(self.note),
            line,
        })
    }
}

/// A column's words; blank is `None`.
fn words(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// A column's words, where `none` says that there is none.
fn named(text: &str) -> Option<String> {
    words(text).filter(|text| text != "none")
}

/// What is wrong with a column: its name and the reason.
type Fault = (&'static str, String);

/// A column's number, within what can be true of it.
fn number(
    field: &'static str,
    text: &str,
    plausible: &RangeInclusive<f64>,
) -> Result<Option<f64>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<f64>() {
        Ok(value) if plausible.contains(&value) => Ok(Some(value)),
        Ok(value) if value > 0.0 => Err(implausible(field, text, plausible)),
        _ => Err((field, format!("'{text}' is no number above 0"))),
    }
}

/// A column's whole number, within what can be true of it.
fn count(
    field: &'static str,
    text: &str,
    plausible: &RangeInclusive<u32>,
) -> Result<Option<u32>, Fault> {
    if text.is_empty() {
        return Ok(None);
    }
    // A context may stand as 8192.0.
    match text.parse::<f64>() {
        Ok(value) if value >= 0.0 && value.fract() == 0.0 => {
            let (low, high) = (*plausible.start(), *plausible.end());
            if (f64::from(low)..=f64::from(high)).contains(&value) {
                Ok(Some(value as u32))
            } else {
                Err(implausible(field, text, plausible))
            }
        }
        _ => Err((field, format!("'{text}' is no whole number"))),
    }
}

fn implausible<T: Display>(
    field: &'static str,
    text: &str,
    plausible: &RangeInclusive<T>,
) -> Fault {
    let (low, high) = (plausible.start(), plausible.end());
    (
        field,
        format!("'{text}' is not plausible: it must be from {low} to {high}"),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tables {
    #[serde(default)]
    refused: Vec<Spanned<Refusal>>,
}

/// Reads `measurements-refused.toml`.
pub(crate) fn read_refused(file: File<'_>) -> Result<Vec<Row<Refusal>>, FitError> {
    let tables: Tables = file.parse()?;
    file.rows(tables.refused)
}
