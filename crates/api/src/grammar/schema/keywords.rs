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
        "string" => &["type", "minLength", "maxLength", "format"],
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

/// The 29th of February is left out: whether there is one depends on the year.
pub(super) fn string_format(name: &str) -> Option<String> {
    const DATE: &str = r#"[0-9]{4} "-" (("0" [13578] | "10" | "12") "-" ("0" [1-9] | [12] [0-9] | "3" [01]) | ("0" [469] | "11") "-" ("0" [1-9] | [12] [0-9] | "30") | "02-" ("0" [1-9] | "1" [0-9] | "2" [0-8]))"#;
    const TIME: &str =
        r#"([01] [0-9] | "2" [0-3]) ":" [0-5] [0-9] ":" [0-5] [0-9] ("." [0-9]{3})? "Z""#;
    Some(match name {
        "date" => DATE.to_owned(),
        "time" => TIME.to_owned(),
        "date-time" => format!("{DATE} \"T\" {TIME}"),
        "uuid" => r#"hex{8} "-" hex{4} "-" hex{4} "-" hex{4} "-" hex{12}"#.to_owned(),
        _ => return None,
    })
}
