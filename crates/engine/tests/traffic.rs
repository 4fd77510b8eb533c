//! Random traffic through the scheduler and simulated chains, in virtual time.

#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use brigade_engine::sampling::{Sampler, Scratch};
use brigade_engine::scheduler::{
    Event, FinishReason, Request, RequestId, Scheduler, SchedulerConfig,
};
use brigade_engine::sim::{SimChain, SimModel, SimStage, SimTiming};
use brigade_engine::{Input, Stage};
use brigade_wire::{SamplingParams, SeqId, Span, Step, Token, Want};
use proptest::prelude::*;

const CONTEXT: u32 = 40;
const MODEL: SimModel = SimModel {
    layers: 16,
    vocabulary: 24,
    seed: 11,
};
const STOP: [Token; 2] = [0, 1];

#[derive(Debug, Clone)]
struct Arrival {
    at_us: u64,
    prompt: Vec<Token>,
    max_tokens: u32,
    sampling: SamplingParams,
    cancel_at_us: Option<u64>,
}

impl Arrival {
    fn request(&self, id: usize) -> Request {
        Request {
            id: RequestId(id as u64),
            prompt: self.prompt.clone(),
            max_tokens: self.max_tokens,
            sampling: self.sampling.clone(),
            stop_tokens: Arc::new(STOP),
            want_logits: id.is_multiple_of(2),
        }
    }

    /// The answer of the whole model to this request alone, a token at a time.
    fn reference(&self) -> Answer {
        let mut stage = SimStage::new(MODEL, 0..MODEL.layers, 1, CONTEXT);
        let mut sampler =
            Sampler::new(self.sampling.clone(), self.prompt.len() as u32, None).unwrap();
        let mut answer = Answer::default();
        let mut logits = Vec::new();
        let mut next = self.prompt.clone();
        loop {
            for &token in &next {
                let span = Span {
                    seq: SeqId(0),
                    position: sampler.position() as u32,
                    tokens: vec![token],
                    want: Want::Token,
                    sampling: None,
                    prompt_tokens: 0,
                };
                stage
                    .forward(&[span], Input::Tokens(&[token]), &mut logits)
                    .unwrap();
                sampler.extend(&[token]);
            }
            let token = sampler
                .sample(&logits, &mut Scratch::default())
                .unwrap()
                .token;
            if STOP.contains(&token) {
                answer.finished = Some(FinishReason::Stop);
                return answer;
            }
            answer.tokens.push(token);
            let full = sampler.position() == CONTEXT as usize;
            if full || answer.tokens.len() == self.max_tokens as usize {
                answer.finished = Some(FinishReason::Length);
                return answer;
            }
            next = vec![token];
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
struct Answer {
    tokens: Vec<Token>,
    finished: Option<FinishReason>,
}

fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
    let sampling = prop_oneof![
        Just(SamplingParams::default()),
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
    ];
    let arrival = (
        0u64..4000,
        prop::collection::vec(2u32..24, 1..=CONTEXT as usize),
        1u32..60,
        sampling,
        prop::option::weighted(0.3, 0u64..6000),
    )
        .prop_map(|(at_us, prompt, max_tokens, sampling, cancel)| Arrival {
            at_us,
            prompt,
            max_tokens,
            sampling,
            cancel_at_us: cancel.map(|after| at_us + after),
        });
    prop::collection::vec(arrival, 1..20)
}

fn timing() -> impl Strategy<Value = SimTiming> {
    (1u64..50, 0u64..20, 0u64..200, 0u64..100).prop_map(
        |(step_us, token_us, link_us, jitter_us)| SimTiming {
            step_us,
            token_us,
            link_us,
            jitter_us,
        },
    )
}

/// A scheduler and its chain, with what must always hold checked at each step.
struct Run<'a> {
    arrivals: &'a [Arrival],
    config: SchedulerConfig,
    timing: SimTiming,
    scheduler: Scheduler,
    chain: SimChain,
    answers: BTreeMap<usize, Answer>,
    /// The number of the step before which a request's last token arrived.
    ready_since: HashMap<RequestId, u64>,
    /// Requests in order of their first step.
    started: Vec<RequestId>,
    holders: HashMap<SeqId, RequestId>,
}

impl<'a> Run<'a> {
    fn new(arrivals: &'a [Arrival], config: SchedulerConfig, timing: SimTiming) -> Self {
        Self {
            arrivals,
            config,
            timing,
            scheduler: Scheduler::new(config),
            chain: Self::chain(config, timing),
            answers: BTreeMap::new(),
            ready_since: HashMap::new(),
            started: Vec::new(),
            holders: HashMap::new(),
        }
    }

