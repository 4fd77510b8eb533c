//! Sampling against a reference that sorts the whole vocabulary in f64.

#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use std::collections::{BTreeMap, BTreeSet};

use brigade_engine::sampling::{Sampled, Sampler, Scratch, SequenceSamplers, check};
use brigade_engine::{NoGrammars, StageError};
use brigade_wire::{KvOp, SamplingParams, SeqId, Span, Step, StepId, Token, Want};
use proptest::prelude::*;

fn sample(params: &SamplingParams, history: &[Token], logits: &[f32]) -> Sampled {
    let mut sampler = Sampler::new(params.clone(), 0, None).unwrap();
    sampler.extend(history);
    sampler.sample(logits, &mut Scratch::default()).unwrap()
}

/// Every token that comes up in `count` draws, with how often.
fn histogram(params: &SamplingParams, logits: &[f32], count: u64) -> BTreeMap<Token, u32> {
    let mut histogram = BTreeMap::new();
    for seed in 0..count {
        let params = SamplingParams {
            seed,
            ..params.clone()
        };
        *histogram
            .entry(sample(&params, &[], logits).token)
            .or_default() += 1;
    }
    histogram
}

fn random() -> SamplingParams {
    SamplingParams {
        temperature: 1.0,
        ..SamplingParams::default()
    }
}

/// Probabilities after the filters, by sorting; `slack` widens `top_p` and `min_p`.
fn reference(logits: &[f32], params: &SamplingParams, slack: f64) -> BTreeMap<Token, f64> {
    let mut tokens: Vec<(Token, f64)> = (0..).zip(logits.iter().map(|&l| f64::from(l))).collect();
    tokens.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    if params.top_k > 0 {
        tokens.truncate(params.top_k as usize);
    }
    let max = tokens[0].1;
    let total: f64 = tokens.iter().map(|t| (t.1 - max).exp()).sum();
    let mut sum = 0.0;
    let mut kept = BTreeMap::new();
    for (token, logit) in tokens {
        let weight = (logit - max).exp();
        let top_p = f64::from(params.top_p);
        if top_p < 1.0 && !kept.is_empty() && sum / total >= top_p + slack {
            break;
        }
        sum += weight;
        if weight >= f64::from(params.min_p) * (1.0 - slack) {
            kept.insert(token, ((logit - max) / f64::from(params.temperature)).exp());
        }
    }
    let total: f64 = kept.values().sum();
    for weight in kept.values_mut() {
        *weight /= total;
    }
    kept
}

fn any_params() -> impl Strategy<Value = SamplingParams> {
    (
        prop_oneof![Just(0.0f32), 0.1f32..3.0],
        prop_oneof![Just(0u32), 1u32..100],
        prop_oneof![Just(1.0f32), 0.0f32..1.0],
        prop_oneof![Just(0.0f32), 0.0f32..1.0],
        any::<u64>(),
    )
        .prop_map(|(temperature, top_k, top_p, min_p, seed)| SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            seed,
            ..SamplingParams::default()
        })
}

fn any_logits() -> impl Strategy<Value = Vec<f32>> {
    // Few distinct values give ties; wide ranges make most tokens impossible.
    prop_oneof![
        prop::collection::vec(-20.0f32..20.0, 1..3000),
        prop::collection::vec((-3i8..3).prop_map(f32::from), 1..3000),
        prop::collection::vec(prop_oneof![Just(f32::NEG_INFINITY), -200.0f32..0.0], 1..200)
            .prop_map(|mut logits| {
                logits[0] = -100.0;
                logits
            }),
    ]
}

