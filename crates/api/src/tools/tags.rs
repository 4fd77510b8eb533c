//! Calls whose arguments are tags, with strings as they are and other values as JSON. What a value
//! is, the function's schema says.

mod rules;

use serde_json::{Map, Value};

use super::{Format, Tool};

pub(super) use rules::{call, text};

/// Schemas that are looked into for one argument.
const MAX_SCHEMAS: usize = 500;

/// A name and the text of each argument.
type Arguments<'a> = Vec<(&'a str, &'a str)>;

/// The call between `<tool_call>` and `</tool_call>`.
pub(super) fn read(format: Format, text: &str, tools: &[Tool]) -> Option<(String, Value)> {
    let (name, arguments) = match format {
        Format::Glm => glm(text)?,
        _ => coder(text.trim())?,
    };
    let tool = tools.iter().find(|tool| tool.name == name)?;
    let mut members = Map::new();
    for (key, text) in arguments {
        let value = match declared(tool).and_then(|properties| properties.get(key)) {
            // Nothing says that it is anything else.
            None => Value::from(text),
            Some(schema) => Allowed::by(tool.parameters.as_ref()?, schema).read(text)?,
        };
        members.insert(key.to_owned(), value);
    }
    Some((name.to_owned(), Value::Object(members)))
}

/// `<function=NAME>`, then `<parameter=KEY>`, a line end, the value, a line end and
/// `</parameter>` for each argument, then `</function>`.
fn coder(text: &str) -> Option<(&str, Arguments<'_>)> {
    let (name, rest) = text.strip_prefix("<function=")?.split_once('>')?;
    let mut rest = rest.strip_suffix("</function>")?.trim_start();
    let mut arguments = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix("<parameter=")?.split_once('>')?;
        let (value, next) = up_to(after, "</parameter>", "<parameter=")?;
        let value = value.strip_prefix('\n').unwrap_or(value);
        arguments.push((key.trim(), value.strip_suffix('\n').unwrap_or(value)));
        rest = next;
    }
    Some((name.trim(), arguments))
}

/// The name, then `<arg_key>KEY</arg_key>` and `<arg_value>VALUE</arg_value>` for each argument.
fn glm(text: &str) -> Option<(&str, Arguments<'_>)> {
    let (name, mut rest) = text.split_at(text.find("<arg_key>").unwrap_or(text.len()));
    let mut arguments = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.strip_prefix("<arg_key>")?.split_once("</arg_key>")?;
        let after = after.trim_start().strip_prefix("<arg_value>")?;
        let (value, next) = up_to(after, "</arg_value>", "<arg_key>")?;
        arguments.push((key.trim(), value));
        rest = next;
    }
    Some((name.trim(), arguments))
}

/// The text before a closing tag, behind which `next` comes or nothing, and what is behind it. A
/// value may have the tag in it.
fn up_to<'a>(text: &'a str, close: &str, next: &str) -> Option<(&'a str, &'a str)> {
    text.match_indices(close).find_map(|(end, _)| {
        let rest = text[end + close.len()..].trim_start();
        (rest.is_empty() || rest.starts_with(next)).then(|| (&text[..end], rest))
    })
}

/// The declared arguments of a function.
fn declared(tool: &Tool) -> Option<&Map<String, Value>> {
    let root = tool.parameters.as_ref()?;
    resolve(root, root)?.get("properties")?.as_object()
}

fn resolve<'a>(root: &'a Value, mut schema: &'a Value) -> Option<&'a Value> {
    for _ in 0..MAX_SCHEMAS {
        let Some(reference) = schema.get("$ref") else {
            return Some(schema);
        };
        schema = root.pointer(reference.as_str()?.strip_prefix('#')?)?;
    }
    None
}

/// What an argument may be.
#[derive(Debug, Default)]
struct Allowed<'a> {
    /// Any string.
    string: bool,
    /// Names of other types.
    kinds: Vec<&'a str>,
    /// The values of `enum` and `const`.
    listed: Vec<&'a Value>,
    /// There is more that it must satisfy.
    bounded: bool,
}

impl<'a> Allowed<'a> {
    fn by(root: &'a Value, schema: &'a Value) -> Self {
        let mut found = Self::default();
        // A list of what is left instead of recursion: schemas may refer to each other.
        let mut left = vec![schema];
        for _ in 0..MAX_SCHEMAS {
            let Some(schema) = left.pop() else {
                return found;
            };
            let Some(schema) = resolve(root, schema) else {
                found.string = true;
                continue;
            };
            let inner = ["anyOf", "oneOf", "allOf"].map(|key| schema.get(key)?.as_array());
            if let Some(value) = schema.get("const") {
                found.listed.push(value);
            } else if let Some(values) = schema.get("enum").and_then(Value::as_array) {
                found.listed.extend(values);
            } else if inner.iter().any(Option::is_some) {
                left.extend(inner.into_iter().flatten().flatten());
            } else {
                found.typed(schema);
            }
        }
        // Too many to know.
        found.string = true;
        found.bounded = true;
        found
    }

    fn typed(&mut self, schema: &'a Value) {
        let members = schema.as_object();
        let plain = |key: &String| key == "type" || crate::grammar::is_annotation(key);
        self.bounded |= !members.is_some_and(|members| members.keys().all(plain));
        let kinds: Vec<&str> = match schema.get("type") {
            Some(Value::String(kind)) => vec![kind],
            Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
            _ if schema.get("properties").is_some() => vec!["object"],
            _ if schema.get("items").is_some() => vec!["array"],
            _ => vec!["string"],
        };
        for kind in kinds {
            if kind == "string" {
                self.string = true;
            } else {
                self.kinds.push(kind);
            }
        }
    }

    fn strings(&self) -> impl Iterator<Item = &'a str> {
        self.listed.iter().filter_map(|value| value.as_str())
    }

    /// The value of a text; `None` where it is none that may stand there.
    fn read(&self, text: &str) -> Option<Value> {
        if self.strings().any(|listed| listed == text) {
            return Some(Value::from(text));
        }
        let short = text.trim();
        let mut value = serde_json::from_str(short).ok();
        if value.is_none() && !self.string {
            // Some templates show these words as Python writes them, and so do the models.
            value = match short {
                "True" => Some(Value::Bool(true)),
                "False" => Some(Value::Bool(false)),
                "None" => Some(Value::Null),
                _ => None,
            };
        }
        value
            .filter(|value| self.has(value))
            .or_else(|| self.string.then(|| Value::from(text)))
    }

    /// Whether a value that is no string may stand there.
    fn has(&self, value: &Value) -> bool {
        let kind = match value {
            Value::String(_) => return false,
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let whole = || {
            let float = value.as_f64().is_some_and(|float| float.fract() == 0.0);
            value.is_i64() || value.is_u64() || float
        };
        self.listed.contains(&value)
            || self.kinds.contains(&kind)
            || (kind == "number" && self.kinds.contains(&"integer") && whole())
    }
}

#[cfg(test)]
mod tests;
