//! Request bodies: every parameter is read, checked or refused by name.

mod body;
mod fields;
mod format;
mod messages;
mod tools;
mod unsupported;

use std::hash::{BuildHasher, Hasher, RandomState};

use brigade_wire::{MAX_LOGIT_BIAS, MAX_TOP_LOGPROBS, SamplingParams, Token};
use serde_json::{Map, Value};

use crate::{
    ChatMessage,
    error::ApiError,
    tools::{Tool, ToolChoice},
};
pub(crate) use body::read;
pub(crate) use fields::Fields;
pub(crate) use tools::{check as check_choice, declared as parse_tools, function as parse_tool};

/// How many answers one request may ask for; each is a sequence.
const MAX_CHOICES: i64 = 16;

/// OpenAI's default for completions; chat has none.
const COMPLETION_MAX_TOKENS: u32 = 16;
const MAX_STOP_STRINGS: usize = 16;

/// How the answer is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// One JSON object.
    Whole,
    /// Server-sent events.
    Stream,
    /// The same, with a last chunk that has the token counts.
    StreamWithUsage,
}

/// What chat and completions have in common.
#[derive(Debug, PartialEq)]
pub(crate) struct Options {
    /// As asked for; not looked up yet.
    pub(crate) model: Option<String>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) sampling: SamplingParams,
    pub(crate) stop: Vec<String>,
    /// Answers to the same prompt, at least 1.
    pub(crate) choices: u32,
    /// Events have log-probabilities.
    pub(crate) logprobs: bool,
    /// Refuse unless the context of a sequence has at least these tokens.
    pub(crate) context_tokens: Option<u32>,
    pub(crate) delivery: Delivery,
}

/// What the answer's text must be.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum ResponseFormat {
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    /// JSON that satisfies the schema.
    JsonSchema(Value),
}

#[derive(Debug, PartialEq)]
pub(crate) struct ChatRequest {
    pub(crate) options: Options,
    pub(crate) messages: Vec<ChatMessage>,
    pub(crate) tools: Vec<Tool>,
    pub(crate) tool_choice: ToolChoice,
    /// An answer may call several tools.
    pub(crate) parallel_tool_calls: bool,
    pub(crate) format: ResponseFormat,
    /// Drop the oldest messages where the context does not hold all.
    pub(crate) truncate: bool,
    /// Whether a model that can think aloud shall, where the request says.
    pub(crate) think: Option<bool>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct CompletionRequest {
    pub(crate) options: Options,
    pub(crate) prompt: String,
}

impl ChatRequest {
    /// A conversation without anything special.
    pub(crate) fn new(options: Options, messages: Vec<ChatMessage>) -> Self {
        Self {
            options,
            messages,
            tools: Vec::new(),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            format: ResponseFormat::Text,
            truncate: false,
            think: None,
        }
    }

    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::new(parse_object(body)?);
        let messages = messages::parse(fields.take("messages"))?;
        let mut options = Options::parse(&mut fields)?;
        let completion_tokens = max_tokens(&mut fields, "max_completion_tokens")?;
        if let (Some(a), Some(b)) = (options.max_tokens, completion_tokens)
            && a != b
        {
            return Err(ApiError::invalid(
                "max_tokens",
                "max_tokens and max_completion_tokens differ; give one of them",
            ));
        }
        options.max_tokens = options.max_tokens.or(completion_tokens);
        options.logprobs = fields.boolean("logprobs")?.unwrap_or(false);
        if let Some(top) = fields.integer("top_logprobs", 0, i64::from(MAX_TOP_LOGPROBS))? {
            if !options.logprobs {
                return Err(ApiError::invalid(
                    "top_logprobs",
                    "top_logprobs needs logprobs to be true",
                ));
            }
            options.sampling.top_logprobs = top as u32;
        }
        let mut chat = Self::new(options, messages);
        chat.tools = tools::declared(fields.take("tools"))?;
        chat.tool_choice = tools::choice(fields.take("tool_choice"), &chat.tools)?;
        chat.parallel_tool_calls = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
        chat.format = format::parse(fields.take("response_format"))?;
        chat.truncate = match fields.string("truncation")?.as_deref() {
            None | Some("disabled") => false,
            Some("auto") => true,
            Some(_) => return Err(fields.invalid("truncation", "must be 'auto' or 'disabled'")),
        };
        unsupported::refuse(&mut fields, unsupported::CHAT)?;
        fields.finish()?;
        Ok(chat)
    }
}

impl CompletionRequest {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut fields = Fields::new(parse_object(body)?);
        let prompt = match fields.take("prompt") {
            Some(Value::String(prompt)) if !prompt.is_empty() => prompt,
            Some(Value::String(_)) => {
                return Err(ApiError::invalid("prompt", "prompt must not be empty"));
            }
            Some(Value::Array(_)) => {
                return Err(ApiError::unsupported(
                    "prompt",
                    "prompt must be a string; send one request for each prompt",
                ));
            }
            Some(_) => return Err(ApiError::invalid("prompt", "prompt must be a string")),
            None => return Err(missing("prompt")),
        };
        let mut options = Options::parse(&mut fields)?;
        options.max_tokens.get_or_insert(COMPLETION_MAX_TOKENS);
        // The older routes' number means what chat's two parameters mean.
        if let Some(top) = fields.integer("logprobs", 0, i64::from(MAX_TOP_LOGPROBS))? {
            options.logprobs = true;
            options.sampling.top_logprobs = top as u32;
        }
        unsupported::refuse(&mut fields, unsupported::COMPLETION)?;
        fields.finish()?;
        Ok(Self { options, prompt })
    }
}

