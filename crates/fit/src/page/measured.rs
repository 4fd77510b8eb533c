//! What was measured on the chips of a cluster, row by row: the evidence itself, with its sources.

use std::cmp::Reverse;

use serde::Serialize;

use super::doc::{Block, Cell, Row, Section, Table};
use super::format::{and, brief, count, sentence, tokens};
use crate::catalog::Catalog;
use crate::catalog::measurements::Measurement;
use crate::cluster::Cluster;
use crate::machine::Pool;
use crate::rows::{About, Features, Reader};

/// Rows that a page shows; JSON has all.
const SHOWN: usize = 16;

/// Rates of one setting contradict each other from this factor on.
const UNLIKE: f64 = 1.25;

/// Tokens in the cache make as little difference as this many more or fewer.
const FEW_TOKENS: f64 = 512.0;

/// A measured row beside what the formula makes of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeasuredRow {
    /// The row.
    #[serde(flatten)]
    pub row: Measurement,
    /// What the formula alone gives for its setting, in tokens a second; its fit has seen the row.
    pub formula_decode_tok_s: Option<f64>,
    /// Why the formula gives nothing; empty where it does.
    pub no_formula: String,
    /// Rows of the same setting whose rate is another by more than a quarter.
    pub unlike: Vec<String>,
}

/// The catalog's rows by what they are about, found once for many pages.
pub(crate) struct Measured<'a> {
    reader: Reader<'a>,
    rows: Vec<(&'a Measurement, About)>,
    /// Decode's fitted factors.
    values: Vec<f64>,
}

impl<'a> Measured<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Self {
        let reader = Reader::new(catalog);
        let rows = catalog.measurements.iter();
        Self {
            rows: rows.map(|row| (row, reader.about(row))).collect(),
            values: catalog.fitted.decode_values(),
            reader,
        }
    }

    /// The rows that were measured on the chips of a cluster, with at most as many of them: those
    /// over several nodes first. With a model's id, those of that model alone.
    pub(super) fn rows(&self, cluster: &Cluster, model: Option<&str>) -> Vec<MeasuredRow> {
        let mut found: Vec<(&Measurement, Result<Features, String>)> = Vec::new();
        for (row, about) in &self.rows {
            let is_here = about
                .device
                .as_ref()
                .is_some_and(|device| room_for(cluster, device, row));
            if is_here && (model.is_none() || about.model.as_deref() == model) {
                found.push((*row, self.reader.read(row)));
            }
        }
        found.sort_by(|(a, of_a), (b, of_b)| {
            let first = |row: &Measurement| (Reverse(row.nodes), Reverse(row.gpus));
            let size = |row: &Measurement, of: &Result<Features, String>| {
                let known = of.as_ref().map(|features| features.facts.params_b);
                known.unwrap_or(row.params_b.unwrap_or(0.0))
            };
            let order = first(a).cmp(&first(b));
            let order = order.then(size(b, of_b).total_cmp(&size(a, of_a)));
            order
                .then_with(|| (&a.model, &a.quant, a.context).cmp(&(&b.model, &b.quant, b.context)))
        });
        let unlike = |row: &Measurement, features: &Features| {
            let others = found.iter().filter_map(|(other, read)| {
                let same = read.as_ref().is_ok_and(|read| same_setting(features, read));
                let apart = (row.decode_tok_s? / other.decode_tok_s?).ln().abs();
                (same && row.nodes == other.nodes && apart > UNLIKE.ln()).then(|| other.id.clone())
            });
            others.collect()
        };
        let rows = found.iter().map(|(row, read)| {
            let (formula, why) = match read {
                Ok(features) => (
                    Some(1e3 / features.decode_sum().ms(&self.values)),
                    String::new(),
                ),
                Err(why) => (None, why.clone()),
            };
            MeasuredRow {
                row: (*row).clone(),
                formula_decode_tok_s: formula.filter(|_| row.decode_tok_s.is_some()),
                no_formula: why,
                unlike: read
                    .as_ref()
                    .map_or_else(|_| Vec::new(), |features| unlike(row, features)),
            }
        });
        rows.collect()
    }
}

