//! What the scheduler itself costs a step: `cargo bench -p brigade-engine --bench scheduler`.
//!
//! 64 sequences decode while prompts come and go, on chains whose answers take no time to make.
//! The time is that of everything between an answer's arrival and the next steps: `on_result`,
//! `next_step` until there is no more, and the ledger that says where each request's time went. It is compared with a step of 1 ms, which is what a stage
//! takes that reads 0.1 GB of weights at 100 GB/s: whatever is worth cutting takes longer.

use std::collections::{HashMap, VecDeque};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brigade_engine::ledger::{Ledger, Spent};
use brigade_engine::scheduler::{Event, Request, RequestId, Scheduler, SchedulerConfig};
use brigade_wire::{Output, SamplingParams, Step, StepResult, Want};

const SEQUENCES: u32 = 64;
const STEPS: u32 = 20_000;
const ROUNDS: usize = 5;
const SHORTEST_STEP: Duration = Duration::from_millis(1);
/// The most of a step that the scheduler may take.
const MOST: f64 = 0.02;

fn main() -> ExitCode {
    let mut worst = 0.0_f64;
    println!("stages  µs a step  of 1 ms");
    for stages in [1, 2, 4, 16, 64] {
        let mut rounds: Vec<Duration> = (0..ROUNDS).map(|_| run(stages)).collect();
        rounds.sort_unstable();
        let step = rounds[ROUNDS / 2] / STEPS;
        let share = step.as_secs_f64() / SHORTEST_STEP.as_secs_f64();
        let us = step.as_secs_f64() * 1e6;
        println!("{stages:6}  {us:9.2}  {:5.2} %", share * 100.0);
        worst = worst.max(share);
    }
    if worst <= MOST {
        ExitCode::SUCCESS
    } else {
        println!("more than {} % of a step", MOST * 100.0);
        ExitCode::FAILURE
    }
}

/// The time that the scheduler takes for all steps.
fn run(stages: u32) -> Duration {
    let mut scheduler = Scheduler::new(SchedulerConfig {
        stages,
        sequences: SEQUENCES,
        context_tokens: 4096,
        chunk_tokens: 64,
        waiting_limit: 64,
        keeps_prefixes: true,
        preempt_after_tokens: 200,
        draft_tokens: 0,
    });
    let mut next_id = 0;
    for _ in 0..SEQUENCES + 16 {
        submit(&mut scheduler, &mut next_id);
    }
    let mut in_flight = VecDeque::new();
    let (mut ledger, mut accounts) = (Ledger::default(), HashMap::<RequestId, Spent>::new());
    let mut spent = Duration::ZERO;
    let mut now_us = 0;
    for _ in 0..STEPS {
        let start = Instant::now();
        while let Some(step) = scheduler.next_step(now_us) {
            ledger.sent(&step, now_us, |seq| scheduler.holder(seq));
            in_flight.push_back(step);
        }
        spent += start.elapsed();
        let Some(step) = in_flight.pop_front() else {
            break;
        };
        now_us += 1000;
        let result = answer(&step, stages);
        let start = Instant::now();
        let events = scheduler.on_result(&result, now_us).unwrap_or_default();
        let links = || scheduler.links();
        ledger.returned(&result, now_us, links, |request, trip| {
            accounts.entry(request).or_default().charge(trip);
        });
        spent += start.elapsed();
        for event in events {
            if let Event::Finished { request, .. } = event {
                accounts.remove(&request);
                submit(&mut scheduler, &mut next_id);
            }
        }
    }
    spent
}

fn submit(scheduler: &mut Scheduler, next_id: &mut u64) {
    *next_id += 1;
    let id = *next_id;
    let shared = 0..128;
    let own = (0..id as u32 % 200).map(|at| 1000 + at + id as u32);
    let request = Request {
        id: RequestId(id),
        user: id % 7,
        prompt: shared.chain(own).collect(),
        max_tokens: 100 + id as u32 % 400,
        sampling: SamplingParams::default(),
        stop_tokens: Arc::new([0]),
        want_logits: false,
    };
    // A full queue is as good a load as any.
    let _ = scheduler.submit(request);
}

fn answer(step: &Step, stages: u32) -> StepResult {
    let wanted = step.spans.iter().filter(|span| span.want != Want::Nothing);
    StepResult {
        id: step.id,
        outputs: wanted
            .map(|span| Output {
                seq: span.seq,
                token: 1 + (span.position * 31 + span.seq.0) % 1000,
                ..Output::default()
            })
            .collect(),
        compute_us: vec![500 + 10 * step.token_count() as u32; stages as usize],
    }
}
