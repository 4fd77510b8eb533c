//! What a cluster does, as it happens.

use std::io::{self, IsTerminal, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_node::{Answer, Event, Progress};
use serde::{Deserialize, Serialize};

use super::{UNWRITTEN, bytes};

/// Reports progress on standard error, one line that changes on a terminal.
pub(crate) fn progress() -> impl FnMut(Progress) {
    |progress| status(&progress_text(&progress))
}

/// What goes on, for a person.
pub(crate) fn progress_text(progress: &Progress) -> String {
    match progress {
        Progress::Slicing(node, done, total) => {
            format!(
                "{node} cuts its layers: {} of {}",
                bytes(*done),
                bytes(*total)
            )
        }
        Progress::Fetching {
            node,
            done_bytes,
            total_bytes,
            bytes_per_second,
        } => fetching(node, *done_bytes, *total_bytes, *bytes_per_second),
        Progress::Ready(node) => format!("{node} is ready"),
    }
}

/// How far a delivery is, how fast it goes, and how long it takes from now on.
pub(crate) fn fetching(who: &str, done: u64, total: u64, bytes_per_second: u64) -> String {
    let mut text = format!("{who} fetches {} of {}", bytes(done), bytes(total));
    if let Some(seconds) = total.saturating_sub(done).checked_div(bytes_per_second) {
        let left = match seconds {
            0..60 => format!("{seconds} s"),
            60..3600 => format!("{} min", seconds.div_ceil(60)),
            _ => format!("{:.1} h", seconds as f64 / 3600.0),
        };
        let _ = std::fmt::Write::write_fmt(
            &mut text,
            format_args!(", {}/s, {left} left", bytes(bytes_per_second)),
        );
    }
    text
}

/// Shows what goes on in a line that the next one replaces, where there is a terminal.
pub(crate) fn status(line: &str) {
    if io::stderr().is_terminal() {
        redraw(line);
    }
}

/// Clears the line of [`progress`].
pub(crate) fn progress_done() {
    status("");
}

fn redraw(line: &str) {
    let mut out = io::stderr().lock();
    let _ = write!(out, "\r\x1b[K{line}").and_then(|()| out.flush());
}

/// An answer that was followed to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Told {
    /// Its text.
    pub(crate) text: String,
    /// Its tokens.
    pub(crate) tokens: u32,
    /// Until the first of them.
    pub(crate) first: Duration,
    /// From the first to the last.
    pub(crate) rest: Duration,
}

impl Told {
    /// Tokens a second after the first.
    pub(crate) fn decode_tok_s(&self) -> f64 {
        f64::from(self.tokens.saturating_sub(1)) / self.rest.as_secs_f64().max(1e-9)
    }

    /// A line about it.
    pub(crate) fn summary(&self, prompt_tokens: usize) -> String {
        format!(
            "{prompt_tokens} prompt tokens, first token after {:.0} ms; {} tokens at {:.1} tok/s",
            self.first.as_secs_f64() * 1e3,
            self.tokens,
            self.decode_tok_s(),
        )
    }
}

/// Shows an answer as it comes, and ends its line. `start` is when it was asked for.
pub(crate) fn stream(
    answer: &mut Answer,
    start: Instant,
    mut show: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<Told> {
    let mut told = Told {
        text: String::new(),
        tokens: 0,
        first: Duration::ZERO,
        rest: Duration::ZERO,
    };
    loop {
        let (text, over) = match answer.next_blocking() {
            Some(Event::Token { text, .. }) => {
                told.tokens += 1;
                if told.tokens == 1 {
                    told.first = start.elapsed();
                }
                told.rest = start.elapsed().saturating_sub(told.first);
                (text, false)
            }
            Some(Event::Done { text, .. }) => (text, true),
            Some(Event::Started { .. }) => (String::new(), false),
            Some(Event::Failed(reason) | Event::Refused(reason)) => {
                if !told.text.is_empty() {
                    show("\n")?;
                }
                bail!("the answer broke off: {reason}");
            }
            None => bail!("the answer ended without a reason"),
        };
        show(&text)?;
        told.text.push_str(&text);
        if over {
            show("\n")?;
            return Ok(told);
        }
    }
}

/// Prints a piece of an answer.
pub(crate) fn piece(text: &str) -> anyhow::Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context(UNWRITTEN)
}
