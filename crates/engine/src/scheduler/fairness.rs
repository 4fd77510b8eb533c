//! Who comes next: whose request gets a free sequence, and whose prompt is read next.

use std::collections::VecDeque;

use brigade_wire::{SeqId, Token};

use super::drafts::Acceptance;
use super::{Request, RequestId};

/// A request without a sequence.
#[derive(Debug)]
pub(super) struct Pending {
    /// Without its prompt.
    pub(super) request: Request,
    /// The prompt, and what was answered before it had to wait again.
    pub(super) tokens: Vec<Token>,
    pub(super) prompt_tokens: usize,
}

impl Pending {
    pub(super) fn new(mut request: Request) -> Self {
        let tokens = std::mem::take(&mut request.prompt);
        Self {
            prompt_tokens: tokens.len(),
            tokens,
            request,
        }
    }
}

/// Requests without a sequence, in the order in which they began to wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: VecDeque<Pending>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = RequestId> {
        self.queue.iter().map(|pending| pending.request.id)
    }

    pub(super) fn push(&mut self, pending: Pending) {
        self.queue.push_back(pending);
    }

    /// False if there is no such request.
    pub(super) fn remove(&mut self, id: RequestId) -> bool {
        let index = self.ids().position(|other| other == id);
        index.and_then(|index| self.queue.remove(index)).is_some()
    }

    /// The user whose request is next.
    pub(super) fn next_user(&self, sequences_of: impl Fn(u64) -> usize) -> Option<u64> {
        let index = self.next(sequences_of)?;
        Some(self.queue[index].request.user)
    }

    pub(super) fn pop(&mut self, sequences_of: impl Fn(u64) -> usize) -> Option<Pending> {
        let index = self.next(sequences_of)?;
        self.queue.remove(index)
    }

    /// The next request: of the user with the fewest sequences, the one that came first.
    fn next(&self, sequences_of: impl Fn(u64) -> usize) -> Option<usize> {
        let queue = self.queue.iter().enumerate();
        let next = queue.min_by_key(|(_, pending)| sequences_of(pending.request.user));
        next.map(|(index, _)| index)
    }
}

/// Sequences with prompt tokens left to read, in order of admission.
#[derive(Debug, Default)]
pub(super) struct Prefilling {
    sequences: Vec<SeqId>,
    /// Whose turn it is.
    shortest_next: bool,
}

impl Prefilling {
    pub(super) fn is_empty(&self) -> bool {
        self.sequences.is_empty()
    }

    pub(super) fn push(&mut self, seq: SeqId) {
        self.sequences.push(seq);
    }

    pub(super) fn remove(&mut self, seq: SeqId) {
        self.sequences.retain(|other| *other != seq);
    }

    /// The sequence that gets the next chunk: by turns the oldest one, and the one with the
    /// fewest tokens left.
    pub(super) fn next(&mut self, left: impl Fn(SeqId) -> usize) -> Option<SeqId> {
        self.shortest_next = !self.shortest_next;
        if self.shortest_next {
            self.sequences.first().copied()
        } else {
            self.sequences.iter().copied().min_by_key(|&seq| left(seq))
        }
    }
}

/// A request with its sequence.
#[derive(Debug)]
pub(super) struct Active {
    /// Tells apart the requests that have had a slot.
    pub(super) ticket: u64,
    /// Without its prompt.
    pub(super) request: Request,
    /// The prompt, then the answer so far.
    pub(super) tokens: Vec<Token>,
    pub(super) prompt_tokens: usize,
    /// Tokens of the answer when it got the sequence, which are computed again.
    pub(super) replayed: usize,
    /// Its prompt has begun to be read.
    pub(super) begun: bool,
    /// The most tokens of the answer.
    pub(super) limit: usize,
    /// What was guessed for its next tokens, the next one last, and how often guesses were right.
    pub(super) guess: Vec<Token>,
    pub(super) acceptance: Acceptance,
}

impl Active {
    /// Tokens of the answer so far.
    pub(super) fn answered(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }

    /// Tokens of the answer that it has got this sequence for, if that is enough to leave it to
    /// others: more than had to be computed again, so that most work is never repeated.
    pub(super) fn turn(&self, least: u32) -> Option<usize> {
        let turn = self.answered() - self.replayed;
        (turn >= (least as usize).max(self.replayed)).then_some(turn)
    }
}
