//! Reads calls out of an answer that comes in pieces.
//!
//! Text before the first call is passed on at once. A call is passed on when it is complete, and
//! what looks like one and cannot be read stays text: nothing is dropped.

use serde_json::Value;

use super::{Format, Tool, ToolCall, tags};
use crate::marks::held_back;

pub(super) const CLOSE: &str = "</tool_call>";

/// A part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Part {
    Text(String),
    Call(ToolCall),
}

/// The state of one answer.
#[derive(Debug)]
pub(crate) struct Parser {
    format: Format,
    tools: Vec<Tool>,
    /// Calls after these are dropped: the request wants no more.
    most_calls: usize,
    calls: usize,
    held: String,
    within: bool,
    /// An answer without marks has begun like text, and so is text to its end.
    plain: bool,
    /// White space before a call is not part of the text.
    blank: String,
}

impl Parser {
    pub(crate) fn new(format: Format, tools: &[Tool], most_calls: usize) -> Self {
        Self {
            format,
            tools: tools.to_vec(),
            most_calls,
            calls: 0,
            held: String::new(),
            within: false,
            plain: false,
            blank: String::new(),
        }
    }

    /// Whether a call has been passed on.
    pub(crate) fn has_calls(&self) -> bool {
        self.calls > 0
    }

    /// Takes more of the answer.
    pub(crate) fn push(&mut self, text: &str, parts: &mut Vec<Part>) {
        self.held.push_str(text);
        if self.format == Format::Llama {
            self.push_bare(parts);
            return;
        }
        let open = self.format.open();
        loop {
            if !self.within {
                let Some(start) = self.held.find(open) else {
                    let kept = self.held.len() - held_back(&self.held, open);
                    let rest = self.held.split_off(kept);
                    let shown = std::mem::replace(&mut self.held, rest);
                    self.text(&shown, parts);
                    return;
                };
                let rest = self.held.split_off(start);
                let before = std::mem::replace(&mut self.held, rest);
                self.text(&before, parts);
                self.within = true;
            }
            // Only these say where a call ends; the others are read at the end of the answer.
            if !matches!(self.format, Format::Hermes | Format::Coder | Format::Glm) {
                return;
            }
            let Some(end) = self.held.find(CLOSE) else {
                return;
            };
            let rest = self.held.split_off(end + CLOSE.len());
            let call = std::mem::replace(&mut self.held, rest);
            let inner = &call[open.len()..end];
            self.within = false;
            let calls = match self.format {
                Format::Hermes => self.read_values(inner),
                format => tags::read(format, inner, &self.tools).map(|call| vec![call]),
            };
            match calls {
                Some(calls) => self.take(calls, parts),
                None => self.text(&call, parts),
            }
        }
    }

    /// Ends the answer.
    pub(crate) fn finish(&mut self, parts: &mut Vec<Part>) {
        let held = std::mem::take(&mut self.held);
        let calls = match (self.format, self.within) {
            // A call of GLM's without its end may lack arguments.
            (_, false) | (Format::Glm, true) => None,
            (Format::Coder, true) => {
                let inner = held.trim_start_matches(self.format.open());
                tags::read(self.format, inner, &self.tools).map(|call| vec![call])
            }
            (Format::Llama, true) => self.read_bare(&held),
            (Format::Mistral | Format::MistralArgs, true) => self.read_mistral(&held),
            (Format::Bar | Format::Hermes, true) => {
                let inner = held.trim_start_matches(self.format.open());
                let inner = inner.trim_end().trim_end_matches("<|/tool_call|>");
                self.read_values(inner)
            }
        };
        match calls {
            Some(calls) => self.take(calls, parts),
            None => self.text(&held, parts),
        }
        let blank = std::mem::take(&mut self.blank);
        if self.calls == 0 && !blank.is_empty() {
            parts.push(Part::Text(blank));
        }
    }

    /// Passes text on, without white space at the end until more follows.
    fn text(&mut self, text: &str, parts: &mut Vec<Part>) {
        let all = std::mem::take(&mut self.blank) + text;
        let shown = all.trim_end().len();
        all[shown..].clone_into(&mut self.blank);
        if shown > 0 {
            parts.push(Part::Text(all[..shown].to_owned()));
        }
    }

    fn take(&mut self, calls: Vec<(String, Value)>, parts: &mut Vec<Part>) {
        self.blank.clear();
        for (name, arguments) in calls {
            if self.calls >= self.most_calls {
                return;
            }
            self.calls += 1;
            // Some models write the arguments as a string that holds the object.
            let arguments = match arguments {
                Value::String(text) => text,
                other => other.to_string(),
            };
            parts.push(Part::Call(ToolCall {
                id: self.format.new_id(),
                name,
                arguments,
            }));
        }
    }

    fn knows(&self, name: &str) -> bool {
        self.tools.iter().any(|tool| tool.name == name)
    }

    /// An answer without marks is a call only as a whole: it is held if it begins like one.
    fn push_bare(&mut self, parts: &mut Vec<Part>) {
        if self.within {
            return;
        }
        let begun = self.held.trim_start();
        let tag = "<|python_tag|>";
        if !self.plain && (begun.starts_with('{') || begun.starts_with(tag)) {
            self.within = true;
        } else if self.plain || !tag.starts_with(begun) {
            self.plain = true;
            let held = std::mem::take(&mut self.held);
            parts.push(Part::Text(held));
        }
    }

    fn read_bare(&self, text: &str) -> Option<Vec<(String, Value)>> {
        let text = text.trim_start().trim_start_matches("<|python_tag|>");
        let calls = self.read_values(text)?;
        // Without a mark, JSON may be just an answer.
        calls
            .iter()
            .all(|(name, _)| self.knows(name))
            .then_some(calls)
    }

    /// `[TOOL_CALLS]` before a list of calls, or before each `name[ARGS]{…}`.
    fn read_mistral(&self, text: &str) -> Option<Vec<(String, Value)>> {
        let mut calls = Vec::new();
        for part in text.split("[TOOL_CALLS]").skip(1) {
            let part = part.trim();
            if part.starts_with('[') || part.starts_with('{') {
                calls.extend(self.read_values(part)?);
                continue;
            }
            let start = part.find('{')?;
            let (name, arguments) = part.split_at(start);
            let name = name.split('[').next()?.trim();
            // Any text could stand there.
            if !self.knows(name) {
                return None;
            }
            calls.push((name.to_owned(), serde_json::from_str(arguments).ok()?));
        }
        (!calls.is_empty()).then_some(calls)
    }

    /// One or several calls as JSON objects or arrays of them, with `;` or `,` between or nothing.
    fn read_values(&self, text: &str) -> Option<Vec<(String, Value)>> {
        let mut calls = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
            let value = values.next()?.ok()?;
            let list = match value {
                Value::Array(list) => list,
                other => vec![other],
            };
            for value in list {
                calls.push(self.read_call(value)?);
            }
            rest = rest[values.byte_offset()..]
                .trim_start_matches(|c: char| c.is_whitespace() || c == ';' || c == ',');
        }
        (!calls.is_empty()).then_some(calls)
    }

    fn read_call(&self, value: Value) -> Option<(String, Value)> {
        let Value::Object(mut members) = value else {
            return None;
        };
        let Some(Value::String(name)) = members.remove("name") else {
            return None;
        };
        let arguments = members
            .remove(self.format.arguments())
            .or_else(|| members.remove("arguments"))
            .or_else(|| members.remove("parameters"))
            .unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        Some((name, arguments))
    }
}

#[cfg(test)]
mod tests;
