//! How fast it is, against what the chain could do.

use brigade_engine::scheduler::SchedulerConfig;
use brigade_engine::sim::{SimModel, SimSpeed, SimTiming};

use crate::world::{Arrival, Times, World};

pub(crate) const MODEL: SimModel = SimModel {
    layers: 16,
    vocabulary: 24,
    seed: 11,
};

pub(crate) const LARGE: SchedulerConfig = SchedulerConfig {
    stages: 4,
    sequences: 16,
    context_tokens: 4096,
    chunk_tokens: 64,
    waiting_limit: 100,
    keeps_prefixes: false,
    preempt_after_tokens: 0,
    draft_tokens: 0,
};

/// Bound by computing.
pub(crate) const COMPUTE: SimSpeed = SimSpeed {
    step_us: 100,
    weights_us: 0,
    token_us: 100,
};

/// Bound by reading weights.
pub(crate) const WEIGHTS: SimSpeed = SimSpeed {
    step_us: 20,
    weights_us: 2000,
    token_us: 5,
};

fn plain(prompt_tokens: usize, max_tokens: u32) -> Arrival {
    Arrival {
        prompt: vec![2; prompt_tokens],
        max_tokens,
        ..Arrival::default()
    }
}

fn play<'a>(arrivals: &'a [Arrival], config: SchedulerConfig, timing: &SimTiming) -> World<'a> {
    let config = SchedulerConfig {
        stages: timing.stages.len() as u32,
        ..config
    };
    let mut world = World::new(arrivals, MODEL, config, timing);
    world.play(None);
    world.check_end();
    world
}

impl World<'_> {
    fn last_token_us(&self) -> u64 {
        let times = self.times.values();
        let last = times.filter_map(|times| times.tokens_us.last().copied());
        last.max().unwrap()
    }

    /// Tokens of all answers that came within a stretch of time, by the second.
    fn rate(&self, from_us: u64, to_us: u64) -> f64 {
        let times = self.times.values().flat_map(|times| &times.tokens_us);
        let count = times.filter(|&&at| from_us < at && at <= to_us).count();
        count as f64 * 1e6 / (to_us - from_us) as f64
    }
}

fn percentile(mut values: Vec<u64>, percent: usize) -> u64 {
    assert!(!values.is_empty());
    values.sort_unstable();
    values[(values.len() - 1) * percent / 100]
}

#[test]
fn chunks_of_a_prompt_follow_each_other() {
    // Eight chunks of 64 tokens; the last one leaves the first stage after eight of its times
    // and has three stages and five links to go.
    let timing = SimTiming::even(4, COMPUTE, 10);
    let arrivals = [plain(512, 1)];
    let time = play(&arrivals, LARGE, &timing).last_token_us();
    assert_eq!(time, (8 + 3) * COMPUTE.time_us(64) + 5 * 10);
}

#[test]
fn all_stages_work_on_many_sequences() {
    let arrivals = vec![plain(1, 200); 16];
    let timing = SimTiming::even(4, COMPUTE, 10);
    let time = play(&arrivals, LARGE, &timing).last_token_us();
    // 200 rounds of four groups of four sequences, were the stages never idle.
    let ideal = 200 * 4 * COMPUTE.time_us(4);
    assert!(time < ideal * 108 / 100, "{time} µs, ideal {ideal}");
}

#[test]
fn one_stage_batches_all_sequences() {
    let arrivals = vec![plain(1, 200); 16];
    let timing = SimTiming::even(1, WEIGHTS, 10);
    let world = play(&arrivals, LARGE, &timing);
    // 16 prompts by turns with what decodes already, then everything in one step.
    let ideal = 32 * WEIGHTS.time_us(16) + 199 * timing.pass_us(16);
    let time = world.last_token_us();
    assert!(time < ideal * 101 / 100, "{time} µs, ideal {ideal}");
}

#[test]
fn stages_bound_by_weights_are_never_slower_than_without_splitting() {
    for stages in [2, 3, 4, 8, 16] {
        for link_us in [10, 500, 5000] {
            for sequences in [1, 5, 16, 48] {
                let arrivals = vec![plain(1, 300); sequences];
                let timing = SimTiming::even(stages, WEIGHTS, link_us);
                let config = SchedulerConfig {
                    sequences: sequences as u32,
                    ..LARGE
                };
                let world = play(&arrivals, config, &timing);
                // From one token of a sequence to the next, over 180 of them.
                let times = world.times.values();
                let cycles = times.map(|times| times.tokens_us[280] - times.tokens_us[100]);
                let cycle_us = cycles.max().unwrap() / 180;
                let whole_us = timing.pass_us(sequences as u64);
                assert!(
                    cycle_us <= whole_us,
                    "{stages} stages, links of {link_us} µs, {sequences} sequences: \
                     {cycle_us} µs for a token of each, without splitting {whole_us}"
                );
            }
        }
    }
}

