//! The model's own way to write a conversation as one prompt.
//!
//! A GGUF carries the Jinja template that its authors wrote for the Hugging Face libraries, so
//! it is rendered as those do: the same white-space rules, globals, filters and Python methods.
//! It came with a download and is hostile input: it can loop only so long, recurse only so deep
//! and write only so much. What is not bounded is one expression that doubles a string again
//! and again in memory.

mod family;
mod json;
mod time;

use std::io::{self, Write};
use std::time::SystemTime;

use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value, context};
use serde::Serialize;

use crate::{reasoning, tools};
pub use family::{TemplateFacts, ToolCalls};

const NAME: &str = "chat_template";

/// Instructions that one rendering may take. A conversation of 1,000 messages takes some 50,000.
const FUEL: u64 = 10_000_000;

/// Nested macro calls and the like; minijinja's own limit is meant for larger stacks than those
/// of a thread pool.
const RECURSION: usize = 100;

/// The longest prompt, in bytes: four times what a request can hold.
const MAX_PROMPT_BYTES: usize = 16 * 1024 * 1024;

/// Who says a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions; OpenAI's `developer` too.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// What a tool returned.
    Tool,
}

/// One message of a conversation, as templates see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChatMessage {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// A name for who says it, which few templates use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Calls that the model made: `{"id", "type": "function", "function": {"name", "arguments"}}`,
    /// with arguments as an object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<serde_json::Value>,
    /// Which call a tool's message answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// What the model thought before it answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

impl ChatMessage {
    /// A message of text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
            name: None,
            tool_calls: Vec::new(),
            tool_call_id: None,
            reasoning_content: None,
        }
    }
}

/// Why a template or a conversation does not work.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The template is not one.
    #[error("the model's chat template is broken: {0}")]
    Broken(String),
    /// The template refuses this conversation, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The template fails on this conversation.
    #[error("the model's chat template cannot write this conversation: {0}")]
    Failed(String),
    /// The template goes on and on.
    #[error("the model's chat template took too long or wrote too much on this conversation")]
    TooExpensive,
}

/// A compiled chat template with the special tokens that it may name.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    source: String,
    tools: tools::Support,
}

/// Carries the text of `raise_exception` through minijinja's own error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

impl ChatTemplate {
    /// Compiles a template. `bos` and `eos` are the texts of the tokens that begin and end a
    /// text, empty where the vocabulary has none.
    pub fn new(source: &str, bos: &str, eos: &str) -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_recursion_limit(RECURSION);
        environment.set_fuel(Some(FUEL));
        environment
            .set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_filter("tojson", json::tojson);
        environment.add_function(
            "raise_exception",
            |message: String| -> Result<Value, Error> {
                Err(Error::new(ErrorKind::InvalidOperation, "raise_exception")
                    .with_source(Raised(message)))
            },
        );
        environment
            .add_template_owned(NAME, without_generation_tags(&unix_lines(source)))
            .map_err(|error| TemplateError::Broken(one_line(&error)))?;
        Ok(Self {
            environment,
            bos: bos.to_owned(),
            eos: eos.to_owned(),
            tools: tools::Support::of(source),
            source: source.to_owned(),
        })
    }

    /// How the model calls tools.
    pub(crate) fn tools(&self) -> tools::Support {
        self.tools
    }

    /// Whether the model thinks aloud.
    pub(crate) fn thinks(&self) -> bool {
        reasoning::thinks(&self.source)
    }

    /// Whether a request may choose.
    pub(crate) fn thinks_by_choice(&self) -> bool {
        self.source.contains("enable_thinking")
    }

    /// The template's text.
    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Writes the conversation and the beginning of the answer. `tools` are the functions that the
    /// model may call, each as `{"type": "function", "function": {…}}`; `think` is whether a model
    /// that leaves the choice shall think aloud, where somebody says. `now` is what templates that
    /// state the date get, in UTC.
    pub fn render(
        &self,
        messages: &[ChatMessage],
        tools: &[serde_json::Value],
        think: Option<bool>,
        now: SystemTime,
    ) -> Result<String, TemplateError> {
        let template = self
            .environment
            .get_template(NAME)
            .map_err(|error| TemplateError::Broken(one_line(&error)))?;
        let strftime_now = move |format: String| time::strftime(now, &format);
        let mut prompt = Bounded(Vec::new());
        // Where nobody says, the variable is undefined, which templates look at.
        let choice = think.map_or_else(
            || context! {},
            |think| context! { enable_thinking => think },
        );
        template
            .render_captured_to(
                context! {
                    messages,
                    tools => (!tools.is_empty()).then_some(tools),
                    documents => Value::from(()),
                    add_generation_prompt => true,
                    bos_token => self.bos,
                    eos_token => self.eos,
                    strftime_now => Value::from_function(strftime_now),
                    ..choice
                },
                &mut prompt,
            )
            .map_err(|error| failure(&error))?;
        String::from_utf8(prompt.0).map_err(|error| TemplateError::Failed(error.to_string()))
    }
}

/// A time as RFC 3339 has it, in UTC and whole seconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    time::strftime(time, "%Y-%m-%dT%H:%M:%SZ").expect("only directives that are known")
}

/// A prompt that refuses to grow beyond [`MAX_PROMPT_BYTES`].
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_PROMPT_BYTES {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn failure(error: &Error) -> TemplateError {
    if matches!(error.kind(), ErrorKind::OutOfFuel | ErrorKind::WriteFailure) {
        return TemplateError::TooExpensive;
    }
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if let Some(Raised(message)) = cause.downcast_ref() {
            return TemplateError::Refused(message.clone());
        }
        source = cause.source();
    }
    TemplateError::Failed(one_line(error))
}

fn one_line(error: &Error) -> String {
    error.to_string().replace('\n', " ")
}

/// Jinja reads every line end as `\n`.
fn unix_lines(source: &str) -> String {
    source.replace("\r\n", "\n").replace('\r', "\n")
}

/// Hugging Face's `{% generation %}` … `{% endgeneration %}` mark what training learns from and
/// do nothing here. Each becomes a block that is always taken, so that the white-space marks
/// beside the word keep their meaning.
fn without_generation_tags(source: &str) -> String {
    let mut result = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        let (before, tag) = rest.split_at(start + 2);
        result.push_str(before);
        let end = tag.find("%}").unwrap_or(tag.len());
        let (inside, after) = tag.split_at(end);
        match inside.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+') {
            "generation" => result.push_str(&inside.replace("generation", "if true")),
            "endgeneration" => result.push_str(&inside.replace("endgeneration", "endif")),
            _ => result.push_str(inside),
        }
        rest = after;
    }
    result.push_str(rest);
    result
}
