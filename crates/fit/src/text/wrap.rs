//! Words into lines.

use crate::page::format::glue;

/// The text in lines of at most `width` characters. A longer word is broken, after a hyphen or
/// slash or before a unit where it has one; an address stays whole, so that it can be copied.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    // A number stays with its unit.
    let text = glue(text);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        for (index, piece) in pieces(word, width).into_iter().enumerate() {
            let length = piece.trim_end_matches('\u{a0}').chars().count();
            let gap = usize::from(index == 0);
            if used > 0 && used + gap + length > width {
                lines.push(std::mem::take(&mut line).trim_end().to_owned());
                used = 0;
            }
            if used > 0 && index == 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(&piece.replace('\u{a0}', " "));
            used += piece.chars().count();
        }
    }
    if !line.is_empty() {
        lines.push(line.trim_end().to_owned());
    }
    lines
}

/// A word in pieces that fit.
fn pieces(word: &str, width: usize) -> Vec<&str> {
    let width = width.max(1);
    if word.chars().count() <= width || word.starts_with("https://") {
        return vec![word];
    }
    let mut pieces = Vec::new();
    for part in word.split_inclusive(['-', '/', '_', '\u{a0}']) {
        let mut rest = part;
        // The blank before a unit may hang over.
        while let Some((at, _)) = rest.trim_end_matches('\u{a0}').char_indices().nth(width) {
            let (piece, after) = rest.split_at(at);
            pieces.push(piece);
            rest = after;
        }
        pieces.push(rest);
    }
    pieces
}

/// The text in one line of at most `width` characters, with a mark where some of it is left out.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{cut, wrap};

    proptest! {
        #[test]
        fn no_word_is_lost_and_no_line_too_long(words in prop::collection::vec("[a-zé]{1,9}", 0..40)) {
            let lines = wrap(&words.join(" "), 12);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= 12));
            prop_assert_eq!(lines.join(" "), words.join(" "));
        }

        #[test]
        fn long_words_are_broken_and_nothing_is_lost(text in "[a-zé/_ -]{0,80}", width in 1_usize..20) {
            let lines = wrap(&text, width);
            prop_assert!(lines.iter().all(|line| line.chars().count() <= width));
            prop_assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        }
    }

    #[test]
    fn addresses_stay_whole_and_cuts_show() {
        let address = "https://example.org/a-very-long-address";
        assert_eq!(
            wrap(&format!("see {address} there"), 12),
            ["see", address, "there"]
        );
        assert_eq!(wrap("cpu-ddr4-3200-2ch", 12), ["cpu-ddr4-", "3200-2ch"]);
        assert_eq!(wrap("about 25.3 GiB", 9), ["about", "25.3 GiB"]);
        assert_eq!(wrap("about 25.3 GiB", 5), ["about", "25.3", "GiB"]);
        assert_eq!(wrap("25.3 GiB", 4), ["25.3", "GiB"]);
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
    }
}
