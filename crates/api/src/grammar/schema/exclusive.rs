//! Whether no value satisfies two schemas of a `oneOf`: then any of them is just one.

use serde_json::{Map, Value};

/// What is known of the values of a schema.
struct Facts<'a> {
    /// Their types, integers as numbers; `None` for any.
    kinds: Option<Vec<&'static str>>,
    /// The values themselves, where they are listed.
    values: Option<Vec<&'a Value>>,
    members: &'a Map<String, Value>,
}

/// Why more than one may be satisfied; `None` if that cannot be.
pub(super) fn trouble<'a>(
    schemas: &'a [Value],
    resolve: impl Fn(&'a Value) -> Option<&'a Value>,
) -> Option<String> {
    let message = || {
        Some(
            "has schemas that one value may satisfy together; give each another type, or a \
             required property that is a different constant in each"
                .to_owned(),
        )
    };
    let facts: Option<Vec<Facts>> = schemas
        .iter()
        .map(|schema| facts(resolve(schema)?))
        .collect();
    let Some(facts) = facts else {
        return message();
    };
    for (index, one) in facts.iter().enumerate() {
        for other in &facts[index + 1..] {
            if !apart(one, other, &resolve) {
                return message();
            }
        }
    }
    None
}

fn facts(schema: &Value) -> Option<Facts<'_>> {
    let members = schema.as_object()?;
    let listed = match (members.get("const"), members.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(values)) => Some(values.as_array()?.iter().collect()),
        (None, None) => None,
    };
    let kinds = match (&listed, members.get("type")) {
        (Some(values), _) => Some(values.iter().map(|value| kind_of(value)).collect()),
        (None, Some(Value::String(kind))) => Some(vec![kind_named(kind)?]),
        (None, Some(Value::Array(kinds))) => Some(
            kinds
                .iter()
                .map(|kind| kind_named(kind.as_str()?))
                .collect::<Option<_>>()?,
        ),
        (None, Some(_)) => return None,
        // The same as where rules are made: other types are not written.
        (None, None) if members.contains_key("properties") => Some(vec!["object"]),
        (None, None) => None,
    };
    Some(Facts {
        kinds,
        values: listed,
        members,
    })
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn kind_named(name: &str) -> Option<&'static str> {
    Some(match name {
        "null" => "null",
        "boolean" => "boolean",
        "integer" | "number" => "number",
        "string" => "string",
        "array" => "array",
        "object" => "object",
        _ => return None,
    })
}

fn apart<'a>(
    one: &Facts<'a>,
    other: &Facts<'a>,
    resolve: &impl Fn(&'a Value) -> Option<&'a Value>,
) -> bool {
    if let (Some(a), Some(b)) = (&one.kinds, &other.kinds)
        && a.iter().all(|kind| !b.contains(kind))
    {
        return true;
    }
    if let (Some(a), Some(b)) = (&one.values, &other.values) {
        return all_differ(a, b);
    }
    let objects = |facts: &Facts| facts.kinds.as_deref() == Some(&["object"]);
    if !objects(one) || !objects(other) {
        return false;
    }
    // A property that both must have, with constants that differ.
    let constants = |facts: &Facts<'a>, name: &str| {
        let required = facts.members.get("required")?.as_array()?;
        if !required.iter().any(|required| required == name) {
            return None;
        }
        let property = facts.members.get("properties")?.get(name)?;
        self::facts(resolve(property)?)?.values
    };
    let names = one.members.get("properties").and_then(Value::as_object);
    names.into_iter().flat_map(Map::keys).any(|name| {
        match (constants(one, name), constants(other, name)) {
            (Some(a), Some(b)) => all_differ(&a, &b),
            _ => false,
        }
    })
}

fn all_differ(one: &[&Value], other: &[&Value]) -> bool {
    one.iter().all(|a| other.iter().all(|b| differ(a, b)))
}

/// Whether two values surely differ: 1 and 1.0 do not, and lists are not looked into.
fn differ(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() != b.as_f64(),
        (Value::Array(_), Value::Array(_)) | (Value::Object(_), Value::Object(_)) => false,
        _ => one != other,
    }
}