    fn chain(config: SchedulerConfig, timing: SimTiming) -> SimChain {
        SimChain::new(MODEL, config.stages, config.sequences, CONTEXT, timing)
    }

    /// Plays all arrivals, cancellations and, if there is one, the break of the chain.
    fn play(&mut self, break_at_us: Option<u64>) {
        let mut agenda: Vec<(u64, usize, bool)> = Vec::new();
        for (id, arrival) in self.arrivals.iter().enumerate() {
            agenda.push((arrival.at_us, id, false));
            agenda.extend(arrival.cancel_at_us.map(|at| (at, id, true)));
        }
        agenda.sort_unstable();
        agenda.reverse();
        let mut break_at_us = break_at_us;
        loop {
            self.send_all();
            let result_us = self.chain.next_result_us();
            let agenda_us = agenda.last().map(|entry| entry.0);
            let Some(now) = [result_us, agenda_us].into_iter().flatten().min() else {
                break;
            };
            if break_at_us.is_some_and(|at| at <= now) {
                break_at_us = None;
                self.break_chain();
            } else if agenda_us == Some(now) {
                self.chain.advance_to(now);
                let Some((_, id, is_cancel)) = agenda.pop() else {
                    unreachable!("it has a time");
                };
                if is_cancel {
                    self.scheduler.cancel(RequestId(id as u64));
                    self.ready_since.remove(&RequestId(id as u64));
                } else {
                    self.submit(id);
                }
            } else {
                self.receive();
            }
        }
    }

    fn submit(&mut self, id: usize) {
        self.answers.insert(id, Answer::default());
        self.scheduler
            .submit(self.arrivals[id].request(id))
            .unwrap();
    }

    fn send_all(&mut self) {
        while let Some(step) = self.scheduler.next_step() {
            let in_flight = self.scheduler.load().steps_in_flight;
            assert!(in_flight <= self.config.stages as usize + 1);
            assert!(step.token_count() <= self.config.batch_tokens() as usize);
            assert!(step.id.0 < 20_000, "it goes on for ever");
            self.follow(&step);
            // The stages check order, lengths and positions of the spans.
            self.chain.send(&step).unwrap();
        }
    }

    fn follow(&mut self, step: &Step) {
        for span in &step.spans {
            if span.sampling.is_some() {
                // The prompt names the request, for the requests' prompts differ.
                let id = self.started_by(span);
                self.started.push(id);
                self.holders.insert(span.seq, id);
            } else if let Some(since) = self.ready_since.remove(&self.holders[&span.seq]) {
                let waited = step.id.0 - since;
                let most = 2 * u64::from(self.config.stages) + 2;
                assert!(waited <= most, "it waited for {waited} steps");
            }
            let prompt = &self.arrivals[self.holders[&span.seq].0 as usize].prompt;
            if (span.position as usize) < prompt.len() {
                assert!(span.position.is_multiple_of(self.config.chunk_tokens));
            }
        }
    }

    fn started_by(&self, span: &Span) -> RequestId {
        let id = span.tokens[0] as usize;
        assert!(self.answers.contains_key(&id));
        RequestId(id as u64)
    }

    fn receive(&mut self) {
        let (result, logits) = self.chain.receive().unwrap();
        let mut rows = 0;
        for event in self.scheduler.on_result(&result).unwrap() {
            match event {
                Event::Token {
                    request,
                    token,
                    logits_row,
                    ..
                } => {
                    self.answers
                        .get_mut(&(request.0 as usize))
                        .unwrap()
                        .tokens
                        .push(token);
                    self.ready_since.insert(request, result.id.0);
                    assert_eq!(logits_row.is_some(), request.0.is_multiple_of(2));
                    rows = rows.max(logits_row.map_or(0, |row| row + 1));
                }
                Event::Finished { request, reason } => {
                    let answer = self.answers.get_mut(&(request.0 as usize)).unwrap();
                    assert_eq!(answer.finished, None);
                    answer.finished = Some(reason);
                    self.ready_since.remove(&request);
                }
                Event::Failed { reason, .. } => panic!("nothing has a grammar: {reason}"),
            }
        }
        assert!(rows * MODEL.vocabulary <= logits.len());
    }

