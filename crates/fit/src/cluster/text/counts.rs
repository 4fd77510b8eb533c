//! Terms and how many of each: `4x name`, `4 name`, `four name`, `name x4`.

use super::{MOST, syntax};
use crate::error::FitError;

/// Counts as words.
const WORDS: [(&str, usize); 8] = [
    ("one", 1),
    ("two", 2),
    ("three", 3),
    ("four", 4),
    ("five", 5),
    ("six", 6),
    ("seven", 7),
    ("eight", 8),
];

/// Words after a number that is no count.
const UNITS: [&str; 6] = ["gb", "gib", "g", "tb", "core", "cores"];

/// The terms that `+` joins. That of AMD's `Max+ 395` joins nothing.
pub(super) fn terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let mut start = 0;
    for (at, plus) in text.match_indices('+') {
        let (before, after) = (&text[..at], &text[at + plus.len()..]);
        let number = first_word(after);
        let model = number.len() == 3 && number.bytes().all(|byte| byte.is_ascii_digit());
        let letters = before
            .bytes()
            .rev()
            .take(3)
            .map(|byte| byte.to_ascii_lowercase());
        if !(model && letters.eq(*b"xam")) {
            terms.push(&text[start..at]);
            start = at + plus.len();
        }
    }
    terms.push(&text[start..]);
    terms
}

/// How many of which name.
pub(super) fn counted(term: &str) -> Result<(usize, &str), FitError> {
    let term = term.trim();
    let (count, name) = match before(term).or_else(|| after(term)) {
        Some((number, name)) => (read(number)?, name.trim()),
        None => match word(term) {
            Some((count, name)) => (count, name),
            None => (1, term),
        },
    };
    if name.is_empty() {
        let hint = "a machine is expected, such as 4x mac-mini-m4-pro-64gb";
        return Err(syntax(term, hint));
    }
    Ok((count, name))
}

fn read(number: &str) -> Result<usize, FitError> {
    let count = number.parse().ok();
    let count = count.filter(|count| (1..=MOST).contains(count));
    count.ok_or_else(|| syntax(number, &format!("a count is 1 to {MOST}")))
}

/// A number before the name: `4x name`, or `4 name` where it cannot be part of one.
fn before(term: &str) -> Option<(&str, &str)> {
    let digits = term.len() - term.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = term.split_at(digits);
    let times = rest.trim_start().strip_prefix(['x', 'X', '×', '*']);
    let more = |name: &str| name.bytes().all(|byte| byte.is_ascii_digit());
    match times {
        _ if digits == 0 => None,
        // In 3090x2 the count stands last.
        Some(name) if digits > 2 && !name.is_empty() && more(name) => None,
        // 7900 XTX is no count.
        Some(name) if !is_xt(rest) => Some((number, name)),
        // 4090 Ti is none either, nor 64 GB.
        _ => {
            let unit = first_word(rest).to_ascii_lowercase();
            let name = rest.starts_with(char::is_whitespace) && !UNITS.contains(&&*unit);
            (digits <= 2 && name && !is_xt(rest)).then_some((number, rest))
        }
    }
}

/// A number after the name: `name x4`, `3090x2`.
fn after(term: &str) -> Option<(&str, &str)> {
    let rest = term.trim_end_matches(|c: char| c.is_ascii_digit());
    let number = &term[rest.len()..];
    let name = rest.trim_end().strip_suffix(['x', 'X', '×', '*'])?;
    let apart = name.ends_with(|c: char| c.is_whitespace() || c.is_ascii_digit());
    (!number.is_empty() && apart).then_some((number, name))
}

/// A count as a word.
fn word(term: &str) -> Option<(usize, &str)> {
    let (first, rest) = term.split_once(char::is_whitespace)?;
    let mut words = WORDS.iter();
    let (_, count) = words.find(|(word, _)| word.eq_ignore_ascii_case(first))?;
    Some((*count, rest.trim()))
}

/// Whether `rest` begins with the word XT or XTX, as of a Radeon.
fn is_xt(rest: &str) -> bool {
    let word = first_word(rest);
    word.eq_ignore_ascii_case("xt") || word.eq_ignore_ascii_case("xtx")
}

/// The letters and digits that a text begins with.
fn first_word(text: &str) -> &str {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphanumeric());
    text.get(..end.unwrap_or(text.len())).unwrap_or_default()
}
