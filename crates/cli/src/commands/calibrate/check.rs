//! What the planner predicts by a calibration against what a lab on this machine does.
//!
//! The stages of one answer compute in turn, so that sharing this machine's cores costs each of
//! them nothing: what is predicted is one answer alone.

use brigade_fit::evidence::Estimate;
use brigade_fit::speed::calibration::Check;

use crate::commands::lab::Trial;
use crate::model;

/// Half of the answers have at least this part of the quickest one's speed where nothing else keeps
/// the machine busy.
const STEADY: f64 = 0.75;

/// Stages do not take so many times as long as their parts, nor as short.
const MOST_OFF: f64 = 2.0;

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

    /// What it says of other models, or why it says nothing.
    pub(super) fn check(&self) -> Result<Check, String> {
        let ratio = self.ratio.ok_or("there was no prediction")?;
        let (middle, best) = (self.middle(), self.best());
        if middle < best * STEADY {
            return Err(format!(
                "half of the answers had {middle:.1} tok/s or less, one {best:.1}"
            ));
        }
        if !(1.0 / MOST_OFF..MOST_OFF).contains(&ratio) {
            return Err(format!("it took {ratio:.1} times as long as its parts"));
        }
        Ok(Check {
            model: self.model.clone(),
            ratio,
        })
    }

    /// The quickest answer, in tokens a second.
    fn best(&self) -> f64 {
        self.measured_tok_s.iter().copied().fold(0.0, f64::max)
    }

    /// Half of the answers were at least so fast.
    fn middle(&self) -> f64 {
        let mut sorted = self.measured_tok_s.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    }

    pub(super) fn line(&self) -> String {
        let measured = self.middle();
        let best = self.best();
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
        // Nothing is learnt of an unsteady machine, or of what cannot be.
        assert!(compared.check().is_err());
        compared.ratio = Some(1.1);
        let unsteady = compared.check().unwrap_err();
        assert_eq!(
            unsteady,
            "half of the answers had 100.0 tok/s or less, one 300.0"
        );
        compared.measured_tok_s = vec![90.0, 110.0, 100.0];
        assert_eq!(compared.check().unwrap().model, "m");
        compared.ratio = Some(12.5);
        assert!(compared.check().is_err());
    }
}
