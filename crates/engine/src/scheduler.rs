//! Decides what the next step through the chain computes: iteration-level batching (Orca,
//! OSDI 2022) of whatever sequences are ready, prompts in chunks between them.
//!
//! A step is either one chunk of one prompt, or the next token of several sequences, because
//! with a KV cache per sequence all spans of a step have one length. Chunks of a prompt follow
//! each other through the chain without waiting. How many chunks and how many groups of decoding
//! sequences are on their way at once follows from what every stage and the links were measured
//! to take ([`timing`]); until then there is one for each stage.
//!
//! The chunks of a prompt depend on the prompt alone, never on the load, so that a request can
//! be repeated exactly.
//!
//! # Who waits for how long
//!
//! - **Decoding** sequences are served in the order in which their last tokens came. Each group
//!   has its place in the chain whatever else comes, and finds at most
//!   [`Plan::chunks_beside`] chunks of prompts before it, so that nobody's next token takes more
//!   than two passes of a chunk through the idle chain.
//! - **Prompts** get chunks by turns: one goes to the prompt that was admitted first, the next to
//!   the one with the fewest tokens left. So the oldest always has half of them, however many
//!   short ones come, and a short one of `c` chunks is read within `2c` turns, however long the
//!   others are.
//! - **Requests** without a sequence: the next one is the oldest of the user that has the fewest
//!   sequences. When all sequences are taken, one that has got
//!   [`preempt_after_tokens`](SchedulerConfig::preempt_after_tokens) goes back to the end of the
//!   queue, but never for a user that has more sequences than its own. It goes on later: the prompt
//!   is read again in the same chunks and the answer token by token, so that it goes on as it would
//!   have. So a request waits for so many tokens of each that came before it, no matter how long
//!   their answers are.
//!
//! # How it is driven
//!
//! It is a state machine: [`Scheduler::next_step`] until it has nothing, send what it gives,
//! and feed every answer to [`Scheduler::on_result`]; both are told the time. A slot is reused as
//! soon as its request is over, even while steps of that request are on their way: the new
//! request's steps carry the removal of the old one's tokens, and every stage sees steps in the
//! order in which they were made.
//!
//! A sequence whose request is over keeps the beginning of its prompt for others (`prefix`),
//! unless the model's KV cache cannot be cut. A cancelled one keeps nothing.
//!
//! Every now and then a step carries a digest of the lengths that all sequences should have, idle
//! ones too, and each stage compares it with what it has.

mod fairness;
mod prefix;
pub mod timing;
mod types;

use std::collections::VecDeque;

use brigade_wire::{
    KvOp, MAX_GRAMMAR_BYTES, MAX_LOGIT_BIAS, MAX_TOP_LOGPROBS, Output, SeqId, Span, Step, StepId,
    StepResult, Want,
};

use crate::{kv_digest, sampling};
use fairness::{Active, Pending, Prefilling, Waiting};
use prefix::Kept;
use timing::{Plan, Timing, Work};
pub use types::{
    Event, FinishReason, Load, Measured, ProtocolError, Request, RequestId, SchedulerConfig,
    Started, SubmitError,
};

/// Steps from one digest of the KV cache to the next.
const DIGEST_EVERY: u64 = 64;

/// A span in flight that wanted a token.
#[derive(Debug, Clone, Copy)]
struct Expected {
    seq: SeqId,
    ticket: u64,
    want: Want,
}

#[derive(Debug)]
struct InFlight {
    id: StepId,
    /// Nothing where only the KV cache changes.
    work: Option<Work>,
    tokens: usize,
    expected: Vec<Expected>,
    sent_us: u64,
    /// Nothing was before it in the chain.
    alone: bool,
}

/// The scheduler of one instance.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    waiting: Waiting,
    /// Indexed by sequence.
    slots: Vec<Option<Active>>,
    /// What those without a request hold, indexed by sequence.
    kept: Vec<Kept>,
    /// Counts what was put into `kept`.
    uses: u64,
    /// Tokens that the KV cache holds once every step in flight is done, by sequence.
    lengths: Vec<u32>,
    prefilling: Prefilling,
    /// Sequences whose next token is known, the longest waiting first.
    ready: VecDeque<SeqId>,
    /// For the next step.
    changes: Vec<KvOp>,
    /// They are not to wait for a step that computes.
    changes_at_once: bool,
    /// Requests whose prompts began to be read and that nobody was told of.
    started: Vec<Started>,
    in_flight: VecDeque<InFlight>,
    next_step: StepId,
    next_ticket: u64,
    last_work: Work,
    timing: Timing,
}

