//! Takes a model's thoughts, `<think>` … `</think>`, out of its answer.

use crate::marks::held_back;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// Whether a model with this chat template thinks aloud between these marks.
pub(crate) fn thinks(template: &str) -> bool {
    template.contains(CLOSE)
}

/// Whether the prompt ends in the middle of a thought that the template has begun.
pub(crate) fn begins_thinking(prompt: &str) -> bool {
    prompt.trim_end().ends_with(OPEN)
}

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Thought(String),
    Text(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing has come but white space.
    Start,
    /// The thought has begun, with nothing but white space.
    Opened,
    Thinking,
    /// The thought is over and nothing but white space has come since.
    Between,
    Answering,
}

/// Splits one answer; a thought only counts at its beginning.
#[derive(Debug)]
pub(crate) struct Splitter {
    state: State,
    held: String,
}

impl Splitter {
    /// For a model that does not think aloud: everything is text.
    pub(crate) fn off() -> Self {
        Self::in_state(State::Answering)
    }

    /// For a model that does, after this prompt.
    pub(crate) fn after(prompt: &str) -> Self {
        Self::in_state(if begins_thinking(prompt) {
            State::Opened
        } else {
            State::Start
        })
    }

    fn in_state(state: State) -> Self {
        Self {
            state,
            held: String::new(),
        }
    }

    /// Takes more of the answer.
    pub(crate) fn push(&mut self, text: &str, pieces: &mut Vec<Piece>) {
        self.held.push_str(text);
        loop {
            match self.state {
                State::Start => {
                    let begun = self.held.trim_start();
                    if let Some(thought) = begun.strip_prefix(OPEN) {
                        self.held = thought.to_owned();
                        self.state = State::Opened;
                    } else if OPEN.starts_with(begun) {
                        return;
                    } else {
                        self.state = State::Answering;
                    }
                }
                State::Thinking => {
                    if let Some((thought, rest)) = self.held.split_once(CLOSE) {
                        let (thought, rest) = (thought.trim_end().to_owned(), rest.to_owned());
                        push(pieces, Piece::Thought, thought);
                        self.held = rest;
                        self.state = State::Between;
                    } else {
                        // White space before the mark is not part of the thought.
                        let kept = self.held.len() - held_back(&self.held, CLOSE);
                        let shown = self.held[..kept].trim_end().len();
                        let rest = self.held.split_off(shown);
                        push(
                            pieces,
                            Piece::Thought,
                            std::mem::replace(&mut self.held, rest),
                        );
                        return;
                    }
                }
                State::Opened | State::Between => {
                    let rest = self.held.trim_start();
                    if rest.is_empty() {
                        return;
                    }
                    self.held = rest.to_owned();
                    self.state = if self.state == State::Opened {
                        State::Thinking
                    } else {
                        State::Answering
                    };
                }
                State::Answering => {
                    push(pieces, Piece::Text, std::mem::take(&mut self.held));
                    return;
                }
            }
        }
    }

    /// Ends the answer.
    pub(crate) fn finish(&mut self, pieces: &mut Vec<Piece>) {
        let held = std::mem::take(&mut self.held);
        match self.state {
            State::Start | State::Answering => push(pieces, Piece::Text, held),
            State::Thinking => push(pieces, Piece::Thought, held.trim_end().to_owned()),
            State::Opened | State::Between => {}
        }
    }
}

fn push(pieces: &mut Vec<Piece>, kind: fn(String) -> Piece, text: String) {
    if !text.is_empty() {
        pieces.push(kind(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The thought and the text of an answer, whatever pieces it comes in.
    fn split(prompt: &str, answer: &str) -> (String, String) {
        let mut results = (1..=answer.len()).map(|size| {
            let mut splitter = Splitter::after(prompt);
            let mut pieces = Vec::new();
            for piece in answer.as_bytes().chunks(size) {
                splitter.push(std::str::from_utf8(piece).unwrap(), &mut pieces);
            }
            splitter.finish(&mut pieces);
            let mut all = (String::new(), String::new());
            for piece in pieces {
                match piece {
                    Piece::Thought(text) => all.0.push_str(&text),
                    Piece::Text(text) => all.1.push_str(&text),
                }
            }
            all
        });
        let first = results.next().unwrap();
        assert!(results.all(|other| other == first), "{answer:?}");
        first
    }

    #[test]
    fn thoughts_are_taken_out_of_answers() {
        for (prompt, answer, thought, text) in [
            (
                "<a>",
                "<think>\nhm < so\n</think>\n\nYes.",
                "hm < so",
                "Yes.",
            ),
            ("<a>", "  <think></think> Yes", "", "Yes"),
            (
                "<a>",
                "No thought </think> here",
                "",
                "No thought </think> here",
            ),
            ("<a>", "<thin", "", "<thin"),
            (
                "<a>",
                "Later <think>x</think>",
                "",
                "Later <think>x</think>",
            ),
            ("<a><think>\n", "hm\n\nso</think>\nYes", "hm\n\nso", "Yes"),
            ("<a><think>\n", "cut off </thi", "cut off </thi", ""),
            ("<a><think>", "hm</think>\n\n", "hm", ""),
        ] {
            assert_eq!(split(prompt, answer), (thought.to_owned(), text.to_owned()));
        }
    }

    #[test]
    fn without_thoughts_nothing_is_touched() {
        let mut pieces = Vec::new();
        Splitter::off().push("  <think>a", &mut pieces);
        assert_eq!(pieces, [Piece::Text("  <think>a".to_owned())]);
    }
}
