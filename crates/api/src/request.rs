//! Request bodies: every parameter is read, checked or refused by name.

mod body;
mod fields;
mod messages;
mod unsupported;

use std::hash::{BuildHasher, Hasher, RandomState};

use brigade_wire::SamplingParams;
use serde_json::{Map, Value};

use crate::{ChatMessage, error::ApiError};
pub(crate) use body::read;
use fields::Fields;

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
    pub(crate) delivery: Delivery,
}

#[derive(Debug, PartialEq)]
pub(crate) struct ChatRequest {
    pub(crate) options: Options,
    pub(crate) messages: Vec<ChatMessage>,
}

#[derive(Debug, PartialEq)]
pub(crate) struct CompletionRequest {
    pub(crate) options: Options,
    pub(crate) prompt: String,
}

impl ChatRequest {
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
        unsupported::refuse(&mut fields, unsupported::CHAT)?;
        fields.finish()?;
        Ok(Self { options, messages })
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
                ..SamplingParams::default()
            },
            stop: stop(fields)?,
            delivery: delivery(fields)?,
        })
    }
}

fn parse_object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(ApiError::bad_request("the body must be a JSON object")),
        Err(error) => Err(ApiError::bad_request(format!(
            "the body is not valid JSON: {error}"
        ))),
    }
}

fn missing(name: &str) -> ApiError {
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

fn stop(fields: &mut Fields) -> Result<Vec<String>, ApiError> {
    let refuse = |message: &str| Err(ApiError::invalid("stop", message));
    let values = match fields.take("stop") {
        None => return Ok(Vec::new()),
        Some(Value::Array(values)) => values,
        Some(value) => vec![value],
    };
    if values.len() > MAX_STOP_STRINGS {
        return refuse("stop must have at most 16 strings");
    }
    let mut stop = Vec::with_capacity(values.len());
    for value in values {
        match value {
            Value::String(text) if text.is_empty() => {
                return refuse("stop must not have an empty string");
            }
            Value::String(text) => stop.push(text),
            _ => return refuse("stop must be a string or an array of strings"),
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
mod tests {
    use super::*;

    fn chat(extra: &str) -> ChatRequest {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}]{extra}}}"#);
        ChatRequest::parse(body.as_bytes()).unwrap()
    }

    #[test]
    fn defaults_are_openai_defaults() {
        let options = chat("").options;
        assert_eq!(options.model, None);
        assert_eq!(options.max_tokens, None);
        assert_eq!(options.delivery, Delivery::Whole);
        assert_eq!(
            SamplingParams {
                seed: 0,
                ..options.sampling
            },
            SamplingParams {
                temperature: 1.0,
                ..SamplingParams::default()
            }
        );
        let completion = CompletionRequest::parse(br#"{"prompt":"a"}"#).unwrap();
        assert_eq!(completion.options.max_tokens, Some(16));
    }

    #[test]
    fn every_parameter_is_honoured() {
        let options = chat(
            r#","model":"m","max_completion_tokens":7,"temperature":0.5,"top_p":0.9,"top_k":40,
            "min_p":0.05,"seed":-1,"stop":["a","b"],"presence_penalty":1,"frequency_penalty":-1,
            "repetition_penalty":1.5,"stream":true,"stream_options":{"include_usage":true}"#,
        )
        .options;
        assert_eq!(
            options,
            Options {
                model: Some("m".to_owned()),
                max_tokens: Some(7),
                sampling: SamplingParams {
                    temperature: 0.5,
                    top_k: 40,
                    top_p: 0.9,
                    min_p: 0.05,
                    repetition_penalty: 1.5,
                    presence_penalty: 1.0,
                    frequency_penalty: -1.0,
                    seed: u64::MAX,
                    ..SamplingParams::default()
                },
                stop: vec!["a".to_owned(), "b".to_owned()],
                delivery: Delivery::StreamWithUsage,
            }
        );
        assert_eq!(chat(r#","stop":"x""#).options.stop, ["x"]);
        assert_eq!(chat(r#","max_tokens":3"#).options.max_tokens, Some(3));
        assert_eq!(
            chat(r#","seed":18446744073709551615"#)
                .options
                .sampling
                .seed,
            u64::MAX
        );
    }

    #[test]
    fn a_missing_seed_is_random() {
        assert_ne!(
            chat("").options.sampling.seed,
            chat(r#","seed":null"#).options.sampling.seed
        );
    }
}
