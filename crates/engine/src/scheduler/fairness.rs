//! Who comes next: whose request gets a free sequence, and whose prompt is read next.

use std::collections::VecDeque;

use brigade_wire::{SeqId, Token};

use super::Request;

/// Requests without a sequence, in order of arrival.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    queue: VecDeque<Request>,
}

impl Waiting {
    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request> {
        self.queue.iter()
    }

    pub(super) fn push(&mut self, request: Request) {
        self.queue.push_back(request);
    }

    pub(super) fn remove(&mut self, wanted: impl Fn(&Request) -> bool) -> Option<Request> {
        let index = self.queue.iter().position(wanted)?;
        self.queue.remove(index)
    }

    /// The next request: of the user with the fewest sequences, the one that came first.
    pub(super) fn pop(&mut self, sequences_of: impl Fn(u64) -> usize) -> Option<Request> {
        let (index, _) = self
            .queue
            .iter()
            .enumerate()
            .min_by_key(|(_, request)| sequences_of(request.user))?;
        self.queue.remove(index)
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
    /// Its prompt has begun to be read.
    pub(super) begun: bool,
    /// The most tokens of the answer.
    pub(super) limit: usize,
}

impl Active {
    /// Tokens of the answer so far.
    pub(super) fn answered(&self) -> usize {
        self.tokens.len() - self.prompt_tokens
    }
}
