//! What the next step computes.

use brigade_wire::{KvOp, SeqId, Span, Step, Token, Want};

use super::drafts::{self, Acceptance};
use super::fairness::Active;
use super::results::{Expected, InFlight};
use super::timing::{Plan, Work};
use super::{Scheduler, Started, prefix};
use crate::kv_digest;

/// Steps from one digest of the KV cache to the next.
const DIGEST_EVERY: u64 = 64;

impl Scheduler {
    /// The next step to send at this time, if the chain has room and there is something to do.
    pub fn next_step(&mut self, now_us: u64) -> Option<Step> {
        self.admit();
        let decoding: Vec<SeqId> = self.decoding().collect();
        let plan = self.timing.plan(decoding.len());
        let in_flight = |work| {
            let steps = self.in_flight.iter();
            steps.filter(|step| step.work == Some(work)).count()
        };
        let chunks = if decoding.is_empty() {
            plan.chunks_alone
        } else {
            plan.chunks_beside
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
            Some(Work::Decode) => self.decode_spans(&decoding, plan),
            Some(Work::Prefill) => self.prefill_span().into_iter().collect(),
            None => Vec::new(),
        };
        Some(self.make_step(work, spans, now_us))
    }

    /// Requests whose prompts began to be read since the last call.
    pub fn take_started(&mut self) -> Vec<Started> {
        std::mem::take(&mut self.started)
    }

    /// Sequences that get their answer a token at a time, ascending.
    fn decoding(&self) -> impl Iterator<Item = SeqId> {
        let slots = (0..).zip(self.slots.iter().zip(&self.lengths));
        slots.filter_map(|(seq, (slot, &length))| {
            let active = slot.as_ref()?;
            let decodes = active.answered() > 0 && length as usize >= active.prompt_tokens;
            decodes.then_some(SeqId(seq))
        })
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
            self.ready.insert(seq);
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

    /// The next token of a group of neighbours, and of all whose answer is only computed again:
    /// they need no turn, as what follows is known.
    fn decode_spans(&mut self, decoding: &[SeqId], plan: Plan) -> Vec<Span> {
        let group = self.ready.next_group(decoding, plan.groups);
        let mut spans = Vec::new();
        for (at, &seq) in decoding.iter().enumerate() {
            let Some(active) = &self.slots[seq.0 as usize] else {
                continue;
            };
            let position = self.lengths[seq.0 as usize];
            let want = want(active, position as usize + 1);
            let is_known = want == Want::Nothing;
            if !self.ready.contains(seq) || !(group.contains(&at) || is_known) {
                continue;
            }
            self.ready.remove(seq);
            if is_known {
                self.ready.insert(seq);
            }
            spans.push(Span {
                seq,
                position,
                tokens: vec![active.tokens[position as usize]],
                want,
                sampling: None,
                prompt_tokens: 0,
            });
        }
        if self.config.draft_tokens > 0 && spans.iter().all(|span| span.want == Want::Token) {
            self.add_drafts(&mut spans, plan.groups.min(decoding.len()));
        }
        spans
    }

    /// Guesses what follows each of these spans, and has the guesses verified where that pays.
    fn add_drafts(&mut self, spans: &mut [Span], groups: usize) {
        let most = self.config.batch_tokens() as usize / spans.len().max(1);
        let drafts: Vec<(Acceptance, Vec<Token>)> = spans
            .iter()
            .filter_map(|span| {
                let active = self.slots[span.seq.0 as usize].as_ref()?;
                // The last token of the answer needs no place in the context.
                let left = active.limit - active.answered();
                let most = most.min(left).min(self.config.draft_tokens as usize + 1);
                let draft = drafts::look_up(&active.tokens, most.saturating_sub(1));
                Some((active.acceptance, draft))
            })
            .collect();
        let group: Vec<_> = drafts.iter().map(|(seen, d)| (*seen, d.len())).collect();
        let cycle_us = self.timing.decode_cycle(groups);
        let length = drafts::best_length(&group, |tokens| {
            Some(cycle_us.as_ref()?(spans.len() * tokens))
        });
        for (span, (_, mut draft)) in spans.iter_mut().zip(drafts) {
            // Where it is not sent, the first of it still tells how good guesses are.
            draft.truncate(length.max(1));
            if length > 0 {
                span.tokens.extend(&draft);
                span.want = Want::Verify;
            }
            if let Some(active) = &mut self.slots[span.seq.0 as usize] {
                draft.reverse();
                active.guess = draft;
            }
        }
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
                    tokens: span.logits_rows(),
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
