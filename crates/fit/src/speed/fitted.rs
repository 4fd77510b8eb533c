//! `speed.toml`: the fitted factors with what they are known from, and how far off they were.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::classes::Family;
use super::interval::Class;
use super::rate::Rate;
use super::sum::Parameter;
use super::{decode, prefill};

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

impl Fit {
    /// The factors in the order of `parameters`; the prior's value where one is missing.
    fn values(&self, parameters: &[Parameter]) -> Vec<f64> {
        let of = |parameter: &Parameter| {
            let mut all = self.parameter.iter();
            let found = all.find(|factor| factor.name == parameter.name);
            found
                .map(|factor| factor.value)
                .filter(|value| (1e-6..1e6).contains(value))
                .unwrap_or(parameter.prior)
        };
        parameters.iter().map(of).collect()
    }
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
            .map(|interval| interval.factor)
            .filter(|factor| (1.0..100.0).contains(factor))
            .unwrap_or(2.0)
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
