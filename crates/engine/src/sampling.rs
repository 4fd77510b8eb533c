//! Turns logits into a token, on the last stage.
//!
//! The order of the filters is that of llama.cpp's default sampler chain: bias, penalties, `top_k`,
//! `top_p`, `min_p`, temperature. So `top_p` and `min_p` look at the distribution before
//! temperature, and `top_p` at what `top_k` has left of it. The repetition penalty (CTRL,
//! arXiv 1909.05858, section 4.1) covers prompt and answer; presence and frequency penalties,
//! as in OpenAI's API, the answer alone.
//!
//! A grammar has the last word, as in llama.cpp's `common_sampler`: a token is drawn without it,
//! and only if the grammar forbids that one, the row is masked and another is drawn. Both draws
//! together follow the masked distribution, and the usual token costs one look-up instead of a
//! pass over the vocabulary.
//!
//! A token is a function of the logits, the sequence's tokens, its parameters and its seed,
//! and of nothing else: not of other sequences, nor of what was sampled for it before. The
//! arithmetic is the same on every platform, the exponential function included.

mod draw;
mod sequences;

use std::collections::HashMap;

use brigade_wire::{SamplingParams, Token};

use crate::{Constraint, StageError};
pub use sequences::SequenceSamplers;

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
    let biases = params.logit_bias.iter();
    let biases = biases.map(|&(_, bias)| ("logit_bias", bias, true, "a finite number"));
    for (name, value, in_range, allowed) in rules.into_iter().chain(biases) {
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

/// A sampled token with the natural logarithm of its probability before bias, penalties,
/// grammar, temperature and filters.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampled {
    /// The token.
    pub token: Token,
    /// Its log-probability.
    pub logprob: f32,
    /// The `top_logprobs` most likely tokens with the same, likeliest first.
    pub top: Vec<(Token, f32)>,
}

/// Buffers as large as the vocabulary, shared by all sequences of a thread.
#[derive(Debug, Default)]
pub struct Scratch {
    changed: Vec<f32>,
    candidates: Vec<draw::Candidate>,
}

/// What a grammar says about an answer.
#[derive(Debug, Clone)]
struct Grammar {
    /// Before the answer's first token.
    start: Box<dyn Constraint>,
    /// After its last one; gone once the answer has left the grammar.
    now: Option<Box<dyn Constraint>>,
}

impl Grammar {
    fn accept(&mut self, token: Token) {
        if !self.now.as_mut().is_some_and(|now| now.accept(token)) {
            self.now = None;
        }
    }

    fn now(&self) -> Result<&dyn Constraint, StageError> {
        self.now.as_deref().ok_or_else(|| {
            StageError::Constraint("the answer does not keep to its grammar".to_owned())
        })
    }
}

/// The sampling state of one sequence: its tokens and its parameters.
#[derive(Debug, Clone)]
pub struct Sampler {
    params: SamplingParams,
    grammar: Option<Grammar>,
    prompt_tokens: usize,
    history: Vec<Token>,
    /// Every token of the history, with how often the answer holds it.
    seen: HashMap<Token, u32>,
}

impl Sampler {
    /// A sequence without tokens, whose first `prompt_tokens` will be its prompt. The grammar
    /// that its parameters name is `constraint`.
    pub fn new(
        params: SamplingParams,
        prompt_tokens: u32,
        constraint: Option<Box<dyn Constraint>>,
    ) -> Result<Self, InvalidSampling> {
        check(&params)?;
        Ok(Self {
            params,
            grammar: constraint.map(|start| Grammar {
                now: Some(start.fork()),
                start,
            }),
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
            if let Some(grammar) = self.grammar.as_mut().filter(|_| in_answer) {
                grammar.accept(token);
            }
        }
    }

    /// Forgets the tokens from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        if len < self.history.len() {
            let mut history = std::mem::take(&mut self.history);
            history.truncate(len);
            self.seen.clear();
            if let Some(grammar) = &mut self.grammar {
                grammar.now = Some(grammar.start.fork());
            }
            self.extend(&history);
        }
    }

    /// Chooses the token that follows the sequence's last one, from a row of `vocabulary`
    /// logits. Minus infinity marks a token that can never come.
    ///
    /// Fails if a logit is NaN or plus infinity, if all are minus infinity, or if the grammar
    /// allows no token.
    pub fn sample(&self, logits: &[f32], scratch: &mut Scratch) -> Result<Sampled, StageError> {
        let Scratch {
            changed,
            candidates,
        } = scratch;
        let raw = draw::scan(logits)?;
        let mut free = draw::uniform(self.params.seed, self.position() as u64);
        let mut token = if self.changes_logits() {
            self.change(logits, changed);
            self.choose(changed, &draw::scan(changed)?, free, candidates)
        } else {
            self.choose(logits, &raw, free, candidates)
        };
        if let Some(grammar) = &self.grammar {
            let now = grammar.now()?;
            if !now.allows(token) {
                self.change(logits, changed);
                now.mask(changed);
                let scan = draw::scan(changed).map_err(|_| {
                    StageError::Constraint("no token continues the grammar".to_owned())
                })?;
                // The first number fell on what is forbidden, so it is not uniform any more.
                free = draw::uniform(!self.params.seed, self.position() as u64);
                token = self.choose(changed, &scan, free, candidates);
            }
        }
        let logprob =
            |token: Token| (f64::from(logits[token as usize] - raw.max) - raw.mass.ln()) as f32;
        let likely = draw::likeliest(logits, &raw, self.params.top_logprobs as usize, candidates);
        Ok(Sampled {
            token,
            logprob: logprob(token),
            top: likely.map(|token| (token, logprob(token))).collect(),
        })
    }

    fn choose(
        &self,
        logits: &[f32],
        scan: &draw::Scan,
        uniform: f64,
        candidates: &mut Vec<draw::Candidate>,
    ) -> Token {
        if self.params.temperature > 0.0 {
            draw::draw(logits, scan, &self.params, uniform, candidates)
        } else {
            scan.argmax
        }
    }

    fn changes_logits(&self) -> bool {
        self.penalises() || !self.params.logit_bias.is_empty()
    }

    /// Copies the row and applies bias and penalties.
    fn change(&self, logits: &[f32], changed: &mut Vec<f32>) {
        changed.clear();
        changed.extend_from_slice(logits);
        for &(token, bias) in &self.params.logit_bias {
            if let Some(logit) = changed.get_mut(token as usize) {
                // Stays what it is where it is minus infinity.
                *logit = (*logit + bias).min(f32::MAX);
            }
        }
        if self.penalises() {
            self.penalise(changed);
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
