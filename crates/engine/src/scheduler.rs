//! Decides what the next step through the chain computes: iteration-level batching (Orca,
//! OSDI 2022) of whatever sequences are ready, prompts in chunks between them.
//!
//! A step is either one chunk of one prompt, or the next token of several sequences, because
//! with a KV cache per sequence all spans of a step have one length. Chunks of a prompt follow
//! each other through the chain without waiting. Sequences that decode are divided over as many
//! steps as the chain has stages, so that each stage has one to work on. Where both kinds are
//! possible they take turns.
//!
//! The chunks of a prompt depend on the prompt alone, never on the load, so that a request can
//! be repeated exactly.
//!
//! It is a state machine: [`Scheduler::next_step`] until it has nothing, send what it gives,
//! and feed every answer to [`Scheduler::on_result`]. A slot is reused as soon as its request is
//! over, even while steps of that request are on their way: the new request's steps carry the
//! removal of the old one's tokens, and every stage sees steps in the order in which they were
//! made.

mod types;

use std::collections::VecDeque;

use brigade_wire::{
    KvOp, MAX_GRAMMAR_BYTES, MAX_LOGIT_BIAS, MAX_TOP_LOGPROBS, Output, SeqId, Span, Step, StepId,
    StepResult, Token, Want,
};

use crate::sampling;
pub use types::{
    Event, FinishReason, Load, ProtocolError, Request, RequestId, SchedulerConfig, SubmitError,
};

/// A request that has a sequence.
#[derive(Debug)]
struct Active {
    /// Tells apart the requests that have had a slot.
    ticket: u64,
    request: Request,
    /// Tokens that the KV cache holds once every step in flight is done.
    sent: u32,
    /// Tokens of the answer so far.
    answered: u32,
    /// The most tokens of the answer.
    limit: u32,
    /// The last token of the answer, which the next step continues from.
    next: Option<Token>,
}

impl Active {
    fn want(&self) -> Want {
        if self.request.want_logits {
            Want::TokenAndLogits
        } else {
            Want::Token
        }
    }
}

/// A span in flight that wanted a token.
#[derive(Debug, Clone, Copy)]
struct Expected {
    seq: SeqId,
    ticket: u64,
    want: Want,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Prefill,
    Decode,
    KvOnly,
}

#[derive(Debug)]
struct InFlight {
    id: StepId,
    kind: Kind,
    expected: Vec<Expected>,
}

