//! A scheduler, its chain, and everything that happens to them, with what must always hold
//! checked at each step.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use brigade_engine::sampling::{Sampler, Scratch};
use brigade_engine::scheduler::{
    Event, FinishReason, Request, RequestId, Scheduler, SchedulerConfig,
};
use brigade_engine::sim::{SimChain, SimModel, SimStage, SimTiming};
use brigade_engine::{Input, Stage};
use brigade_wire::{KvOp, SamplingParams, SeqId, Span, Step, Token, Want};

pub(crate) const STOP: [Token; 2] = [0, 1];

fn wants_logits(id: u64) -> bool {
    id % 4 == 3
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Arrival {
    pub(crate) at_us: u64,
    pub(crate) user: u64,
    pub(crate) prompt: Vec<Token>,
    pub(crate) max_tokens: u32,
    pub(crate) sampling: SamplingParams,
    pub(crate) cancel_at_us: Option<u64>,
    /// Whether stop tokens end the answer.
    pub(crate) stops: bool,
}

impl Arrival {
    fn request(&self, id: usize) -> Request {
        Request {
            id: RequestId(id as u64),
            user: self.user,
            prompt: self.prompt.clone(),
            max_tokens: self.max_tokens,
            sampling: self.sampling.clone(),
            stop_tokens: if self.stops {
                Arc::new(STOP)
            } else {
                Arc::new([])
            },
            want_logits: wants_logits(id as u64),
        }
    }

    /// The answer of the whole model to this request alone, a token at a time.
    pub(crate) fn reference(&self, model: SimModel, context_tokens: u32) -> Answer {
        let mut stage = SimStage::new(model, 0..model.layers, 1, context_tokens);
        let mut sampler =
            Sampler::new(self.sampling.clone(), self.prompt.len() as u32, None).unwrap();
        let mut answer = Answer::default();
        let mut logits = Vec::new();
        let mut next = self.prompt.clone();
        loop {
            let span = Span {
                seq: SeqId(0),
                position: sampler.position() as u32,
                tokens: next.clone(),
                want: Want::Token,
                sampling: None,
                prompt_tokens: 0,
            };
            stage
                .forward(&[span], Input::Tokens(&next), &mut logits)
                .unwrap();
            sampler.extend(&next);
            let token = sampler
                .sample(&logits, &mut Scratch::default())
                .unwrap()
                .token;
            if self.stops && STOP.contains(&token) {
                answer.finished = Some(FinishReason::Stop);
                return answer;
            }
            answer.tokens.push(token);
            let full = sampler.position() == context_tokens as usize;
            if full || answer.tokens.len() == self.max_tokens as usize {
                answer.finished = Some(FinishReason::Length);
                return answer;
            }
            next = vec![token];
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) tokens: Vec<Token>,
    pub(crate) finished: Option<FinishReason>,
}

/// When things happened to a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Times {
    pub(crate) started_us: Option<u64>,
    /// When each token came.
    pub(crate) tokens_us: Vec<u64>,
}

impl Times {
    /// Between one token and the next.
    pub(crate) fn gaps_us(&self) -> impl Iterator<Item = (u64, u64)> {
        self.tokens_us.windows(2).map(|w| (w[1], w[1] - w[0]))
    }
}

pub(crate) struct World<'a> {
    pub(crate) arrivals: &'a [Arrival],
    pub(crate) config: SchedulerConfig,
    model: SimModel,
    pub(crate) scheduler: Scheduler,
    pub(crate) chain: SimChain,
    pub(crate) answers: BTreeMap<usize, Answer>,
    pub(crate) times: BTreeMap<usize, Times>,
    /// The number of the step before which a request's last token arrived.
    ready_since: HashMap<RequestId, u64>,
    /// Requests in the order in which they got a sequence.
    pub(crate) started: Vec<RequestId>,
    pub(crate) steps: u64,
    /// Tokens of prompts that were not computed again.
    pub(crate) cached_tokens: usize,
    /// The largest decode step.
    pub(crate) largest_group: usize,
    /// Decode steps, and the stretches of consecutive sequences in them.
    pub(crate) decode_steps: usize,
    pub(crate) stretches: usize,
}

impl<'a> World<'a> {
    pub(crate) fn new(
        arrivals: &'a [Arrival],
        model: SimModel,
        config: SchedulerConfig,
        timing: &SimTiming,
    ) -> Self {
        let SchedulerConfig {
            sequences,
            context_tokens,
            ..
        } = config;
        Self {
            arrivals,
            config,
            model,
            scheduler: Scheduler::new(config),
            chain: SimChain::new(model, sequences, context_tokens, timing.clone()),
            answers: BTreeMap::new(),
            times: BTreeMap::new(),
            ready_since: HashMap::new(),
            started: Vec::new(),
            steps: 0,
            cached_tokens: 0,
            largest_group: 0,
            decode_steps: 0,
            stretches: 0,
        }
    }

    /// Plays all arrivals, cancellations and, if there is one, the break of the chain.
    pub(crate) fn play(&mut self, mut break_at_us: Option<u64>) {
        let mut agenda: Vec<(u64, usize, bool)> = Vec::new();
        for (id, arrival) in self.arrivals.iter().enumerate() {
            agenda.push((arrival.at_us, id, false));
            agenda.extend(arrival.cancel_at_us.map(|at| (at, id, true)));
        }
        agenda.sort_unstable();
        agenda.reverse();
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
                    self.cancel(RequestId(id as u64));
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
        self.times.entry(id).or_default();
        let request = self.arrivals[id].request(id);
        self.scheduler.submit(request).unwrap();
    }

