//! What keywords there are, and their values.

use serde_json::{Map, Value};

use super::{SchemaError, literal, refuse};

/// The most values of an `enum`.
const MAX_VALUES: usize = 500;

/// What a schema of this type may say.
pub(super) fn keywords(kind: &str) -> &'static [&'static str] {
    match kind {
        "object" => &["type", "properties", "required", "additionalProperties"],
        "array" => &["type", "items", "minItems", "maxItems"],
        "string" => &["type", "minLength", "maxLength", "pattern", "format"],
        "integer" => &[
            "type",
            "minimum",
            "maximum",
            "exclusiveMinimum",
            "exclusiveMaximum",
        ],
        _ => &["type"],
    }
}

/// llama.cpp refuses more repetitions than 2,000.
pub(super) fn count(
    members: &Map<String, Value>,
    key: &str,
    place: &str,
) -> Result<Option<u64>, SchemaError> {
    match members.get(key) {
        None => Ok(None),
        Some(value) => match value.as_u64() {
            Some(count) if count <= 1000 => Ok(Some(count)),
            _ => refuse(place, format!("has a '{key}' that is not from 0 to 1000")),
        },
    }
}

/// The body of an `enum`'s rule.
pub(super) fn enumeration(values: &Value, place: &str) -> Result<String, SchemaError> {
    let Some(values) = values.as_array().filter(|values| !values.is_empty()) else {
        return refuse(place, "has an 'enum' that is no list of values");
    };
    if values.len() > MAX_VALUES {
        return refuse(
            place,
            format!("has an 'enum' of more than {MAX_VALUES} values"),
        );
    }
    let ways: Vec<_> = values.iter().map(|v| literal(&v.to_string())).collect();
    Ok(ways.join(" | "))
}

pub(super) fn repeat(least: u64, most: Option<u64>) -> String {
    match (least, most) {
        (0, None) => "*".to_owned(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}
