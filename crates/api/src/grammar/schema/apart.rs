//! Whether the alternatives of an `anyOf` can be told apart as they are written.
//!
//! llama.cpp follows all alternatives that still match. Two that go on into nested values together
//! double with each level, and a schema made for it would fill the memory of the stage that every
//! request shares. So alternatives must differ before they nest: by their type, or, where both
//! are objects, by a name or a constant before the first property that holds an object or an
//! array.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::exclusive;

/// Steps that one comparison may take; a schema that needs more is refused.
const MAX_STEPS: u32 = 200_000;

/// References followed for one schema.
const MAX_REFERENCES: usize = 64;

/// A schema that may hold other values.
enum Container<'a> {
    Array,
    Object(&'a Map<String, Value>),
    /// Any value at all.
    Any,
}

/// The comparison takes too long.
struct TooLong;

/// Compares within one document.
struct Comparison<'a> {
    root: &'a Value,
    steps_left: u32,
}

/// Why alternatives cannot be told apart; `None` if they can.
pub(super) fn trouble(root: &Value, key: &str, schemas: &[Value]) -> Option<String> {
    let mut comparison = Comparison {
        root,
        steps_left: MAX_STEPS,
    };
    if key == "oneOf"
        && let Some(trouble) = exclusive::trouble(schemas, |schema| comparison.resolve(schema))
    {
        return Some(trouble);
    }
    comparison
        .trouble(schemas)
        .unwrap_or_else(|TooLong| Some("has too many alternatives to tell apart".to_owned()))
}

impl<'a> Comparison<'a> {
    fn step(&mut self) -> Result<(), TooLong> {
        self.steps_left = self.steps_left.checked_sub(1).ok_or(TooLong)?;
        Ok(())
    }

    fn trouble(&mut self, schemas: &'a [Value]) -> Result<Option<String>, TooLong> {
        let mut containers = Vec::new();
        for schema in schemas {
            self.collect(schema, &mut containers)?;
        }
        for (index, one) in containers.iter().enumerate() {
            for other in &containers[index + 1..] {
                self.step()?;
                match (one, other) {
                    (Container::Array, Container::Object(_))
                    | (Container::Object(_), Container::Array) => {}
                    (Container::Object(a), Container::Object(b)) => {
                        if let Some(name) = self.common_nest(a, b)? {
                            return Ok(Some(format!(
                                "has objects that cannot be told apart before '{name}'; give them \
                                 a property first that is a different constant in each"
                            )));
                        }
                    }
                    _ => {
                        let message = "has two arrays, or any value, that cannot be told apart";
                        return Ok(Some(message.to_owned()));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What a reference stands for; nothing where it leads nowhere, which is refused elsewhere.
    fn resolve(&self, mut schema: &'a Value) -> Option<&'a Value> {
        for _ in 0..MAX_REFERENCES {
            let Some(reference) = schema.get("$ref") else {
                return Some(schema);
            };
            schema = self.root.pointer(reference.as_str()?.strip_prefix('#')?)?;
        }
        None
    }

    /// Adds the containers that a schema allows.
    fn collect(
        &mut self,
        schema: &'a Value,
        found: &mut Vec<Container<'a>>,
    ) -> Result<(), TooLong> {
        // A list of what is left instead of recursion: alternatives may refer to each other.
        let mut left = vec![schema];
        while let Some(schema) = left.pop() {
            self.step()?;
            let Some(members) = self.resolve(schema).and_then(Value::as_object) else {
                found.push(Container::Any);
                continue;
            };
            if members.contains_key("const") || members.contains_key("enum") {
                continue;
            }
            let inner =
                ["anyOf", "oneOf", "allOf"].map(|key| members.get(key).and_then(Value::as_array));
            if inner.iter().any(Option::is_some) {
                left.extend(inner.into_iter().flatten().flatten());
                continue;
            }
            let kinds: Vec<&str> = match members.get("type") {
                Some(Value::String(kind)) => vec![kind],
                Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
                _ if members.contains_key("properties") => vec!["object"],
                _ if members.contains_key("items") => vec!["array"],
                _ => {
                    found.push(Container::Any);
                    continue;
                }
            };
            if kinds.contains(&"array") {
                found.push(Container::Array);
            }
            if kinds.contains(&"object") {
                found.push(Container::Object(members));
            }
        }
        Ok(())
    }

    /// A property with nested values that both objects may have reached with the same text.
    fn common_nest(
        &mut self,
        one: &'a Map<String, Value>,
        other: &'a Map<String, Value>,
    ) -> Result<Option<String>, TooLong> {
        // Without declared properties, an object may have any.
        if !has_properties(one) || !has_properties(other) {
            return Ok(Some("any property".to_owned()));
        }
        let mut seen = HashSet::new();
        let mut open = vec![(0, 0)];
        while let Some((a, b)) = open.pop() {
            if !seen.insert((a, b)) {
                continue;
            }
            for x in next_properties(one, a) {
                for y in next_properties(other, b) {
                    self.step()?;
                    if x.name != y.name || self.differ(x.schema, y.schema) {
                        continue;
                    }
                    if self.nests(x.schema)? && self.nests(y.schema)? {
                        return Ok(Some(x.name.to_owned()));
                    }
                    open.push((x.index + 1, y.index + 1));
                }
            }
        }
        Ok(None)
    }

    fn nests(&mut self, schema: &'a Value) -> Result<bool, TooLong> {
        let mut found = Vec::new();
        self.collect(schema, &mut found)?;
        Ok(!found.is_empty())
    }

    /// Whether both are constants and none is common.
    fn differ(&self, one: &'a Value, other: &'a Value) -> bool {
        match (self.constants(one), self.constants(other)) {
            (Some(one), Some(other)) => !one.iter().any(|value| other.contains(value)),
            _ => false,
        }
    }

    fn constants(&self, schema: &'a Value) -> Option<Vec<&'a Value>> {
        let schema = self.resolve(schema)?;
        match (schema.get("const"), schema.get("enum")) {
            (Some(value), _) => Some(vec![value]),
            (None, Some(Value::Array(values))) => Some(values.iter().collect()),
            _ => None,
        }
    }
}

/// A property that may come next.
struct Next<'a> {
    index: usize,
    name: &'a str,
    schema: &'a Value,
}

/// What may come after the first `from` properties: optional ones, up to one that must.
fn next_properties(members: &Map<String, Value>, from: usize) -> Vec<Next<'_>> {
    let required = members.get("required").and_then(Value::as_array);
    let required: HashSet<&str> = required
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut next = Vec::new();
    let properties = members.get("properties").and_then(Value::as_object);
    for (index, (name, schema)) in properties.into_iter().flatten().enumerate().skip(from) {
        next.push(Next {
            index,
            name,
            schema,
        });
        if required.contains(name.as_str()) {
            break;
        }
    }
    next
}

fn has_properties(members: &Map<String, Value>) -> bool {
    let properties = members.get("properties").and_then(Value::as_object);
    properties.is_some_and(|properties| !properties.is_empty())
}