    /// Whatever a request is doing, its tokens are gone from every stage with the next step, which
    /// is sent at once.
    fn cancel(&mut self, id: RequestId) {
        let mut sequences = (0..self.config.sequences).map(SeqId);
        let held = sequences.find(|&seq| self.scheduler.holder(seq) == Some(id));
        self.scheduler.cancel(id);
        self.ready_since.remove(&id);
        if let Some(seq) = held
            && self.chain.stages()[0].lengths()[seq.0 as usize] > 0
        {
            let step = self.scheduler.next_step(self.chain.now_us()).unwrap();
            let removal = KvOp::Remove { seq, from: 0 };
            assert!(step.kv.contains(&removal), "{step:?}");
            self.send(&step);
        }
        self.send_all();
    }

    /// Tokens in every stage's KV cache.
    fn kv_tokens(&self) -> usize {
        let stages = self.chain.stages();
        let first = stages[0].lengths();
        assert!(
            stages.iter().all(|stage| stage.lengths() == first),
            "stages agree"
        );
        stages[0].kv_tokens()
    }

    fn send_all(&mut self) {
        while let Some(step) = self.scheduler.next_step(self.chain.now_us()) {
            self.send(&step);
        }
    }

    fn send(&mut self, step: &Step) {
        for started in self.scheduler.take_started() {
            let id = started.request;
            self.started.push(id);
            self.cached_tokens += started.cached_tokens as usize;
            let times = self.times.get_mut(&(id.0 as usize)).unwrap();
            times.started_us.get_or_insert(self.chain.now_us());
        }
        let in_flight = self.scheduler.load().steps_in_flight;
        // Four groups and four chunks for each stage, one at the door, and a change.
        assert!(in_flight <= 8 * self.config.stages as usize + 4);
        assert!(step.token_count() <= self.config.batch_tokens() as usize);
        self.follow(step);
        // The stages check order, lengths and positions of the spans.
        self.chain.send(step).unwrap();
    }

    fn follow(&mut self, step: &Step) {
        self.steps += 1;
        if step
            .spans
            .iter()
            .any(|span| span.sampling.is_none() && span.tokens.len() == 1)
        {
            let stretches = step.spans.chunk_by(|a, b| a.seq.0 + 1 == b.seq.0);
            self.stretches += stretches.count();
            self.decode_steps += 1;
        }
        for span in &step.spans {
            let Some(id) = self.scheduler.holder(span.seq) else {
                panic!("sequence {} belongs to nobody", span.seq.0);
            };
            let prompt = &self.arrivals[id.0 as usize].prompt;
            let position = span.position as usize;
            if position < prompt.len() {
                assert!(position.is_multiple_of(self.config.chunk_tokens as usize));
                assert_eq!(prompt[position..][..span.tokens.len()], span.tokens);
            } else {
                self.largest_group = self.largest_group.max(step.spans.len());
            }
            if span.sampling.is_some() {
                // It may have made room for others.
                self.ready_since.remove(&id);
            } else if let Some(since) = self.ready_since.remove(&id) {
                let waited = step.id.0 - since;
                // All that may be in flight passes at most twice.
                let most = 16 * u64::from(self.config.stages) + 8;
                assert!(waited <= most, "it waited for {waited} steps");
            }
        }
    }

    fn receive(&mut self) {
        let (result, logits) = self.chain.receive().unwrap();
        let now = self.chain.now_us();
        let mut rows = 0;
        for event in self.scheduler.on_result(&result, now).unwrap() {
            match event {
                Event::Token {
                    request,
                    token,
                    logits_row,
                    ..
                } => {
                    let id = request.0 as usize;
                    self.answers.get_mut(&id).unwrap().tokens.push(token);
                    self.times.get_mut(&id).unwrap().tokens_us.push(now);
                    self.ready_since.insert(request, result.id.0);
                    assert_eq!(logits_row.is_some(), wants_logits(request.0));
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
        assert!(rows * self.model.vocabulary <= logits.len());
    }

    /// Every request that was lost is asked again on a new chain.
    fn break_chain(&mut self) {
        let now = self.chain.now_us();
        let SchedulerConfig {
            sequences,
            context_tokens,
            ..
        } = self.config;
        let timing = self.chain.timing().clone();
        self.chain = SimChain::new(self.model, sequences, context_tokens, timing);
        self.chain.advance_to(now);
        self.ready_since.clear();
        for id in self.scheduler.fail_all() {
            self.submit(id.0 as usize);
        }
    }

    /// Every request has the answer that the whole model gives it alone, or the beginning of it
    /// where it was cancelled; nothing is left behind.
    pub(crate) fn check_end(&self) {
        for (id, arrival) in self.arrivals.iter().enumerate() {
            let expected = arrival.reference(self.model, self.config.context_tokens);
            let answer = &self.answers[&id];
            if arrival.cancel_at_us.is_some() && answer.finished.is_none() {
                assert!(expected.tokens.starts_with(&answer.tokens), "request {id}");
            } else {
                assert_eq!(answer, &expected, "request {id}");
            }
        }
        let load = self.scheduler.load();
        assert_eq!((load.waiting, load.active, load.steps_in_flight), (0, 0, 0));
        assert_eq!(self.kv_tokens(), self.scheduler.kv_tokens());
    }
}