/// The scheduler of one instance.
#[derive(Debug)]
pub struct Scheduler {
    config: SchedulerConfig,
    waiting: VecDeque<Request>,
    /// Indexed by sequence.
    slots: Vec<Option<Active>>,
    /// Sequences with prompt tokens left to send, in order of admission.
    prefilling: VecDeque<SeqId>,
    /// Sequences whose last token is known, the longest waiting first.
    ready: VecDeque<SeqId>,
    removals: Vec<KvOp>,
    /// Requests that got a sequence and that nobody was told of.
    started: Vec<RequestId>,
    in_flight: VecDeque<InFlight>,
    next_step: StepId,
    next_ticket: u64,
    last_kind: Kind,
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
            waiting: VecDeque::new(),
            slots: (0..config.sequences).map(|_| None).collect(),
            prefilling: VecDeque::new(),
            ready: VecDeque::new(),
            removals: Vec::new(),
            started: Vec::new(),
            in_flight: VecDeque::new(),
            next_step: StepId(0),
            next_ticket: 0,
            last_kind: Kind::KvOnly,
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
        self.waiting.push_back(request);
        Ok(())
    }

    /// Ends a request without another event of it. False if there is no such request.
    pub fn cancel(&mut self, id: RequestId) -> bool {
        if let Some(index) = self.waiting.iter().position(|request| request.id == id) {
            self.waiting.remove(index);
            return true;
        }
        let holder = (0..).zip(&self.slots).find_map(|(seq, slot)| {
            let active = slot.as_ref()?;
            (active.request.id == id).then_some(SeqId(seq))
        });
        if let Some(seq) = holder {
            self.release(seq);
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
            .chain(self.waiting.iter().map(|request| request.id))
            .collect();
        *self = Self::new(self.config);
        lost
    }

    /// The next step to send, if the chain has room and there is something to compute.
    pub fn next_step(&mut self) -> Option<Step> {
        if self.in_flight.len() >= self.config.steps_in_flight() {
            return None;
        }
        self.admit();
        let decoding_steps = self
            .in_flight
            .iter()
            .filter(|step| step.kind == Kind::Decode)
            .count();
        // More decode steps than stages would only keep batches small.
        let may_decode = !self.ready.is_empty() && decoding_steps < self.config.stages as usize;
        let may_prefill = !self.prefilling.is_empty();
        let kind = match (may_decode, may_prefill) {
            (true, true) if self.last_kind == Kind::Decode => Kind::Prefill,
            (true, _) => Kind::Decode,
            (false, true) => Kind::Prefill,
            // Removals ride with a step that computes, unless none will come.
            (false, false) if self.in_flight.is_empty() && !self.removals.is_empty() => {
                Kind::KvOnly
            }
            (false, false) => return None,
        };
        let spans = match kind {
            Kind::Decode => self.decode_spans(),
            Kind::Prefill => self.prefill_span().into_iter().collect(),
            Kind::KvOnly => Vec::new(),
        };
        self.last_kind = kind;
        Some(self.make_step(kind, spans))
    }

    /// Requests that stopped waiting since the last call.
    pub fn take_started(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.started)
    }

    /// Takes the chain's answer to the oldest step in flight.
    pub fn on_result(&mut self, result: &StepResult) -> Result<Vec<Event>, ProtocolError> {
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
        let expected = self
            .in_flight
            .pop_front()
            .map_or_else(Vec::new, |step| step.expected);
        let mut events = Vec::new();
        let mut rows = 0..;
        for (expected, output) in expected.into_iter().zip(result.outputs.iter().cloned()) {
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
            self.release(expected.seq);
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
            active.answered += 1;
            active.next = Some(output.token);
            (active.answered >= active.limit).then_some(FinishReason::Length)
        };
        if let Some(reason) = reason {
            events.push(Event::Finished { request, reason });
            self.release(expected.seq);
        } else {
            self.ready.push_back(expected.seq);
        }
    }

    fn live(&self) -> impl Iterator<Item = RequestId> {
        let active = self.slots.iter().flatten().map(|active| active.request.id);
        active.chain(self.waiting.iter().map(|request| request.id))
    }

    /// Gives free sequences to waiting requests.
    fn admit(&mut self) {
        for (seq, slot) in (0..).map(SeqId).zip(&mut self.slots) {
            if slot.is_some() {
                continue;
            }
            let Some(request) = self.waiting.pop_front() else {
                return;
            };
            // The answer's last token needs no place in the context.
            let room = self.config.context_tokens - request.prompt.len() as u32 + 1;
            *slot = Some(Active {
                ticket: self.next_ticket,
                sent: 0,
                answered: 0,
                limit: request.max_tokens.min(room),
                next: None,
                request,
            });
            self.next_ticket += 1;
            self.prefilling.push_back(seq);
            self.started
                .extend(slot.as_ref().map(|active| active.request.id));
        }
    }

    /// Frees a sequence and has the stages forget it.
    fn release(&mut self, seq: SeqId) {
        let Some(active) = self.slots[seq.0 as usize].take() else {
            return;
        };
        self.prefilling.retain(|other| *other != seq);
        self.ready.retain(|other| *other != seq);
        if active.sent > 0 {
            self.removals.push(KvOp::Remove { seq, from: 0 });
        }
    }

    /// The next chunk of the oldest prompt.
    fn prefill_span(&mut self) -> Option<Span> {
        let seq = *self.prefilling.front()?;
        let active = self.slots[seq.0 as usize].as_mut()?;
        let prompt_tokens = active.request.prompt.len() as u32;
        let position = active.sent;
        active.sent = prompt_tokens.min(position + self.config.chunk_tokens);
        let is_first = position == 0;
        let is_last = active.sent == prompt_tokens;
        let span = Span {
            seq,
            position,
            tokens: active.request.prompt[position as usize..active.sent as usize].to_vec(),
            want: if is_last {
                active.want()
            } else {
                Want::Nothing
            },
            sampling: is_first.then(|| active.request.sampling.clone()),
            prompt_tokens: if is_first { prompt_tokens } else { 0 },
        };
        if is_last {
            self.prefilling.pop_front();
        }
        Some(span)
    }

    /// The next token of those that have waited longest, as many as keep all stages busy.
    fn decode_spans(&mut self) -> Vec<Span> {
        let decoding = self
            .slots
            .iter()
            .flatten()
            .filter(|active| active.answered > 0)
            .count();
        let share = decoding.div_ceil(self.config.stages as usize);
        let mut chosen: Vec<SeqId> = self.ready.drain(..share.min(self.ready.len())).collect();
        chosen.sort_unstable();
        chosen
            .into_iter()
            .filter_map(|seq| {
                let active = self.slots[seq.0 as usize].as_mut()?;
                let token = active.next.take()?;
                let position = active.sent;
                active.sent += 1;
                Some(Span {
                    seq,
                    position,
                    tokens: vec![token],
                    want: active.want(),
                    sampling: None,
                    prompt_tokens: 0,
                })
            })
            .collect()
    }

    fn make_step(&mut self, kind: Kind, spans: Vec<Span>) -> Step {
        let id = self.next_step;
        self.next_step.0 += 1;
        let expected = spans
            .iter()
            .filter(|span| span.want != Want::Nothing)
            .filter_map(|span| {
                let active = self.slots[span.seq.0 as usize].as_ref()?;
                Some(Expected {
                    seq: span.seq,
                    ticket: active.ticket,
                    want: span.want,
                })
            })
            .collect();
        self.in_flight.push_back(InFlight { id, kind, expected });
        Step {
            id,
            kv: std::mem::take(&mut self.removals),
            spans,
        }
    }
}
