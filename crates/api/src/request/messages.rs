//! The `messages` of a chat request.

use serde_json::Value;

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
        Some(role @ ("tool" | "function")) => {
            let message = format!("role '{role}' is not supported; neither are tools");
            return Err(ApiError::unsupported(fields.path("role"), message));
        }
        Some(_) => {
            return Err(fields.invalid(
                "role",
                "must be 'system', 'developer', 'user' or 'assistant'",
            ));
        }
        None => return Err(fields.invalid("role", "is required")),
    };
    unsupported::refuse(&mut fields, unsupported::MESSAGE)?;
    let content = match fields.take("content") {
        Some(Value::String(text)) => text,
        Some(Value::Array(parts)) => join(&fields.path("content"), parts)?,
        Some(_) => {
            return Err(fields.invalid("content", "must be a string or an array of text parts"));
        }
        None => return Err(fields.invalid("content", "is required")),
    };
    let name = fields.string("name")?;
    fields.finish()?;
    Ok(ChatMessage {
        role,
        content,
        name,
    })
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
