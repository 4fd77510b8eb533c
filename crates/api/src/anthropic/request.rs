//! Anthropic's requests, turned into the core's.

use serde_json::Value;

use crate::{
    ChatMessage, Role,
    error::ApiError,
    request::{
        ChatRequest, Delivery, Fields, ResponseFormat, default_options, missing, parse_object,
        parse_tool,
    },
    tools::{Tool, ToolChoice, call_value},
};

pub(super) struct MessagesRequest {
    pub(super) chat: ChatRequest,
    /// Thoughts were asked for.
    pub(super) shows_thoughts: bool,
}

pub(super) fn parse(body: &[u8]) -> Result<MessagesRequest, ApiError> {
    let mut fields = Fields::new(parse_object(body)?);
    let mut options = default_options(fields.string("model")?, Delivery::Whole);
    let Some(most) = fields.integer("max_tokens", 1, i64::from(i32::MAX))? else {
        return Err(missing("max_tokens"));
    };
    options.max_tokens = Some(most as u32);
    if let Some(temperature) = fields.number("temperature", 0.0, 1.0)? {
        options.sampling.temperature = temperature as f32;
    }
    if let Some(top_p) = fields.number("top_p", 0.0, 1.0)? {
        options.sampling.top_p = top_p as f32;
    }
    if let Some(top_k) = fields.integer("top_k", 0, i64::from(i32::MAX))? {
        options.sampling.top_k = top_k as u32;
    }
    options.stop = crate::request::stop_strings(&mut fields, "stop_sequences")?;
    if fields.boolean("stream")?.unwrap_or(false) {
        options.delivery = Delivery::Stream;
    }
    let mut messages = Vec::new();
    if let Some(system) = fields.take("system") {
        messages.push(ChatMessage::new(Role::System, text_of("system", system)?));
    }
    conversation(&mut fields, &mut messages)?;
    let think = thinking(&mut fields)?;
    let format = output(&mut fields)?;
    let tools = tools(&mut fields)?;
    let (choice, parallel) = choice(&mut fields, &tools)?;
    // They change what is billed and logged, not what is answered.
    for name in ["cache_control", "metadata", "service_tier"] {
        fields.take(name);
    }
    for name in ["container", "context_management", "mcp_servers"] {
        if fields
            .take(name)
            .is_some_and(|value| value != Value::Array(Vec::new()))
        {
            let message = format!("'{name}' is not supported; leave it out");
            return Err(ApiError::unsupported(name, message));
        }
    }
    fields.finish()?;
    let mut chat = ChatRequest::new(options, messages);
    chat.tools = tools;
    chat.tool_choice = choice;
    chat.parallel_tool_calls = parallel;
    chat.think = think;
    chat.format = format;
    Ok(MessagesRequest {
        chat,
        shows_thoughts: think == Some(true),
    })
}

/// A string, or text blocks, which are joined by line ends.
fn text_of(place: &str, value: Value) -> Result<String, ApiError> {
    let blocks = match value {
        Value::String(text) => return Ok(text),
        Value::Array(blocks) => blocks,
        _ => {
            let message = format!("{place} must be a string or an array of text blocks");
            return Err(ApiError::invalid(place, message));
        }
    };
    let texts = blocks.into_iter().enumerate().map(|(index, value)| {
        let mut block = block(format!("{place}[{index}]"), value)?;
        match block.string("type")?.as_deref() {
            Some("text") => text(block),
            other => Err(unsupported(&block, other)),
        }
    });
    Ok(texts.collect::<Result<Vec<_>, _>>()?.join("\n"))
}

fn block(place: String, value: Value) -> Result<Fields, ApiError> {
    let Value::Object(members) = value else {
        let message = format!("{place} must be an object");
        return Err(ApiError::invalid(place, message));
    };
    let mut fields = Fields::within(members, place);
    // Prompts are cached, or not, without being told.
    fields.take("cache_control");
    Ok(fields)
}