impl Scheduler {
    /// A scheduler without requests. Numbers of the configuration that must be at least 1 are
    /// raised to 1.
    pub fn new(config: SchedulerConfig) -> Self {
        let config = SchedulerConfig {
            stages: config.stages.max(1),
            sequences: config.sequences.max(1),
            chunk_tokens: config.chunk_tokens.max(1),
            ..config
        };
        Self {
            config,
            waiting: Waiting::default(),
            slots: (0..config.sequences).map(|_| None).collect(),
            kept: vec![Kept::default(); config.sequences as usize],
            uses: 0,
            lengths: vec![0; config.sequences as usize],
            prefilling: Prefilling::default(),
            ready: VecDeque::new(),
            changes: Vec::new(),
            changes_at_once: false,
            started: Vec::new(),
            in_flight: VecDeque::new(),
            next_step: StepId(0),
            next_ticket: 0,
            last_work: Work::Prefill,
            timing: Timing::new(config.stages, config.chunk_tokens),
        }
    }

    /// The configuration.
    pub fn config(&self) -> &SchedulerConfig {
        &self.config
    }

    /// How busy it is.
    pub fn load(&self) -> Load {
        Load {
            waiting: self.waiting.len(),
            active: self.slots.iter().flatten().count(),
            steps_in_flight: self.in_flight.len(),
        }
    }

    /// Tokens of all sequences in every stage's KV cache, once the steps in flight are done.
    pub fn kv_tokens(&self) -> usize {
        self.lengths.iter().map(|&length| length as usize).sum()
    }

    /// The request that has a sequence.
    pub fn holder(&self, SeqId(seq): SeqId) -> Option<RequestId> {
        let active = self.slots.get(seq as usize)?.as_ref()?;
        Some(active.request.id)
    }

    /// What every stage and the links were measured to take, and what follows from it.
    pub fn measured(&self) -> Measured {
        Measured {
            plan: self.timing.current(),
            stages: self.timing.decode_lines().unwrap_or_default(),
            links: self.timing.links(),
        }
    }

    /// Takes a request; its answer comes out of [`on_result`](Self::on_result).
    pub fn submit(&mut self, request: Request) -> Result<(), SubmitError> {
        if request.prompt.is_empty() {
            return Err(SubmitError::EmptyPrompt);
        }
        if request.prompt.len() > self.config.context_tokens as usize {
            return Err(SubmitError::PromptTooLong {
                prompt_tokens: request.prompt.len(),
                context_tokens: self.config.context_tokens,
            });
        }
        if request.sampling.grammar.as_ref().map_or(0, String::len) > MAX_GRAMMAR_BYTES
            || request.sampling.logit_bias.len() > MAX_LOGIT_BIAS
            || request.sampling.top_logprobs > MAX_TOP_LOGPROBS
        {
            return Err(SubmitError::TooLarge);
        }
        if request.max_tokens == 0 {
            return Err(SubmitError::NoTokens);
        }
        sampling::check(&request.sampling)?;
        if self.live().any(|id| id == request.id) {
            return Err(SubmitError::Duplicate(request.id));
        }
        let free = self.slots.iter().filter(|slot| slot.is_none()).count();
        if self.waiting.len() >= self.config.waiting_limit + free {
            return Err(SubmitError::QueueFull {
                waiting: self.waiting.len() - free,
            });
        }
        self.waiting.push(Pending::new(request));
        Ok(())
    }

    /// Ends a request whose answer is complete although the scheduler does not know it, without
    /// another event of it. Unlike a cancelled one it leaves its prompt to others.
    pub fn complete(&mut self, id: RequestId) {
        if let Some(seq) = self.sequence_of(id) {
            self.release(seq, usize::MAX);
        }
    }

    fn sequence_of(&self, id: RequestId) -> Option<SeqId> {
        (0..).zip(&self.slots).find_map(|(seq, slot)| {
            let active = slot.as_ref()?;
            (active.request.id == id).then_some(SeqId(seq))
        })
    }

