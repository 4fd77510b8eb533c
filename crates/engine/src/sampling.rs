//! Turns logits into a token, on the last stage.
//!
//! The order of the filters is that of llama.cpp's default sampler chain: penalties, `top_k`,
//! `top_p`, `min_p`, temperature. So `top_p` and `min_p` look at the distribution before
//! temperature, and `top_p` at what `top_k` has left of it. The repetition penalty (CTRL,
//! arXiv 1909.05858, section 4.1) covers prompt and answer; presence and frequency penalties,
//! as in OpenAI's API, the answer alone.
//!
//! A token is a function of the logits, the sequence's tokens, its parameters and its seed,
//! and of nothing else: not of other sequences, nor of what was sampled for it before. The
//! arithmetic is the same on every platform, the exponential function included.

mod draw;

use std::collections::HashMap;

use brigade_wire::{KvOp, Output, SamplingParams, SeqId, Span, Step, StepResult, Token, Want};

use crate::StageError;

/// A sampling parameter outside its range.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("{name} is {value}, it must be {allowed}")]
pub struct InvalidSampling {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: f32,
    /// What it may be, in words.
    pub allowed: &'static str,
}

/// Checks that every parameter is in the range that [`Sampler`] has a meaning for.
pub fn check(params: &SamplingParams) -> Result<(), InvalidSampling> {
    let rules = [
        (
            "temperature",
            params.temperature,
            params.temperature >= 0.0,
            "0 or more",
        ),
        (
            "top_p",
            params.top_p,
            (0.0..=1.0).contains(&params.top_p),
            "from 0 to 1",
        ),
        (
            "min_p",
            params.min_p,
            (0.0..=1.0).contains(&params.min_p),
            "from 0 to 1",
        ),
        (
            "repetition_penalty",
            params.repetition_penalty,
            params.repetition_penalty > 0.0,
            "more than 0",
        ),
        (
            "presence_penalty",
            params.presence_penalty,
            true,
            "a finite number",
        ),
        (
            "frequency_penalty",
            params.frequency_penalty,
            true,
            "a finite number",
        ),
    ];
    for (name, value, in_range, allowed) in rules {
        if !(in_range && value.is_finite()) {
            return Err(InvalidSampling {
                name,
                value,
                allowed,
            });
        }
    }
    Ok(())
}

/// A sampled token with the natural logarithm of its probability before penalties,
/// temperature and filters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: Token,
    /// Its log-probability.
    pub logprob: f32,
}

/// Buffers as large as the vocabulary, shared by all sequences of a thread.
#[derive(Debug, Default)]
pub struct Scratch {
    penalised: Vec<f32>,
    candidates: Vec<draw::Candidate>,
}

/// The sampling state of one sequence: its tokens and its parameters.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    prompt_tokens: usize,
    history: Vec<Token>,
    /// Every token of the history, with how often the answer holds it.
    seen: HashMap<Token, u32>,
}

impl Sampler {
    /// A sequence without tokens, whose first `prompt_tokens` will be its prompt.
    pub fn new(params: SamplingParams, prompt_tokens: u32) -> Result<Self, InvalidSampling> {
        check(&params)?;
        Ok(Self {
            params,
            prompt_tokens: prompt_tokens as usize,
            history: Vec::new(),
            seen: HashMap::new(),
        })
    }

    /// Tokens that the sequence has, which is the position of the next one.
    pub fn position(&self) -> usize {
        self.history.len()
    }

    /// Appends tokens of the prompt or the answer.
    pub fn extend(&mut self, tokens: &[Token]) {
        for &token in tokens {
            let in_answer = self.history.len() >= self.prompt_tokens;
            *self.seen.entry(token).or_default() += u32::from(in_answer);
            self.history.push(token);
        }
    }