fn text(mut block: Fields) -> Result<String, ApiError> {
    let Some(text) = block.string("text")? else {
        return Err(block.invalid("text", "is required"));
    };
    block.take("citations");
    block.finish()?;
    Ok(text)
}

fn unsupported(block: &Fields, kind: Option<&str>) -> ApiError {
    let path = block.path("type");
    match kind {
        None => block.invalid("type", "is required"),
        Some(kind) => {
            let message = format!("{path} '{kind}' is not supported here");
            ApiError::unsupported(path, message)
        }
    }
}

fn conversation(fields: &mut Fields, messages: &mut Vec<ChatMessage>) -> Result<(), ApiError> {
    let values = match fields.take("messages") {
        Some(Value::Array(values)) if !values.is_empty() => values,
        Some(_) => return Err(fields.invalid("messages", "must be an array of messages")),
        None => return Err(missing("messages")),
    };
    for (index, value) in values.into_iter().enumerate() {
        let place = format!("messages[{index}]");
        let mut message = block(place, value)?;
        let role = match message.string("role")?.as_deref() {
            Some("user") => Role::User,
            Some("assistant") => Role::Assistant,
            _ => return Err(message.invalid("role", "must be 'user' or 'assistant'")),
        };
        let path = message.path("content");
        match message.take("content") {
            Some(Value::String(text)) => messages.push(ChatMessage::new(role, text)),
            Some(Value::Array(blocks)) => content(role, &path, blocks, messages)?,
            _ => return Err(message.invalid("content", "must be a string or an array of blocks")),
        }
        message.finish()?;
    }
    if messages
        .last()
        .is_some_and(|last| last.role == Role::Assistant)
    {
        return Err(ApiError::unsupported(
            "messages",
            "an answer cannot be begun for the model; end messages with one of the user",
        ));
    }
    Ok(())
}

/// One message's blocks. Results of tools become messages of their own, before the text.
fn content(
    role: Role,
    path: &str,
    blocks: Vec<Value>,
    messages: &mut Vec<ChatMessage>,
) -> Result<(), ApiError> {
    let mut own = ChatMessage::new(role, "");
    let mut texts = Vec::new();
    let mut has_results = false;
    for (index, value) in blocks.into_iter().enumerate() {
        let mut block = block(format!("{path}[{index}]"), value)?;
        let kind = block.string("type")?;
        match (kind.as_deref(), role) {
            (Some("text"), _) => texts.push(text(block)?),
            (Some("thinking"), Role::Assistant) => {
                own.reasoning_content = block.string("thinking")?;
                block.take("signature");
                block.finish()?;
            }
            (Some("tool_use"), Role::Assistant) => {
                let (id, name) = (block.string("id")?, block.string("name")?);
                let (Some(id), Some(name)) = (id, name) else {
                    return Err(block.invalid("id", "and name are required"));
                };
                let input = block.take("input").unwrap_or(Value::Null);
                block.finish()?;
                own.tool_calls.push(call_value(&id, &name, &input));
            }
            (Some("tool_result"), Role::User) => {
                let Some(id) = block.string("tool_use_id")? else {
                    return Err(block.invalid("tool_use_id", "is required"));
                };
                let place = block.path("content");
                let result = match block.take("content") {
                    None => String::new(),
                    Some(value) => text_of(&place, value)?,
                };
                // The model reads that it failed in the result's own words.
                block.boolean("is_error")?;
                block.finish()?;
                let mut message = ChatMessage::new(Role::Tool, result);
                message.tool_call_id = Some(id);
                messages.push(message);
                has_results = true;
            }
            (kind, _) => return Err(unsupported(&block, kind)),
        }
    }
    own.content = texts.join("\n");
    if !own.content.is_empty() || !own.tool_calls.is_empty() || !has_results {
        messages.push(own);
    }
    Ok(())
}

