//! What holds whatever comes.

use brigade_engine::scheduler::SchedulerConfig;
use brigade_engine::sim::{SimModel, SimSpeed, SimTiming};
use brigade_wire::{SamplingParams, Token};
use proptest::prelude::*;

use crate::world::{Arrival, World};

const CONTEXT: u32 = 40;
const MODEL: SimModel = SimModel {
    layers: 16,
    vocabulary: 24,
    seed: 11,
};

fn sampling() -> impl Strategy<Value = SamplingParams> {
    prop_oneof![
        Just(SamplingParams::default()),
        // Mostly one token, so that guesses are right now and then.
        (8f32..16.0).prop_map(|bias| SamplingParams {
            logit_bias: vec![(5, bias)],
            ..SamplingParams::default()
        }),
        any::<u64>().prop_map(|seed| SamplingParams {
            temperature: 1.2,
            top_k: 12,
            top_p: 0.9,
            min_p: 0.01,
            repetition_penalty: 1.1,
            presence_penalty: 0.5,
            frequency_penalty: 0.2,
            seed,
            ..SamplingParams::default()
        }),
    ]
}

/// Many prompts begin alike.
fn prompt() -> impl Strategy<Value = Vec<Token>> {
    let own = prop::collection::vec(2u32..24, 1..=CONTEXT as usize);
    (own, 0..CONTEXT as usize).prop_map(|(mut prompt, shared)| {
        for (at, token) in prompt.iter_mut().take(shared).enumerate() {
            *token = 2 + at as u32 % 20;
        }
        prompt
    })
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let arrival = (
        0u64..4000,
        0u64..3,
        prompt(),
        1u32..60,
        sampling(),
        prop::option::weighted(0.3, 0u64..6000),
    )
        .prop_map(
            |(at_us, user, prompt, max_tokens, sampling, cancel)| Arrival {
                at_us,
                user,
                prompt,
                max_tokens,
                sampling,
                cancel_at_us: cancel.map(|after| at_us + after),
                stops: true,
            },
        );
    prop::collection::vec(arrival, 1..20)
}

fn timing() -> impl Strategy<Value = SimTiming> {
    let speed =
        (0u64..50, 0u64..100, 0u64..20).prop_map(|(step_us, weights_us, token_us)| SimSpeed {
            step_us,
            weights_us,
            token_us,
        });
    let stages = prop::sample::select(vec![1usize, 2, 4, 16]);
    let stages = stages.prop_flat_map(move |stages| prop::collection::vec(speed.clone(), stages));
    (stages, 0u64..200, 0u64..100, 0u64..100).prop_map(
        |(stages, link_us, link_jitter_us, stage_jitter_us)| SimTiming {
            stages,
            link_us,
            link_jitter_us,
            stage_jitter_us,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_request_gets_its_answer(
        arrivals in arrivals(),
        timing in timing(),
        sequences in 1u32..9,
        chunk_tokens in 1u32..20,
        break_at_us in prop::option::weighted(0.3, 0u64..8000),
        keeps_prefixes in any::<bool>(),
        preempt_after_tokens in 0u32..12,
        draft_tokens in 0u32..7,
    ) {
        let config = SchedulerConfig {
            stages: timing.stages.len() as u32,
            sequences,
            context_tokens: CONTEXT,
            chunk_tokens,
            waiting_limit: 20,
            keeps_prefixes,
            preempt_after_tokens,
            draft_tokens,
        };
        let mut world = World::new(&arrivals, MODEL, config, &timing);
        world.play(break_at_us);
        world.check_end();
    }

    #[test]
    fn a_users_requests_are_served_in_order(
        mut arrivals in arrivals(),
        timing in timing(),
        sequences in 1u32..9,
    ) {
        for arrival in &mut arrivals {
            arrival.cancel_at_us = None;
            // Otherwise a shorter prompt is read before a longer one.
            arrival.prompt.resize(5, 2);
        }
        let config = SchedulerConfig {
            stages: timing.stages.len() as u32,
            sequences,
            context_tokens: CONTEXT,
            chunk_tokens: 8,
            waiting_limit: 20,
            keeps_prefixes: true,
            preempt_after_tokens: 0,
            draft_tokens: 0,
        };
        let mut world = World::new(&arrivals, MODEL, config, &timing);
        world.play(None);
        for user in 0..3 {
            let of_user = world.started.iter().filter(|id| arrivals[id.0 as usize].user == user);
            let order: Vec<_> = of_user.map(|id| (arrivals[id.0 as usize].at_us, id.0)).collect();
            prop_assert!(order.is_sorted(), "{order:?}");
        }
    }
}
