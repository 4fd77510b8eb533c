//! Where the time of requests went, on a chain in virtual time.

#![expect(clippy::unwrap_used, reason = "helpers of tests may, as tests may")]

use std::collections::BTreeMap;
use std::sync::Arc;

use brigade_engine::ledger::{Ledger, Phase, Spent};
use brigade_engine::scheduler::{Event, Request, RequestId, Scheduler, SchedulerConfig};
use brigade_engine::sim::{SimChain, SimModel, SimSpeed, SimTiming};
use brigade_wire::SamplingParams;
use proptest::prelude::*;

const MODEL: SimModel = SimModel {
    layers: 6,
    vocabulary: 50,
    seed: 7,
};
const CHUNK: u32 = 8;

/// What became of a request.
#[derive(Debug, Default)]
struct Told {
    spent: Spent,
    started_us: u64,
    first_us: u64,
    last_us: u64,
}

/// Plays requests of so many prompt and answer tokens that all come at once.
fn play(requests: &[(u32, u32)], sequences: u32, timing: &SimTiming) -> Vec<Told> {
    let config = SchedulerConfig {
        stages: timing.stages.len() as u32,
        sequences,
        context_tokens: 256,
        chunk_tokens: CHUNK,
        waiting_limit: requests.len(),
        keeps_prefixes: true,
        preempt_after_tokens: 5,
        draft_tokens: 2,
    };
    let mut scheduler = Scheduler::new(config);
    let mut chain = SimChain::new(MODEL, sequences, config.context_tokens, timing.clone());
    let mut ledger = Ledger::default();
    let mut told: BTreeMap<RequestId, Told> = BTreeMap::new();
    for (id, &(prompt, answer)) in (0..).zip(requests) {
        let request = Request {
            id: RequestId(id),
            user: 0,
            prompt: (0..prompt).map(|at| (at + id as u32) % 50).collect(),
            max_tokens: answer,
            sampling: SamplingParams::default(),
            stop_tokens: Arc::new([]),
            want_logits: false,
        };
        scheduler.submit(request).unwrap();
        told.insert(RequestId(id), Told::default());
    }
    loop {
        while let Some(step) = scheduler.next_step(chain.now_us()) {
            for started in scheduler.take_started() {
                told.get_mut(&started.request).unwrap().started_us = chain.now_us();
            }
            ledger.sent(&step, chain.now_us(), |seq| scheduler.holder(seq));
            chain.send(&step).unwrap();
        }
        let Some((result, _)) = chain.receive() else {
            return told.into_values().collect();
        };
        let now_us = chain.now_us();
        let events = scheduler.on_result(&result, now_us).unwrap();
        let links = || scheduler.measured().links;
        ledger.returned(&result, now_us, links, |request, trip| {
            told.get_mut(&request).unwrap().spent.charge(trip);
        });
        for event in events {
            if let Event::Token { request, .. } = event {
                let told = told.get_mut(&request).unwrap();
                told.last_us = now_us;
                if told.first_us == 0 {
                    told.first_us = now_us;
                }
            }
        }
    }
}

fn sum(phase: &Phase) -> f64 {
    phase.network_us + phase.stages_us.iter().sum::<f64>()
}

fn speeds(token_us: &[u64]) -> Vec<SimSpeed> {
    let speed = |&token_us: &u64| SimSpeed {
        step_us: 100,
        weights_us: 0,
        token_us,
    };
    token_us.iter().map(speed).collect()
}

#[test]
fn alone_every_microsecond_has_its_place() {
    let timing = SimTiming {
        stages: speeds(&[10, 30, 20]),
        link_us: 500,
        ..SimTiming::default()
    };
    let told = play(&[(CHUNK, 11)], 4, &timing);
    let [Told { spent, .. }] = &told[..] else {
        panic!("{told:?}");
    };
    // A chunk of 8 tokens; then ten steps of one.
    assert_eq!(spent.prefill.stages_us, [180.0, 340.0, 260.0]);
    assert_eq!(spent.decode.stages_us, [1100.0, 1300.0, 1200.0]);
    let network_us = vec![spent.prefill.network_us, spent.decode.network_us];
    assert_eq!(network_us, [2000.0, 20_000.0]);
}

#[test]
fn what_chunks_take_at_the_same_time_is_charged_once() {
    let timing = SimTiming {
        stages: speeds(&[10, 30, 20]),
        link_us: 500,
        ..SimTiming::default()
    };
    let told = play(&[(20 * CHUNK, 1)], 4, &timing);
    let Told {
        spent,
        started_us,
        first_us,
        ..
    } = &told[0];
    let took = (first_us - started_us) as f64;
    let charged = sum(&spent.prefill);
    assert!(charged <= took && charged > 0.5 * took, "{charged} {took}");
    let [first, second, third] = spent.prefill.stages_us[..] else {
        panic!("{spent:?}");
    };
    assert!(second > third && third > first, "{spent:?}");
}

#[test]
fn who_waits_for_others_is_not_charged_for_the_network() {
    let timing = SimTiming {
        stages: speeds(&[200, 2000]),
        link_us: 50,
        ..SimTiming::default()
    };
    // The short one decodes while the long prompts of the others are read.
    let told = play(&[(CHUNK, 20), (160, 1), (160, 1)], 3, &timing);
    let Told {
        spent,
        first_us,
        last_us,
        ..
    } = &told[0];
    // 19 times three links.
    let network_us = spent.decode.network_us;
    assert!((network_us - 2850.0).abs() < 1.0, "{network_us}");
    let waiting = (last_us - first_us) as f64 - sum(&spent.decode);
    assert!(waiting > 100_000.0, "{waiting}");
}

proptest! {
    /// Whatever happens, nobody is charged more than the time that passed, in either phase.
    #[test]
    fn nobody_is_charged_more_than_the_time_that_passed(
        requests in prop::collection::vec((1..100_u32, 1..20_u32), 1..12),
        token_us in prop::collection::vec(1..300_u64, 1..5),
        sequences in 1..4_u32,
        link_us in 0..1000_u64,
        jitter_us in 0..200_u64,
    ) {
        let timing = SimTiming {
            stages: speeds(&token_us),
            link_us,
            link_jitter_us: jitter_us,
            stage_jitter_us: jitter_us,
        };
        for told in play(&requests, sequences, &timing) {
            let spent = &told.spent;
            prop_assert!(sum(&spent.prefill) <= (told.first_us - told.started_us) as f64 + 0.01);
            prop_assert!(sum(&spent.decode) <= (told.last_us - told.first_us) as f64 + 0.01);
            prop_assert!(spent.prefill.stages_us.len() == token_us.len());
        }
    }
}
