//! Measured rows of a setting, or of one near it: they win over the formula, or correct it.

use std::cell::OnceCell;

use super::Setting;
use super::classes::{Engine, Family};
use super::quants::{self, Quant};
use super::rate::Rate;
use crate::catalog::Catalog;
use crate::catalog::measurements::Measurement;
use crate::evidence::Evidence;
use crate::model::Model;
use crate::rows::{About, Features, Reader, impossible};

/// Contexts are the same up to this factor.
const SAME_CONTEXT: f64 = 1.25;

/// Rows that a sentence names.
const NAMED: usize = 3;

/// A measured row, of one node or of a pipeline over some.
#[derive(Debug, Clone)]
struct KnownRow<'a> {
    row: &'a Measurement,
    nodes: usize,
    model: &'a Model,
    device: String,
    engine: Engine,
    quant: Quant,
    gpus: usize,
    decode: Option<Measured>,
    prefill: Option<Measured>,
}

/// A measured rate and the formula's of the same setting.
#[derive(Debug, Clone, Copy)]
struct Measured {
    ln_rate: f64,
    /// Logarithm of measured ÷ predicted.
    ln_off: f64,
    /// Tokens in the cache on average, or of the prompt.
    tokens: f64,
}

/// A measured row of a tensor split over nodes.
#[derive(Debug, Clone)]
struct TensorRow<'a> {
    row: &'a Measurement,
    about: About,
    quant: Quant,
}

/// The catalog's rows, read when they are first asked for.
#[derive(Debug, Clone)]
pub(super) struct KnownRows<'a> {
    catalog: &'a Catalog,
    rows: OnceCell<(Vec<KnownRow<'a>>, Vec<TensorRow<'a>>)>,
}

/// What rows say of a tensor split, in tokens a second.
#[derive(Debug, Clone)]
pub(super) struct KnownTensor<'a> {
    /// Mean logarithm of the measured rates.
    pub(super) ln_rate: f64,
    /// Half of what the rows differ by, as a logarithm.
    pub(super) spread: f64,
    rows: Vec<&'a str>,
}

/// What rows say of a setting.
#[derive(Debug, Clone)]
pub(super) struct Known<'a> {
    /// Mean logarithm of measured ÷ predicted.
    pub(super) ln_off: f64,
    /// Half of what the rows differ by, as a logarithm.
    pub(super) spread: f64,
    /// Of the best known row.
    pub(super) evidence: Evidence,
    /// The model that the rows are of where none is of the model itself.
    twin: Option<&'a str>,
    rows: Vec<&'a str>,
    /// Those of exactly this setting.
    pub(super) exact: Option<Exact<'a>>,
    /// Those of as many such nodes.
    pub(super) nodes: Option<Exact<'a>>,
}

/// Rows of exactly a setting.
#[derive(Debug, Clone)]
pub(super) struct Exact<'a> {
    /// Mean logarithm of the measured rates.
    pub(super) ln_rate: f64,
    /// Mean logarithm of measured ÷ predicted.
    pub(super) ln_off: f64,
    /// Half of what they differ by, as a logarithm.
    pub(super) spread: f64,
    /// Of the best known row.
    pub(super) evidence: Evidence,
    rows: Vec<&'a str>,
}

