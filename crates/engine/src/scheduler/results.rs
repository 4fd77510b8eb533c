//! What the chain's answers mean for the sequences.

use brigade_wire::{Output, SeqId, StepId, StepResult, Want};

use super::timing::Work;
use super::{Event, FinishReason, ProtocolError, Scheduler};

/// A span in flight that wanted a token.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) seq: SeqId,
    pub(super) ticket: u64,
    pub(super) want: Want,
    /// The most tokens that may come.
    pub(super) tokens: usize,
}

#[derive(Debug)]
pub(super) struct InFlight {
    pub(super) id: StepId,
    /// Nothing where only the KV cache changes.
    pub(super) work: Option<Work>,
    pub(super) tokens: usize,
    pub(super) expected: Vec<Expected>,
    pub(super) sent_us: u64,
    /// Nothing was before it in the chain.
    pub(super) alone: bool,
}

impl Scheduler {
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
        let answers = result.outputs.chunk_by(|a, b| a.seq == b.seq);
        let fits = |(expected, answer): (&Expected, &[Output])| {
            expected.seq == answer[0].seq && answer.len() <= expected.tokens
        };
        if answers.clone().count() != step.expected.len()
            || !step.expected.iter().zip(answers.clone()).all(fits)
        {
            return Err(ProtocolError::UnexpectedOutputs {
                step: result.id.0,
                actual: result.outputs.iter().map(|o| o.seq.0).collect(),
                expected: step
                    .expected
                    .iter()
                    .map(|expected| expected.seq.0)
                    .collect(),
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
        self.patience.observe(step.sent_us, step.tokens, now_us);
        let mut events = Vec::new();
        let mut rows = 0..;
        for (expected, answer) in step.expected.into_iter().zip(answers) {
            let row = match expected.want {
                Want::TokenAndLogits => rows.next(),
                Want::Token | Want::Nothing | Want::Verify => None,
            };
            self.drafted += expected.tokens as u64 - 1;
            self.accepted += answer.len() as u64 - 1;
            for output in answer {
                self.on_output(expected, output.clone(), row, &mut events);
            }
            self.go_on(expected);
        }
        Ok(events)
    }

    /// The sequence's next token can be computed; what was wrong of its draft is forgotten.
    fn go_on(&mut self, Expected { seq, ticket, .. }: Expected) {
        let slot = self.slots[seq.0 as usize].as_ref();
        if let Some(active) = slot.filter(|active| active.ticket == ticket) {
            let length = active.tokens.len() - 1;
            self.cut(seq.0 as usize, length);
            self.ready.insert(seq);
        }
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
            if let Some(guess) = active.guess.pop() {
                let is_right = guess == output.token;
                active.acceptance.observe(is_right);
                if !is_right {
                    active.guess.clear();
                }
            }
            active.tokens.push(output.token);
            (active.answered() >= active.limit).then_some(FinishReason::Length)
        };
        if let Some(reason) = reason {
            events.push(Event::Finished { request, reason });
            self.release(expected.seq, usize::MAX);
        }
    }
}
