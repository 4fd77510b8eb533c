//! Guesses that are verified: what they gain, and that they never cost much.

use brigade_engine::scheduler::SchedulerConfig;
use brigade_engine::sim::SimTiming;
use brigade_wire::SamplingParams;

use crate::speed::{COMPUTE, LARGE, MODEL, WEIGHTS};
use crate::world::{Arrival, World};

/// An answer of 400 tokens that repeats itself, or hardly ever.
fn arrival(repeats: bool) -> Arrival {
    let mut sampling = SamplingParams::default();
    if repeats {
        sampling.logit_bias = vec![(5, 100.0)];
    }
    Arrival {
        prompt: vec![2; 8],
        max_tokens: 400,
        sampling,
        ..Arrival::default()
    }
}

/// How many times as fast these answers are with drafts of up to 8 tokens.
fn gain(arrivals: &[Arrival], timing: &SimTiming) -> f64 {
    let time_us = |draft_tokens| {
        let config = SchedulerConfig {
            stages: timing.stages.len() as u32,
            draft_tokens,
            ..LARGE
        };
        let mut world = World::new(arrivals, MODEL, config, timing);
        world.play(None);
        world.check_end();
        let measured = world.scheduler.measured();
        assert!(
            measured.accepted <= measured.drafted && (draft_tokens > 0 || measured.drafted == 0)
        );
        world.chain.now_us() as f64
    };
    time_us(0) / time_us(8)
}

#[test]
fn right_guesses_pay_where_weights_bound_a_step() {
    for stages in [1, 4, 16] {
        let timing = SimTiming::even(stages, WEIGHTS, 50);
        let gain = gain(&[arrival(true)], &timing);
        // Nine tokens a step at the most.
        assert!((5.0..9.0).contains(&gain), "{stages} stages: {gain:.2}");
    }
}

#[test]
fn several_streams_share_a_step_with_their_drafts() {
    let timing = SimTiming::even(2, WEIGHTS, 50);
    let gain = gain(&vec![arrival(true); 3], &timing);
    assert!(gain > 4.0, "{gain:.2}");
}

#[test]
fn drafts_are_switched_off_where_they_lose() {
    for (repeats, speed) in [(false, WEIGHTS), (false, COMPUTE), (true, COMPUTE)] {
        for streams in [1, 3, 16] {
            let timing = SimTiming::even(2, speed, 50);
            let gain = gain(&vec![arrival(repeats); streams], &timing);
            assert!(
                gain > 0.97,
                "{streams} streams, repeating: {repeats}, {speed:?}: {gain:.2}"
            );
        }
    }
}

#[test]
fn an_answer_that_begins_to_repeat_itself_is_found_out() {
    // Its first half has nothing to guess from, so drafts are off by then.
    let timing = SimTiming::even(4, WEIGHTS, 50);
    let mut late = arrival(false);
    late.prompt = (0..200).map(|at| 2 + at * at % 22).collect();
    late.max_tokens = 300;
    let mut halves = vec![late.clone()];
    let off = gain(&halves, &timing);
    halves[0].sampling.logit_bias = vec![(5, 9.0)];
    let mostly = gain(&halves, &timing);
    assert!(off > 0.97 && mostly > 1.3, "{off:.2} and {mostly:.2}");
}
