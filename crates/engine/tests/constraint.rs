//! Sampling under a grammar, here a small machine instead of llama.cpp's.

#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use brigade_engine::sampling::{Sampler, Scratch, SequenceSamplers};
use brigade_engine::{Constraint, Grammars, StageError};
use brigade_wire::{KvOp, SamplingParams, SeqId, Span, Step, StepId, Token, Want};

const VOCABULARY: usize = 12;

/// Tokens come in turns: the one at place `n` of the answer leaves the remainder `n` modulo 3.
#[derive(Debug, Clone, Copy, Default)]
struct Turns(u32);

impl Constraint for Turns {
    fn allows(&self, token: Token) -> bool {
        token % 3 == self.0 % 3
    }

    fn mask(&self, logits: &mut [f32]) {
        for (token, logit) in (0..).zip(logits) {
            if !self.allows(token) {
                *logit = f32::NEG_INFINITY;
            }
        }
    }

    fn accept(&mut self, token: Token) -> bool {
        let allowed = self.allows(token);
        self.0 += u32::from(allowed);
        allowed
    }

    fn fork(&self) -> Box<dyn Constraint> {
        Box::new(*self)
    }
}

/// Knows the grammar `turns` and no other.
struct OnlyTurns;

impl Grammars for OnlyTurns {
    fn constraint(&self, grammar: &str) -> Result<Box<dyn Constraint>, StageError> {
        match grammar {
            "turns" => Ok(Box::new(Turns(0))),
            _ => Err(StageError::Constraint("no grammar".to_owned())),
        }
    }
}

fn logits() -> Vec<f32> {
    (0..VOCABULARY)
        .map(|token| ((token * 7) % 5) as f32 * 0.5)
        .collect()
}

fn hot(seed: u64) -> SamplingParams {
    SamplingParams {
        temperature: 1.0,
        seed,
        ..SamplingParams::default()
    }
}

fn sampler(params: SamplingParams) -> Sampler {
    Sampler::new(params, 2, Some(Box::new(Turns(0)))).unwrap()
}

#[test]
fn every_token_keeps_to_the_grammar() {
    let mut scratch = Scratch::default();
    for params in [SamplingParams::default(), hot(1), hot(2), hot(3)] {
        let mut sampler = sampler(params);
        sampler.extend(&[5, 5]);
        for place in 0..20 {
            let token = sampler.sample(&logits(), &mut scratch).unwrap().token;
            assert_eq!(token % 3, place % 3);
            sampler.extend(&[token]);
        }
    }
}

/// Drawing twice follows the same distribution as masking before one draw.
#[test]
fn tokens_have_the_probabilities_of_the_masked_row() {
    let logits = logits();
    let mut counts = [0u32; VOCABULARY];
    let mut scratch = Scratch::default();
    let draws = 40_000;
    for seed in 0..draws {
        let mut sampler = sampler(hot(seed));
        sampler.extend(&[5, 5]);
        counts[sampler.sample(&logits, &mut scratch).unwrap().token as usize] += 1;
    }
    let allowed = |token: &usize| token.is_multiple_of(3);
    let total: f64 = (0..VOCABULARY)
        .filter(allowed)
        .map(|t| f64::from(logits[t]).exp())
        .sum();
    for (token, &count) in counts.iter().enumerate() {
        let expected = if allowed(&token) {
            f64::from(logits[token]).exp() / total
        } else {
            0.0
        };
        let seen = f64::from(count) / draws as f64;
        assert!(
            (seen - expected).abs() < 0.01,
            "{token}: {seen} for {expected}"
        );
    }
}

#[test]
fn the_state_follows_truncation_and_copies() {
    let mut scratch = Scratch::default();
    let mut sampler = sampler(hot(9));
    sampler.extend(&[5, 5, 0, 1, 2]);
    let mut copy = sampler.clone();
    sampler.truncate(3);
    let token = sampler.sample(&logits(), &mut scratch).unwrap().token;
    assert_eq!(token % 3, 1);
    copy.extend(&[3]);
    let token = copy.sample(&logits(), &mut scratch).unwrap().token;
    assert_eq!(token % 3, 1);
}

#[test]
fn leaving_the_grammar_and_dead_ends_are_errors() {
    let mut scratch = Scratch::default();
    let mut left = sampler(hot(1));
    left.extend(&[5, 5, 1]);
    let error = left.sample(&logits(), &mut scratch).unwrap_err();
    assert!(matches!(error, StageError::Constraint(_)), "{error:?}");

    let mut stuck = sampler(hot(1));
    stuck.extend(&[5, 5]);
    let mut row = vec![f32::NEG_INFINITY; VOCABULARY];
    row[1] = 0.0;
    let error = stuck.sample(&row, &mut scratch).unwrap_err();
    assert_eq!(error.to_string(), "no token continues the grammar");
}

/// A step with one span for each grammar.
fn step(grammars: &[&str]) -> Step {
    let spans = (0..).zip(grammars).map(|(seq, grammar)| Span {
        seq: SeqId(seq),
        position: 0,
        tokens: vec![5, 5],
        want: Want::Token,
        sampling: Some(SamplingParams {
            grammar: Some((*grammar).to_owned()),
            ..hot(4)
        }),
        prompt_tokens: 2,
    });
    Step {
        id: StepId(0),
        spans: spans.collect(),
        ..Step::default()
    }
}

#[test]
fn a_bad_grammar_is_a_fault_of_its_own_sequence() {
    let mut samplers = SequenceSamplers::new();
    let rows = [logits(), logits()].concat();
    let mut answer = |step: &Step| {
        samplers
            .answer(step, &rows, VOCABULARY, &OnlyTurns, &mut Vec::new())
            .unwrap()
            .outputs
    };
    let outputs = answer(&step(&["turns", "nonsense"]));
    assert_eq!(outputs[0].fault, None);
    assert_eq!(outputs[0].token % 3, 0);
    assert_eq!(outputs[1].fault.as_deref(), Some("no grammar"));
    // The sequence is used again, and the fault is forgotten.
    let mut again = step(&["turns", "turns"]);
    again.kv = [0, 1]
        .map(|seq| KvOp::Remove {
            seq: SeqId(seq),
            from: 0,
        })
        .to_vec();
    assert!(answer(&again).iter().all(|output| output.fault.is_none()));
}

#[test]
fn biases_move_tokens_and_the_likeliest_are_told() {
    let mut scratch = Scratch::default();
    let params = SamplingParams {
        logit_bias: vec![(1, 100.0), (2, -100.0), (99, 5.0)],
        top_logprobs: 3,
        ..SamplingParams::default()
    };
    let mut sampler = Sampler::new(params, 1, None).unwrap();
    sampler.extend(&[0]);
    let row = [0.0, 1.0, 3.0, 2.0];
    let chosen = sampler.sample(&row, &mut scratch).unwrap();
    assert_eq!(chosen.token, 1);
    let mass: f32 = row.iter().map(|logit: &f32| logit.exp()).sum();
    assert!((chosen.logprob - (1.0 - mass.ln())).abs() < 1e-5);
    let tokens: Vec<Token> = chosen.top.iter().map(|(token, _)| *token).collect();
    assert_eq!(tokens, [2, 3, 1], "before bias");
    assert!((chosen.top[0].1 - (3.0 - mass.ln())).abs() < 1e-5);

    let endless = SamplingParams {
        logit_bias: vec![(1, f32::INFINITY)],
        ..SamplingParams::default()
    };
    assert!(Sampler::new(endless, 1, None).is_err());
}
