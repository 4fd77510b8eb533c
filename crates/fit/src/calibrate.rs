//! Fits the speed model to the catalog's measurements.
//!
//! The unit of evidence is the chip, not the row: a row's weight is one over the square root of its
//! chip's rows, and errors are those of predictions by a fit that has not seen the chip.

mod backtest;
mod set;
mod solve;

pub use backtest::{backtest, backtest_all};

use crate::catalog::Catalog;
use crate::catalog::measurements::Measurement;
use crate::speed::Rate;
use crate::speed::classes::Family;
use crate::speed::fitted::{self, Factor, Fit, Fitted, Interval};
use crate::speed::interval::{Class, weighted_quantile};

use crate::rows::{Features, Reader, impossible};
use set::{Observed, Set};

/// Share of measurements that an interval is to hold.
const COVERAGE: f64 = 0.8;

/// Rows from which on a family counts as measured.
const FAMILY: usize = 5;

/// The measurements of a catalog that can be used, and what is fitted to them.
struct Calibration {
    decode: Set,
    prefill: Set,
}

impl Calibration {
    /// Reads the catalog's rows of one node.
    fn new(catalog: &Catalog) -> Self {
        let reader = Reader::new(catalog);
        let read = |row: &Measurement| (row.nodes <= 1).then(|| reader.read(row).ok()).flatten();
        let rows: Vec<(&Measurement, Features)> = catalog
            .measurements
            .iter()
            .filter_map(|row| Some((row, read(row)?)))
            .collect();
        let mut decode = Vec::new();
        let mut prefill = Vec::new();
        for (row, features) in &rows {
            let possible = |rate: &f64| impossible(features, *rate).is_none();
            if let Some(rate) = row.decode_tok_s.filter(possible) {
                let sum = features.decode_sum();
                decode.push(Observed::new(features, rate, sum, features.decode_class));
            }
            if let (Some(rate), Some(sum)) = (row.prefill_tok_s, features.prefill_sum()) {
                prefill.push(Observed::new(features, rate, sum, features.prefill_class));
            }
        }
        Self {
            decode: Set::new(Rate::Decode, decode),
            prefill: Set::new(Rate::Prefill, prefill),
        }
    }

    /// Fits all of it, with errors of held-out chips.
    fn fitted(&self) -> Fitted {
        let mut interval = Vec::new();
        let decode = fit_of(&self.decode, &mut interval);
        let prefill = fit_of(&self.prefill, &mut interval);
        Fitted {
            decode,
            prefill,
            interval,
        }
    }
}

/// A fit with its errors; the intervals of its classes are added to `interval`.
fn fit_of(set: &Set, interval: &mut Vec<Interval>) -> Fit {
    let values = set.fit(|_| false);
    let folds = set.folds();
    let residuals = set.residuals(&folds);
    let mut errors: Vec<f64> = residuals.iter().map(|off| ape(*off)).collect();
    errors.sort_by(f64::total_cmp);
    let within = set.rows.iter().zip(&residuals).filter(|(row, off)| {
        let half = set.half_width(&residuals, row.class, row.family, &row.group);
        half.is_some_and(|half| off.abs() <= half)
    });
    let covered = within.count() as f64 / set.rows.len().max(1) as f64;
    for class in Class::ALL {
        let rows = set.rows.iter().filter(|row| row.class == class).count();
        if let Some(half) = set.of_class(&residuals, class, "") {
            interval.push(Interval {
                class: class.name().into(),
                rows,
                factor: rounded(half.exp()),
            });
        }
    }
    for (class, mut off) in [
        (fitted::near(set.rate), set.near(&residuals)),
        (fitted::unseen(set.rate), set.unseen()),
    ] {
        interval.push(Interval {
            class: class.into(),
            rows: off.len(),
            factor: rounded(weighted_quantile(&mut off, COVERAGE).exp()),
        });
    }
    let mut families: Vec<Family> = set.rows.iter().map(|row| row.family).collect();
    families.sort_unstable();
    let families: Vec<Family> = families
        .chunk_by(|a, b| a == b)
        .filter(|rows| rows.len() >= FAMILY)
        .map(|rows| rows[0])
        .collect();
    Fit {
        rows: set.rows.len(),
        chips: folds.len(),
        median_ape: rounded(quantile(&errors, 0.5)),
        p90_ape: rounded(quantile(&errors, 0.9)),
        coverage_80: rounded(covered),
        wider: families
            .iter()
            .map(|family| (family.name().to_owned(), set.wider(&residuals, *family, "")))
            .filter(|(_, wider)| *wider > 1.0)
            .map(|(family, wider)| (family, rounded(wider)))
            .collect(),
        families: families
            .iter()
            .map(|family| family.name().to_owned())
            .collect(),
        parameter: set::parameters(set.rate)
            .iter()
            .zip(values)
            .map(|(parameter, value)| Factor {
                name: parameter.name.to_owned(),
                value: (value * 1e6).round() / 1e6,
                prior: parameter.prior,
                sd: parameter.sd,
            })
            .collect(),
    }
}

/// |predicted − measured| ÷ measured, by the logarithm of measured ÷ predicted.
fn ape(off: f64) -> f64 {
    ((-off).exp() - 1.0).abs()
}

/// The value at a share of sorted values, between neighbours; 0 without values.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * sorted.len().saturating_sub(1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    match (sorted.get(low), sorted.get(high)) {
        (Some(a), Some(b)) => a + (b - a) * at.fract(),
        _ => 0.0,
    }
}

fn rounded(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

/// Fits the speed model to a catalog's measurements: what `catalog/speed.toml` has.
pub fn calibrate(catalog: &Catalog) -> Fitted {
    Calibration::new(catalog).fitted()
}

/// The file's text.
///
/// # Errors
/// If it cannot be written as TOML, which no fit comes to.
pub fn to_toml(fitted: &Fitted) -> Result<String, toml::ser::Error> {
    let text = toml::to_string(fitted)?;
    Ok(format!("{HEADER}{text}"))
}

const HEADER: &str = "\
# Written by `cargo xtask calibrate` from measurements.csv; not by hand.
#
# What each factor multiplies stands in crates/fit/src/speed/decode.rs and prefill.rs. `value` is fitted, `prior` is
# where nothing is measured, `sd` how far a logarithm may go from it. Errors are of rows whose chip was held out.
# An interval holds four of five measurements: the prediction times the factor, and divided by it.

";