#[test]
fn a_batch_is_not_split_for_nothing() {
    let arrivals = vec![plain(1, 400); 16];
    let timing = SimTiming::even(4, WEIGHTS, 10);
    let world = play(&arrivals, LARGE, &timing);
    assert_eq!(world.largest_group, 16);
}

#[test]
fn neighbours_decode_together() {
    // Prompts and answers of many lengths, so that sequences come and go in any order.
    let arrivals: Vec<Arrival> = (0..200)
        .map(|id| plain(1 + id * 37 % 100, 50 + id as u32 * 61 % 200))
        .collect();
    let timing = SimTiming::even(2, COMPUTE, 10);
    let config = SchedulerConfig {
        waiting_limit: 200,
        ..LARGE
    };
    let world = play(&arrivals, config, &timing);
    let stretches = world.stretches as f64 / world.decode_steps as f64;
    assert!(stretches < 1.5, "{stretches:.2} stretches a step");
}

#[test]
fn slow_links_are_hidden_behind_more_groups() {
    // Four stages of 500 µs for a group of four, links of 2 ms: with a group for each stage they
    // would be idle most of the time.
    let arrivals = vec![plain(1, 400); 32];
    let timing = SimTiming::even(4, COMPUTE, 2000);
    let config = SchedulerConfig {
        sequences: 32,
        ..LARGE
    };
    let world = play(&arrivals, config, &timing);
    let end = world.last_token_us();
    let rate = world.rate(end / 2, end * 9 / 10);
    let four_groups = 32.0 * 1e6 / timing.pass_us(8) as f64;
    assert!(
        rate > 1.15 * four_groups,
        "{rate:.0} tokens/s, with four groups {four_groups:.0}"
    );
}

#[test]
fn uneven_stages_are_as_fast_as_their_slowest() {
    let mut timing = SimTiming::even(4, COMPUTE, 50);
    timing.stages[2].token_us = 300;
    let arrivals = vec![plain(1, 300); 16];
    let world = play(&arrivals, LARGE, &timing);
    let end = world.last_token_us();
    let rate = world.rate(end / 3, end * 9 / 10);
    // Were the slowest stage never idle, with all sequences in two groups.
    let ideal = 16.0 * 1e6 / (2 * timing.stages[2].time_us(8)) as f64;
    assert!(rate > 0.9 * ideal, "{rate:.0} tokens/s, ideal {ideal:.0}");
}

/// The longest of 99 % of the gaps between others' tokens while a long prompt is read, as a part
/// of a chunk's pass through the idle chain.
fn gap_beside_a_prompt(timing: &SimTiming, streams: usize) -> f64 {
    let pass_us = timing.pass_us(64);
    let mut arrivals = vec![plain(1, 1500); streams];
    let at_us = 20 * timing.pass_us(streams as u64);
    arrivals.push(Arrival {
        at_us,
        ..plain(2048, 1)
    });
    let world = play(&arrivals, LARGE, timing);
    let read_us = world.times[&streams].tokens_us[0];
    let gaps = world.times.values().take(streams);
    let gaps = gaps.flat_map(Times::gaps_us);
    let gaps = gaps.filter(|&(at, _)| (at_us..=read_us).contains(&at));
    let p99 = percentile(gaps.map(|(_, gap)| gap).collect(), 99);
    p99 as f64 / pass_us as f64
}

#[test]
fn a_long_prompt_delays_nobody_by_more_than_two_chunks() {
    for stages in [1, 2, 4, 16] {
        for speed in [COMPUTE, WEIGHTS] {
            for streams in [1, 4, 12] {
                let gap = gap_beside_a_prompt(&SimTiming::even(stages, speed, 50), streams);
                assert!(gap <= 2.0, "{stages} stages, {streams} streams: {gap:.2}");
            }
        }
        // One slow stage at the end, before which chunks would pile up.
        let mut timing = SimTiming::even(stages, COMPUTE, 50);
        timing.stages[stages - 1].token_us = 1000;
        let gap = gap_beside_a_prompt(&timing, 4);
        assert!(gap <= 2.0, "{stages} uneven stages: {gap:.2}");
    }
}

#[test]
fn a_prompt_is_read_quickly_beside_others() {
    let timing = SimTiming::even(2, COMPUTE, 50);
    let mut arrivals = vec![plain(1, 3000); 4];
    arrivals.push(Arrival {
        at_us: 100_000,
        ..plain(2048, 1)
    });
    let world = play(&arrivals, LARGE, &timing);
    let read_us = world.times[&4].tokens_us[0] - 100_000;
    let alone_us = 33 * COMPUTE.time_us(64);
    assert!(
        read_us < alone_us * 5 / 4,
        "{read_us} µs, alone {alone_us} µs"
    );
}

/// Time to the first token of each of these requests.
fn first_token_us(world: &World<'_>, ids: impl Iterator<Item = usize>) -> Vec<u64> {
    ids.map(|id| world.times[&id].tokens_us[0] - world.arrivals[id].at_us)
        .collect()
}

