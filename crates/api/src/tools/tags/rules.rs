//! Rules for calls whose arguments are tags.

use serde_json::Value;

use super::{Allowed, Format, Tool, declared, resolve};
use crate::grammar::{Grammar, SchemaError, literal};

/// The most arguments where none are known.
const MAX_UNKNOWN: u32 = 15;

/// Types whose names are those of rules.
const KINDS: [&str; 6] = ["object", "array", "integer", "number", "boolean", "null"];

/// The tag that ends a value.
fn close(format: Format) -> &'static str {
    match format {
        Format::Glm => "</arg_value>",
        _ => "</parameter>",
    }
}

/// What stands before and after a value; it ends with the closing tag and a line end.
fn around(format: Format, key: &str) -> (String, String) {
    match format {
        Format::Glm => (
            literal(&format!("<arg_key>{key}</arg_key>\n<arg_value>")),
            literal("</arg_value>\n"),
        ),
        _ => (
            literal(&format!("<parameter={key}>\n")),
            literal("\n</parameter>\n"),
        ),
    }
}

/// The rule for any string and the tag behind it, which all arguments share.
pub(in crate::tools) fn text(format: Format, grammar: &mut Grammar) -> String {
    grammar.until_without(close(format), super::super::parser::CLOSE)
}

/// The body of the rule for a call of this function, from behind `<tool_call>` and a line end that
/// may be there to before the next one; `text` is the rule for strings.
pub(in crate::tools) fn call(
    format: Format,
    grammar: &mut Grammar,
    tool: &Tool,
    text: &str,
) -> Result<String, SchemaError> {
    let arguments = arguments(format, grammar, tool, text)?;
    Ok(match format {
        Format::Glm => format!("{} {arguments}", literal(&format!("{}\n", tool.name))),
        _ => format!(
            "{} {arguments} \"</function>\"",
            literal(&format!("<function={}>\n", tool.name))
        ),
    })
}

fn arguments(
    format: Format,
    grammar: &mut Grammar,
    tool: &Tool,
    text: &str,
) -> Result<String, SchemaError> {
    let Some(root) = &tool.parameters else {
        return Ok(String::new());
    };
    if tool.strict {
        // What is refused elsewhere is refused here.
        Grammar::new().schema(root)?;
    }
    let schema = resolve(root, root).unwrap_or(root);
    let Some(properties) = declared(tool) else {
        if schema.get("type").and_then(Value::as_str) == Some("object") {
            return Ok(String::new());
        }
        if tool.strict {
            return Err(SchemaError::new("#", "is not the schema of an object"));
        }
        return Ok(unknown(format, text));
    };
    let required = schema.get("required").and_then(Value::as_array);
    let mut parts = Vec::with_capacity(properties.len());
    for (key, schema) in properties {
        let place = format!("#/properties/{key}");
        if key.is_empty() || key.trim() != key || key.contains(['<', '>', '\n']) {
            if tool.strict {
                return Err(SchemaError::new(
                    place,
                    "has a name that does not fit into a tag",
                ));
            }
            continue;
        }
        let value = value(grammar, root, schema, tool.strict, &place)?;
        let (before, after) = around(format, key);
        let body = match value {
            Some(value) => format!("{before} ({value}) {after}"),
            None => format!("{before} {text} \"\\n\""),
        };
        let argument = grammar.add("argument", body);
        let must = required.is_some_and(|names| names.iter().any(|name| name == key));
        parts.push(if must {
            argument
        } else {
            format!("{argument}?")
        });
    }
    Ok(parts.join(" "))
}

/// The alternatives for a value; `None` for any string.
fn value(
    grammar: &mut Grammar,
    root: &Value,
    schema: &Value,
    strict: bool,
    place: &str,
) -> Result<Option<String>, SchemaError> {
    let allowed = Allowed::by(root, schema);
    let odd = allowed.strings().any(|text| text.contains('<'));
    if allowed.string || odd {
        if strict && (allowed.bounded || odd) {
            return Err(SchemaError::new(
                place,
                "bounds strings, which cannot be kept where the model writes them without quotes",
            ));
        }
        return Ok(None);
    }
    if allowed.strings().next().is_none() {
        match grammar.schema_within(root, schema) {
            Ok(rule) => return Ok(Some(rule)),
            Err(error) if strict => return Err(error),
            Err(_) => {}
        }
    } else if strict && !allowed.kinds.is_empty() {
        return Err(SchemaError::new(
            place,
            "has listed strings beside other types, which cannot be kept where the model writes \
             strings without quotes",
        ));
    }
    let listed = allowed.listed.iter().map(|value| match value {
        Value::String(text) => literal(text),
        other => literal(&other.to_string()),
    });
    let kinds = KINDS
        .into_iter()
        .filter(|kind| allowed.kinds.contains(kind));
    let ways: Vec<String> = listed.chain(kinds.map(str::to_owned)).collect();
    // A type that there is not.
    Ok((!ways.is_empty()).then(|| ways.join(" | ")))
}

/// Arguments of any name.
fn unknown(format: Format, text: &str) -> String {
    let (before, between) = match format {
        Format::Glm => ("<arg_key>", "</arg_key>\n<arg_value>"),
        _ => ("<parameter=", ">\n"),
    };
    let (before, between) = (literal(before), literal(between));
    format!("({before} [a-zA-Z0-9_.\\x2D]{{1,64}} {between} {text} \"\\n\"){{0,{MAX_UNKNOWN}}}")
}
