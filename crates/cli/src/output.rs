//! What several commands print.

#[cfg(feature = "engine")]
mod cluster;

use std::io::{self, Write as _};

use anyhow::Context;
use terminal_size::{Height, Width, terminal_size_of};

use crate::pager;

#[cfg(feature = "engine")]
pub(crate) use cluster::{Told, piece, progress, progress_done, progress_text, status, stream};

/// Bytes in the unit that suits them, 10⁶ or 10⁹ based.
pub(crate) fn bytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    if megabytes >= 1000.0 {
        format!("{:.1} GB", megabytes / 1000.0)
    } else {
        format!("{megabytes:.1} MB")
    }
}

const UNWRITTEN: &str = "cannot write to standard output";

/// Prints a line of data.
#[cfg(feature = "engine")]
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context(UNWRITTEN)
}

/// Prints a document that ends with a line feed. A reader that has seen enough (`| head`) is no
/// error.
pub(crate) fn document(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context(UNWRITTEN),
    }
}

/// Columns and rows of the terminal that standard output is; `None` where it is none, or one that
/// does not say.
pub(crate) fn terminal() -> Option<(usize, usize)> {
    let (Width(columns), Height(rows)) = terminal_size_of(io::stdout())?;
    Some((columns.into(), rows.into()))
}

/// Prints a document for a person to read, through the pager where a terminal has too few rows.
pub(crate) fn page(text: &str) -> anyhow::Result<()> {
    // The last row is the prompt's.
    let long = terminal().is_some_and(|(_, rows)| text.lines().count() >= rows);
    if long && let Some(words) = pager::chosen(|name| std::env::var_os(name)) {
        // Whatever is wrong with the pager, the page can still be read.
        if pager::show(text, &words).is_ok() {
            return Ok(());
        }
    }
    document(text)
}

/// Prints lines for a person on standard error, where nobody may be listening.
pub(crate) fn note(text: &str) {
    let lines: Vec<String> = text.split('\n').map(readable).collect();
    let _ = writeln!(io::stderr().lock(), "{}", lines.join("\n"));
}

/// Prints why the command failed, on one line of standard error.
pub(crate) fn error(error: &anyhow::Error, hint: &str) {
    let causes: Vec<String> = error
        .chain()
        .map(|cause| readable(&cause.to_string()))
        .collect();
    let _ = writeln!(io::stderr().lock(), "brigade: {}{hint}", causes.join(": "));
}

/// The most characters of a line, or of a cause of an error.
const MOST: usize = 400;

/// How many of those are its end, which says what is wrong with what stands before.
const MOST_AT_END: usize = 160;

/// A text as a terminal may show it, whoever wrote it: with escapes in place of what a terminal
/// would act on, and without the middle where it is long.
fn readable(text: &str) -> String {
    let count = text.chars().count();
    let cut = if count > MOST {
        MOST - MOST_AT_END..count - MOST_AT_END
    } else {
        count..count
    };
    let mut shown = String::with_capacity(text.len().min(8 * MOST));
    for (index, character) in text.chars().enumerate() {
        if index == cut.start && !cut.is_empty() {
            shown.push_str(" … ");
        }
        if cut.contains(&index) {
            continue;
        }
        if is_acted_on(character) {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Whether a terminal would act on some of this.
pub(crate) fn acts(text: &std::ffi::OsStr) -> bool {
    text.to_string_lossy().chars().any(is_acted_on)
}

/// Controls, line separators, and what changes the direction of writing.
fn is_acted_on(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

/// Asks for input on standard error.
#[cfg(feature = "engine")]
pub(crate) fn ask(text: &str) {
    let mut out = io::stderr().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_acts_on_is_escaped() {
        let cases = [
            ("plain – ä 日本", "plain – ä 日本"),
            ("\u{1b}[31mred", "\\u{1b}[31mred"),
            ("a\nb\rc\td", "a\\nb\\rc\\td"),
            ("\u{9b}1m\u{7f}", "\\u{9b}1m\\u{7f}"),
            ("\u{202a}x\u{202e}y", "\\u{202a}x\\u{202e}y"),
            ("\u{2066}x\u{2069}y", "\\u{2066}x\\u{2069}y"),
        ];
        for (text, expected) in cases {
            assert_eq!(readable(text), expected);
        }
    }

    #[test]
    fn the_middle_of_what_is_long_is_left_out() {
        let whole = "ä".repeat(MOST);
        assert_eq!(readable(&whole), whole);
        let long = readable(&format!("start{}end", "\u{1b}".repeat(1_000_000)));
        assert!(long.starts_with("start\\u{1b}") && long.ends_with("\\u{1b}end"));
        assert_eq!(long.matches("\\u{1b}").count(), MOST - 8);
        assert!(long.contains(" … "));
    }
}
