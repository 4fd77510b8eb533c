//! The samplers of all sequences, on a last stage.

use std::collections::HashMap;

use brigade_wire::{KvOp, Output, SeqId, Span, Step, StepResult, Want};

use super::{Sampled, Sampler, Scratch};
use crate::{Grammars, StageError};

/// The sampling states of all sequences of a last stage; follows the steps as the KV cache does.
#[derive(Debug, Default)]
pub struct SequenceSamplers {
    samplers: HashMap<SeqId, Sampler>,
    /// Sequences whose grammar could not be used, and why.
    faults: HashMap<SeqId, String>,
    scratch: Scratch,
}

impl SequenceSamplers {
    /// No sequences.
    pub fn new() -> Self {
        Self::default()
    }

    /// Follows a change of the KV cache.
    pub fn apply(&mut self, op: KvOp) -> Result<(), StageError> {
        match op {
            KvOp::Remove { seq, from: 0 } => {
                self.samplers.remove(&seq);
                self.faults.remove(&seq);
            }
            KvOp::Remove { seq, from } => {
                if let Some(sampler) = self.samplers.get_mut(&seq) {
                    sampler.truncate(from as usize);
                }
            }
            KvOp::Copy { from, to } => {
                if self.samplers.contains_key(&to) {
                    return Err(StageError::BadStep(format!(
                        "copy into sequence {}, which is not empty",
                        to.0
                    )));
                }
                if let Some(sampler) = self.samplers.get(&from).cloned() {
                    self.samplers.insert(to, sampler);
                }
                if let Some(fault) = self.faults.get(&from).cloned() {
                    self.faults.insert(to, fault);
                }
            }
        }
        Ok(())
    }

    /// Appends a span's tokens to its sequence, without the draft.
    pub fn observe(&mut self, span: &Span, grammars: &dyn Grammars) -> Result<(), StageError> {
        let actual = self.samplers.get(&span.seq).map_or(0, Sampler::position);
        if actual != span.position as usize {
            return Err(StageError::OutOfStep {
                seq: span.seq.0,
                actual: actual as u32,
                expected: span.position,
            });
        }
        if let Some(params) = &span.sampling {
            let constraint = params
                .grammar
                .as_deref()
                .map(|grammar| grammars.constraint(grammar))
                .transpose();
            // A grammar that is none concerns its own sequence only.
            let (constraint, fault) = match constraint {
                Ok(constraint) => (constraint, None),
                Err(error) => (None, Some(error.to_string())),
            };
            self.faults.remove(&span.seq);
            self.faults.extend(fault.map(|fault| (span.seq, fault)));
            let mut sampler = Sampler::new(params.clone(), span.prompt_tokens, constraint)
                .map_err(|error| StageError::BadStep(error.to_string()))?;
            if let Some(copied) = self.samplers.get(&span.seq) {
                sampler.extend(&copied.history);
            }
            self.samplers.insert(span.seq, sampler);
        }
        let Some(sampler) = self.samplers.get_mut(&span.seq) else {
            return Err(StageError::BadStep(format!(
                "sequence {} starts without sampling parameters",
                span.seq.0
            )));
        };
        match span.want {
            Want::Verify => sampler.extend(span.tokens.get(..1).unwrap_or_default()),
            Want::Nothing | Want::Token | Want::TokenAndLogits => sampler.extend(&span.tokens),
        }
        Ok(())
    }

    /// Samples the token that follows a sequence's last one.
    pub fn sample(&mut self, seq: SeqId, logits: &[f32]) -> Result<Output, StageError> {
        let Some(sampler) = self.samplers.get(&seq) else {
            return Err(StageError::BadStep(format!(
                "sequence {} has no tokens to sample from",
                seq.0
            )));
        };
        let chosen = match self.faults.get(&seq) {
            Some(fault) => Err(StageError::Constraint(fault.clone())),
            None => sampler.sample(logits, &mut self.scratch),
        };
        match chosen {
            Ok(Sampled {
                token,
                logprob,
                top,
            }) => Ok(Output {
                seq,
                token,
                logprob,
                top,
                fault: None,
            }),
            Err(StageError::Constraint(fault)) => Ok(Output {
                seq,
                fault: Some(fault),
                ..Output::default()
            }),
            Err(error) => Err(error),
        }
    }

    /// Samples after a span's first token, and goes on through its draft as long as the draft is
    /// what was chosen. `rows` has the logits after each of the span's tokens.
    fn verify(
        &mut self,
        span: &Span,
        rows: &[&[f32]],
        outputs: &mut Vec<Output>,
    ) -> Result<(), StageError> {
        for (at, row) in rows.iter().enumerate() {
            let output = self.sample(span.seq, row)?;
            let token = output.token;
            let is_accepted = output.fault.is_none() && span.tokens.get(at + 1) == Some(&token);
            outputs.push(output);
            if !is_accepted {
                break;
            }
            if let Some(sampler) = self.samplers.get_mut(&span.seq) {
                sampler.extend(&[token]);
            }
        }
        Ok(())
    }

    /// All that a last stage does with a step after computing it: follows its changes of the KV
    /// cache and its spans, and samples.
    ///
    /// `logits` is `[rows that the spans want, vocabulary]`, the output of
    /// [`Stage::forward`](crate::Stage::forward). The rows that the step asks back are appended
    /// to `returned`, the payload of the result.
    pub fn answer(
        &mut self,
        step: &Step,
        logits: &[f32],
        vocabulary: usize,
        grammars: &dyn Grammars,
        returned: &mut Vec<f32>,
    ) -> Result<StepResult, StageError> {
        for &op in &step.kv {
            self.apply(op)?;
        }
        let wanted: usize = step.spans.iter().map(Span::logits_rows).sum();
        if logits.len() != wanted * vocabulary {
            return Err(StageError::Logits(
                "there are not as many rows as were wanted",
            ));
        }
        for span in &step.spans {
            self.observe(span, grammars)?;
        }
        let mut outputs = Vec::new();
        let mut rows = logits.chunks(vocabulary.max(1));
        for span in &step.spans {
            let rows = rows.by_ref().take(span.logits_rows());
            match span.want {
                Want::Nothing => {}
                Want::Verify => {
                    let rows: Vec<&[f32]> = rows.collect();
                    self.verify(span, &rows, &mut outputs)?;
                }
                Want::Token | Want::TokenAndLogits => {
                    for row in rows {
                        outputs.push(self.sample(span.seq, row)?);
                        if span.want == Want::TokenAndLogits {
                            returned.extend_from_slice(row);
                        }
                    }
                }
            }
        }
        Ok(StepResult {
            id: step.id,
            outputs,
            compute_us: Vec::new(),
        })
    }

    /// Forgets every sequence.
    pub fn clear(&mut self) {
        self.samplers.clear();
        self.faults.clear();
    }
}
