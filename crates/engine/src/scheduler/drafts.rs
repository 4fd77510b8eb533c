//! Guesses of what an answer says next, which the model then verifies in one step.
//!
//! The guess is what followed when the last tokens stood in the prompt or the answer before
//! (prompt lookup). The model chooses every token itself, in one pass for all of them; the draft
//! only decides for how many it is asked at once. Whether that is worth a longer step follows from
//! how often guesses were right lately, in this answer, and from what steps were measured to take.

use std::ops::RangeInclusive;

use brigade_wire::Token;

/// Tokens at the end that must have stood before, the more the better.
const MATCH_TOKENS: RangeInclusive<usize> = 2..=4;
/// Guesses that the share of right ones is taken over, about.
const MEMORY: f64 = 16.0;
/// A draft must make an answer this much faster.
const WORTH_DRAFTING: f64 = 1.05;

/// What followed when these tokens last ended as they do now, up to here, and from there on the
/// same again: `most` tokens, or none.
pub(super) fn look_up(tokens: &[Token], most: usize) -> Vec<Token> {
    for length in MATCH_TOKENS.rev() {
        let Some(before) = tokens.len().checked_sub(length + 1) else {
            continue;
        };
        let (last, &end) = (&tokens[before + 1..], &tokens[tokens.len() - 1]);
        // The end must be the same, which few windows pass.
        let found = (0..=before)
            .rev()
            .find(|&start| tokens[start + length - 1] == end && tokens[start..][..length] == *last);
        if let Some(start) = found {
            return tokens[start + length..]
                .iter()
                .copied()
                .cycle()
                .take(most)
                .collect();
        }
    }
    Vec::new()
}

/// How often a sequence's guesses were right.
#[derive(Debug, Clone, Copy)]
pub(super) struct Acceptance {
    right: f64,
    guesses: f64,
}

impl Default for Acceptance {
    /// As if two of three had been right: a few are tried before anything is known.
    fn default() -> Self {
        Self {
            right: 2.0,
            guesses: 3.0,
        }
    }
}

impl Acceptance {
    pub(super) fn observe(&mut self, is_right: bool) {
        let keep = 1.0 - 1.0 / MEMORY;
        self.right = self.right * keep + f64::from(u8::from(is_right));
        self.guesses = self.guesses * keep + 1.0;
    }

    /// Tokens that a step is expected to give with a draft of this length: the first is the
    /// model's in any case, each other needs all before it to be right.
    fn tokens(self, draft: usize) -> f64 {
        let share = self.right / self.guesses;
        (0..=draft).map(|at| share.powi(at as i32)).sum()
    }
}

/// The length of the drafts that is best for a group: of these sequences, each with the length of
/// its draft, and with the time that a step with so many tokens of each takes, in any unit. All
/// spans of a step have one length, so the shortest draft bounds all.
pub(super) fn best_length(
    group: &[(Acceptance, usize)],
    step_time: impl Fn(usize) -> Option<f64>,
) -> usize {
    let longest = group.iter().map(|&(_, length)| length).min().unwrap_or(0);
    let rate = |draft: usize| {
        let tokens: f64 = group
            .iter()
            .map(|(sequence, _)| sequence.tokens(draft))
            .sum();
        Some(tokens / step_time(draft + 1)?.max(f64::MIN_POSITIVE))
    };
    let Some(plain) = rate(0) else {
        return 0;
    };
    let rates = (1..=longest).filter_map(|draft| Some((rate(draft)?, draft)));
    let best = rates.max_by(|a, b| a.0.total_cmp(&b.0));
    best.filter(|(rate, _)| *rate >= plain * WORTH_DRAFTING)
        .map_or(0, |(_, draft)| draft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_with_the_longest_match_is_what_follows() {
        let none: [Token; 0] = [];
        assert_eq!(look_up(&[], 4), none);
        assert_eq!(look_up(&[1], 4), none);
        assert_eq!(look_up(&[1, 2, 3], 4), none);
        // One token alone says too little.
        assert_eq!(look_up(&[1, 2, 3, 1], 4), none);
        assert_eq!(look_up(&[1, 2, 3, 4, 1, 2], 4), [3, 4, 1, 2]);
        assert_eq!(look_up(&[1, 2, 3, 4, 1, 2], 6), [3, 4, 1, 2, 3, 4]);
        assert_eq!(look_up(&[1, 2, 3, 4, 1, 2], 1), [3]);
        // The later of two places.
        assert_eq!(look_up(&[1, 2, 3, 1, 2, 4, 9, 1, 2], 1), [4]);
        // The longer match wins over the later place.
        assert_eq!(look_up(&[7, 1, 2, 3, 8, 1, 2, 4, 7, 1, 2], 1), [3]);
        // A repetition goes on.
        assert_eq!(look_up(&[5, 5, 5], 4), [5; 4]);
    }

    #[test]
    fn drafts_are_worth_it_where_they_are_right_and_steps_cost_little_more() {
        let mut good = Acceptance::default();
        let mut bad = Acceptance::default();
        for _ in 0..50 {
            good.observe(true);
            bad.observe(false);
        }
        let by_weights = |tokens: usize| Some(1000.0 + tokens as f64);
        let by_computing = |tokens: usize| Some(tokens as f64 * 1000.0);
        assert_eq!(best_length(&[(good, 8)], by_weights), 8);
        assert_eq!(best_length(&[(bad, 8)], by_weights), 0);
        assert_eq!(best_length(&[(good, 8)], by_computing), 0);
        assert_eq!(best_length(&[(good, 8)], |_| None), 0);
        assert_eq!(best_length(&[], by_weights), 0);
        // The shortest draft bounds all.
        assert_eq!(best_length(&[(good, 8), (good, 3)], by_weights), 3);
        assert_eq!(best_length(&[(good, 8), (good, 0)], by_weights), 0);
        // A few are tried before anything is known, unless steps are bound by computing.
        let new = Acceptance::default();
        assert!(best_length(&[(new, 8)], by_weights) > 3);
        assert_eq!(best_length(&[(new, 8)], by_computing), 0);
    }
}
