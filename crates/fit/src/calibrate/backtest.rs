//! How wrong predictions are: every row by a fit that has not seen its chip.

use std::collections::BTreeMap;

use super::set::Set;
use super::{Calibration, ape, quantile};
use crate::catalog::Catalog;
use crate::catalog::measurements::Measurement;
use crate::page::{Accuracy, BacktestPage, GroupRow, Miss, RefusedRow};
use crate::rows::{Features, Reader, impossible};
use crate::speed::Rate;
use crate::speed::interval::Class;
use crate::speed::sum::Sum;

/// Misses that are shown, of decode and of prefill.
const WORST: usize = 12;

/// Predicts every row, and says how wrong that is.
///
/// A row's chip is left out of the fit and of the interval that it is predicted by, so that no row
/// informs its own prediction, nor does another one of the same chip.
pub fn backtest(catalog: &Catalog, rows: &[Measurement]) -> BacktestPage {
    let reader = Reader::new(catalog);
    let calibration = Calibration::new(catalog);
    let decode = Predictor::new(&calibration.decode);
    let prefill = Predictor::new(&calibration.prefill);
    let mut scored: Vec<Scored> = Vec::new();
    let mut refused: Vec<RefusedRow> = Vec::new();
    for row in rows {
        let mut refuse = |reason: String| {
            refused.push(RefusedRow {
                id: row.id.clone(),
                reason,
            });
        };
        if let Some(reason) = catalog.refusal(row) {
            refuse(reason.to_owned());
            continue;
        }
        let features = match reader.read(row) {
            Ok(features) => features,
            Err(reason) => {
                refuse(reason);
                continue;
            }
        };
        let first = scored.len();
        if let Some(rate) = row.decode_tok_s {
            if let Some(reason) = impossible(&features, rate) {
                refuse(reason);
            } else {
                let sum = features.decode_sum();
                scored.push(decode.score(row, &features, rate, &sum, features.decode_class));
            }
        }
        if let Some(rate) = row.prefill_tok_s {
            match (features.prefill_sum(), &features.prefill) {
                (Some(sum), _) => {
                    scored.push(prefill.score(row, &features, rate, &sum, features.prefill_class));
                }
                (None, Err(reason)) => refuse(reason.clone()),
                (None, Ok(_)) => {}
            }
        }
        if let Some(why) = catalog.miss(row) {
            for own in &mut scored[first..] {
                own.miss.why = Some(why.to_owned());
            }
        }
    }
    page(rows, &scored, refused)
}

/// The same of all of a catalog's rows, those that cannot be right among the refused.
pub fn backtest_all(catalog: &Catalog) -> BacktestPage {
    let mut rows = [&catalog.measurements[..], &catalog.wrong].concat();
    rows.sort_by_key(|row| row.line);
    backtest(catalog, &rows)
}

/// Predicts rates by fits without the chip in question.
struct Predictor<'a> {
    set: &'a Set,
    folds: BTreeMap<String, Vec<f64>>,
    residuals: Vec<f64>,
    /// For chips that no row is of.
    all: Vec<f64>,
}

