//! The simulated stage.

use std::ops::Range;

use brigade_wire::{KvOp, SeqId, Span};

use super::mix;
use crate::{Input, Stage, StageError};

/// Width of the simulated hidden state, in floats.
const HIDDEN: usize = 2;

/// A simulated model.
#[derive(Debug, Clone, Copy)]
pub struct SimModel {
    /// Number of layers.
    pub layers: u32,
    /// Tokens in the vocabulary.
    pub vocabulary: usize,
    /// Different seeds are different models.
    pub seed: u64,
}

/// A layer range of a [`SimModel`] with a KV cache.
#[derive(Debug)]
pub struct SimStage {
    model: SimModel,
    layers: Range<u32>,
    context_tokens: u32,
    /// By sequence: for each position, each layer's digest of its input there and before.
    kv: Vec<Vec<u64>>,
    /// Tokens by sequence.
    lengths: Vec<u32>,
}

impl SimStage {
    /// The stage of these layers. The one that starts at layer 0 takes tokens, the one that ends
    /// at the model's last layer gives logits.
    pub fn new(model: SimModel, layers: Range<u32>, sequences: u32, context_tokens: u32) -> Self {
        Self {
            model,
            layers,
            context_tokens,
            kv: vec![Vec::new(); sequences as usize],
            lengths: vec![0; sequences as usize],
        }
    }

    /// Tokens of all sequences in the KV cache.
    pub fn kv_tokens(&self) -> usize {
        self.lengths.iter().map(|&length| length as usize).sum()
    }

    /// The index of a sequence, and its length.
    fn sequence(&self, seq: SeqId) -> Result<(usize, u32), StageError> {
        let index = seq.0 as usize;
        match self.lengths.get(index) {
            Some(&length) => Ok((index, length)),
            None => Err(StageError::BadStep(format!(
                "there is no sequence {}",
                seq.0
            ))),
        }
    }

    fn truncate(&mut self, index: usize, length: u32) {
        let length = length.min(self.lengths[index]);
        self.lengths[index] = length;
        self.kv[index].truncate(length as usize * self.layers.len());
    }

    /// Runs the layers on one token and returns its hidden state, as a number.
    fn run_layers(&mut self, index: usize, mut hidden: u64) -> u64 {
        let kv = &mut self.kv[index];
        let layers = self.layers.len();
        for layer in self.layers.clone() {
            let before = match kv.len().checked_sub(layers) {
                Some(before) => kv[before],
                None => self.model.seed,
            };
            let digest = mix(before, hidden);
            kv.push(digest);
            hidden = mix(digest, u64::from(layer)) & 0xffff_ffff;
        }
        self.lengths[index] += 1;
        hidden
    }

    fn check(&self, spans: &[Span], input: Input<'_>) -> Result<(), StageError> {
        let bad = |reason: &str| Err(StageError::BadStep(reason.to_owned()));
        if !spans.is_sorted_by(|a, b| a.seq < b.seq) {
            return bad("sequences are not ascending");
        }
        if !spans.is_sorted_by(|a, b| a.tokens.len() == b.tokens.len()) {
            return bad("spans are not of one length");
        }
        let tokens: usize = spans.iter().map(|span| span.tokens.len()).sum();
        let rows = match (self.layers.start, input) {
            (0, Input::Tokens(tokens)) => tokens.len(),
            (1.., Input::Hidden(hidden)) => hidden.len() / HIDDEN,
            _ => return bad("the wrong kind of input"),
        };
        if rows != tokens {
            return bad("the input does not have one row for each token");
        }
        Ok(())
    }
}

impl Stage for SimStage {
    fn hidden_size(&self) -> usize {
        HIDDEN
    }

    fn vocabulary(&self) -> Option<usize> {
        (self.layers.end == self.model.layers).then_some(self.model.vocabulary)
    }

    fn apply(&mut self, op: KvOp) -> Result<(), StageError> {
        match op {
            KvOp::Remove { seq, from } => {
                let (index, _) = self.sequence(seq)?;
                self.truncate(index, from);
            }
            KvOp::Copy { from, to } => {
                let (source, length) = self.sequence(from)?;
                let (target, 0) = self.sequence(to)? else {
                    return Err(StageError::BadStep(format!(
                        "copy into sequence {}, which is not empty",
                        to.0
                    )));
                };
                self.kv[target] = self.kv[source].clone();
                self.lengths[target] = length;
            }
        }
        Ok(())
    }

    fn forward(
        &mut self,
        spans: &[Span],
        input: Input<'_>,
        output: &mut Vec<f32>,
    ) -> Result<(), StageError> {
        output.clear();
        self.check(spans, input)?;
        let mut row = 0;
        for span in spans {
            let (index, actual) = self.sequence(span.seq)?;
            if actual != span.position {
                return Err(StageError::OutOfStep {
                    seq: span.seq.0,
                    actual,
                    expected: span.position,
                });
            }
            if actual as usize + span.tokens.len() > self.context_tokens as usize {
                return Err(StageError::BadStep("the context is full".to_owned()));
            }
            for at in 1..=span.tokens.len() {
                let mut hidden = match input {
                    Input::Tokens(tokens) => u64::from(tokens[row]),
                    Input::Hidden(rows) => {
                        (rows[row * HIDDEN] as u64) << 16 | rows[row * HIDDEN + 1] as u64
                    }
                };
                row += 1;
                hidden = self.run_layers(index, hidden);
                if self.vocabulary().is_none() {
                    output.extend([(hidden >> 16) as f32, (hidden & 0xffff) as f32]);
                }
                if let Some(vocabulary) = self.vocabulary()
                    && span.tokens.len() - at < span.logits_rows()
                {
                    // 21 bits from -8 to 8.
                    output.extend(
                        (0..vocabulary as u64)
                            .map(|token| (mix(hidden, token) >> 43) as f32 / 131_072.0 - 8.0),
                    );
                }
            }
        }
        Ok(())
    }

    fn lengths(&self) -> &[u32] {
        &self.lengths
    }

    fn clear(&mut self) {
        self.kv.iter_mut().for_each(Vec::clear);
        self.lengths.fill(0);
    }
}
