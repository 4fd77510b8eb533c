//! Tools: what a request declares, how models write calls, and reading them.

mod parser;
mod tags;

use serde::Serialize;
use serde_json::{Value, json};

use crate::grammar::{Grammar, SchemaError, literal};
pub(crate) use parser::{Parser, Part};

/// A function that the model may call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tool {
    pub(crate) name: String,
    /// JSON Schema of its arguments.
    pub(crate) parameters: Option<Value>,
    /// Arguments must satisfy the schema.
    pub(crate) strict: bool,
    /// As templates see it: `{"type": "function", "function": {…}}`.
    pub(crate) declaration: Value,
}

/// Which tools may or must be called.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum ToolChoice {
    #[default]
    Auto,
    None,
    Required,
    Named(String),
}

/// A call that the model made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ToolCall {
    pub(crate) id: String,
    pub(crate) name: String,
    /// A JSON object, as text.
    pub(crate) arguments: String,
}

/// A call as templates take it.
pub(crate) fn call_value(id: &str, name: &str, arguments: &Value) -> Value {
    json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}})
}

/// How a family of models writes calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3.
    Hermes,
    /// `{"name": …, "parameters": {…}}` and nothing else: Llama 3.
    Llama,
    /// `[TOOL_CALLS][{"name": …, "arguments": {…}}]`: Mistral.
    Mistral,
    /// `[TOOL_CALLS]name[ARGS]{…}`: Mistral from 2025 on.
    MistralArgs,
    /// `<tool_call><function=NAME><parameter=KEY>…</parameter></function></tool_call>`: Qwen 3
    /// Coder.
    Coder,
    /// `<tool_call>NAME<arg_key>…</arg_key><arg_value>…</arg_value></tool_call>`: GLM from 4.5 on.
    Glm,
    /// `<|tool_call|>[{"name": …, "arguments": {…}}]`: Granite, Phi 4.
    Bar,
}

/// What a chat template says about tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    Calls(Format),
    /// The template takes tools, and calls come in a form that is not read here.
    UnknownFormat,
    /// The template does not know tools.
    None,
}

impl Support {
    /// Reads it off the template's text.
    pub(crate) fn of(template: &str) -> Self {
        let has = |text: &str| template.contains(text);
        if !has("tools") {
            return Self::None;
        }
        if has("[TOOL_CALLS]") {
            return Self::Calls(if has("[ARGS]") {
                Format::MistralArgs
            } else {
                Format::Mistral
            });
        }
        if has("<tool_call>") {
            return if has("<arg_key>") && has("<arg_value>") {
                Self::Calls(Format::Glm)
            } else if has("<function=") && has("<parameter=") {
                Self::Calls(Format::Coder)
            } else if has("<function=") || has("<arg_key>") {
                Self::UnknownFormat
            } else {
                Self::Calls(Format::Hermes)
            };
        }
        if has("<|tool_call|>") {
            return Self::Calls(Format::Bar);
        }
        if has("<|python_tag|>") || has(r#"{"name": function name, "parameters":"#) {
            return Self::Calls(Format::Llama);
        }
        Self::UnknownFormat
    }
}

impl Format {
    /// What stands before calls; nothing where a call is the whole answer.
    fn open(self) -> &'static str {
        match self {
            Self::Hermes | Self::Coder | Self::Glm => "<tool_call>",
            Self::Llama => "",
            Self::Mistral | Self::MistralArgs => "[TOOL_CALLS]",
            Self::Bar => "<|tool_call|>",
        }
    }

    /// The name of the member that holds the arguments.
    fn arguments(self) -> &'static str {
        match self {
            Self::Llama => "parameters",
            _ => "arguments",
        }
    }

    /// Control tokens that must stand in the text for calls to be seen.
    pub(crate) fn visible(self) -> Vec<&'static str> {
        match self {
            Self::Hermes | Self::Coder => vec!["<tool_call>", "</tool_call>"],
            Self::Glm => vec![
                "<tool_call>",
                "</tool_call>",
                "<arg_key>",
                "</arg_key>",
                "<arg_value>",
                "</arg_value>",
            ],
            Self::Llama => vec!["<|python_tag|>"],
            Self::Mistral | Self::MistralArgs => vec!["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"],
            Self::Bar => vec!["<|tool_call|>", "<|/tool_call|>"],
        }
    }

    /// A name for a call. Mistral's templates insist on nine letters and digits.
    pub(crate) fn new_id(self) -> String {
        let random = format!("{:016x}", crate::request::random());
        match self {
            Self::Mistral | Self::MistralArgs => random[..9].to_owned(),
            _ => format!("call_{random}"),
        }
    }

    /// The root of an answer that must call tools: one of them, or with `parallel` several.
    pub(crate) fn required(
        self,
        grammar: &mut Grammar,
        tools: &[&Tool],
        parallel: bool,
    ) -> Result<String, SchemaError> {
        let calls = self.calls(grammar, tools, parallel)?;
        let root = format!("{} {calls}", literal(self.open()));
        Ok(grammar.add("answer", root))
    }

    /// The root of an answer that may call tools, or say anything else.
    pub(crate) fn optional(
        self,
        grammar: &mut Grammar,
        tools: &[&Tool],
        parallel: bool,
    ) -> Result<String, SchemaError> {
        let calls = self.calls(grammar, tools, parallel)?;
        Ok(match self {
            Self::Llama => grammar.add("answer", format!("{calls} | [^{{] [^\\x00]* | \"\"")),
            _ => grammar.may(self.open(), &calls),
        })
    }

    /// The rule for what follows the first mark.
    fn calls(
        self,
        grammar: &mut Grammar,
        tools: &[&Tool],
        parallel: bool,
    ) -> Result<String, SchemaError> {
        let mut calls = Vec::with_capacity(tools.len());
        let text = match self {
            Self::Coder | Self::Glm => tags::text(self, grammar),
            _ => String::new(),
        };
        for tool in tools {
            if !text.is_empty() {
                let call = tags::call(self, grammar, tool, &text)?;
                calls.push(grammar.add("call", call));
                continue;
            }
            let arguments = match &tool.parameters {
                None => "object".to_owned(),
                Some(schema) => match grammar.schema(schema) {
                    Ok(rule) => rule,
                    // Only `strict` promises that arguments satisfy the schema.
                    Err(_) if !tool.strict => "object".to_owned(),
                    Err(error) => return Err(error),
                },
            };
            let call = if self == Self::MistralArgs {
                format!("{} {arguments}", literal(&format!("{}[ARGS]", tool.name)))
            } else {
                let name = Value::from(tool.name.as_str());
                let head = format!("{{\"name\": {name}, \"{}\": ", self.arguments());
                format!("{} {arguments} \"}}\"", literal(&head))
            };
            calls.push(grammar.add("call", call));
        }
        let call = grammar.add("calls", calls.join(" | "));
        // Before the first call, between two, and after the last.
        let (before, between, after) = match self {
            Self::Hermes | Self::Coder => ("\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>"),
            Self::Glm => ("", "</tool_call>\n<tool_call>", "</tool_call>"),
            Self::Llama => ("", "; ", ""),
            Self::Mistral | Self::Bar => ("[", ", ", "]"),
            Self::MistralArgs => ("", "[TOOL_CALLS]", ""),
        };
        let more = if parallel {
            format!("({} {call}){{0,15}}", literal(between))
        } else {
            String::new()
        };
        let body = format!("{} {call} {more} {}", literal(before), literal(after));
        Ok(grammar.add("after-mark", body))
    }
}

#[cfg(test)]
mod tests;
