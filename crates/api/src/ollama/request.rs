//! Ollama's requests, turned into the core's.

use serde_json::{Map, Value};

use crate::{
    ChatMessage, Role,
    error::ApiError,
    request::{
        ChatRequest, CompletionRequest, Delivery, Fields, Options, ResponseFormat, default_options,
        missing, parse_object, parse_tools,
    },
    tools::call_value,
};

/// Options that say how to use the machine, not what to answer.
const MACHINE: &[&str] = &[
    "low_vram",
    "main_gpu",
    "num_batch",
    "num_gpu",
    "num_thread",
    "numa",
    "use_mlock",
    "use_mmap",
    "vocab_only",
];

pub(super) struct GenerateRequest {
    pub(super) model: Option<String>,
    pub(super) input: Input,
    pub(super) streams: bool,
}

pub(super) enum Input {
    /// No prompt: load the model.
    Nothing,
    /// Text that goes on as it likes.
    Raw(Box<CompletionRequest>),
    Chat(Box<ChatRequest>),
}

/// What chat and generate have in common.
struct Common {
    options: Options,
    format: ResponseFormat,
    think: Option<bool>,
    streams: bool,
}

pub(super) fn show(body: &[u8]) -> Result<Option<String>, ApiError> {
    let mut fields = Fields::new(parse_object(body)?);
    let model = fields.string("model")?;
    // Its older name.
    let name = fields.string("name")?;
    fields.boolean("verbose")?;
    fields.finish()?;
    Ok(model.or(name))
}

pub(super) fn chat(body: &[u8]) -> Result<(ChatRequest, bool), ApiError> {
    let mut fields = Fields::new(parse_object(body)?);
    let common = common(&mut fields)?;
    let messages = match fields.take("messages") {
        Some(Value::Array(messages)) if !messages.is_empty() => messages,
        Some(_) => return Err(fields.invalid("messages", "must be an array of messages")),
        None => return Err(missing("messages")),
    };
    let messages = messages.into_iter().enumerate();
    let messages = messages
        .map(|(index, value)| message(format!("messages[{index}]"), value))
        .collect::<Result<_, _>>()?;
    let tools = parse_tools(fields.take("tools"))?;
    fields.finish()?;
    let mut request = ChatRequest::new(common.options, messages);
    request.tools = tools;
    request.format = common.format;
    request.think = common.think;
    Ok((request, common.streams))
}

pub(super) fn generate(body: &[u8]) -> Result<GenerateRequest, ApiError> {
    let mut fields = Fields::new(parse_object(body)?);
    let common = common(&mut fields)?;
    let prompt = fields.string("prompt")?.unwrap_or_default();
    let system = fields.string("system")?.filter(|system| !system.is_empty());
    let raw = fields.boolean("raw")?.unwrap_or(false);
    for name in ["context", "images", "suffix", "template"] {
        refuse(&mut fields, name)?;
    }
    fields.finish()?;
    let streams = common.streams;
    let model = common.options.model.clone();
    let input = if prompt.is_empty() {
        Input::Nothing
    } else if raw {
        if common.format != ResponseFormat::Text {
            return Err(ApiError::unsupported(
                "format",
                "'format' is not supported together with 'raw'",
            ));
        }
        Input::Raw(Box::new(CompletionRequest {
            options: common.options,
            prompt,
        }))
    } else {
        let system = system.map(|text| ChatMessage::new(Role::System, text));
        let user = ChatMessage::new(Role::User, prompt);
        let messages = system.into_iter().chain([user]).collect();
        let mut request = ChatRequest::new(common.options, messages);
        request.format = common.format;
        request.think = common.think;
        Input::Chat(Box::new(request))
    };
    Ok(GenerateRequest {
        model,
        input,
        streams,
    })
}

fn common(fields: &mut Fields) -> Result<Common, ApiError> {
    let mut options = default_options(fields.string("model")?, Delivery::Whole);
    options.sampling.temperature = 0.8;
    options.sampling.top_k = 40;
    options.sampling.top_p = 0.9;
    match fields.take("options") {
        None => {}
        Some(Value::Object(members)) => read_options(members, &mut options)?,
        Some(_) => return Err(fields.invalid("options", "must be an object")),
    }
    let format = match fields.take("format") {
        None => ResponseFormat::Text,
        Some(Value::String(word)) if word.is_empty() => ResponseFormat::Text,
        Some(Value::String(word)) if word == "json" => ResponseFormat::JsonObject,
        Some(schema @ Value::Object(_)) => ResponseFormat::JsonSchema(schema),
        Some(_) => return Err(fields.invalid("format", "must be 'json' or a schema")),
    };
    let think = fields.boolean("think")?;
    // How long the model stays loaded is not for a request to say.
    fields.take("keep_alive");
    for name in ["logprobs", "top_logprobs"] {
        refuse(fields, name)?;
    }
    let streams = fields.boolean("stream")?.unwrap_or(true);
    Ok(Common {
        options,
        format,
        think,
        streams,
    })
}

