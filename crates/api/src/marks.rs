//! Marks in text that comes in pieces.

/// Bytes at the end of `text` that may be the beginning of `mark`.
pub(crate) fn held_back(text: &str, mark: &str) -> usize {
    let longest = text.len().min(mark.len().saturating_sub(1));
    (1..=longest)
        .rev()
        .find(|&length| text.as_bytes().ends_with(&mark.as_bytes()[..length]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_still_become_the_mark_is_held() {
        assert_eq!(held_back("a<to", "<tool>"), 3);
        assert_eq!(held_back("a<", "<tool>"), 1);
        assert_eq!(held_back("<tool>", "<tool>"), 0);
        assert_eq!(held_back("é", "<tool>"), 0);
        assert_eq!(held_back("", "<tool>"), 0);
    }
}