    /// Ends a request without another event of it. False if there is no such request.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        if self.waiting.remove(id) {
            return true;
        }
        let holder = self.sequence_of(id);
        if let Some(seq) = holder {
            self.release(seq, 0);
            self.changes_at_once = !self.changes.is_empty();
        }
        holder.is_some()
    }

    /// Drops everything after the chain broke, and returns the requests that were not answered
    /// to their end: those with a sequence, then those that waited, each in order of arrival.
    /// The next step is the first of a new connection.
    pub fn fail_all(&mut self) -> Vec<RequestId> {
        let mut active: Vec<&Active> = self.slots.iter().flatten().collect();
        active.sort_by_key(|active| active.ticket);
        let lost = active
            .into_iter()
            .map(|active| active.request.id)
            .chain(self.waiting.ids())
            .collect();
        *self = Self::new(self.config);
        lost
    }

    /// The next step to send at this time, if the chain has room and there is something to do.
    pub fn next_step(&mut self, now_us: u64) -> Option<Step> {
        self.admit();
        let decoding = self.decoding();
        let plan = self.timing.plan(decoding);
        let in_flight = |work| {
            let steps = self.in_flight.iter();
            steps.filter(|step| step.work == Some(work)).count()
        };
        let chunks = if decoding > 0 {
            plan.chunks_beside
        } else {
            plan.chunks_alone
        };
        let may_decode = !self.ready.is_empty() && in_flight(Work::Decode) < plan.groups;
        let may_prefill = !self.prefilling.is_empty() && in_flight(Work::Prefill) < chunks;
        let work = match (may_decode, may_prefill) {
            // By turns, so that chunks lie between the groups.
            (true, true) if self.last_work == Work::Decode => Some(Work::Prefill),
            (true, _) => Some(Work::Decode),
            (false, true) => Some(Work::Prefill),
            // Changes ride with a step that computes, unless none will come soon.
            (false, false)
                if !self.changes.is_empty()
                    && (self.changes_at_once || self.in_flight.is_empty()) =>
            {
                None
            }
            (false, false) => return None,
        };
        self.last_work = work.unwrap_or(self.last_work);
        let spans = match work {
            Some(Work::Decode) => self.decode_spans(decoding, plan),
            Some(Work::Prefill) => self.prefill_span().into_iter().collect(),
            None => Vec::new(),
        };
        Some(self.make_step(work, spans, now_us))
    }

    /// Requests whose prompts began to be read since the last call.
    pub fn take_started(&mut self) -> Vec<Started> {
        std::mem::take(&mut self.started)
    }

    /// Takes the chain's answer, which came at this time, to the oldest step in flight.
    pub fn on_result(
        &mut self,
        result: &StepResult,
        now_us: u64,
    ) -> Result<Vec<Event>, ProtocolError> {
        let step = match self.in_flight.front() {
            Some(step) if step.id == result.id => step,
            other => {
                return Err(ProtocolError::UnexpectedStep {
                    actual: result.id.0,
                    expected: other.map(|step| step.id.0),
                });
            }
        };
        let expected = step.expected.iter().map(|expected| expected.seq);
        if !expected.clone().eq(result.outputs.iter().map(|o| o.seq)) {
            return Err(ProtocolError::UnexpectedOutputs {
                step: result.id.0,
                actual: result.outputs.iter().map(|o| o.seq.0).collect(),
                expected: expected.map(|seq| seq.0).collect(),
            });
        }
        let Some(step) = self.in_flight.pop_front() else {
            return Ok(Vec::new());
        };
        let links_us = step.alone.then(|| {
            let computed: u64 = result.compute_us.iter().map(|&us| u64::from(us)).sum();
            now_us.saturating_sub(step.sent_us).saturating_sub(computed)
        });
        self.timing
            .observe(step.work, step.tokens, &result.compute_us, links_us);
        let mut events = Vec::new();
        let mut rows = 0..;
        for (expected, output) in step
            .expected
            .into_iter()
            .zip(result.outputs.iter().cloned())
        {
            let row = match expected.want {
                Want::TokenAndLogits => rows.next(),
                Want::Token | Want::Nothing => None,
            };
            self.on_output(expected, output, row, &mut events);
        }
        Ok(events)
    }

    fn on_output(
        &mut self,
        expected: Expected,
        output: Output,
        logits_row: Option<usize>,
        events: &mut Vec<Event>,
    ) {
        let slot = &mut self.slots[expected.seq.0 as usize];
        let Some(active) = slot
            .as_mut()
            .filter(|active| active.ticket == expected.ticket)
        else {
            // The request was cancelled while this was on its way.
            return;
        };
        let request = active.request.id;
        if let Some(reason) = output.fault {
            events.push(Event::Failed { request, reason });
            self.release(expected.seq, 0);
            return;
        }
        let reason = if active.request.stop_tokens.contains(&output.token) {
            Some(FinishReason::Stop)
        } else {
            events.push(Event::Token {
                request,
                token: output.token,
                logprob: output.logprob,
                logits_row,
                top: output.top,
            });
            active.tokens.push(output.token);
            (active.answered() >= active.limit).then_some(FinishReason::Length)
        };
        if let Some(reason) = reason {
            events.push(Event::Finished { request, reason });
            self.release(expected.seq, usize::MAX);
        } else {
            self.ready.push_back(expected.seq);
        }
    }

    fn live(&self) -> impl Iterator<Item = RequestId> {
        let active = self.slots.iter().flatten().map(|active| active.request.id);
        active.chain(self.waiting.ids())
    }

    /// Sequences that get their answer a token at a time.
    fn decoding(&self) -> usize {
        let slots = self.slots.iter().zip(&self.lengths);
        let decodes = slots.filter_map(|(slot, &length)| {
            let active = slot.as_ref()?;
            (active.answered() > 0 && length as usize >= active.prompt_tokens).then_some(())
        });
        decodes.count()
    }

    /// Takes the sequence from whoever has had it for longest and long enough, if somebody waits
    /// and there is no other.
    fn preempt(&mut self) {
        let least = self.config.preempt_after_tokens;
        if least == 0 || self.waiting.len() == 0 || self.slots.iter().any(Option::is_none) {
            return;
        }
        let Some(next) = self.waiting.next_user(|user| self.sequences_of(user)) else {
            return;
        };
        let deserved = self.sequences_of(next);
        // Those whose tokens are on their way have their turn at the next look.
        let turns = self.ready.iter().filter_map(|&seq| {
            let active = self.slots[seq.0 as usize].as_ref()?;
            let turn = active.turn(least)?;
            (self.sequences_of(active.request.user) >= deserved).then_some((turn, seq))
        });
        let Some((_, seq)) = turns.max() else {
            return;
        };
        if let Some(active) = &self.slots[seq.0 as usize] {
            self.waiting.push(Pending {
                request: active.request.clone(),
                tokens: active.tokens.clone(),
                prompt_tokens: active.prompt_tokens,
            });
        }
        self.release(seq, usize::MAX);
    }

    fn sequences_of(&self, user: u64) -> usize {
        let active = self.slots.iter().flatten();
        active.filter(|active| active.request.user == user).count()
    }

    /// Gives free sequences to waiting requests.
    fn admit(&mut self) {
        self.preempt();
        while self.waiting.len() > 0 && self.slots.iter().any(Option::is_none) {
            let slots = &self.slots;
            let sequences_of = |user| {
                let active = slots.iter().flatten();
                active.filter(|active| active.request.user == user).count()
            };
            let Some(Pending {
                request,
                tokens,
                prompt_tokens,
            }) = self.waiting.pop(sequences_of)
            else {
                return;
            };
            let free = self.slots.iter().zip(&self.kept).enumerate();
            let free = free.filter(|(_, (slot, _))| slot.is_none());
            let free = free.map(|(index, (_, kept))| (index, kept));
            let Some((index, reused)) = prefix::place(
                free,
                &tokens[..prompt_tokens],
                self.config.chunk_tokens as usize,
            ) else {
                return;
            };
            self.kept[index] = Kept::default();
            self.cut(index, reused);
            // The answer's last token needs no place in the context.
            let room = self.config.context_tokens as usize - prompt_tokens + 1;
            self.prefilling.push(SeqId(index as u32));
            self.slots[index] = Some(Active {
                ticket: self.next_ticket,
                prompt_tokens,
                limit: room.min(request.max_tokens as usize),
                replayed: tokens.len() - prompt_tokens,
                tokens,
                begun: false,
                request,
            });
            self.next_ticket += 1;
        }
    }

    /// Frees a sequence and has the stages forget it, except for full chunks within the first
    /// `keep` tokens of its prompt.
    fn release(&mut self, seq: SeqId, keep: usize) {
        let index = seq.0 as usize;
        let Some(mut active) = self.slots[index].take() else {
            return;
        };
        self.prefilling.remove(seq);
        self.ready.retain(|other| *other != seq);
        let mut kept = 0;
        if self.config.keeps_prefixes {
            let chunk_tokens = self.config.chunk_tokens as usize;
            kept = active.prompt_tokens.min(keep) / chunk_tokens * chunk_tokens;
        }
        self.cut(index, kept);
        self.uses += 1;
        active.tokens.truncate(kept);
        self.kept[index] = Kept {
            tokens: active.tokens,
            used: self.uses,
        };
    }

    /// Has the stages forget a sequence from this length on.
    fn cut(&mut self, index: usize, length: usize) {
        let (from, seq) = (length as u32, SeqId(index as u32));
        if from < self.lengths[index] {
            self.lengths[index] = from;
            self.changes.push(KvOp::Remove { seq, from });
        }
    }

    /// Lets an empty sequence begin with what another one holds of its prompt.
    fn share(&mut self, index: usize) {
        let Some(active) = &self.slots[index] else {
            return;
        };
        let prompt = &active.tokens[..active.prompt_tokens];
        let chunk_tokens = self.config.chunk_tokens as usize;
        let found = prefix::source(&self.slots, &self.kept, &self.lengths, prompt, chunk_tokens);
        let Some((from, length)) = found else {
            return;
        };
        self.uses += 1;
        self.kept[from].used = self.uses;
        self.changes.push(KvOp::Copy {
            from: SeqId(from as u32),
            to: SeqId(index as u32),
        });
        self.lengths[index] = self.lengths[from];
        self.cut(index, length);
    }

    /// The next chunk of the prompt whose turn it is.
    fn prefill_span(&mut self) -> Option<Span> {
        let (slots, lengths) = (&self.slots, &self.lengths);
        let left = |SeqId(seq)| {
            let active = slots[seq as usize].as_ref();
            active.map_or(0, |a| a.prompt_tokens - lengths[seq as usize] as usize)
        };
        let seq = self.prefilling.next(left)?;
        let index = seq.0 as usize;
        if self.config.keeps_prefixes && self.lengths[index] == 0 {
            self.share(index);
        }
        let position = self.lengths[index];
        let active = self.slots[index].as_mut()?;
        let is_first = !std::mem::replace(&mut active.begun, true);
        if is_first && active.answered() == 0 {
            self.started.push(Started {
                request: active.request.id,
                cached_tokens: position,
            });
        }
        let begin = position as usize;
        let end = active
            .prompt_tokens
            .min(begin + self.config.chunk_tokens as usize);
        let is_last = end == active.prompt_tokens;
        if is_last {
            self.prefilling.remove(seq);
        }
        if is_last && active.answered() > 0 {
            // What follows is known already.
            self.ready.push_back(seq);
        }
        Some(Span {
            seq,
            position,
            tokens: active.tokens[begin..end].to_vec(),
            want: want(active, end),
            sampling: is_first.then(|| active.request.sampling.clone()),
            prompt_tokens: if is_first {
                active.prompt_tokens as u32
            } else {
                0
            },
        })
    }

    /// The next token of those that have waited longest: an even share of all that decode.
    fn decode_spans(&mut self, decoding: usize, plan: Plan) -> Vec<Span> {
        let share = decoding.div_ceil(plan.groups.max(1)).min(self.ready.len());
        let mut chosen: Vec<SeqId> = self.ready.drain(..share).collect();
        chosen.sort_unstable();
        let span = |seq: SeqId| {
            let position = self.lengths[seq.0 as usize];
            let active = self.slots[seq.0 as usize].as_ref()?;
            Some(Span {
                seq,
                position,
                tokens: vec![*active.tokens.get(position as usize)?],
                want: want(active, position as usize + 1),
                sampling: None,
                prompt_tokens: 0,
            })
        };
        let spans: Vec<Span> = chosen.into_iter().filter_map(span).collect();
        let known = spans.iter().filter(|span| span.want == Want::Nothing);
        self.ready.extend(known.map(|span| span.seq));
        spans
    }

    fn make_step(&mut self, work: Option<Work>, spans: Vec<Span>, now_us: u64) -> Step {
        let id = self.next_step;
        self.next_step.0 += 1;
        let kv_digest = (id.0 % DIGEST_EVERY == DIGEST_EVERY - 1).then(|| kv_digest(&self.lengths));
        let mut expected = Vec::new();
        let mut tokens = 0;
        for span in &spans {
            let index = span.seq.0 as usize;
            self.lengths[index] += span.tokens.len() as u32;
            tokens += span.tokens.len();
            if let Some(active) = &self.slots[index]
                && span.want != Want::Nothing
            {
                expected.push(Expected {
                    seq: span.seq,
                    ticket: active.ticket,
                    want: span.want,
                });
            }
        }
        self.in_flight.push_back(InFlight {
            id,
            work,
            tokens,
            expected,
            sent_us: now_us,
            alone: self.in_flight.is_empty(),
        });
        self.changes_at_once = false;
        Step {
            id,
            kv: std::mem::take(&mut self.changes),
            kv_digest,
            spans,
            compute_us: Vec::new(),
        }
    }
}

/// What to do after a span that ends at this length: a token is wanted where none is known.
fn want(active: &Active, end: usize) -> Want {
    if end < active.tokens.len() {
        Want::Nothing
    } else if active.request.want_logits {
        Want::TokenAndLogits
    } else {
        Want::Token
    }
}
