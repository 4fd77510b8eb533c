//! `tools` and `tool_choice`.

use serde_json::{Map, Value, json};

use super::Fields;
use crate::{
    error::ApiError,
    tools::{Tool, ToolChoice},
};

/// The most tools of a request.
const MAX_TOOLS: usize = 128;

pub(crate) fn declared(value: Option<Value>) -> Result<Vec<Tool>, ApiError> {
    let tools = match value {
        None => return Ok(Vec::new()),
        Some(Value::Array(tools)) if tools.len() <= MAX_TOOLS => tools,
        Some(_) => {
            return Err(ApiError::invalid(
                "tools",
                format!("tools must be an array of at most {MAX_TOOLS}"),
            ));
        }
    };
    let mut result: Vec<Tool> = Vec::with_capacity(tools.len());
    for (index, value) in tools.into_iter().enumerate() {
        let place = format!("tools[{index}]");
        let Value::Object(members) = value else {
            let message = format!("{place} must be an object");
            return Err(ApiError::invalid(place, message));
        };
        let mut fields = Fields::within(members, place);
        let function = of_type_function(&mut fields)?;
        fields.finish()?;
        let tool = function_of(function)?;
        if result.iter().any(|other| other.name == tool.name) {
            let message = format!("tools has two functions '{}'", tool.name);
            return Err(ApiError::invalid("tools", message));
        }
        result.push(tool);
    }
    Ok(result)
}

/// The `function` of an object whose `type` says that it has one.
fn of_type_function(fields: &mut Fields) -> Result<Fields, ApiError> {
    match fields.string("type")?.as_deref() {
        Some("function") => {}
        Some(kind) => {
            let path = fields.path("type");
            let message = format!("{path} '{kind}' is not supported; only 'function' is");
            return Err(ApiError::unsupported(path, message));
        }
        None => return Err(fields.invalid("type", "is required")),
    }
    let place = fields.path("function");
    match fields.take("function") {
        Some(Value::Object(members)) => Ok(Fields::within(members, place)),
        _ => Err(fields.invalid("function", "must be an object")),
    }
}

fn function_of(mut fields: Fields) -> Result<Tool, ApiError> {
    let Some(name) = fields.string("name")? else {
        return Err(fields.invalid("name", "is required"));
    };
    let path = fields.path("name");
    let description = fields.string("description")?;
    let strict = fields.boolean("strict")?.unwrap_or(false);
    let parameters = match fields.take("parameters") {
        None => None,
        Some(schema @ Value::Object(_)) => Some(schema),
        Some(_) => return Err(fields.invalid("parameters", "must be an object")),
    };
    fields.finish()?;
    function(&path, name, description, parameters, strict)
}

/// A tool from its parts; `path` names the place of the name.
pub(crate) fn function(
    path: &str,
    name: String,
    description: Option<String>,
    parameters: Option<Value>,
    strict: bool,
) -> Result<Tool, ApiError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        return Err(ApiError::invalid(
            path,
            format!("{path} must have 1 to 64 letters, digits, '_', '-' or '.'"),
        ));
    }
    let mut function = Map::new();
    function.insert("name".to_owned(), json!(name));
    function.insert(
        "description".to_owned(),
        json!(description.unwrap_or_default()),
    );
    // Templates loop over the properties, so there are some even where none are declared.
    let schema = parameters
        .clone()
        .unwrap_or_else(|| json!({"type": "object", "properties": {}}));
    function.insert("parameters".to_owned(), schema);
    Ok(Tool {
        name,
        parameters,
        strict,
        declaration: json!({"type": "function", "function": function}),
    })
}

pub(super) fn choice(value: Option<Value>, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    const NAME: &str = "tool_choice";
    let choice = match value {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => ToolChoice::Auto,
            "none" => ToolChoice::None,
            "required" => ToolChoice::Required,
            _ => {
                return Err(ApiError::invalid(
                    NAME,
                    "tool_choice must be 'none', 'auto', 'required' or a function",
                ));
            }
        },
        Some(Value::Object(members)) => {
            let mut fields = Fields::within(members, NAME);
            let mut function = of_type_function(&mut fields)?;
            let Some(name) = function.string("name")? else {
                return Err(function.invalid("name", "is required"));
            };
            function.finish()?;
            fields.finish()?;
            ToolChoice::Named(name)
        }
        Some(_) => {
            return Err(ApiError::invalid(
                NAME,
                "tool_choice must be a word or an object",
            ));
        }
    };
    check(&choice, tools)?;
    Ok(choice)
}

/// Whether there is what the choice asks for.
pub(crate) fn check(choice: &ToolChoice, tools: &[Tool]) -> Result<(), ApiError> {
    let refuse = |message: String| Err(ApiError::invalid("tool_choice", message));
    match choice {
        ToolChoice::Required if tools.is_empty() => {
            refuse("tool_choice 'required' needs tools".to_owned())
        }
        ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => {
            refuse(format!("tool_choice names '{name}', which is not in tools"))
        }
        _ => Ok(()),
    }
}
