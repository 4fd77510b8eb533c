//! How long a plan's steps take.

use super::costs::Step;
use super::{Field, Plan, Speed};
use crate::FitError;
use crate::cluster::Link;

/// Tokens of the prompt that a time to the first token is about, at most.
pub(crate) const PROMPT: u32 = 2048;

/// A plan's times.
pub(crate) struct Timing<'a> {
    pub(crate) field: &'a Field<'a>,
    pub(crate) plan: &'a Plan,
    pub(crate) speed: &'a dyn Speed,
}

impl Timing<'_> {
    /// Seconds from one token of a stream to its next, with no other stream.
    pub(crate) fn token_s(&self) -> Result<f64, FitError> {
        let stages: f64 = self.stages_s(Step::Decode(1))?.iter().sum();
        Ok(stages + self.hops_s(1)?)
    }

    /// Prompt tokens a second, and seconds to the first token, for a prompt of this length:
    /// micro-batches follow each other through the stages.
    pub(crate) fn prefill(&self, prompt: u32) -> Result<(f64, f64), FitError> {
        let batch = self.field.costs.load.micro_batch.clamp(1, prompt.max(1));
        let chunks = f64::from(prompt.div_ceil(batch));
        let step = Step::Prefill {
            tokens: batch,
            prompt,
        };
        let mut stages = self.stages_s(step)?;
        for (seconds, stage) in stages.iter_mut().zip(&self.plan.stages) {
            // GPUs of one host work in turns on micro-batches.
            *seconds /= self.speed.overlap(stage.packing.parts.len(), chunks);
        }
        let through: f64 = stages.iter().sum::<f64>() + self.hops_s(batch)?;
        let slowest = stages.iter().copied().fold(0.0, f64::max);
        let seconds = through + (chunks - 1.0) * slowest;
        Ok((f64::from(prompt) / seconds, seconds))
    }

    /// Tokens a second of so many streams together.
    ///
    /// The streams go through the stages in groups. A group's round takes the time of all stages
    /// and hops; and each stage serves every group once in it. The best number of groups is
    /// taken: splitting gains nothing where a step is bound by reading weights.
    pub(crate) fn together(&self, streams: u32) -> Result<f64, FitError> {
        let most = (self.plan.stages.len() as u32).clamp(1, streams.max(1));
        let mut best = 0.0_f64;
        for groups in 1..=most {
            let group = streams.div_ceil(groups);
            let stages = self.stages_s(Step::Decode(group))?;
            let round: f64 = stages.iter().sum::<f64>() + self.hops_s(group)?;
            let slowest = stages.iter().copied().fold(0.0, f64::max);
            best = best.max(f64::from(streams) / round.max(f64::from(groups) * slowest));
        }
        Ok(best)
    }

    /// Seconds of each stage.
    fn stages_s(&self, step: Step) -> Result<Vec<f64>, FitError> {
        let stages = self.plan.stages.iter().map(|stage| {
            let host = &self.field.hosts[stage.node];
            host.step_s(&self.field.costs, &stage.packing, step, self.speed)
        });
        stages.collect()
    }

    /// Seconds on links for a step: hidden states from stage to stage, then the token back.
    fn hops_s(&self, tokens: u32) -> Result<f64, FitError> {
        let stages = &self.plan.stages;
        let [first, .., last] = &stages[..] else {
            return Ok(0.0);
        };
        let bytes = self.field.costs.hidden_bytes(tokens);
        let hop = |from: usize, to: usize, bytes: f64| {
            Ok::<f64, FitError>(self.field.hop_s(self.link(from, to)?, bytes, self.speed))
        };
        let mut seconds = hop(last.node, first.node, 0.0)?;
        for pair in stages.windows(2) {
            seconds += hop(pair[0].node, pair[1].node, bytes)?;
        }
        Ok(seconds)
    }

    fn link(&self, from: usize, to: usize) -> Result<&Link, FitError> {
        self.field.link(from, to).ok_or_else(|| FitError::Missing {
            of: self.field.cluster.name.clone(),
            fact: format!(
                "link between {} and {}",
                self.field.cluster.nodes[from].name, self.field.cluster.nodes[to].name
            ),
        })
    }
}
