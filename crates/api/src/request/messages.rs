//! The `messages` of a chat request.

use serde_json::{Value, json};

use super::{Fields, missing, unsupported};
use crate::{ChatMessage, Role, error::ApiError};

pub(super) fn parse(messages: Option<Value>) -> Result<Vec<ChatMessage>, ApiError> {
    let messages = match messages {
        Some(Value::Array(messages)) => messages,
        Some(_) => {
            return Err(ApiError::invalid("messages", "messages must be an array"));
        }
        None => return Err(missing("messages")),
    };
    if messages.is_empty() {
        return Err(ApiError::invalid("messages", "messages must not be empty"));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, value)| message(format!("messages[{index}]"), value))
        .collect()
}

fn message(place: String, value: Value) -> Result<ChatMessage, ApiError> {
    let Value::Object(members) = value else {
        let message = format!("{place} must be an object");
        return Err(ApiError::invalid(place, message));
    };
    let mut fields = Fields::within(members, place);
    let role = match fields.string("role")?.as_deref() {
        Some("system" | "developer") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        Some("function") => {
            return Err(ApiError::unsupported(
                fields.path("role"),
                "role 'function' is not supported; use 'tool'",
            ));
        }
        Some(_) => {
            return Err(fields.invalid(
                "role",
                "must be 'system', 'developer', 'user', 'assistant' or 'tool'",
            ));
        }
        None => return Err(fields.invalid("role", "is required")),
    };
    unsupported::refuse(&mut fields, unsupported::MESSAGE)?;
    let tool_calls = match role {
        Role::Assistant => tool_calls(&mut fields)?,
        _ => Vec::new(),
    };
    let content = match fields.take("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => join(&fields.path("content"), parts)?,
        Some(_) => {
            return Err(fields.invalid("content", "must be a string or an array of text parts"));
        }
        // A message that only calls tools has none.
        None if !tool_calls.is_empty() => String::new(),
        None => return Err(fields.invalid("content", "is required")),
    };
    let name = fields.string("name")?;
    let tool_call_id = match role {
        Role::Tool => match fields.string("tool_call_id")? {
            None => return Err(fields.invalid("tool_call_id", "is required")),
            id => id,
        },
        _ => None,
    };
    let reasoning_content = match role {
        Role::Assistant => fields.string("reasoning_content")?,
        _ => None,
    };
    fields.finish()?;
    Ok(ChatMessage {
        role,
        content,
        name,
        tool_calls,
        tool_call_id,
        reasoning_content,
    })
}

/// Calls that the model made, as templates take them: with arguments as an object.
fn tool_calls(fields: &mut Fields) -> Result<Vec<Value>, ApiError> {
    let place = fields.path("tool_calls");
    let calls = match fields.take("tool_calls") {
        None => return Ok(Vec::new()),
        Some(Value::Array(calls)) => calls,
        Some(_) => return Err(fields.invalid("tool_calls", "must be an array")),
    };
    calls
        .into_iter()
        .enumerate()
        .map(|(index, value)| tool_call(format!("{place}[{index}]"), value))
        .collect()
}

fn tool_call(place: String, value: Value) -> Result<Value, ApiError> {
    let object = |place: String, value: Option<Value>| {
        let Some(Value::Object(members)) = value else {
            let message = format!("{place} must be an object");
            return Err(ApiError::invalid(place, message));
        };
        Ok(Fields::within(members, place))
    };
    let mut fields = object(place, Some(value))?;
    if !matches!(fields.string("type")?.as_deref(), None | Some("function")) {
        return Err(fields.invalid("type", "must be 'function'"));
    }
    let id = fields.string("id")?.unwrap_or_default();
    let place = fields.path("function");
    let mut function = object(place, fields.take("function"))?;
    let Some(name) = function.string("name")? else {
        return Err(function.invalid("name", "is required"));
    };
    let arguments = match function.take("arguments") {
        None => json!({}),
        // What the model wrote and is no JSON goes back to it as it is.
        Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        Some(arguments @ Value::Object(_)) => arguments,
        Some(_) => return Err(function.invalid("arguments", "must be a string")),
    };
    function.finish()?;
    fields.take("index");
    fields.finish()?;
    Ok(crate::tools::call_value(&id, &name, &arguments))
}

/// Text parts, as the one string that every template takes.
fn join(place: &str, parts: Vec<Value>) -> Result<String, ApiError> {
    if parts.is_empty() {
        return Err(ApiError::invalid(
            place,
            format!("{place} must not be empty"),
        ));
    }
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let place = format!("{place}[{index}]");
        let Value::Object(members) = part else {
            let message = format!("{place} must be an object");
            return Err(ApiError::invalid(place, message));
        };
        let mut fields = Fields::within(members, place);
        match fields.string("type")?.as_deref() {
            Some("text") => {}
            Some(other) => {
                let message = format!(
                    "{} '{other}' is not supported; only text is",
                    fields.path("type")
                );
                return Err(ApiError::unsupported(fields.path("type"), message));
            }
            None => return Err(fields.invalid("type", "is required")),
        }
        match fields.string("text")? {
            Some(text) => texts.push(text),
            None => return Err(fields.invalid("text", "is required")),
        }
        fields.finish()?;
    }
    Ok(texts.join("\n"))
}
