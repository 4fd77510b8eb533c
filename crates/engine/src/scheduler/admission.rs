//! Who gets a sequence, who has to give one back, and what stays in it.

use brigade_wire::{KvOp, SeqId};

use super::Scheduler;
use super::drafts::Acceptance;
use super::fairness::{Active, Pending};
use super::prefix::{self, Kept};

impl Scheduler {
    /// Gives free sequences to waiting requests.
    pub(super) fn admit(&mut self) {
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
                guess: Vec::new(),
                acceptance: Acceptance::default(),
                request,
            });
            self.next_ticket += 1;
        }
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
        let turns = self.ready.iter().filter_map(|seq| {
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

    /// Frees a sequence and has the stages forget it, except for full chunks within the first
    /// `keep` tokens of its prompt.
    pub(super) fn release(&mut self, seq: SeqId, keep: usize) {
        let index = seq.0 as usize;
        let Some(mut active) = self.slots[index].take() else {
            return;
        };
        self.prefilling.remove(seq);
        self.ready.remove(seq);
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
    pub(super) fn cut(&mut self, index: usize, length: usize) {
        let (from, seq) = (length as u32, SeqId(index as u32));
        if from < self.lengths[index] {
            self.lengths[index] = from;
            self.changes.push(KvOp::Remove { seq, from });
        }
    }
}
