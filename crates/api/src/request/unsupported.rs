//! OpenAI's parameters that this server cannot honour yet.
//!
//! One that would change the answer is refused, unless its value asks for nothing; one that
//! would not is taken and dropped.

use serde_json::Value;

use super::fields::Fields;
use crate::error::ApiError;

/// Whether a value asks for nothing. `null` always does.
type Neutral = fn(&Value) -> bool;

fn any(_: &Value) -> bool {
    true
}

fn none(_: &Value) -> bool {
    false
}

fn off(value: &Value) -> bool {
    value == &Value::Bool(false)
}

fn one(value: &Value) -> bool {
    value.as_u64() == Some(1)
}

fn empty(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
        Value::String(text) => text.is_empty(),
        _ => false,
    }
}

/// Without tools, `auto` and `none` are the same.
fn no_tool(value: &Value) -> bool {
    value == "none" || value == "auto"
}

fn text_modality(value: &Value) -> bool {
    value
        .as_array()
        .is_some_and(|modalities| modalities.iter().all(|modality| modality == "text"))
}

pub(super) const CHAT: &[(&str, Neutral)] = &[
    ("audio", none),
    ("function_call", no_tool),
    ("functions", empty),
    ("metadata", any),
    ("modalities", text_modality),
    ("prediction", none),
    ("prompt_cache_key", any),
    ("prompt_cache_retention", any),
    ("reasoning_effort", none),
    ("safety_identifier", any),
    ("service_tier", any),
    ("store", any),
    ("user", any),
    ("verbosity", none),
    ("web_search_options", none),
];

pub(super) const COMPLETION: &[(&str, Neutral)] = &[
    ("best_of", one),
    ("echo", off),
    ("suffix", empty),
    ("user", any),
];

pub(super) const STREAM_OPTIONS: &[(&str, Neutral)] = &[("include_obfuscation", off)];

/// Of a message; what a client sends back when it appends an answer to the conversation.
pub(super) const MESSAGE: &[(&str, Neutral)] = &[
    ("annotations", empty),
    ("audio", none),
    ("function_call", none),
    ("refusal", none),
];

/// Takes each of `table`'s members out of `fields`, refusing those that ask for something.
pub(super) fn refuse(fields: &mut Fields, table: &[(&str, Neutral)]) -> Result<(), ApiError> {
    for (name, neutral) in table {
        if let Some(value) = fields.take(name)
            && !neutral(&value)
        {
            let path = fields.path(name);
            let message = match *name {
                "best_of" => format!("{path} must be 1; send one request for each answer"),
                _ => format!("'{path}' is not supported; leave it out"),
            };
            return Err(ApiError::unsupported(path, message));
        }
    }
    Ok(())
}
