//! Where the time of requests goes: on which stage, on the links, or waiting.
//!
//! A step is computed for all that have part in it, so each of them is charged its whole way
//! through the chain: who asks where the time of an answer went waited for all of it, however many
//! shared the step. Of that way the computing of each stage is measured; what is beyond is the
//! network's, but no more than the links were measured to take where other steps were before this
//! one in the chain: the rest was spent waiting for them.
//!
//! Several chunks of a prompt are on their way at once. What came back earlier is charged already,
//! so a step is charged only what passed since then, divided as its whole way was. So what is
//! charged never overlaps, and is never more than the time that passed.

use std::collections::VecDeque;

use brigade_wire::{SeqId, Step, StepId, StepResult, Want};

use crate::scheduler::RequestId;
use crate::scheduler::timing::Line;

/// Remembers who has part in the steps that are in flight.
#[derive(Debug, Default)]
pub struct Ledger {
    in_flight: VecDeque<OnItsWay>,
}

#[derive(Debug)]
struct OnItsWay {
    id: StepId,
    sent_us: u64,
    tokens: usize,
    /// Nothing was before it in the chain.
    alone: bool,
    /// Who has part in it, and whether the step gives them a token.
    parts: Vec<(RequestId, bool)>,
}

/// A step's way through the chain, for one of those that have part in it.
#[derive(Debug, Clone, Copy)]
pub struct Trip<'a> {
    sent_us: u64,
    returned_us: u64,
    compute_us: &'a [u32],
    network_us: u64,
    gives_token: bool,
}

/// Where a request's time went since it got a sequence. What is missing to the time that passed
/// was spent waiting.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spent {
    /// Until the first token of the answer.
    pub prefill: Phase,
    /// From there on.
    pub decode: Phase,
    /// When its first step was sent, on the clock of whoever asks the scheduler, in microseconds.
    pub begun_us: Option<u64>,
    /// When the first token of the answer came back.
    pub answered_us: Option<u64>,
    /// Until when everything is charged.
    charged_us: u64,
}

/// A part of [`Spent`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Phase {
    /// Computing, on each stage, in microseconds; empty before the first step came back.
    pub stages_us: Vec<f64>,
    /// On the links between them, there and back, in microseconds.
    pub network_us: f64,
}

impl Ledger {
    /// A step goes into the chain; `holder` says whose a sequence is.
    pub fn sent(&mut self, step: &Step, now_us: u64, holder: impl Fn(SeqId) -> Option<RequestId>) {
        let parts = step.spans.iter().filter_map(|span| {
            let request = holder(span.seq)?;
            Some((request, span.want != Want::Nothing))
        });
        self.in_flight.push_back(OnItsWay {
            id: step.id,
            sent_us: now_us,
            tokens: step.token_count(),
            alone: self.in_flight.is_empty(),
            parts: parts.collect(),
        });
    }

    /// The oldest step came back: `charge` is called for all that had part in it. `links` is what
    /// the links were measured to take.
    pub fn returned(
        &mut self,
        result: &StepResult,
        now_us: u64,
        links: impl FnOnce() -> Option<Line>,
        mut charge: impl FnMut(RequestId, Trip<'_>),
    ) {
        if self
            .in_flight
            .front()
            .is_none_or(|step| step.id != result.id)
        {
            return;
        }
        let Some(step) = self.in_flight.pop_front() else {
            return;
        };
        let computed: u64 = result.compute_us.iter().map(|&us| u64::from(us)).sum();
        let beyond = now_us.saturating_sub(step.sent_us).saturating_sub(computed);
        let links = if step.alone { None } else { links() };
        let network_us = links.map_or(beyond, |links| {
            beyond.min(links.at(step.tokens as f64) as u64)
        });
        for (request, gives_token) in step.parts {
            let trip = Trip {
                sent_us: step.sent_us,
                returned_us: now_us,
                compute_us: &result.compute_us,
                network_us,
                gives_token,
            };
            charge(request, trip);
        }
    }
}

impl Spent {
    /// Charges a step.
    pub fn charge(&mut self, trip: Trip<'_>) {
        self.begun_us.get_or_insert(trip.sent_us);
        let begin = trip.sent_us.max(self.charged_us);
        let computed: u64 = trip.compute_us.iter().map(|&us| u64::from(us)).sum();
        let way = (trip.returned_us - trip.sent_us).max(computed).max(1);
        let share = trip.returned_us.saturating_sub(begin) as f64 / way as f64;
        let phase = if self.answered_us.is_some() {
            &mut self.decode
        } else {
            &mut self.prefill
        };
        phase.stages_us.resize(trip.compute_us.len(), 0.0);
        for (sum, &us) in phase.stages_us.iter_mut().zip(trip.compute_us) {
            *sum += f64::from(us) * share;
        }
        phase.network_us += trip.network_us as f64 * share;
        self.charged_us = trip.returned_us;
        if trip.gives_token {
            self.answered_us.get_or_insert(trip.returned_us);
        }
    }
}
