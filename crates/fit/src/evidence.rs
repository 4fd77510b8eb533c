//! How a number is known, and how wide that makes it.

use serde::{Deserialize, Serialize};

/// The five tiers of evidence, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// Measured for exactly this model, quantization, machine and split.
    Measured,
    /// Measured for a near neighbour: the same machine and model at another quantization or context.
    MeasuredNear,
    /// Reported by somebody with the setting, not repeated by us.
    Community,
    /// Computed by a formula that was fitted to measurements of this kind of machine.
    Extrapolated,
    /// Computed by a formula only.
    Estimated,
}

impl Evidence {
    /// The tier's weight, from 1 for what was measured down to 0.7; a lower weight widens the
    /// interval.
    pub fn weight(self) -> f64 {
        match self {
            Self::Measured => 1.00,
            Self::MeasuredNear => 0.95,
            Self::Community => 0.85,
            Self::Extrapolated => 0.80,
            Self::Estimated => 0.70,
        }
    }

    /// Its name in output and in the catalog.
    pub fn name(self) -> &'static str {
        match self {
            Self::Measured => "measured",
            Self::MeasuredNear => "measured-near",
            Self::Community => "community",
            Self::Extrapolated => "extrapolated",
            Self::Estimated => "estimated",
        }
    }
}

/// A number with an 80 % interval and how it is known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// Nine of ten true values lie above.
    pub low: f64,
    /// The best single number.
    pub mid: f64,
    /// Nine of ten true values lie below.
    pub high: f64,
    /// How it is known.
    pub evidence: Evidence,
}

impl Estimate {
    /// What several streams come to together, where one stream's rate is this: estimated, and its
    /// interval wider by the weights of the tiers.
    pub(crate) fn together(&self, all: f64) -> Self {
        let half = (self.high / self.mid).ln() * Evidence::Extrapolated.weight()
            / Evidence::Estimated.weight();
        Self {
            low: all / half.exp(),
            mid: all,
            high: all * half.exp(),
            evidence: Evidence::Estimated,
        }
    }
}
