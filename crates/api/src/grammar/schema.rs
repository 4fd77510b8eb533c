//! JSON Schema to GBNF.
//!
//! What comes out always satisfies the schema; it need not be all that would. Objects have the
//! declared properties only, in the order in which they are declared, and a keyword that cannot
//! be kept is refused by name.

mod apart;
mod exclusive;
mod integers;
mod keywords;
mod pattern;
mod strings;

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{Grammar, literal};
use keywords::{count, enumeration, keywords, repeat};

/// How deep schemas may be nested, references not counted: each of them is one rule.
const MAX_DEPTH: usize = 48;

/// Rules of one grammar. Beyond that, llama.cpp's parser gets slow.
const MAX_RULES: usize = 4000;

const ANNOTATIONS: &[&str] = &[
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "default",
    "definitions",
    "deprecated",
    "description",
    "example",
    "examples",
    "readOnly",
    "strict",
    "title",
    "writeOnly",
];

/// Whether a keyword says nothing about what is allowed.
pub(crate) fn is_annotation(key: &str) -> bool {
    ANNOTATIONS.contains(&key)
}

/// Why a schema cannot be kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place} {reason}")]
pub(crate) struct SchemaError {
    /// A JSON pointer, `#` for the whole.
    place: String,
    reason: String,
}

impl SchemaError {
    pub(crate) fn new(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            reason: reason.into(),
        }
    }
}

/// Adds the rules for a schema within a document, from which its references start, and returns the
/// name of the one that matches it.
pub(super) fn convert(
    grammar: &mut Grammar,
    root: &Value,
    schema: &Value,
) -> Result<String, SchemaError> {
    Converter {
        grammar,
        root,
        references: HashMap::new(),
    }
    .rule(schema, "#", 0)
}

struct Converter<'a> {
    grammar: &'a mut Grammar,
    /// What references start from.
    root: &'a Value,
    /// Rules of schemas that were referred to.
    references: HashMap<String, String>,
}

fn refuse<T>(place: &str, reason: impl Into<String>) -> Result<T, SchemaError> {
    Err(SchemaError::new(place, reason))
}

