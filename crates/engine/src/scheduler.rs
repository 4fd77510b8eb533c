//! Decides what the next step through the chain computes: iteration-level batching (Orca,
//! OSDI 2022) of whatever sequences are ready, prompts in chunks between them.
//!
//! A step is either one chunk of one prompt, or the next token of several sequences, because
//! with a KV cache per sequence all spans of a step have one length. Chunks of a prompt follow
//! each other through the chain without waiting. How many chunks and how many groups of decoding
//! sequences are on their way at once follows from what every stage and the links were measured
//! to take ([`timing`]); until then there is one for each stage.
//!
//! Where it pays, a decode step verifies a guess of what comes next (`drafts`).
//!
//! The chunks of a prompt depend on the prompt alone, never on the load, so that a request can
//! be repeated exactly.
//!
//! # Who waits for how long
//!
//! - **Decoding** sequences are served in groups of neighbours (`grouping`), by turns. Each group
//!   has its place in the chain whatever else comes, and finds at most
//!   [`Plan::chunks_beside`](timing::Plan::chunks_beside) chunks of prompts before it, so that
//!   nobody's next token takes more than two passes of a chunk through the idle chain.
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
//! Who gets a sequence is decided in `admission`, what a step holds in `planning`, and what an
//! answer changes in `results`.
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

mod admission;
mod drafts;
mod fairness;
mod grouping;
mod patience;
mod planning;
mod prefix;
mod results;
pub mod timing;
mod types;

use std::collections::VecDeque;

use brigade_wire::{KvOp, MAX_GRAMMAR_BYTES, MAX_LOGIT_BIAS, MAX_TOP_LOGPROBS, SeqId, StepId};

use crate::sampling;
use fairness::{Active, Pending, Prefilling, Waiting};
use grouping::Ready;
pub use patience::Awaited;
use patience::Patience;
use prefix::Kept;
use results::InFlight;
use timing::{Timing, Work};
pub use types::{
    Event, FinishReason, Load, Measured, ProtocolError, Request, RequestId, SchedulerConfig,
    Started, SubmitError,
};

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
    ready: Ready,
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
    patience: Patience,
    /// Tokens of drafts that were verified, and those that the model chose.
    drafted: u64,
    accepted: u64,
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
            ready: Ready::new(config.sequences),
            changes: Vec::new(),
            changes_at_once: false,
            started: Vec::new(),
            in_flight: VecDeque::new(),
            next_step: StepId(0),
            next_ticket: 0,
            last_work: Work::Prefill,
            timing: Timing::new(config.stages, config.chunk_tokens),
            patience: Patience::default(),
            drafted: 0,
            accepted: 0,
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
            drafted: self.drafted,
            accepted: self.accepted,
        }
    }

    /// What the links were measured to take for a step, all together.
    pub fn links(&self) -> Option<timing::Line> {
        self.timing.links()
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

    fn live(&self) -> impl Iterator<Item = RequestId> {
        let active = self.slots.iter().flatten().map(|active| active.request.id);
        active.chain(self.waiting.ids())
    }
}
