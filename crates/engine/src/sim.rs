//! A simulated model for tests: stages that compute integers instead of tensors, and a chain of
//! them in virtual time.
//!
//! Every logit depends on every token of the sequence and its place, by way of the KV cache, so
//! that a lost, repeated or misplaced token changes the answer. How the layers are cut, how the
//! prompt is chunked and what else is in the batch change nothing.

use std::collections::VecDeque;
use std::ops::Range;

use brigade_wire::{KvOp, SeqId, Span, Step, StepResult, Want};

use crate::sampling::SequenceSamplers;
use crate::{Input, NoGrammars, Stage, StageError};

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
    /// By sequence, by position, by layer: a digest of the layer's input here and before.
    kv: Vec<Vec<Vec<u64>>>,
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
        }
    }

    /// Tokens of all sequences in the KV cache.
    pub fn kv_tokens(&self) -> usize {
        self.kv.iter().map(Vec::len).sum()
    }

    fn sequence(&mut self, seq: SeqId) -> Result<&mut Vec<Vec<u64>>, StageError> {
        self.kv
            .get_mut(seq.0 as usize)
            .ok_or_else(|| StageError::BadStep(format!("there is no sequence {}", seq.0)))
    }

    /// Runs the layers on one token and returns its hidden state, as a number.
    fn run_layers(&mut self, seq: SeqId, mut hidden: u64) -> Result<u64, StageError> {
        let (seed, layers) = (self.model.seed, self.layers.clone());
        let kv = self.sequence(seq)?;
        let mut entry = Vec::with_capacity(layers.len());
        for (index, layer) in layers.enumerate() {
            let before = kv.last().map_or(seed, |last| last[index]);
            let digest = mix(before, hidden);
            entry.push(digest);
            hidden = mix(digest, u64::from(layer)) & 0xffff_ffff;
        }
        kv.push(entry);
        Ok(hidden)
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
            KvOp::Remove { seq, from } => self.sequence(seq)?.truncate(from as usize),
            KvOp::Copy { from, to } => {
                let copied = self.sequence(from)?.clone();
                let target = self.sequence(to)?;
                if !target.is_empty() {
                    return Err(StageError::BadStep(format!(
                        "copy into sequence {}, which is not empty",
                        to.0
                    )));
                }
                *target = copied;
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
            let actual = self.sequence(span.seq)?.len() as u32;
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
            let mut hidden = 0;
            for _ in &span.tokens {
                hidden = match input {
                    Input::Tokens(tokens) => u64::from(tokens[row]),
                    Input::Hidden(rows) => {
                        (rows[row * HIDDEN] as u64) << 16 | rows[row * HIDDEN + 1] as u64
                    }
                };
                row += 1;
                hidden = self.run_layers(span.seq, hidden)?;
                if self.vocabulary().is_none() {
                    output.extend([(hidden >> 16) as f32, (hidden & 0xffff) as f32]);
                }
            }
            if let Some(vocabulary) = self.vocabulary()
                && span.want != Want::Nothing
            {
                // 21 bits from -8 to 8.
                output.extend(
                    (0..vocabulary as u64)
                        .map(|token| (mix(hidden, token) >> 43) as f32 / 131_072.0 - 8.0),
                );
            }
        }
        Ok(())
    }

    fn clear(&mut self) {
        self.kv.iter_mut().for_each(Vec::clear);
    }
}

/// How long things take in a [`SimChain`], in virtual microseconds.
#[derive(Debug, Clone, Copy)]
pub struct SimTiming {
    /// A stage's time for a step, whatever it holds.
    pub step_us: u64,
    /// A stage's time for each token.
    pub token_us: u64,
    /// Latency of each link.
    pub link_us: u64,
    /// Up to this much is added to each stage's time, by the seed.
    pub jitter_us: u64,
}

/// A chain of simulated stages, with the ring of ordered links between them.
#[derive(Debug)]
pub struct SimChain {
    stages: Vec<SimStage>,
    samplers: SequenceSamplers,
    timing: SimTiming,
    seed: u64,
    now_us: u64,
    /// When each stage has done all that was sent.
    free_us: Vec<u64>,
    results: VecDeque<(u64, StepResult, Vec<f32>)>,
}

impl SimChain {
    /// Cuts a model into `stages` nearly equal ranges of at least one layer.
    pub fn new(
        model: SimModel,
        stages: u32,
        sequences: u32,
        context_tokens: u32,
        timing: SimTiming,
    ) -> Self {
        let cut = |index: u32| model.layers * index / stages;
        Self {
            stages: (0..stages)
                .map(|i| SimStage::new(model, cut(i)..cut(i + 1), sequences, context_tokens))
                .collect(),
            samplers: SequenceSamplers::new(),
            timing,
            seed: model.seed,
            now_us: 0,
            free_us: vec![0; stages as usize],
            results: VecDeque::new(),
        }
    }

    /// The virtual time.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The stages.
    pub fn stages(&self) -> &[SimStage] {
        &self.stages
    }

    /// Sends a step. Its work is done here and now, since nothing overtakes on a ring; its
    /// result comes when the virtual time has come.
    pub fn send(&mut self, step: &Step) -> Result<(), StageError> {
        let tokens: Vec<_> = step.spans.iter().flat_map(|s| s.tokens.clone()).collect();
        let mut at = self.now_us + self.timing.link_us;
        let (mut input, mut output) = (Vec::new(), Vec::new());
        for (index, stage) in self.stages.iter_mut().enumerate() {
            for &op in &step.kv {
                stage.apply(op)?;
            }
            std::mem::swap(&mut input, &mut output);
            let rows = match index {
                0 => Input::Tokens(&tokens),
                _ => Input::Hidden(&input),
            };
            stage.forward(&step.spans, rows, &mut output)?;
            let jitter = mix(self.seed ^ step.id.0, index as u64) % (self.timing.jitter_us + 1);
            let work = self.timing.step_us + self.timing.token_us * tokens.len() as u64 + jitter;
            self.free_us[index] = at.max(self.free_us[index]) + work;
            at = self.free_us[index] + self.timing.link_us;
        }
        let vocabulary = self.stages.last().and_then(Stage::vocabulary).unwrap_or(1);
        let mut returned = Vec::new();
        let result = self
            .samplers
            .answer(step, &output, vocabulary, &NoGrammars, &mut returned)?;
        self.results.push_back((at, result, returned));
        Ok(())
    }

    /// When the next result arrives.
    pub fn next_result_us(&self) -> Option<u64> {
        self.results.front().map(|(at, ..)| *at)
    }

    /// The next result with the logits that were asked for; the time moves to its arrival.
    pub fn receive(&mut self) -> Option<(StepResult, Vec<f32>)> {
        let (at, result, logits) = self.results.pop_front()?;
        self.advance_to(at);
        Some((result, logits))
    }

    /// Lets time pass.
    pub fn advance_to(&mut self, at_us: u64) {
        self.now_us = self.now_us.max(at_us);
    }
}

fn mix(a: u64, b: u64) -> u64 {
    let mut x = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    x ^ (x >> 32)
}