#[test]
fn short_prompts_pass_long_ones_and_long_ones_are_read_in_time() {
    let timing = SimTiming::even(4, COMPUTE, 50);
    let chunk_us = COMPUTE.time_us(64);
    // A long prompt every 20 chunks, each of 16: the chain is at four fifths of what it can do.
    // A short one every 10 chunks takes it beyond.
    let mut arrivals = Vec::new();
    for round in 0..40 {
        arrivals.push(Arrival {
            at_us: round * 20 * chunk_us,
            ..plain(1024, 2)
        });
        for half in 0..2 {
            arrivals.push(Arrival {
                at_us: (round * 20 + half * 10) * chunk_us + 1,
                ..plain(60, 2)
            });
        }
    }
    let config = SchedulerConfig {
        sequences: 64,
        ..LARGE
    };
    let world = play(&arrivals, config, &timing);
    let short = first_token_us(&world, (0..arrivals.len()).filter(|id| id % 3 != 0));
    let long = first_token_us(&world, (0..arrivals.len()).step_by(3));
    // A short one waits for two turns and the chunks on their way.
    let short = short.into_iter().max().unwrap();
    assert!(short < 12 * chunk_us, "{} chunks", short / chunk_us);
    // The long ones get the other half and what is left.
    let long = long.into_iter().max().unwrap();
    assert!(long < 80 * chunk_us, "{} chunks", long / chunk_us);
}

#[test]
fn a_user_with_many_requests_leaves_room_for_others() {
    let timing = SimTiming::even(2, COMPUTE, 50);
    let mut arrivals = vec![plain(10, 50); 80];
    let modest = arrivals.len();
    arrivals.push(Arrival {
        at_us: 50_000,
        user: 1,
        ..plain(10, 50)
    });
    let config = SchedulerConfig {
        sequences: 4,
        ..LARGE
    };
    let world = play(&arrivals, config, &timing);
    let place = world.started.iter().position(|id| id.0 as usize == modest);
    // Next to get a sequence, when the first are through.
    assert!(place.unwrap() <= 8, "{place:?}");
}

#[test]
fn prompts_that_begin_alike_are_read_once() {
    let timing = SimTiming::even(4, COMPUTE, 50);
    let prompt = |own: u32| -> Vec<u32> { (0..1024).map(|at| 2 + at % 20).chain([own]).collect() };
    // Ten at once, then one after they are through.
    let mut arrivals: Vec<Arrival> = (2..12)
        .map(|own| Arrival {
            prompt: prompt(own),
            max_tokens: 3,
            ..Arrival::default()
        })
        .collect();
    arrivals.push(Arrival {
        at_us: 10_000_000,
        prompt: prompt(12),
        max_tokens: 3,
        ..Arrival::default()
    });
    let config = SchedulerConfig {
        keeps_prefixes: true,
        ..LARGE
    };
    let world = play(&arrivals, config, &timing);
    assert_eq!(world.cached_tokens, 10 * 1024);
    let shared = play(&arrivals, config, &timing).times[&9].tokens_us[0];
    let alone = play(&arrivals, LARGE, &timing).times[&9].tokens_us[0];
    assert!(
        shared * 5 < alone,
        "{shared} µs, without sharing {alone} µs"
    );
}

#[test]
fn a_short_answer_does_not_wait_for_the_end_of_long_ones() {
    let timing = SimTiming::even(2, COMPUTE, 50);
    // All four sequences are taken for 2,000 tokens.
    let mut arrivals = vec![plain(10, 2000); 4];
    arrivals.push(Arrival {
        at_us: 300_000,
        ..plain(10, 5)
    });
    let config = |preempt_after_tokens| SchedulerConfig {
        sequences: 4,
        preempt_after_tokens,
        keeps_prefixes: true,
        ..LARGE
    };
    let patient = play(&arrivals, config(0), &timing);
    let fair = play(&arrivals, config(100), &timing);
    let waited = |world: &World<'_>| first_token_us(world, [4].into_iter())[0];
    assert!(
        20 * waited(&fair) < waited(&patient),
        "{} and {} µs",
        waited(&fair),
        waited(&patient)
    );
    // What was computed again is a part of one answer.
    let (fair_us, patient_us) = (fair.last_token_us(), patient.last_token_us());
    assert!(
        fair_us < patient_us * 12 / 10,
        "{fair_us} and {patient_us} µs"
    );
}

#[test]
fn nobody_makes_room_for_a_user_that_has_more() {
    let timing = SimTiming::even(2, COMPUTE, 50);
    // Three sequences and a queue of one user, one long answer of another.
    let mut arrivals = vec![plain(10, 300); 12];
    arrivals.insert(
        0,
        Arrival {
            user: 1,
            ..plain(10, 1000)
        },
    );
    let config = SchedulerConfig {
        sequences: 4,
        preempt_after_tokens: 50,
        ..LARGE
    };
    let world = play(&arrivals, config, &timing);
    let most = world.times[&0].gaps_us().map(|(_, gap)| gap).max();
    assert!(most.unwrap() < 20_000, "{most:?}");
}
