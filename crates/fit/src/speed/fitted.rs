//! `speed.toml`: the fitted factors with what they are known from, and how far off they were.

use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::classes::Family;
use super::interval::Class;
use super::rate::Rate;
use super::sum::Parameter;
use super::{decode, prefill};
use crate::catalog::read::File;
use crate::error::FitError;

/// What `cargo xtask calibrate` writes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitted {
    /// Decode.
    pub decode: Fit,
    /// Prefill.
    pub prefill: Fit,
    /// Half widths of intervals.
    #[serde(default)]
    pub interval: Vec<Interval>,
}

/// A formula's factors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// Measured rows that it is fitted to.
    pub rows: usize,
    /// Chips that they are of: the unit that is held out.
    pub chips: usize,
    /// Median of |predicted − measured| ÷ measured over rows whose chip was held out.
    pub median_ape: f64,
    /// Its 90th percentile.
    pub p90_ape: f64,
    /// Share of those rows within their 80 % interval.
    pub coverage_80: f64,
    /// The families that have more than a few rows.
    pub families: Vec<String>,
    /// By how much intervals of a family are wider than their class's: factors of the half width.
    #[serde(default)]
    pub wider: BTreeMap<String, f64>,
    /// The factors.
    #[serde(default)]
    pub parameter: Vec<Factor>,
}

/// A fitted factor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Factor {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
    /// Its value where nothing is measured.
    pub prior: f64,
    /// Standard deviation of the prior's logarithm.
    pub sd: f64,
}

/// How far off predictions of a class are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// The class; or `near` and `unseen family`, for decode and for prefill.
    pub class: String,
    /// Rows.
    pub rows: usize,
    /// Four of five measurements are within the prediction times or divided by it.
    pub factor: f64,
}

/// The entries with where they stand, for what is said of one that cannot be right.
#[derive(Deserialize)]
struct Placed {
    decode: PlacedFit,
    prefill: PlacedFit,
    #[serde(default)]
    interval: Vec<Spanned<Interval>>,
}

#[derive(Deserialize)]
struct PlacedFit {
    median_ape: Spanned<f64>,
    p90_ape: Spanned<f64>,
    coverage_80: Spanned<f64>,
    #[serde(default)]
    parameter: Vec<Spanned<Factor>>,
}

/// Reads the file.
pub(crate) fn read(file: File<'_>) -> Result<Fitted, FitError> {
    let fitted = file.parse()?;
    let placed: Placed = file.parse()?;
    let check = |at: &Range<usize>, field: &str, value: f64, plausible: RangeInclusive<f64>| {
        if plausible.contains(&value) {
            return Ok(());
        }
        let (low, high) = (plausible.start(), plausible.end());
        let reason = format!("{value:e} is not plausible: it must be from {low} to {high}");
        Err(file.fault(at, field, reason))
    };
    for fit in [&placed.decode, &placed.prefill] {
        for (field, value, most) in [
            ("median_ape", &fit.median_ape, 1e6),
            ("p90_ape", &fit.p90_ape, 1e6),
            ("coverage_80", &fit.coverage_80, 1.0),
        ] {
            check(&value.span(), field, *value.get_ref(), 0.0..=most)?;
        }
        for entry in &fit.parameter {
            let (at, factor) = (entry.span(), entry.get_ref());
            check(&at, "value", factor.value, 1e-6..=1e6)?;
            check(&at, "prior", factor.prior, 1e-6..=1e6)?;
            check(&at, "sd", factor.sd, 1e-6..=100.0)?;
        }
    }
    for entry in &placed.interval {
        check(&entry.span(), "factor", entry.get_ref().factor, 1.0..=100.0)?;
    }
    Ok(fitted)
}

impl Fit {
    /// The factors in the order of `parameters`; the prior's value where one is missing.
    fn values(&self, parameters: &[Parameter]) -> Vec<f64> {
        let of = |parameter: &Parameter| {
            let mut all = self.parameter.iter();
            let found = all.find(|factor| factor.name == parameter.name);
            found.map_or(parameter.prior, |factor| factor.value)
        };
        parameters.iter().map(of).collect()
    }
}

/// How well the price of reading a cache is known, as the standard deviation of its logarithm.
pub(crate) fn cache_sd() -> f64 {
    decode::PARAMETERS[decode::CACHE].sd
}

impl Fitted {
    /// Decode's factors.
    pub(crate) fn decode_values(&self) -> Vec<f64> {
        self.decode.values(&decode::PARAMETERS)
    }

    /// Prefill's factors.
    pub(crate) fn prefill_values(&self) -> Vec<f64> {
        self.prefill.values(&prefill::PARAMETERS)
    }

    /// Half width of an interval, as a logarithm.
    pub fn half_width(&self, class: Class, rate: Rate, family: Family) -> f64 {
        let fit = match rate {
            Rate::Decode => &self.decode,
            Rate::Prefill => &self.prefill,
        };
        let wider = fit.wider.get(family.name()).copied();
        let wider = wider
            .filter(|wider| (1.0..10.0).contains(wider))
            .unwrap_or(1.0);
        self.named(class.name()) * wider
    }

    /// Half width where no row of the family was fitted.
    pub fn unseen(&self, rate: Rate) -> f64 {
        self.named(unseen(rate))
    }

    /// Half width where other rows of the model on the chip correct the formula.
    pub fn near(&self, rate: Rate) -> f64 {
        self.named(near(rate))
    }

    /// A factor of two where the file says nothing.
    fn named(&self, name: &str) -> f64 {
        let mut all = self.interval.iter();
        all.find(|interval| interval.class == name)
            .map_or(2.0, |interval| interval.factor)
            .ln()
    }
}

/// Name of the interval where no row of the family was fitted.
pub(crate) fn unseen(rate: Rate) -> &'static str {
    match rate {
        Rate::Decode => "unseen family",
        Rate::Prefill => "unseen family, prefill",
    }
}

/// Name of the interval where other rows of the model on the chip correct the formula.
pub(crate) fn near(rate: Rate) -> &'static str {
    match rate {
        Rate::Decode => "near",
        Rate::Prefill => "near, prefill",
    }
}
