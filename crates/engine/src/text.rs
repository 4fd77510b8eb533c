//! Turns the bytes of token pieces into text that may be shown: whole characters only, and
//! nothing that could still turn out to be the beginning of a stop string.

/// Text that became safe to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text; often empty.
    pub text: String,
    /// A stop string was found; `text` ends before it, and nothing comes after.
    pub stopped: bool,
}

/// The text of one answer. Its result does not depend on how the bytes are cut into pieces.
///
/// Bytes that are not UTF-8 become U+FFFD as in [`String::from_utf8_lossy`]. Of several stop
/// strings the one that is complete first ends the text, of those the one that begins first.
#[derive(Debug, Clone)]
pub struct TextStream {
    stops: Vec<String>,
    /// The beginning of a character.
    bytes: Vec<u8>,
    /// The possible beginning of a stop string.
    held: String,
    /// The stop string that ended it.
    stop: Option<String>,
}

impl TextStream {
    /// A text that ends before the first of `stops`; empty ones are ignored.
    pub fn new(stops: Vec<String>) -> Self {
        Self {
            stops: stops.into_iter().filter(|stop| !stop.is_empty()).collect(),
            bytes: Vec::new(),
            held: String::new(),
            stop: None,
        }
    }

    /// Takes the bytes of the next token.
    pub fn push(&mut self, bytes: &[u8]) -> Piece {
        if self.stop.is_none() {
            self.bytes.extend_from_slice(bytes);
            let text = take_characters(&mut self.bytes);
            self.held.push_str(&text);
        }
        let text = if let Some((start, stop)) = self.find_stop() {
            self.stop = Some(stop);
            self.held.truncate(start);
            std::mem::take(&mut self.held)
        } else {
            let kept = self.held.len() - self.possible_stop();
            let rest = self.held.split_off(kept);
            std::mem::replace(&mut self.held, rest)
        };
        Piece {
            text,
            stopped: self.stop.is_some(),
        }
    }

    /// Ends the text and returns what was held back.
    pub fn finish(mut self) -> String {
        if self.stop.is_some() {
            return String::new();
        }
        self.held.push_str(&String::from_utf8_lossy(&self.bytes));
        if let Some((start, _)) = self.find_stop() {
            self.held.truncate(start);
        }
        self.held
    }

    /// The stop string that ended the text.
    pub fn stop(&self) -> Option<&str> {
        self.stop.as_deref()
    }

    /// Where the stop string begins that is complete first, and which it is.
    fn find_stop(&self) -> Option<(usize, String)> {
        self.stops
            .iter()
            .filter_map(|stop| {
                let start = self.held.find(stop.as_str())?;
                Some((start + stop.len(), start, stop.as_str()))
            })
            .min()
            .map(|(_, start, stop)| (start, stop.to_owned()))
    }

    /// Length of the longest end of `held` that begins a stop string.
    fn possible_stop(&self) -> usize {
        let held = self.held.as_bytes();
        self.stops
            .iter()
            .filter_map(|stop| {
                let longest = held.len().min(stop.len() - 1);
                (1..=longest)
                    .rev()
                    .find(|&len| held.ends_with(&stop.as_bytes()[..len]))
            })
            .max()
            .unwrap_or(0)
    }
}

/// Moves everything but an incomplete last character out of `bytes`.
fn take_characters(bytes: &mut Vec<u8>) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut incomplete = 0;
    let mut chunks = bytes.utf8_chunks().peekable();
    while let Some(chunk) = chunks.next() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid();
        if let Err(error) = std::str::from_utf8(invalid) {
            // Only at the very end could more bytes complete it.
            if error.error_len().is_none() && chunks.peek().is_none() {
                incomplete = invalid.len();
            } else {
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }
    bytes.drain(..bytes.len() - incomplete);
    text
}
