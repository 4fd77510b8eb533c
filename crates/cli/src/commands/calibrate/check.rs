//! What the planner predicts by a calibration against what a lab on this machine does.
//!
//! The stages of one answer compute in turn, so that sharing this machine's cores costs each of
//! them nothing: what is predicted is one answer alone.

use brigade_fit::evidence::Estimate;
use brigade_fit::speed::calibration::Check;

use crate::commands::lab::Trial;
use crate::model;

/// A prediction and what came.
#[derive(Debug, serde::Serialize)]
pub(super) struct Compared {
    model: String,
    stages: u32,
    links: Vec<String>,
    predicted_tok_s: Option<Estimate>,
    /// What the model's stages took, against their parts.
    ratio: Option<f64>,
    /// Of each answer, in order.
    measured_tok_s: Vec<f64>,
}

impl Compared {
    /// Runs a lab.
    pub(super) fn by(trial: &Trial<'_>) -> anyhow::Result<Self> {
        let (predicted, measured_tok_s) = trial.run()?;
        let mut compared = Self {
            model: model::name(&model::open(trial.model)?),
            stages: trial.nodes,
            links: trial.links.to_vec(),
            predicted_tok_s: predicted.map(|predicted| predicted.decode_tok_s),
            ratio: None,
            measured_tok_s,
        };
        compared.ratio = predicted.map(|predicted| predicted.ratio(compared.middle()));
        Ok(compared)
    }

    /// What it says of other models.
    pub(super) fn check(&self) -> Option<Check> {
        Some(Check {
            model: self.model.clone(),
            ratio: self.ratio?,
        })
    }

    /// Half of the answers were at least so fast.
    fn middle(&self) -> f64 {
        let mut sorted = self.measured_tok_s.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    pub(super) fn line(&self) -> String {
        let measured = self.middle();
        let best = self.measured_tok_s.iter().copied().fold(0.0, f64::max);
        let mut head = format!("{} on {} stages", self.model, self.stages);
        if !self.links.is_empty() {
            head = format!("{head} over {}", self.links.join(" "));
        }
        match &self.predicted_tok_s {
            Some(predicted) => format!(
                "{head}: {:.1} tok/s predicted ({}), {measured:.1} measured at the median of {} \
                 (best {best:.1}): {:+.1} %",
                predicted.mid,
                predicted.evidence.name(),
                self.measured_tok_s.len(),
                (predicted.mid / measured - 1.0) * 100.0
            ),
            None => format!("{head}: {measured:.1} tok/s measured, and no prediction"),
        }
    }
}

#[cfg(test)]
mod tests {
    use brigade_fit::evidence::Evidence;

    use super::*;

    #[test]
    fn the_median_is_what_is_compared() {
        let mut compared = Compared {
            model: "m".to_owned(),
            stages: 2,
            links: vec!["rtt=1ms".to_owned()],
            predicted_tok_s: Some(Estimate {
                low: 80.0,
                mid: 110.0,
                high: 140.0,
                evidence: Evidence::MeasuredNear,
            }),
            ratio: None,
            measured_tok_s: vec![90.0, 300.0, 100.0],
        };
        assert_eq!(
            compared.line(),
            "m on 2 stages over rtt=1ms: 110.0 tok/s predicted (measured-near), 100.0 measured at \
             the median of 3 (best 300.0): +10.0 %"
        );
        compared.predicted_tok_s = None;
        assert!(compared.line().ends_with("and no prediction"));
    }
}
