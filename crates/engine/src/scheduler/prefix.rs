//! Beginnings of prompts that the KV cache still holds, and who can use them.
//!
//! A sequence whose answer is complete keeps the full chunks of its prompt until somebody else
//! needs the place: whoever was used least recently goes first. A prompt that begins with the same
//! chunks continues from there. Only full chunks that were computed as chunks of a prompt count,
//! so that the shared part is, bit for bit, what the new prompt's own chunks would have given.

use brigade_wire::Token;

use super::fairness::Active;

/// What a sequence without a request holds.
#[derive(Debug, Default, Clone)]
pub(super) struct Kept {
    /// Full chunks of a prompt; none for an empty sequence.
    pub(super) tokens: Vec<Token>,
    /// Counts the uses of all sequences.
    pub(super) used: u64,
}

/// The sequence for a new request, among those without one: the one that holds the most of its
/// prompt, if that is at least half of what it holds; else an empty or the least recently used
/// one. With the tokens that can stay.
pub(super) fn place<'a>(
    free: impl Iterator<Item = (usize, &'a Kept)> + Clone,
    prompt: &[Token],
    chunk_tokens: usize,
) -> Option<(usize, usize)> {
    let best = free
        .clone()
        .map(|(index, kept)| (index, kept, shared(&kept.tokens, prompt, chunk_tokens)))
        .filter(|(_, kept, shared)| *shared > 0 && 2 * shared >= kept.tokens.len())
        .max_by_key(|&(index, _, shared)| (shared, usize::MAX - index));
    if let Some((index, _, shared)) = best {
        return Some((index, shared));
    }
    let oldest = free.min_by_key(|(index, kept)| (!kept.tokens.is_empty(), kept.used, *index));
    oldest.map(|(index, _)| (index, 0))
}

/// The sequence to copy the beginning of a prompt from, and how much of it.
pub(super) fn source(
    slots: &[Option<Active>],
    kept: &[Kept],
    lengths: &[u32],
    prompt: &[Token],
    chunk_tokens: usize,
) -> Option<(usize, usize)> {
    let held = slots
        .iter()
        .zip(kept)
        .zip(lengths)
        .map(|((slot, kept), &length)| match slot {
            Some(active) => &active.tokens[..active.prompt_tokens.min(length as usize)],
            None => kept.tokens.as_slice(),
        });
    held.enumerate()
        .map(|(index, held)| (index, shared(held, prompt, chunk_tokens)))
        .filter(|&(_, shared)| shared > 0)
        .max_by_key(|&(index, shared)| (shared, usize::MAX - index))
}

/// Tokens in the full chunks with which both begin; at least one of the prompt is left, whose
/// logits are needed.
fn shared(held: &[Token], prompt: &[Token], chunk_tokens: usize) -> usize {
    let most = held.len().min(prompt.len().saturating_sub(1));
    let mut shared = 0;
    while shared + chunk_tokens <= most
        && held[shared..shared + chunk_tokens] == prompt[shared..shared + chunk_tokens]
    {
        shared += chunk_tokens;
    }
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_full_chunks_are_shared_and_a_token_is_left() {
        let prompt: Vec<Token> = (0..10).collect();
        assert_eq!(shared(&prompt, &prompt, 4), 8);
        assert_eq!(shared(&prompt, &prompt, 5), 5);
        assert_eq!(shared(&prompt, &prompt, 10), 0);
        assert_eq!(shared(&prompt[..7], &prompt, 4), 4);
        assert_eq!(shared(&[0, 1, 2, 3, 4, 5, 6, 9], &prompt, 4), 4);
        assert_eq!(shared(&[9], &prompt, 4), 0);
        assert_eq!(shared(&prompt, &[], 4), 0);
    }

    #[test]
    fn the_best_place_or_the_least_recently_used_one() {
        let kept = |tokens: std::ops::Range<Token>, used| Kept {
            tokens: tokens.collect(),
            used,
        };
        let all = [
            kept(0..8, 3),
            kept(50..54, 1),
            kept(0..4, 2),
            kept(0..80, 9),
        ];
        let free = || all.iter().enumerate();
        let prompt: Vec<Token> = (0..20).collect();
        // The last one holds more of it, but much else too.
        assert_eq!(place(free(), &prompt, 4), Some((0, 8)));
        assert_eq!(place(free(), &prompt[..6], 4), Some((0, 4)));
        assert_eq!(place(free(), &[7; 9], 4), Some((1, 0)));
        let with_empty = [kept(0..8, 3), kept(0..0, 5)];
        let free = with_empty.iter().enumerate();
        assert_eq!(place(free, &[7; 9], 4), Some((1, 0)));
        assert_eq!(place(std::iter::empty(), &prompt, 4), None);
    }
}