/// A prediction and what came of it.
struct Scored {
    rate: Rate,
    miss: Miss,
    inside: bool,
    nodes: u32,
    /// What it has in common with others: by what, and which.
    groups: [(&'static str, String); 6],
}

impl<'a> Predictor<'a> {
    fn new(set: &'a Set) -> Self {
        let folds = set.folds();
        Self {
            residuals: set.residuals(&folds),
            all: set.fit(|_| false),
            folds,
            set,
        }
    }

    fn score(
        &self,
        row: &Measurement,
        features: &Features,
        measured: f64,
        sum: &Sum,
        class: Class,
    ) -> Scored {
        let group = &features.chip.group;
        let values = self.folds.get(group).unwrap_or(&self.all);
        let predicted = 1e3 / sum.ms(values);
        let off = (measured / predicted).ln();
        let half = self
            .set
            .half_width(&self.residuals, class, features.decode.family, group);
        let split = match (row.nodes, features.gpus > 1.0) {
            (2.., _) => "pipeline over nodes",
            (_, true) => "layers over GPUs of one node",
            _ => "one processor",
        };
        let size = if features.sized { "stated" } else { "inferred" };
        Scored {
            rate: self.set.rate,
            miss: Miss {
                id: row.id.clone(),
                what: format!(
                    "{} {} on {}",
                    row.model,
                    row.quant.as_deref().unwrap_or(features.quant.class.name()),
                    row.machine
                ),
                metric: name(self.set.rate).into(),
                measured,
                predicted,
                ape: ape(off),
                why: None,
            },
            inside: half.is_some_and(|half| off.abs() <= half),
            nodes: row.nodes,
            groups: [
                ("hardware", features.decode.family.name().to_owned()),
                ("quantization", features.quant.class.name().to_owned()),
                ("split", split.to_owned()),
                ("file size", size.to_owned()),
                ("program", features.engine.name().to_owned()),
                ("depth", depth(features, self.set.rate).to_owned()),
            ],
        }
    }
}

/// Tokens in the cache, roughly: of the answer while it is made, or before the prompt.
fn depth(features: &Features, rate: Rate) -> &'static str {
    let tokens = match rate {
        Rate::Decode => features.depth,
        Rate::Prefill => features.context,
    };
    match tokens {
        0.0..1024.0 => "below 1,024 tokens",
        1024.0..4096.0 => "1,024 to 4,095 tokens",
        _ => "4,096 tokens and more",
    }
}

fn name(rate: Rate) -> &'static str {
    match rate {
        Rate::Decode => "decode",
        Rate::Prefill => "prefill",
    }
}

fn page(rows: &[Measurement], scored: &[Scored], refused: Vec<RefusedRow>) -> BacktestPage {
    let overall = |rate: Rate| {
        let one_node = rows.iter().filter(|row| row.nodes <= 1);
        let stated = one_node.filter(|row| match rate {
            Rate::Decode => row.decode_tok_s.is_some(),
            Rate::Prefill => row.prefill_tok_s.is_some(),
        });
        let own = scored
            .iter()
            .filter(|row| row.rate == rate && row.nodes <= 1);
        Accuracy {
            of: stated.count(),
            ..accuracy(own)
        }
    };
    let mut members: BTreeMap<(usize, &str, &str), Vec<&Scored>> = BTreeMap::new();
    for row in scored {
        for (place, (_, which)) in row.groups.iter().enumerate() {
            members
                .entry((place, which, name(row.rate)))
                .or_default()
                .push(row);
        }
    }
    let by = |place: usize| scored.first().map_or("", |row| row.groups[place].0);
    let groups = members
        .iter()
        .map(|((place, which, metric), rows)| GroupRow {
            by: by(*place).to_owned(),
            name: (*which).to_owned(),
            metric: (*metric).to_owned(),
            accuracy: accuracy(rows.iter().copied()),
        });
    let mut worst: Vec<&Scored> = scored.iter().collect();
    worst.sort_by(|a, b| b.miss.ape.total_cmp(&a.miss.ape));
    let of = |rate: Rate| worst.iter().filter(move |row| row.rate == rate).take(WORST);
    let worst = of(Rate::Decode).chain(of(Rate::Prefill));
    BacktestPage {
        schema: "brigade.backtest/1",
        decode: overall(Rate::Decode),
        prefill: overall(Rate::Prefill),
        groups: groups.collect(),
        worst: worst.map(|row| row.miss.clone()).collect(),
        refused,
    }
}

fn accuracy<'a>(rows: impl Iterator<Item = &'a Scored>) -> Accuracy {
    let rows: Vec<&Scored> = rows.collect();
    let mut errors: Vec<f64> = rows.iter().map(|row| row.miss.ape).collect();
    errors.sort_by(f64::total_cmp);
    let inside = rows.iter().filter(|row| row.inside).count();
    Accuracy {
        n: rows.len(),
        of: rows.len(),
        median_ape: quantile(&errors, 0.5),
        p90_ape: quantile(&errors, 0.9),
        coverage_80: inside as f64 / rows.len().max(1) as f64,
    }
}