/// Whether to think; the budget is the model's own affair.
fn thinking(fields: &mut Fields) -> Result<Option<bool>, ApiError> {
    let mut inner = match fields.take("thinking") {
        None => return Ok(None),
        Some(Value::Object(members)) => Fields::within(members, "thinking"),
        Some(_) => return Err(fields.invalid("thinking", "must be an object")),
    };
    let think = match inner.string("type")?.as_deref() {
        Some("enabled" | "adaptive") => true,
        Some("disabled") => false,
        _ => return Err(inner.invalid("type", "must be 'enabled', 'adaptive' or 'disabled'")),
    };
    if let Some(budget) = inner.take("budget_tokens")
        && !budget.is_u64()
    {
        return Err(inner.invalid("budget_tokens", "must be an integer"));
    }
    inner.finish()?;
    Ok(Some(think))
}

/// The schema of `output_config`.
fn output(fields: &mut Fields) -> Result<ResponseFormat, ApiError> {
    const NAME: &str = "output_config";
    let mut config = match fields.take(NAME) {
        None => return Ok(ResponseFormat::Text),
        Some(Value::Object(members)) => Fields::within(members, NAME),
        Some(_) => return Err(fields.invalid(NAME, "must be an object")),
    };
    if config.take("effort").is_some() {
        return Err(ApiError::unsupported(
            "output_config.effort",
            "'output_config.effort' is not supported; leave it out",
        ));
    }
    let place = config.path("format");
    let mut format = match config.take("format") {
        None => return config.finish().map(|()| ResponseFormat::Text),
        Some(Value::Object(members)) => Fields::within(members, place),
        Some(_) => return Err(config.invalid("format", "must be an object")),
    };
    config.finish()?;
    if format.string("type")?.as_deref() != Some("json_schema") {
        return Err(format.invalid("type", "must be 'json_schema'"));
    }
    let Some(schema @ Value::Object(_)) = format.take("schema") else {
        return Err(format.invalid("schema", "must be an object"));
    };
    format.finish()?;
    Ok(ResponseFormat::JsonSchema(schema))
}

fn tools(fields: &mut Fields) -> Result<Vec<Tool>, ApiError> {
    let values = match fields.take("tools") {
        None => return Ok(Vec::new()),
        Some(Value::Array(values)) => values,
        Some(_) => return Err(fields.invalid("tools", "must be an array")),
    };
    let tools = values.into_iter().enumerate().map(|(index, value)| {
        let mut tool = block(format!("tools[{index}]"), value)?;
        let kind = tool.string("type")?;
        if kind.as_deref().is_some_and(|kind| kind != "custom") {
            return Err(unsupported(&tool, kind.as_deref()));
        }
        let Some(name) = tool.string("name")? else {
            return Err(tool.invalid("name", "is required"));
        };
        let path = tool.path("name");
        let description = tool.string("description")?;
        let strict = tool.boolean("strict")?.unwrap_or(false);
        let Some(schema @ Value::Object(_)) = tool.take("input_schema") else {
            return Err(tool.invalid("input_schema", "must be an object"));
        };
        tool.finish()?;
        parse_tool(&path, name, description, Some(schema), strict)
    });
    tools.collect()
}

/// Which tools to call, and whether several at once.
fn choice(fields: &mut Fields, tools: &[Tool]) -> Result<(ToolChoice, bool), ApiError> {
    let mut inner = match fields.take("tool_choice") {
        None => return Ok((ToolChoice::Auto, true)),
        Some(Value::Object(members)) => Fields::within(members, "tool_choice"),
        Some(_) => return Err(fields.invalid("tool_choice", "must be an object")),
    };
    let choice = match inner.string("type")?.as_deref() {
        Some("auto") => ToolChoice::Auto,
        Some("any") => ToolChoice::Required,
        Some("none") => ToolChoice::None,
        Some("tool") => match inner.string("name")? {
            Some(name) => ToolChoice::Named(name),
            None => return Err(inner.invalid("name", "is required")),
        },
        _ => return Err(inner.invalid("type", "must be 'auto', 'any', 'tool' or 'none'")),
    };
    let single = inner.boolean("disable_parallel_tool_use")?.unwrap_or(false);
    inner.finish()?;
    crate::request::check_choice(&choice, tools)?;
    Ok((choice, !single))
}