impl Options {
    fn parse(fields: &mut Fields) -> Result<Self, ApiError> {
        let number = |value: Option<f64>, default: f32| value.map_or(default, |v| v as f32);
        Ok(Self {
            model: fields.string("model")?,
            max_tokens: max_tokens(fields, "max_tokens")?,
            sampling: SamplingParams {
                temperature: number(fields.number("temperature", 0.0, 2.0)?, 1.0),
                top_k: fields
                    .integer("top_k", 0, i64::from(i32::MAX))?
                    .map_or(0, |k| k as u32),
                top_p: number(fields.number("top_p", 0.0, 1.0)?, 1.0),
                min_p: number(fields.number("min_p", 0.0, 1.0)?, 0.0),
                repetition_penalty: number(fields.number("repetition_penalty", 0.01, 10.0)?, 1.0),
                presence_penalty: number(fields.number("presence_penalty", -2.0, 2.0)?, 0.0),
                frequency_penalty: number(fields.number("frequency_penalty", -2.0, 2.0)?, 0.0),
                seed: seed(fields)?,
                logit_bias: logit_bias(fields)?,
                top_logprobs: 0,
                grammar: None,
            },
            stop: stop(fields)?,
            choices: fields.integer("n", 1, MAX_CHOICES)?.map_or(1, |n| n as u32),
            logprobs: false,
            context_tokens: None,
            delivery: delivery(fields)?,
        })
    }
}

/// OpenAI's default sampling, for the dialects that build options themselves.
pub(crate) fn default_options(model: Option<String>, delivery: Delivery) -> Options {
    Options {
        model,
        max_tokens: None,
        sampling: SamplingParams {
            temperature: 1.0,
            seed: random(),
            ..SamplingParams::default()
        },
        stop: Vec::new(),
        choices: 1,
        logprobs: false,
        context_tokens: None,
        delivery,
    }
}

/// `{"token id": bias}`, each bias from -100 to 100.
fn logit_bias(fields: &mut Fields) -> Result<Vec<(Token, f32)>, ApiError> {
    let refuse = |message: &str| Err(ApiError::invalid("logit_bias", message));
    let biases = match fields.take("logit_bias") {
        None => return Ok(Vec::new()),
        Some(Value::Object(biases)) => biases,
        Some(_) => return refuse("logit_bias must be an object of token ids and numbers"),
    };
    if biases.len() > MAX_LOGIT_BIAS {
        return refuse("logit_bias must have at most 1024 tokens");
    }
    let mut result = Vec::with_capacity(biases.len());
    for (token, bias) in biases {
        let Ok(token) = token.parse::<Token>() else {
            return refuse("logit_bias must have token ids, such as \"15043\", as names");
        };
        match bias.as_f64() {
            Some(bias) if (-100.0..=100.0).contains(&bias) => result.push((token, bias as f32)),
            _ => return refuse("logit_bias must have numbers between -100 and 100"),
        }
    }
    Ok(result)
}

pub(crate) fn parse_object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::bad_request("the body must be a JSON object")),
        Err(error) => Err(ApiError::bad_request(format!(
            "the body is not valid JSON: {error}"
        ))),
    }
}

pub(crate) fn missing(name: &str) -> ApiError {
    ApiError::invalid(name, format!("{name} is required"))
}

fn max_tokens(fields: &mut Fields, name: &'static str) -> Result<Option<u32>, ApiError> {
    Ok(fields
        .integer(name, 1, i64::from(i32::MAX))?
        .map(|tokens| tokens as u32))
}

/// Any 64-bit integer, signed or not; without one, a new one for each request.
fn seed(fields: &mut Fields) -> Result<u64, ApiError> {
    match fields.take("seed") {
        None => Ok(random()),
        Some(value) => value
            .as_u64()
            .or_else(|| value.as_i64().map(i64::cast_unsigned))
            .ok_or_else(|| ApiError::invalid("seed", "seed must be a 64-bit integer")),
    }
}

/// 64 bits that differ each time; the standard library seeds them from the operating system.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

pub(crate) fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    stop_strings(fields, "stop")
}

/// Stop strings: one, or an array of them.
pub(crate) fn stop_strings(fields: &mut Fields, name: &str) -> Result<Vec<String>, ApiError> {
    let refuse = |rest: &str| Err(ApiError::invalid(name, format!("{name} {rest}")));
    let values = match fields.take(name) {
        None => return Ok(Vec::new()),
        Some(Value::Array(values)) => values,
        Some(value) => vec![value],
    };
    if values.len() > MAX_STOP_STRINGS {
        return refuse("must have at most 16 strings");
    }
    let mut stop = Vec::with_capacity(values.len());
    for value in values {
        match value {
            Value::String(text) if text.is_empty() => {
                return refuse("must not have an empty string");
            }
            Value::String(text) => stop.push(text),
            _ => return refuse("must be a string or an array of strings"),
        }
    }
    Ok(stop)
}

fn delivery(fields: &mut Fields) -> Result<Delivery, ApiError> {
    let stream = fields.boolean("stream")?.unwrap_or(false);
    let Some(options) = fields.take("stream_options") else {
        return Ok(if stream {
            Delivery::Stream
        } else {
            Delivery::Whole
        });
    };
    let refuse = |message| Err(ApiError::invalid("stream_options", message));
    let Value::Object(options) = options else {
        return refuse("stream_options must be an object");
    };
    if !stream {
        return refuse("stream_options needs stream to be true");
    }
    let mut options = Fields::within(options, "stream_options");
    let usage = options.boolean("include_usage")?.unwrap_or(false);
    unsupported::refuse(&mut options, unsupported::STREAM_OPTIONS)?;
    options.finish()?;
    Ok(if usage {
        Delivery::StreamWithUsage
    } else {
        Delivery::Stream
    })
}

#[cfg(test)]
mod tests;
