//! Which sequences decode together: neighbours.
//!
//! With a KV cache for each sequence, llama.cpp computes only sequences with consecutive ids as
//! one batch. So all that decode, by their ids, are divided into stretches, and a step holds the
//! ready ones of one stretch. A stretch that is complete goes first, then the one that leaves the
//! fewest behind: whoever fell out of step with its neighbours is back with them after a cycle,
//! however the sequences came, and nobody waits for more than two cycles.

use std::ops::Range;

use brigade_wire::SeqId;

/// Sequences whose next token is known.
#[derive(Debug)]
pub(super) struct Ready {
    /// The number of decode steps made before it was, by sequence.
    since: Vec<Option<u64>>,
    count: usize,
    /// Decode steps made.
    steps: u64,
}

impl Ready {
    pub(super) fn new(sequences: u32) -> Self {
        Self {
            since: vec![None; sequences as usize],
            count: 0,
            steps: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = SeqId> {
        let all = (0..).zip(&self.since);
        all.filter_map(|(seq, since)| since.is_some().then_some(SeqId(seq)))
    }

    pub(super) fn contains(&self, SeqId(seq): SeqId) -> bool {
        self.since[seq as usize].is_some()
    }

    /// Anew, if it is ready already.
    pub(super) fn insert(&mut self, SeqId(seq): SeqId) {
        let before = self.since[seq as usize].replace(self.steps);
        self.count += usize::from(before.is_none());
    }

    pub(super) fn remove(&mut self, SeqId(seq): SeqId) {
        let before = self.since[seq as usize].take();
        self.count -= usize::from(before.is_some());
    }

    /// The stretch of `decoding`, which is ascending, whose turn it is when there are so many of
    /// them; empty if none of these is ready. Counts as a step.
    pub(super) fn next_group(&mut self, decoding: &[SeqId], groups: usize) -> Range<usize> {
        let groups = groups.clamp(1, decoding.len().max(1));
        let border = |group: usize| (group * decoding.len()).div_ceil(groups);
        let stretch = |group| border(group)..border(group + 1);
        let turn = |range: &Range<usize>| {
            let members = decoding[range.clone()].iter();
            let since = members.filter_map(|seq| self.since[seq.0 as usize]);
            let (count, oldest) = since.fold((0, u64::MAX), |(count, oldest), since| {
                (count + 1, oldest.min(since))
            });
            let missing = range.len() - count;
            let is_overdue = count > 0 && self.steps - oldest > groups as u64;
            (count > 0).then_some((if is_overdue { 0 } else { 1 + missing }, oldest))
        };
        let turns = (0..groups).map(stretch);
        let turns = turns.filter_map(|range| Some((turn(&range)?, range)));
        let next = turns.min_by_key(|(turn, _)| *turn);
        self.steps += 1;
        next.map_or(0..0, |(_, range)| range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequences(ids: impl IntoIterator<Item = u32>) -> Vec<SeqId> {
        ids.into_iter().map(SeqId).collect()
    }

    fn ready(ids: &[SeqId]) -> Ready {
        let mut ready = Ready::new(64);
        insert(&mut ready, ids);
        ready
    }

    fn insert(ready: &mut Ready, ids: &[SeqId]) {
        for &seq in ids {
            ready.insert(seq);
        }
    }

    /// The ready ones of the group, which are taken.
    fn take(ready: &mut Ready, decoding: &[SeqId], groups: usize) -> Vec<SeqId> {
        let group = decoding[ready.next_group(decoding, groups)].iter().copied();
        let taken: Vec<SeqId> = group.filter(|&seq| ready.contains(seq)).collect();
        for &seq in &taken {
            ready.remove(seq);
        }
        taken
    }

    #[test]
    fn stretches_are_even_and_take_turns() {
        let all = sequences([1, 2, 3, 5, 7, 8, 9]);
        let mut ready = ready(&all);
        assert_eq!(take(&mut ready, &all, 3), sequences([1, 2, 3]));
        assert_eq!(take(&mut ready, &all, 3), sequences([5, 7]));
        assert_eq!(take(&mut ready, &all, 3), sequences([8, 9]));
        assert!(ready.is_empty());
        assert_eq!(take(&mut ready, &all, 3), []);
        assert_eq!(take(&mut ready, &[], 3), []);
        assert_eq!(take(&mut self::ready(&all), &all, 1), all);
        // More groups than sequences.
        assert_eq!(take(&mut self::ready(&all), &all, 9), sequences([1]));
    }

    #[test]
    fn who_came_out_of_step_is_back_after_a_cycle() {
        let all = sequences(0..16);
        let (even, odd): (Vec<SeqId>, Vec<SeqId>) = all.iter().partition(|seq| seq.0 % 2 == 0);
        // All even ones came back while all odd ones are on their way.
        let mut ready = ready(&even);
        let first = take(&mut ready, &all, 2);
        assert_eq!(first, sequences([0, 2, 4, 6]));
        insert(&mut ready, &odd);
        assert_eq!(take(&mut ready, &all, 2), sequences(8..16));
        insert(&mut ready, &first);
        assert_eq!(take(&mut ready, &all, 2), sequences(0..8));
    }

    #[test]
    fn a_group_that_is_never_complete_has_its_turn() {
        let all = sequences(0..8);
        let mut ready = ready(&all[..7]);
        // The last one never comes, the others are ready again at once.
        let turns = (0..12).map(|_| {
            let taken = take(&mut ready, &all, 4);
            insert(&mut ready, &taken);
            taken
        });
        assert_eq!(turns.filter(|taken| taken == &[SeqId(6)]).count(), 2);
    }
}
