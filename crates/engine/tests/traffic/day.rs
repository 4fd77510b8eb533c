//! A day of traffic, in seconds.

use brigade_engine::scheduler::SchedulerConfig;
use brigade_engine::sim::{SimModel, SimSpeed, SimTiming};
use brigade_wire::SamplingParams;

use crate::world::{Arrival, World};

const HOUR_US: u64 = 3_600_000_000;
const CONTEXT: u32 = 1024;

/// A generator of the tests' own, so that a seed means the same everywhere (splitmix64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Mostly small, now and then as large as the limit.
    fn skewed(&mut self, limit: u64) -> u64 {
        let scale = self.below(4);
        self.below((limit >> (2 * scale)).max(2))
    }
}

/// Requests of some users over 24 hours: bursts of a few, most of them in the day's second half.
fn day(seed: u64, requests: usize) -> Vec<Arrival> {
    let mut random = Random(seed);
    let mut arrivals = Vec::new();
    while arrivals.len() < requests {
        let hour = random.below(24).max(random.below(24));
        let burst_us = hour * HOUR_US + random.below(HOUR_US);
        let user = random.below(9);
        for _ in 0..=random.below(8) {
            let at_us = burst_us + random.below(400_000);
            let shared = random.below(3) * 64;
            let own = 1 + random.skewed(600);
            let shared = (0..shared).map(|at| 2 + (at as u32 * 5 + user as u32) % 20);
            let prompt: Vec<u32> = shared
                .chain((0..own).map(|_| 2 + random.below(22) as u32))
                .collect();
            let cancelled = random.below(10) == 0;
            arrivals.push(Arrival {
                at_us,
                user,
                prompt,
                max_tokens: 1 + random.skewed(200) as u32,
                sampling: SamplingParams {
                    temperature: random.below(2) as f32,
                    seed: random.next(),
                    ..SamplingParams::default()
                },
                cancel_at_us: cancelled.then(|| at_us + random.below(2_000_000)),
                stops: true,
            });
        }
    }
    arrivals
}

/// Stages of all kinds: fast and slow, bound by weights and by computing.
fn chain(seed: u64, stages: usize) -> SimTiming {
    let mut random = Random(!seed);
    let any_speed = |_| SimSpeed {
        step_us: 50 + random.below(200),
        weights_us: random.below(3000),
        token_us: 10 + random.below(200),
    };
    SimTiming {
        stages: (0..stages).map(any_speed).collect(),
        link_us: 300,
        link_jitter_us: 500,
        stage_jitter_us: 300,
    }
}

fn play(seed: u64, stages: u32, requests: usize) -> (u64, u64) {
    let model = SimModel {
        layers: stages.max(8),
        vocabulary: 24,
        seed,
    };
    let config = SchedulerConfig {
        stages,
        sequences: 16,
        context_tokens: CONTEXT,
        chunk_tokens: 64,
        waiting_limit: requests,
        keeps_prefixes: true,
        preempt_after_tokens: 40,
        draft_tokens: 4,
    };
    let arrivals = day(seed, requests);
    let mut world = World::new(&arrivals, model, config, &chain(seed, stages as usize));
    world.play(None);
    world.check_end();
    (world.chain.now_us(), world.steps)
}

/// Runs a closure, and says which seed it was where it fails.
fn with_seed<T>(seed: u64, run: impl FnOnce(u64) -> T) -> T {
    struct Note(u64);
    impl Drop for Note {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("the seed that repeats this: {}", self.0);
            }
        }
    }
    let _note = Note(seed);
    run(seed)
}

#[test]
fn a_day_over_4_stages() {
    for seed in [1, 2] {
        let (end_us, _) = with_seed(seed, |seed| play(seed, 4, 3000));
        assert!(end_us > 20 * HOUR_US);
    }
}

#[test]
fn a_day_over_16_stages() {
    with_seed(3, |seed| play(seed, 16, 2000));
}

#[test]
fn a_day_over_64_stages() {
    with_seed(4, |seed| play(seed, 64, 1500));
}

#[test]
fn a_seed_repeats_its_day() {
    let once = with_seed(5, |seed| play(seed, 4, 300));
    assert_eq!(once, with_seed(5, |seed| play(seed, 4, 300)));
    assert_ne!(once, with_seed(6, |seed| play(seed, 4, 300)));
}