impl Converter<'_> {
    /// The rule of a schema.
    fn rule(&mut self, schema: &Value, place: &str, depth: usize) -> Result<String, SchemaError> {
        if depth > MAX_DEPTH || self.grammar.rules.len() > MAX_RULES {
            return refuse(place, "is too deep or too large");
        }
        let members = match schema {
            Value::Bool(true) => return Ok("value".to_owned()),
            Value::Object(members) => members,
            _ => return refuse(place, "must be an object"),
        };
        let mut rest: Vec<&str> = members
            .keys()
            .map(String::as_str)
            .filter(|key| !is_annotation(key))
            .collect();
        let mut only = |keys: &[&str]| {
            rest.retain(|key| !keys.contains(key));
            match rest.first() {
                None => Ok(()),
                Some(key) => refuse(
                    place,
                    format!("has the keyword '{key}', which is not supported"),
                ),
            }
        };
        if let Some(reference) = members.get("$ref") {
            only(&["$ref"])?;
            return self.reference(reference, place, depth);
        }
        if let Some(value) = members.get("const") {
            only(&["const", "type"])?;
            return Ok(self.grammar.add("const", literal(&value.to_string())));
        }
        if let Some(values) = members.get("enum") {
            only(&["enum", "type"])?;
            return Ok(self.grammar.add("enum", enumeration(values, place)?));
        }
        for key in ["anyOf", "oneOf", "allOf"] {
            if let Some(schemas) = members.get(key) {
                only(&[key])?;
                return self.alternatives(key, schemas, place, depth);
            }
        }
        match members.get("type") {
            Some(Value::String(kind)) => {
                only(keywords(kind))?;
                self.typed(kind, members, place, depth)
            }
            Some(Value::Array(kinds)) if !kinds.is_empty() => {
                let mut kinds: Vec<&str> = kinds.iter().filter_map(Value::as_str).collect();
                kinds.sort_unstable();
                kinds.dedup();
                let all: Vec<&str> = kinds
                    .iter()
                    .flat_map(|kind| keywords(kind))
                    .copied()
                    .collect();
                only(&all)?;
                let ways = kinds
                    .iter()
                    .map(|kind| self.typed(kind, members, place, depth))
                    .collect::<Result<Vec<_>, _>>()?;
                Ok(self.grammar.add("any", ways.join(" | ")))
            }
            Some(_) => refuse(
                place,
                "has a 'type' that is neither a name nor a list of names",
            ),
            None if members.contains_key("properties") => {
                only(keywords("object"))?;
                self.object(members, place, depth)
            }
            None if members.contains_key("items") => {
                only(keywords("array"))?;
                self.array(members, place, depth)
            }
            None => {
                only(&[])?;
                Ok("value".to_owned())
            }
        }
    }

    /// `anyOf`, `oneOf` where that is the same, and an `allOf` of one.
    fn alternatives(
        &mut self,
        key: &str,
        schemas: &Value,
        place: &str,
        depth: usize,
    ) -> Result<String, SchemaError> {
        let Some(schemas) = schemas.as_array().filter(|schemas| !schemas.is_empty()) else {
            return refuse(place, format!("has an '{key}' that is no list of schemas"));
        };
        if key == "allOf" && schemas.len() > 1 {
            return refuse(
                place,
                "has an 'allOf' of more than one schema, which is not supported",
            );
        }
        if let Some(trouble) = apart::trouble(self.root, key, schemas) {
            return refuse(&format!("{place}/{key}"), trouble);
        }
        let ways = schemas
            .iter()
            .enumerate()
            .map(|(index, schema)| self.rule(schema, &format!("{place}/{key}/{index}"), depth + 1))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.grammar.add("any", ways.join(" | ")))
    }

    fn typed(
        &mut self,
        kind: &str,
        members: &Map<String, Value>,
        place: &str,
        depth: usize,
    ) -> Result<String, SchemaError> {
        match kind {
            "object" => self.object(members, place, depth),
            "array" => self.array(members, place, depth),
            "string" => Ok(match strings::body(members, place)? {
                Some(body) => self.grammar.add("string", body),
                None => kind.to_owned(),
            }),
            "integer" => Ok(match integers::body(members, place)? {
                Some(body) => self.grammar.add("integer", body),
                None => kind.to_owned(),
            }),
            "number"
                if integers::BOUNDS
                    .iter()
                    .any(|key| members.contains_key(*key)) =>
            {
                refuse(
                    place,
                    "bounds numbers that are no integers, which is not supported",
                )
            }
            "number" | "boolean" | "null" => Ok(kind.to_owned()),
            _ => refuse(place, format!("has the type '{kind}', which there is not")),
        }
    }

    fn reference(
        &mut self,
        reference: &Value,
        place: &str,
        depth: usize,
    ) -> Result<String, SchemaError> {
        let Some(pointer) = reference.as_str().and_then(|text| text.strip_prefix('#')) else {
            return refuse(place, "refers to another document, which is not supported");
        };
        if let Some(rule) = self.references.get(pointer) {
            return Ok(rule.clone());
        }
        let Some(target) = self.root.pointer(pointer) else {
            return refuse(place, format!("refers to '#{pointer}', which there is not"));
        };
        // The name stands before the body does, because the body may refer to itself.
        let name = self.grammar.add("ref", "");
        let index = self.grammar.rules.len() - 1;
        self.references.insert(pointer.to_owned(), name.clone());
        let body = self.rule(target, &format!("#{pointer}"), depth + 1)?;
        self.grammar.rules[index].1 = body;
        Ok(name)
    }

    /// `{`, the declared properties in order, `}`; optional ones may be left out.
    fn object(
        &mut self,
        members: &Map<String, Value>,
        place: &str,
        depth: usize,
    ) -> Result<String, SchemaError> {
        let empty = Map::new();
        let properties = match members.get("properties") {
            None => &empty,
            Some(Value::Object(properties)) => properties,
            Some(_) => return refuse(place, "has 'properties' that are no object"),
        };
        let required: HashSet<&str> = match members.get("required") {
            None => HashSet::new(),
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            Some(_) => return refuse(place, "has a 'required' that is no list of names"),
        };
        if let Some(missing) = required
            .iter()
            .find(|name| !properties.contains_key(**name))
        {
            return refuse(
                place,
                format!("requires '{missing}', which is not declared"),
            );
        }
        if properties.is_empty() {
            return self.map(members.get("additionalProperties"), place, depth);
        }
        // From the last property to the first: what may follow when something stands before it,
        // and when nothing does.
        let (mut after, mut alone) = (String::new(), String::new());
        for (name, schema) in properties.iter().rev() {
            let inner = format!("{place}/properties/{name}");
            let value = self.rule(schema, &inner, depth + 1)?;
            let key = literal(&Value::from(name.as_str()).to_string());
            let member = self
                .grammar
                .add("member", format!("{key} space \":\" space {value} space"));
            let with_comma = format!("\",\" space {member} {after}");
            let without = format!("{member} {after}");
            let (next_after, next_alone) = if required.contains(name.as_str()) {
                (with_comma, without)
            } else {
                (
                    format!("{with_comma} | {}", blank(&after)),
                    format!("{without} | {}", blank(&alone)),
                )
            };
            after = self.grammar.add("rest", next_after);
            alone = self.grammar.add("first", next_alone);
        }
        Ok(self
            .grammar
            .add("object", format!("\"{{\" space {alone} \"}}\"")))
    }

    /// An object without declared properties.
    fn map(
        &mut self,
        additional: Option<&Value>,
        place: &str,
        depth: usize,
    ) -> Result<String, SchemaError> {
        let value = match additional {
            None | Some(Value::Bool(true)) => return Ok("object".to_owned()),
            Some(Value::Bool(false)) => {
                return Ok(self.grammar.add("object", "\"{\" space \"}\""));
            }
            Some(schema) => {
                self.rule(schema, &format!("{place}/additionalProperties"), depth + 1)?
            }
        };
        let member = self
            .grammar
            .add("member", format!("string space \":\" space {value} space"));
        Ok(self.grammar.add(
            "object",
            format!("\"{{\" space ({member} (\",\" space {member})*)? \"}}\""),
        ))
    }

    fn array(
        &mut self,
        members: &Map<String, Value>,
        place: &str,
        depth: usize,
    ) -> Result<String, SchemaError> {
        let item = match members.get("items") {
            None => "value".to_owned(),
            Some(schema) => self.rule(schema, &format!("{place}/items"), depth + 1)?,
        };
        let least = count(members, "minItems", place)?.unwrap_or(0);
        let most = count(members, "maxItems", place)?;
        if most.is_some_and(|most| most < least) {
            return refuse(place, "has a 'maxItems' below its 'minItems'");
        }
        let item = self.grammar.add("item", format!("{item} space"));
        let items = match (least, most) {
            (_, Some(0)) => String::new(),
            (least, most) => {
                let more = repeat(least.saturating_sub(1), most.map(|most| most - 1));
                let some = format!("{item} (\",\" space {item}){more}");
                if least == 0 {
                    format!("({some})?")
                } else {
                    some
                }
            }
        };
        Ok(self
            .grammar
            .add("array", format!("\"[\" space {items} \"]\"")))
    }
}

/// A sequence that may be empty, as an alternative.
fn blank(rule: &str) -> &str {
    if rule.is_empty() { "\"\"" } else { rule }
}

#[cfg(test)]
mod tests;