/// Whether the cluster has as many such chips as the row was measured with.
fn room_for(cluster: &Cluster, device: &str, row: &Measurement) -> bool {
    let is_it = |pool: &&Pool| pool.device == device;
    let of_nodes = cluster.nodes.iter().map(|node| {
        let pools = node.machine.pools.iter().filter(is_it);
        pools.count()
    });
    let enough = of_nodes.filter(|pools| *pools >= row.gpus.unwrap_or(1).max(1) as usize);
    enough.count() >= row.nodes.max(1) as usize
}

fn same_setting(a: &Features, b: &Features) -> bool {
    a.facts.model.is_some()
        && a.facts.model == b.facts.model
        && (a.engine, a.quant) == (b.engine, b.quant)
        && a.gpus.total_cmp(&b.gpus).is_eq()
        && (a.depth - b.depth).abs() <= FEW_TOKENS
}

/// The rows as a section; none where nobody measured anything.
pub(super) fn section(rows: &[MeasuredRow], of: &str) -> Option<Section> {
    if rows.is_empty() {
        return None;
    }
    let titles = [
        "Row", "Model", "Setting", ">Decode", ">Formula", ">Prefill", "Known",
    ];
    let lines = rows.iter().take(SHOWN).map(|it| {
        let row = &it.row;
        let rate = |rate: Option<f64>| Cell::text(rate.map_or_else(|| "–".into(), brief));
        let quant = row.quant.as_deref().unwrap_or_default();
        Row::new(vec![
            Cell::text(row.id.clone()),
            Cell::text(format!("{} {quant}", row.model).trim_end()),
            Cell::text(setting(row)),
            rate(row.decode_tok_s),
            rate(it.formula_decode_tok_s),
            rate(row.prefill_tok_s),
            Cell::text(row.evidence.name()),
        ])
        .note(remark(it))
    });
    let table = Table::new(format!("Measured on {of}, in tokens a second"), &titles).rows(lines);
    let mut blocks = vec![
        Block::text(format!(
            "{} of the catalog {} about {of}. Beside each stands what the formula alone gives for its setting; what these rows say of a prediction is weighed by how near they are to what is asked.",
            count(rows.len(), "measured row"),
            if rows.len() == 1 { "is" } else { "are" },
        )),
        Block::Table(table),
    ];
    if let more @ 1.. = rows.len().saturating_sub(SHOWN) {
        blocks.push(Block::text(format!(
            "And {more} more, which --json has, as has measurements.csv of the catalog."
        )));
    }
    Some(Section::new("measured", "What was measured", blocks))
}

/// The program, over what the model was spread, and the tokens in the cache.
fn setting(row: &Measurement) -> String {
    let mut parts = vec![row.runtime.clone()];
    if row.nodes > 1 {
        let over = row.link.as_deref().map(|link| format!(" over {link}"));
        parts.push(format!("{} nodes{}", row.nodes, over.unwrap_or_default()));
        let split = row.split.as_deref().filter(|split| *split != "unknown");
        parts.push(split.map_or_else(
            || "split not stated".into(),
            |split| format!("{split} split"),
        ));
    } else if let Some(gpus) = row.gpus.filter(|gpus| *gpus > 1) {
        parts.push(format!("{gpus} GPUs"));
    }
    if let Some(context) = row.context.filter(|context| *context > 0) {
        parts.push(format!("{} in context", tokens(context)));
    }
    parts.join(", ")
}

/// Where it is from, and what to know about it.
fn remark(it: &MeasuredRow) -> String {
    let mut said = Vec::new();
    if !it.unlike.is_empty() {
        said.push(format!(
            "Contradicts {}, of the same setting.",
            and(&it.unlike)
        ));
    }
    if !it.no_formula.is_empty() {
        said.push(sentence(&format!("no formula for it: {}", it.no_formula)));
    }
    if !it.row.source.is_empty() {
        said.push(format!("Source: {}", it.row.source));
    }
    said.join(" ")
}