/// Any bits, the rarer classes often.
fn unusual() -> impl Strategy<Value = f32> {
    prop_oneof![
        8 => -10.0f32..10.0,
        2 => any::<u32>().prop_map(f32::from_bits),
        1 => prop::sample::select(vec![
            0.0, -0.0, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45, f32::NEG_INFINITY,
        ]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn the_token_passes_all_filters(params in any_params(), logits in any_logits()) {
        let Sampled { token, logprob, .. } = sample(&params, &[], &logits);
        if params.temperature > 0.0 {
            prop_assert!(reference(&logits, &params, 1e-5).contains_key(&token));
        } else {
            let best = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let lowest = logits.iter().position(|&l| l >= best).unwrap();
            prop_assert_eq!(token as usize, lowest);
        }
        let logit = f64::from(logits[token as usize]);
        let sum: f64 = logits.iter().map(|&l| (f64::from(l) - logit).exp()).sum();
        prop_assert!((f64::from(logprob) + sum.ln()).abs() < 2e-5);
    }

    /// Unusual numbers are answered or refused, without a panic.
    #[test]
    fn nothing_panics(
        logits in prop::collection::vec(unusual(), 0..50),
        floats in prop::array::uniform6(unusual()),
        usual in any::<[bool; 6]>(),
        top_k in any::<u32>(),
        history in prop::collection::vec(0u32..100, 0..20),
    ) {
        let float = |i: usize, value: f32| if usual[i] { value } else { floats[i] };
        let params = SamplingParams {
            temperature: float(0, 0.7),
            top_k,
            top_p: float(1, 0.5),
            min_p: float(2, 0.1),
            repetition_penalty: float(3, 1.2),
            presence_penalty: float(4, 1.0),
            frequency_penalty: float(5, 1.0),
            ..SamplingParams::default()
        };
        let usable = logits.iter().all(|l| *l < f32::INFINITY)
            && logits.iter().any(|l| l.is_finite());
        match Sampler::new(params.clone(), 0, None) {
            Err(_) => prop_assert!(check(&params).is_err()),
            Ok(mut sampler) => {
                sampler.extend(&history);
                let sampled = sampler.sample(&logits, &mut Scratch::default());
                prop_assert_eq!(sampled.is_ok(), usable);
                if let Ok(sampled) = sampled {
                    prop_assert!(logits[sampled.token as usize].is_finite());
                }
            }
        }
    }

    /// A sequence that was cut back or copied is as one that never was anything else.
    #[test]
    fn state_follows_the_cache(
        prompt in prop::collection::vec(0u32..20, 1..10),
        answer in prop::collection::vec(0u32..20, 0..10),
        keep in any::<prop::sample::Index>(),
        logits in prop::collection::vec(-3.0f32..3.0, 20),
        seed in any::<u64>(),
    ) {
        let params = SamplingParams {
            temperature: 1.0, repetition_penalty: 1.5, presence_penalty: 0.5,
            frequency_penalty: 0.3, seed, ..SamplingParams::default()
        };
        let history = [prompt.clone(), answer.clone()].concat();
        let keep = 1 + keep.index(history.len());
        let mut fresh = Sampler::new(params.clone(), prompt.len() as u32, None).unwrap();
        fresh.extend(&history[..keep]);
        let expected = fresh.sample(&logits, &mut Scratch::default()).unwrap();

        let mut samplers = SequenceSamplers::new();
        samplers.observe(&span(3, 0, &prompt, Some((params, prompt.len() as u32))), &NoGrammars).unwrap();
        samplers.observe(&span(3, prompt.len() as u32, &answer, None), &NoGrammars).unwrap();
        samplers.apply(KvOp::Copy { from: SeqId(3), to: SeqId(5) }).unwrap();
        for seq in [3, 5] {
            samplers.apply(KvOp::Remove { seq: SeqId(seq), from: keep as u32 }).unwrap();
            let output = samplers.sample(SeqId(seq), &logits).unwrap();
            prop_assert_eq!(output.token, expected.token);
            prop_assert_eq!(output.logprob.to_bits(), expected.logprob.to_bits());
        }
    }
}

fn span(seq: u32, position: u32, tokens: &[Token], first: Option<(SamplingParams, u32)>) -> Span {
    let (sampling, prompt_tokens) = first.map_or((None, 0), |(s, p)| (Some(s), p));
    Span {
        seq: SeqId(seq),
        position,
        tokens: tokens.to_vec(),
        want: Want::Token,
        sampling,
        prompt_tokens,
    }
}

#[test]
fn draws_follow_the_probabilities() {
    let logits = [1.0, 2.5, f32::NEG_INFINITY, 0.0, 2.0, -1.0, 2.5, 1.5];
    let cases = [
        random(),
        SamplingParams {
            temperature: 0.5,
            ..random()
        },
        SamplingParams {
            top_k: 3,
            ..random()
        },
        SamplingParams {
            top_p: 0.8,
            temperature: 2.0,
            ..random()
        },
        SamplingParams {
            min_p: 0.3,
            ..random()
        },
        SamplingParams {
            top_k: 5,
            top_p: 0.9,
            min_p: 0.2,
            temperature: 1.5,
            ..random()
        },
    ];
    let count = 20_000u32;
    for params in cases {
        let expected = reference(&logits, &params, 0.0);
        let expected: BTreeMap<_, _> = expected.into_iter().filter(|(_, p)| *p > 0.0).collect();
        let seen = histogram(&params, &logits, u64::from(count));
        assert_eq!(
            seen.keys().collect::<BTreeSet<_>>(),
            expected.keys().collect::<BTreeSet<_>>(),
            "{params:?}"
        );
        for (token, p) in expected {
            let n = f64::from(count);
            let sigma = (n * p * (1.0 - p)).sqrt();
            let off = (f64::from(seen[&token]) - n * p).abs();
            assert!(off < 4.5 * sigma, "{params:?} token {token}: off by {off}");
        }
    }
}

/// More tokens than the walk's blocks have, all equally likely.
#[test]
fn draws_reach_the_whole_vocabulary() {
    let seen = histogram(&random(), &vec![0.5; 5000], 10_000);
    let mut fifths = [0u32; 5];
    for (token, count) in seen {
        fifths[token as usize / 1000] += count;
    }
    // 4.5 standard deviations of the binomial distribution are 180.
    assert!(fifths.iter().all(|n| n.abs_diff(2000) < 180), "{fifths:?}");
}

#[test]
fn the_position_changes_the_draw_and_nothing_else_does() {
    let logits = [0.0; 64];
    let params = random();
    let tokens: BTreeSet<Token> = (0..32)
        .map(|len| sample(&params, &vec![1; len], &logits).token)
        .collect();
    assert!(tokens.len() > 16, "{tokens:?}");
    assert_eq!(
        sample(&params, &[1, 2, 3], &logits),
        sample(&params, &[7, 8, 9], &logits)
    );
}

#[test]
fn penalties() {
    // Prompt: tokens 0 and 1; answer: 1, 2, 2.
    let choose = |params: SamplingParams, logits: &[f32]| {
        let mut sampler = Sampler::new(params, 2, None).unwrap();
        sampler.extend(&[0, 1, 1, 2, 2]);
        sampler.sample(logits, &mut Scratch::default()).unwrap()
    };
    let neutral = SamplingParams::default();
    let repetition = SamplingParams {
        repetition_penalty: 2.0,
        ..neutral.clone()
    };
    let presence = SamplingParams {
        presence_penalty: 1.0,
        ..neutral.clone()
    };
    let frequency = SamplingParams {
        frequency_penalty: 1.0,
        ..neutral.clone()
    };
    // Dividing positive and multiplying negative logits, prompt included.
    assert_eq!(choose(repetition.clone(), &[3.0, 3.0, 3.0, 1.6]).token, 3);
    assert_eq!(choose(repetition, &[-1.0, -1.0, -1.0, -1.9]).token, 3);
    // Once for tokens of the answer; the prompt's token 0 goes free.
    assert_eq!(choose(presence.clone(), &[1.5, 2.4, 2.4, 1.0]).token, 0);
    assert_eq!(choose(presence, &[1.3, 2.4, 2.4, 1.0]).token, 1);
    // As often as the answer holds it: token 1 once, token 2 twice.
    assert_eq!(choose(frequency.clone(), &[0.0, 2.4, 3.3, 0.0]).token, 1);
    let sampled = choose(frequency, &[0.0, 0.0, 3.5, 0.0]);
    assert_eq!(sampled.token, 2);
    // The log-probability is that of the logits as they came.
    let expected = -(1.0 + 3.0 * (-3.5f32).exp()).ln();
    assert!((sampled.logprob - expected).abs() < 1e-6);
}

#[test]
fn a_large_flat_vocabulary_is_cut_at_the_right_place() {
    let logits = vec![0.25f32; 262_144];
    let params = SamplingParams {
        top_p: 0.5,
        ..random()
    };
    let half = 131_072;
    let tokens: Vec<Token> = (0..200)
        .map(|seed| {
            let params = SamplingParams {
                seed,
                ..params.clone()
            };
            sample(&params, &[], &logits).token
        })
        .collect();
    assert!(tokens.iter().all(|&token| token < half), "{tokens:?}");
    assert!(tokens.iter().any(|&token| token > half / 10 * 9));
}

#[test]
fn unusable_logits_are_refused() {
    let sampler = Sampler::new(SamplingParams::default(), 0, None).unwrap();
    let inf = f32::INFINITY;
    let cases = [
        vec![],
        vec![f32::NAN],
        vec![0.0, inf],
        vec![-inf, -inf],
        [vec![0.0; 5000], vec![f32::NAN], vec![1.0; 7]].concat(),
    ];
    for logits in cases {
        let error = sampler.sample(&logits, &mut Scratch::default());
        assert!(matches!(error, Err(StageError::Logits(_))), "{error:?}");
    }
    let masked = sampler.sample(&[-inf, -5.0, -inf], &mut Scratch::default());
    assert_eq!(masked.unwrap().token, 1);
}

#[test]
fn a_sequence_out_of_step_is_refused() {
    let mut samplers = SequenceSamplers::new();
    let error = samplers
        .observe(&span(0, 0, &[1], None), &NoGrammars)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "bad step: sequence 0 starts without sampling parameters"
    );
    let first = Some((SamplingParams::default(), 2));
    samplers
        .observe(&span(0, 0, &[1, 2], first), &NoGrammars)
        .unwrap();
    let error = samplers
        .observe(&span(0, 3, &[4], None), &NoGrammars)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "sequence 0 has 2 tokens here, the step expects 3"
    );
    let hot = SamplingParams {
        temperature: -1.0,
        ..SamplingParams::default()
    };
    let error = samplers.observe(&span(1, 0, &[1], Some((hot, 1))), &NoGrammars);
    assert_eq!(
        error.unwrap_err().to_string(),
        "bad step: temperature is -1, it must be 0 or more"
    );
}

