//! Rows to fit, and fits without some of them.

use std::collections::{BTreeMap, BTreeSet};

use super::COVERAGE;
use super::solve::{Loss, Observation, fit};
use crate::rows::Features;
use crate::speed::Rate;
use crate::speed::classes::{Engine, Family};
use crate::speed::interval::{Class, weighted_quantile};
use crate::speed::sum::{Parameter, Sum};
use crate::speed::{decode, prefill};

/// Chips from which on a family says how wide its own intervals must be.
const CHIPS: usize = 2;

/// A measured row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Observed {
    /// The chip.
    pub(crate) group: String,
    /// Rows that have it are of one model on one machine, in whatever quantization; `None` where
    /// either is not in the catalog.
    pub(crate) near: Option<Near>,
    pub(crate) family: Family,
    pub(crate) class: Class,
    pub(crate) observation: Observation,
}

/// A model on a machine of the catalog.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Near {
    model: String,
    device: String,
    gpus: u32,
    engine: Engine,
}

/// Rows with their weights.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Set {
    pub(crate) rate: Rate,
    pub(crate) rows: Vec<Observed>,
}

/// The factors of a rate.
pub(crate) fn parameters(rate: Rate) -> &'static [Parameter] {
    match rate {
        Rate::Decode => &decode::PARAMETERS,
        Rate::Prefill => &prefill::PARAMETERS,
    }
}

fn loss(rate: Rate) -> Loss {
    match rate {
        Rate::Decode => Loss {
            bound: 0.08,
            scale: 0.1,
        },
        Rate::Prefill => Loss {
            bound: 0.15,
            scale: 0.2,
        },
    }
}

impl Observed {
    pub(crate) fn new(features: &Features, rate: f64, sum: Sum, class: Class) -> Self {
        let model = features.facts.model.clone();
        let near = model
            .zip(features.chip.device.clone())
            .map(|(model, device)| Near {
                model,
                device,
                gpus: features.gpus as u32,
                engine: features.engine.line(),
            });
        Self {
            group: features.chip.group.clone(),
            near,
            family: features.chip.family,
            class,
            observation: Observation {
                sum,
                ln_rate: rate.ln(),
                weight: 1.0,
            },
        }
    }
}

impl Observed {
    /// Logarithm of measured ÷ predicted.
    fn off(&self, values: &[f64]) -> f64 {
        self.observation.ln_rate - (1e3 / self.observation.sum.ms(values)).ln()
    }
}

impl Set {
    /// Weighs the rows: one over the square root of the chip's rows, one half on average, as
    /// errors within a chip are alike.
    pub(crate) fn new(rate: Rate, mut rows: Vec<Observed>) -> Self {
        let mut counts: BTreeMap<String, f64> = BTreeMap::new();
        for row in &rows {
            *counts.entry(row.group.clone()).or_default() += 1.0;
        }
        let weight = |row: &Observed| 1.0 / counts.get(&row.group).copied().unwrap_or(1.0).sqrt();
        let mean = rows.iter().map(weight).sum::<f64>() / rows.len().max(1) as f64;
        for row in &mut rows {
            row.observation.weight = 0.5 * weight(row) / mean;
        }
        Self { rate, rows }
    }

    /// Fits all rows but some.
    pub(crate) fn fit(&self, without: impl Fn(&Observed) -> bool) -> Vec<f64> {
        let rows = self.rows.iter().filter(|row| !without(row));
        let observations: Vec<_> = rows.map(|row| &row.observation).collect();
        fit(&observations, parameters(self.rate), loss(self.rate))
    }

    /// A fit without each chip.
    pub(crate) fn folds(&self) -> BTreeMap<String, Vec<f64>> {
        let mut folds = BTreeMap::new();
        for row in &self.rows {
            if !folds.contains_key(&row.group) {
                let values = self.fit(|other| other.group == row.group);
                folds.insert(row.group.clone(), values);
            }
        }
        folds
    }

    /// How far off each row is, with its weight, by a fit without its whole family.
    pub(crate) fn unseen(&self) -> Vec<(f64, f64)> {
        let mut of_family: BTreeMap<Family, Vec<f64>> = BTreeMap::new();
        let off = |row: &Observed| {
            let fit = || self.fit(|other| other.family == row.family);
            let values = of_family.entry(row.family).or_insert_with(fit);
            (row.off(values).abs(), row.observation.weight)
        };
        self.rows.iter().map(off).collect()
    }

    /// How far off each row is, with its weight, where the other rows of its model on its machine
    /// correct it; rows that have such others.
    pub(crate) fn near(&self, residuals: &[f64]) -> Vec<(f64, f64)> {
        let rows = || self.rows.iter().zip(residuals).enumerate();
        let corrected = rows().filter_map(|(index, (row, off))| {
            row.near.as_ref()?;
            let others =
                rows().filter(|(other, (known, _))| *other != index && known.near == row.near);
            let others: Vec<f64> = others.map(|(_, (_, off))| *off).collect();
            let mean = others.iter().sum::<f64>() / others.len() as f64;
            (!others.is_empty()).then_some(((off - mean).abs(), row.observation.weight))
        });
        corrected.collect()
    }

    /// Logarithms of measured ÷ predicted, each by its chip's fold.
    pub(crate) fn residuals(&self, folds: &BTreeMap<String, Vec<f64>>) -> Vec<f64> {
        let of = |row: &Observed| folds.get(&row.group).map(|values| row.off(values));
        self.rows.iter().map(|row| of(row).unwrap_or(0.0)).collect()
    }

    /// Half width of a row's kind, as a logarithm, by the residuals of all other chips: its class's,
    /// wider where its family is further off. `None` where no other chip has the class.
    pub(crate) fn half_width(
        &self,
        residuals: &[f64],
        class: Class,
        family: Family,
        without: &str,
    ) -> Option<f64> {
        let half = self.of_class(residuals, class, without)?;
        Some(half * self.wider(residuals, family, without))
    }

    /// Half width of a class, as a logarithm, by the residuals of all other chips.
    pub(crate) fn of_class(&self, residuals: &[f64], class: Class, without: &str) -> Option<f64> {
        let rows = self.rows.iter().zip(residuals);
        let mut off: Vec<(f64, f64)> = rows
            .filter(|(row, _)| row.class == class && row.group != without)
            .map(|(row, off)| (off.abs(), row.observation.weight))
            .collect();
        (!off.is_empty()).then(|| weighted_quantile(&mut off, COVERAGE))
    }

    /// How much wider intervals of a family are than their class's, by its other chips: at least 1,
    /// and 1 where there are fewer than [`CHIPS`] of them.
    pub(crate) fn wider(&self, residuals: &[f64], family: Family, without: &str) -> f64 {
        let classes: BTreeMap<Class, f64> = Class::ALL
            .into_iter()
            .filter_map(|class| Some((class, self.of_class(residuals, class, without)?)))
            .collect();
        let rows = || {
            let rows = self.rows.iter().zip(residuals);
            rows.filter(|(row, _)| row.family == family && row.group != without)
        };
        let chips: BTreeSet<&str> = rows().map(|(row, _)| row.group.as_str()).collect();
        if chips.len() < CHIPS {
            return 1.0;
        }
        let ratio = |(row, off): (&Observed, &f64)| {
            let half = classes.get(&row.class)?;
            Some((off.abs() / half.max(1e-9), row.observation.weight))
        };
        let mut ratios: Vec<(f64, f64)> = rows().filter_map(ratio).collect();
        weighted_quantile(&mut ratios, COVERAGE).max(1.0)
    }
}