impl<'a> KnownRows<'a> {
    pub(super) fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            rows: OnceCell::new(),
        }
    }

    /// What rows of the model, split over as many such chips, say of one stream.
    pub(super) fn tensor(&self, setting: &Setting) -> Option<KnownTensor<'a>> {
        let first = setting.pools.first()?;
        let quant = quants::parse(&setting.quant.name)?;
        let (_, rows) = self.rows.get_or_init(|| read(self.catalog));
        let of_setting = rows.iter().filter(|known| {
            known.about.model.as_ref() == Some(&setting.model.id)
                && known.about.device.as_ref() == Some(&first.device)
                && known.row.nodes as usize == setting.nodes
                && known.quant == quant
        });
        let found: Vec<&TensorRow> = of_setting.collect();
        let rates = found.iter().filter_map(|known| known.row.decode_tok_s);
        let (ln_rate, spread) = middle(rates.map(f64::ln))?;
        Some(KnownTensor {
            ln_rate,
            spread,
            rows: found.iter().map(|known| known.row.id.as_str()).collect(),
        })
    }

    /// What the rows of the same model on the same chips say.
    pub(super) fn of(&self, rate: Rate, setting: &Setting) -> Option<Known<'a>> {
        let first = setting.pools.first()?;
        if setting.pools.iter().any(|pool| pool.device != first.device) {
            return None;
        }
        let engine = Engine::of(setting.quant.format.runtime(), Family::of_pool(first));
        let gpus = setting.pools.len() / setting.nodes.max(1);
        let quant = quants::parse(&setting.quant.name);
        let of_setting = |known: &&KnownRow| {
            (known.model.id == setting.model.id || alike(known.model, setting.model))
                && known.device == first.device
                && known.gpus == gpus
                && (known.nodes <= 1 || known.nodes == setting.nodes)
                && known.engine.line() == engine.line()
        };
        let is_it = |known: &KnownRow| known.model.id == setting.model.id;
        let (rows, _) = self.rows.get_or_init(|| read(self.catalog));
        let near: Vec<(&KnownRow, Measured)> = rows
            .iter()
            .filter(of_setting)
            .filter_map(|known| {
                let measured = match rate {
                    Rate::Decode => known.decode,
                    Rate::Prefill => known.prefill,
                };
                Some((known, measured?))
            })
            .collect();
        let of_nodes: Vec<_> = near
            .iter()
            .filter(|(known, _)| known.nodes > 1 && Some(known.quant) == quant)
            .copied()
            .collect();
        let near: Vec<_> = near
            .into_iter()
            .filter(|(known, _)| known.nodes <= 1)
            .collect();
        let all = || near.iter().chain(&of_nodes);
        let twin = if all().any(|(known, _)| is_it(known)) {
            None
        } else {
            all().next().map(|(known, _)| known.model.name.as_str())
        };
        let context = f64::from(setting.context).max(1.0);
        let exact: Vec<_> = near
            .iter()
            .filter(|(known, measured)| {
                let apart = (measured.tokens.max(1.0) / context).ln().abs();
                setting.nodes <= 1
                    && is_it(known)
                    && known.engine == engine
                    && Some(known.quant) == quant
                    && apart <= SAME_CONTEXT.ln()
            })
            .copied()
            .collect();
        let best = |rows: &[(&KnownRow<'a>, Measured)]| {
            let tiers = rows.iter().map(|(known, _)| known.row.evidence);
            tiers.min().unwrap_or(Evidence::Estimated)
        };
        let ids = |rows: &[(&KnownRow<'a>, Measured)]| {
            rows.iter()
                .map(|(known, _)| known.row.id.as_str())
                .collect()
        };
        let of = |rows: &[(&KnownRow<'a>, Measured)]| {
            let (ln_rate, spread) = middle(rows.iter().map(|(_, measured)| measured.ln_rate))?;
            let (ln_off, _) = middle(rows.iter().map(|(_, measured)| measured.ln_off))?;
            Some(Exact {
                ln_rate,
                ln_off,
                spread,
                evidence: best(rows),
                rows: ids(rows),
            })
        };
        let (exact, nodes) = (of(&exact), of(&of_nodes));
        let corrected = middle(near.iter().map(|(_, measured)| measured.ln_off));
        if corrected.is_none() && nodes.is_none() {
            return None;
        }
        let (ln_off, spread) = corrected.unwrap_or_default();
        Some(Known {
            ln_off,
            spread,
            evidence: best(&near),
            twin,
            rows: ids(&near),
            exact,
            nodes,
        })
    }
}

impl Known<'_> {
    /// What the rows are of.
    pub(super) fn model(&self) -> String {
        self.twin.map_or_else(
            || "this model".to_owned(),
            |name| format!("{name}, which has the same layers and widths,"),
        )
    }

    /// The rows by their ids.
    pub(super) fn named(&self) -> String {
        named(&self.rows)
    }
}

impl KnownTensor<'_> {
    /// The rows by their ids.
    pub(super) fn named(&self) -> String {
        named(&self.rows)
    }
}

impl Exact<'_> {
    /// The rows by their ids.
    pub(super) fn named(&self) -> String {
        named(&self.rows)
    }
}

fn named(ids: &[&str]) -> String {
    let (shown, more) = ids.split_at(ids.len().min(NAMED));
    match more.len() {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Mean, and half of the range; `None` without values.
fn middle(values: impl Iterator<Item = f64> + Clone) -> Option<(f64, f64)> {
    let count = values.clone().count();
    let low = values.clone().fold(f64::INFINITY, f64::min);
    let high = values.clone().fold(f64::NEG_INFINITY, f64::max);
    (count > 0).then(|| (values.sum::<f64>() / count as f64, (high - low) / 2.0))
}

fn read(catalog: &Catalog) -> (Vec<KnownRow<'_>>, Vec<TensorRow<'_>>) {
    let reader = Reader::new(catalog);
    let decode = catalog.fitted.decode_values();
    let prefill = catalog.fitted.prefill_values();
    let rows = catalog.measurements.iter();
    let tensor = rows.clone().filter_map(|row| {
        let (about, quant) = reader.tensor(row)?;
        Some(TensorRow { row, about, quant })
    });
    let known = rows.filter_map(|row| {
        let features = reader.read(row).ok()?;
        Some(KnownRow {
            row,
            nodes: row.nodes.max(1) as usize,
            model: {
                let id = features.facts.model.as_ref()?;
                catalog.models.iter().find(|model| model.id == *id)?
            },
            device: features.chip.device.clone()?,
            engine: features.engine,
            quant: features.quant,
            gpus: features.gpus as usize,
            decode: measured_decode(row, &features, &decode),
            prefill: measured_prefill(row, &features, &prefill),
        })
    });
    (known.collect(), tensor.collect())
}

/// Whether two models take a chip as long: the same layers, widths and vocabulary, as a model and what
/// was trained further from it have.
fn alike(a: &Model, b: &Model) -> bool {
    (a.params, a.active_params, a.hidden, a.vocab) == (b.params, b.active_params, b.hidden, b.vocab)
        && a.layers == b.layers
}

fn measured_decode(row: &Measurement, features: &Features, values: &[f64]) -> Option<Measured> {
    let rate = row.decode_tok_s?;
    // What spilled depends on a context that the row does not state.
    if impossible(features, rate).is_some() || features.decode.spilled > 0.0 {
        return None;
    }
    Some(Measured {
        ln_rate: rate.ln(),
        ln_off: rate.ln() - (1e3 / features.decode_sum().ms(values)).ln(),
        tokens: features.depth,
    })
}

fn measured_prefill(row: &Measurement, features: &Features, values: &[f64]) -> Option<Measured> {
    let rate = row.prefill_tok_s?;
    let sum = features.prefill_sum()?;
    let (_, tokens) = features.prefill.as_ref().ok()?;
    Some(Measured {
        ln_rate: rate.ln(),
        ln_off: rate.ln() - (1e3 / sum.ms(values)).ln(),
        tokens: tokens + features.context,
    })
}