    /// Every request that was lost is asked again on a new chain.
    fn break_chain(&mut self) {
        let now = self.chain.now_us();
        self.chain = Self::chain(self.config, self.timing);
        self.chain.advance_to(now);
        self.ready_since.clear();
        for id in self.scheduler.fail_all() {
            self.submit(id.0 as usize);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn every_request_gets_its_answer(
        mut arrivals in arrivals(),
        stages in prop::sample::select(vec![1u32, 2, 4, 16]),
        sequences in 1u32..9,
        chunk_tokens in 1u32..20,
        timing in timing(),
        break_at_us in prop::option::weighted(0.3, 0u64..8000),
    ) {
        for (id, arrival) in arrivals.iter_mut().enumerate() {
            arrival.prompt[0] = id as u32;
        }
        let config = SchedulerConfig {
            stages, sequences, context_tokens: CONTEXT, chunk_tokens, waiting_limit: 20,
        };
        let mut run = Run::new(&arrivals, config, timing);
        run.play(break_at_us);

        for (id, arrival) in arrivals.iter().enumerate() {
            let expected = arrival.reference();
            let answer = &run.answers[&id];
            if arrival.cancel_at_us.is_some() && answer.finished.is_none() {
                prop_assert!(expected.tokens.starts_with(&answer.tokens));
            } else {
                prop_assert_eq!(answer, &expected, "request {}", id);
            }
        }
        let load = run.scheduler.load();
        prop_assert_eq!((load.waiting, load.active, load.steps_in_flight), (0, 0, 0));
        prop_assert!(run.chain.stages().iter().all(|stage| stage.kv_tokens() == 0));
        if break_at_us.is_none() {
            let mut order: Vec<_> = run.started.clone();
            order.sort_by_key(|id| (arrivals[id.0 as usize].at_us, id.0));
            prop_assert_eq!(order, run.started, "first come, first served");
        }
    }
}

fn timed(config: SchedulerConfig, stages: u32, timing: SimTiming, requests: &[Request]) -> u64 {
    let mut scheduler = Scheduler::new(config);
    let mut chain = SimChain::new(
        MODEL,
        stages,
        config.sequences,
        config.context_tokens,
        timing,
    );
    for request in requests {
        scheduler.submit(request.clone()).unwrap();
    }
    let mut last_token_us = 0;
    loop {
        while let Some(step) = scheduler.next_step() {
            chain.send(&step).unwrap();
        }
        let Some((result, _)) = chain.receive() else {
            return last_token_us;
        };
        let events = scheduler.on_result(&result).unwrap();
        if !events.is_empty() {
            last_token_us = chain.now_us();
        }
    }
}

fn plain(id: u64, prompt_tokens: u32, max_tokens: u32) -> Request {
    Request {
        id: RequestId(id),
        prompt: vec![2; prompt_tokens as usize],
        max_tokens,
        sampling: SamplingParams::default(),
        stop_tokens: Arc::new([]),
        want_logits: false,
    }
}

const TIMING: SimTiming = SimTiming {
    step_us: 100,
    token_us: 100,
    link_us: 10,
    jitter_us: 0,
};

const LARGE: SchedulerConfig = SchedulerConfig {
    stages: 4,
    sequences: 16,
    context_tokens: 1024,
    chunk_tokens: 64,
    waiting_limit: 100,
};

#[test]
fn chunks_of_a_prompt_follow_each_other() {
    // Eight chunks of 64 tokens; the last one leaves the first stage after eight of its times
    // and has three stages and five links to go.
    let chunk_us = 100 + 64 * 100;
    let time = timed(LARGE, 4, TIMING, &[plain(0, 512, 1)]);
    assert_eq!(time, (8 + 3) * chunk_us + 5 * 10);
}

#[test]
fn all_stages_work_on_many_sequences() {
    let requests: Vec<Request> = (0..16).map(|id| plain(id, 1, 200)).collect();
    let time = timed(LARGE, 4, TIMING, &requests);
    // 200 rounds of four groups of four sequences, were the stages never idle.
    let ideal = 200 * 4 * (100 + 4 * 100);
    assert!(time < ideal * 108 / 100, "{time} µs, ideal {ideal}");
    // The same chain with one group at a time.
    let serial = SchedulerConfig { stages: 1, ..LARGE };
    let serial_time = timed(serial, 4, TIMING, &requests);
    assert!(serial_time > 3 * time, "{serial_time} µs, pipelined {time}");
}

#[test]
fn one_stage_batches_all_sequences() {
    // Mostly the cost of a step, whatever its size, as with weights read from memory.
    let timing = SimTiming {
        step_us: 1000,
        token_us: 1,
        ..TIMING
    };
    let requests: Vec<Request> = (0..16).map(|id| plain(id, 1, 200)).collect();
    let config = SchedulerConfig { stages: 1, ..LARGE };
    let time = timed(config, 1, timing, &requests);
    // 16 prompts, then 199 rounds with all 16 in one step and the way there and back.
    let ideal = 16 * 1001 + 199 * (1016 + 2 * 10);
    assert!(time < ideal * 108 / 100, "{time} µs, ideal {ideal}");
}