#[test]
fn the_logits_that_were_asked_for_come_back() {
    let first = Some((SamplingParams::default(), 1));
    let with_want = |seq, want| Span {
        want,
        ..span(seq, 0, &[1], first.clone())
    };
    let step = Step {
        id: StepId(4),
        spans: vec![
            with_want(0, Want::Token),
            with_want(1, Want::Nothing),
            with_want(2, Want::TokenAndLogits),
        ],
        ..Step::default()
    };
    let logits = [0.0, 1.0, 2.0, 9.0, 8.0, 7.0];
    let mut returned = Vec::new();
    let result = SequenceSamplers::new()
        .answer(&step, &logits, 3, &NoGrammars, &mut returned)
        .unwrap();
    let tokens: Vec<_> = result.outputs.iter().map(|o| (o.seq.0, o.token)).collect();
    assert_eq!((result.id, tokens), (StepId(4), vec![(0, 2), (2, 0)]));
    assert_eq!(returned, [9.0, 8.0, 7.0]);

    let error = SequenceSamplers::new().answer(&step, &logits[1..], 3, &NoGrammars, &mut returned);
    assert!(matches!(error, Err(StageError::Logits(_))), "{error:?}");
}

/// The filter gathers in steps of 2.0 below the best; here the first step finds exactly `top_k`.
#[test]
fn top_k_holds_where_the_first_step_finds_as_many() {
    let logits = [5.0, 4.9, 2.9, 2.9, 2.9, 2.9];
    let params = SamplingParams {
        top_k: 2,
        ..random()
    };
    let drawn = histogram(&params, &logits, 500);
    assert_eq!(drawn.into_keys().collect::<Vec<_>>(), [0, 1]);
}