/// Refuses a member that asks for something.
fn refuse(fields: &mut Fields, name: &str) -> Result<(), ApiError> {
    match fields.take(name) {
        None | Some(Value::Bool(false)) => Ok(()),
        Some(Value::String(text)) if text.is_empty() => Ok(()),
        Some(Value::Array(items)) if items.is_empty() => Ok(()),
        Some(_) => {
            let path = fields.path(name);
            let message = format!("'{path}' is not supported; leave it out");
            Err(ApiError::unsupported(path, message))
        }
    }
}

fn read_options(members: Map<String, Value>, options: &mut Options) -> Result<(), ApiError> {
    let mut fields = Fields::within(members, "options");
    let sampling = &mut options.sampling;
    let mut number = |name: &str, least: f64, most: f64, into: &mut f32| {
        fields
            .number(name, least, most)
            .map(|value| *into = value.map_or(*into, |value| value as f32))
    };
    number("temperature", 0.0, 100.0, &mut sampling.temperature)?;
    number("top_p", 0.0, 1.0, &mut sampling.top_p)?;
    number("min_p", 0.0, 1.0, &mut sampling.min_p)?;
    number(
        "repeat_penalty",
        0.01,
        10.0,
        &mut sampling.repetition_penalty,
    )?;
    number(
        "presence_penalty",
        -2.0,
        2.0,
        &mut sampling.presence_penalty,
    )?;
    number(
        "frequency_penalty",
        -2.0,
        2.0,
        &mut sampling.frequency_penalty,
    )?;
    if let Some(k) = fields.integer("top_k", 0, i64::from(i32::MAX))? {
        sampling.top_k = k as u32;
    }
    if let Some(seed) = fields.integer("seed", i64::MIN, i64::MAX)? {
        sampling.seed = seed.cast_unsigned();
    }
    // -1 and -2 mean without end, and until the context is full.
    if let Some(most) = fields.integer("num_predict", -2, i64::from(i32::MAX))? {
        options.max_tokens = u32::try_from(most).ok().map(|most| most.max(1));
    }
    options.stop = crate::request::stop(&mut fields)?;
    // The context is what the model was loaded with; `Gateway` refuses what does not fit it.
    options.context_tokens = fields
        .integer("num_ctx", 1, i64::from(i32::MAX))?
        .map(|tokens| tokens as u32);
    for name in MACHINE {
        fields.take(name);
    }
    fields.finish()
}

fn message(place: String, value: Value) -> Result<ChatMessage, ApiError> {
    let Value::Object(members) = value else {
        let message = format!("{place} must be an object");
        return Err(ApiError::invalid(place, message));
    };
    let mut fields = Fields::within(members, place);
    let role = match fields.string("role")?.as_deref() {
        Some("system") => Role::System,
        Some("user") => Role::User,
        Some("assistant") => Role::Assistant,
        Some("tool") => Role::Tool,
        _ => {
            return Err(fields.invalid("role", "must be 'system', 'user', 'assistant' or 'tool'"));
        }
    };
    let content = fields.string("content")?.unwrap_or_default();
    refuse(&mut fields, "images")?;
    let mut message = ChatMessage::new(role, content);
    message.reasoning_content = fields.string("thinking")?;
    message.name = fields.string("tool_name")?.or(fields.string("name")?);
    message.tool_call_id = fields.string("tool_call_id")?;
    if let Some(calls) = fields.take("tool_calls") {
        let path = fields.path("tool_calls");
        let Value::Array(calls) = calls else {
            return Err(fields.invalid("tool_calls", "must be an array"));
        };
        for (index, call) in calls.iter().enumerate() {
            let function = &call["function"];
            let Some(name) = function["name"].as_str() else {
                let path = format!("{path}[{index}].function.name");
                return Err(ApiError::invalid(&path, format!("{path} must be a string")));
            };
            let id = call["id"].as_str().unwrap_or_default();
            let value = call_value(id, name, &function["arguments"]);
            message.tool_calls.push(value);
        }
    }
    fields.finish()?;
    Ok(message)
}