    /// Forgets the tokens from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        if len < self.history.len() {
            let mut history = std::mem::take(&mut self.history);
            history.truncate(len);
            self.seen.clear();
            self.extend(&history);
        }
    }

    /// Chooses the token that follows the sequence's last one, from a row of `vocabulary`
    /// logits. Minus infinity marks a token that can never come.
    ///
    /// Fails if a logit is NaN or plus infinity, or if all are minus infinity.
    pub fn sample(&self, logits: &[f32], scratch: &mut Scratch) -> Result<Sampled, StageError> {
        let raw = draw::scan(logits)?;
        let token = if self.penalises() {
            scratch.penalised.clear();
            scratch.penalised.extend_from_slice(logits);
            self.penalise(&mut scratch.penalised);
            let scan = draw::scan(&scratch.penalised)?;
            self.choose(&scratch.penalised, &scan, &mut scratch.candidates)
        } else {
            self.choose(logits, &raw, &mut scratch.candidates)
        };
        let logprob = f64::from(logits[token as usize] - raw.max) - raw.mass.ln();
        Ok(Sampled {
            token,
            logprob: logprob as f32,
        })
    }

    fn choose(
        &self,
        logits: &[f32],
        scan: &draw::Scan,
        candidates: &mut Vec<draw::Candidate>,
    ) -> Token {
        if self.params.temperature > 0.0 {
            let uniform = draw::uniform(self.params.seed, self.position() as u64);
            draw::draw(logits, scan, &self.params, uniform, candidates)
        } else {
            scan.argmax
        }
    }

    fn penalises(&self) -> bool {
        let params = &self.params;
        [
            (params.repetition_penalty, 1.0),
            (params.presence_penalty, 0.0),
            (params.frequency_penalty, 0.0),
        ]
        .into_iter()
        .any(|(value, neutral): (f32, f32)| value.total_cmp(&neutral).is_ne())
    }

    fn penalise(&self, logits: &mut [f32]) {
        // In f64 no finite parameter can make an infinity, which `scan` would refuse.
        let repetition = f64::from(self.params.repetition_penalty);
        let presence = f64::from(self.params.presence_penalty);
        let frequency = f64::from(self.params.frequency_penalty);
        for (&token, &in_answer) in &self.seen {
            let Some(logit) = logits.get_mut(token as usize) else {
                continue;
            };
            if *logit == f32::NEG_INFINITY {
                continue;
            }
            let mut value = f64::from(*logit);
            value = if value > 0.0 {
                value / repetition
            } else {
                value * repetition
            };
            if in_answer > 0 {
                value -= presence + frequency * f64::from(in_answer);
            }
            *logit = value.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
        }
    }
}

/// The sampling states of all sequences of a last stage; follows the steps as the KV cache does.
#[derive(Debug, Default)]
pub struct SequenceSamplers {
    samplers: HashMap<SeqId, Sampler>,
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
            }
        }
        Ok(())
    }

    /// Appends a span's tokens to its sequence.
    pub fn observe(&mut self, span: &Span) -> Result<(), StageError> {
        let actual = self.samplers.get(&span.seq).map_or(0, Sampler::position);
        if actual != span.position as usize {
            return Err(StageError::OutOfStep {
                seq: span.seq.0,
                actual: actual as u32,
                expected: span.position,
            });
        }
        if let Some(params) = &span.sampling {
            let mut sampler = Sampler::new(params.clone(), span.prompt_tokens)
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
        sampler.extend(&span.tokens);
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
        let Sampled { token, logprob } = sampler.sample(logits, &mut self.scratch)?;
        Ok(Output {
            seq,
            token,
            logprob,
        })
    }

    /// All that a last stage does with a step after computing it: follows its changes of the KV
    /// cache and its spans, and samples.
    ///
    /// `logits` is `[spans that want a token, vocabulary]`, the output of
    /// [`Stage::forward`](crate::Stage::forward). The rows that the step asks back are appended
    /// to `returned`, the payload of the result.
    pub fn answer(
        &mut self,
        step: &Step,
        logits: &[f32],
        vocabulary: usize,
        returned: &mut Vec<f32>,
    ) -> Result<StepResult, StageError> {
        for &op in &step.kv {
            self.apply(op)?;
        }
        let wants = |span: &&Span| span.want != Want::Nothing;
        if logits.len() != step.spans.iter().filter(wants).count() * vocabulary {
            return Err(StageError::Logits("there is not one row for each span"));
        }
        for span in &step.spans {
            self.observe(span)?;
        }
        let mut outputs = Vec::new();
        let rows = logits.chunks(vocabulary.max(1));
        for (span, row) in step.spans.iter().filter(wants).zip(rows) {
            outputs.push(self.sample(span.seq, row)?);
            if span.want == Want::TokenAndLogits {
                returned.extend_from_slice(row);
            }
        }
        Ok(StepResult {
            id: step.id,
            outputs,
        })
    }

    /// Forgets every sequence.
    pub fn clear(&mut self) {
        self.samplers.clear();
    }
}
