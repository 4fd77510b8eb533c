use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::grammar::Thought;

fn grammar(schema: &Value) -> Result<String, SchemaError> {
    let mut grammar = Grammar::new();
    let root = grammar.schema(schema)?;
    Ok(grammar.finish(&root, Thought::None))
}

fn refusal(schema: &Value) -> String {
    grammar(schema).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_kept_is_refused_by_name() {
    for (schema, message) in [
        (
            json!({"type": "string", "pattern": "a(?=b)"}),
            "# has a 'pattern' that cannot be kept: look-around, including look-ahead and \
             look-behind, is not supported",
        ),
        (
            json!({"type": "string", "pattern": "a", "maxLength": 3}),
            "# has more than one of 'pattern', 'format' and a length, which is not supported",
        ),
        (
            json!({"type": "number", "minimum": 1}),
            "# has the keyword 'minimum', which is not supported",
        ),
        (
            json!({"type": ["integer", "number"], "minimum": 1}),
            "# bounds numbers that are no integers, which is not supported",
        ),
        (
            json!({"type": "integer", "multipleOf": 2}),
            "# has the keyword 'multipleOf', which is not supported",
        ),
        (
            json!({"type": "integer", "minimum": 2, "maximum": 1}),
            "# has bounds between which there is no integer of up to 15 digits",
        ),
        (
            json!({"type": "objekt"}),
            "# has the type 'objekt', which there is not",
        ),
        (
            json!({"$ref": "#/$defs/a"}),
            "# refers to '#/$defs/a', which there is not",
        ),
        (
            json!({"$ref": "https://a.example"}),
            "# refers to another document, which is not supported",
        ),
        (
            json!({"type": "object", "required": ["a"]}),
            "# requires 'a', which is not declared",
        ),
        (
            json!({"type": "object", "properties": {"a": {"type": "string", "format": "email"}}}),
            "#/properties/a has the format \"email\", which is not supported",
        ),
        (
            json!({"type": "array", "items": 1}),
            "#/items must be an object",
        ),
        (
            json!({"type": "array", "minItems": 3, "maxItems": 2}),
            "# has a 'maxItems' below its 'minItems'",
        ),
        (
            json!({"type": "string", "maxLength": 5000}),
            "# has a 'maxLength' that is not from 0 to 1000",
        ),
        (
            json!({"enum": []}),
            "# has an 'enum' that is no list of values",
        ),
        (
            json!({"allOf": [true, true]}),
            "# has an 'allOf' of more than one schema, which is not supported",
        ),
    ] {
        assert_eq!(refusal(&schema), message, "{schema}");
    }
}

#[test]
fn a_schema_too_deep_is_refused() {
    let mut schema = json!({"type": "null"});
    for _ in 0..100 {
        schema = json!({"type": "array", "items": schema});
    }
    assert!(refusal(&schema).ends_with("is too deep or too large"));
}

#[test]
fn every_rule_is_defined_once_and_a_reference_may_be_its_own() {
    let schema = json!({
        "$defs": {"node": {"type": "object", "properties": {
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            "kind": {"enum": ["a", 1, null]},
            "tags": {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 3},
            "when": {"type": "string", "format": "date-time"},
        }, "required": ["next"], "additionalProperties": false}},
        "$ref": "#/$defs/node",
    });
    let text = grammar(&schema).unwrap();
    check_rules(&text);
}

#[test]
fn alternatives_differ_before_they_nest() {
    let object = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required});
    let any_of = |schemas: Value| grammar(&json!({"anyOf": schemas}));
    let (list, number) = (json!({"type": "array"}), json!({"type": "number"}));
    let kind = |name: &str| json!({"const": name});
    for schemas in [
        json!([list, number, {"type": "null"}, object(json!({"a": list}), &["a"])]),
        json!([
            object(json!({"a": list}), &["a"]),
            object(json!({"b": list}), &["b"])
        ]),
        json!([
            object(json!({"k": kind("x"), "a": list}), &["k"]),
            object(json!({"k": kind("y"), "a": list}), &["k"])
        ]),
        json!([
            object(json!({"a": number, "b": list}), &["a"]),
            object(json!({"a": number}), &["a"])
        ]),
        json!([{"type": "string"}, {"enum": ["a"]}]),
    ] {
        assert!(any_of(schemas.clone()).is_ok(), "{schemas}");
    }
    for schemas in [
        json!([list, {"type": "array", "items": number}]),
        json!([list, {}]),
        json!([{"type": "object"}, object(json!({"a": number}), &[])]),
        json!([
            object(json!({"a": list}), &["a"]),
            object(json!({"a": list, "b": number}), &["a"])
        ]),
        json!([
            object(json!({"x": number, "a": list}), &[]),
            object(json!({"a": list}), &[])
        ]),
        json!([
            object(json!({"k": kind("x"), "a": list}), &[]),
            object(json!({"k": kind("y"), "a": list}), &[])
        ]),
        json!([list, {"anyOf": [{"type": "null"}, list]}]),
        json!([{"$ref": "#"}, list]),
        json!([{"$ref": "#"}, {"$ref": "#"}]),
    ] {
        let message = any_of(schemas.clone()).expect_err("ambiguous").to_string();
        assert!(message.starts_with("#/anyOf has "), "{schemas}: {message}");
    }
}

#[test]
fn one_of_is_kept_where_no_value_satisfies_two() {
    let one_of =
        |schemas: Value| grammar(&json!({"$defs": {"n": {"type": "number"}}, "oneOf": schemas}));
    let object = |kind: Value, required: &[&str]| json!({"type": "object", "properties": {"kind": kind, "x": {"type": "array"}}, "required": required});
    for schemas in [
        json!([{"type": "null"}]),
        json!([{"type": "null"}, {"type": "integer", "minimum": 1}, {"type": ["string", "array"]}]),
        json!([{"const": 1}, {"enum": [2, "a"]}, {"const": "b"}]),
        json!([{"$ref": "#/$defs/n"}, {"type": "string"}]),
        json!([
            object(json!({"const": "a"}), &["kind"]),
            object(json!({"enum": ["b", "c"]}), &["kind"])
        ]),
    ] {
        let text = one_of(schemas.clone()).unwrap_or_else(|error| panic!("{schemas}: {error}"));
        check_rules(&text);
    }
    for schemas in [
        json!([{"type": "integer"}, {"type": "number"}]),
        json!([{"$ref": "#/$defs/n"}, {"type": "integer"}]),
        json!([{"const": 1}, {"const": 1.0}]),
        json!([{"type": "string"}, {"const": "a"}]),
        json!([{"type": "string"}, {}]),
        json!([true, {"type": "string"}]),
        json!([
            object(json!({"const": "a"}), &["kind"]),
            object(json!({"const": "b"}), &[])
        ]),
        json!([
            object(json!({"const": "a"}), &["kind"]),
            object(json!({"const": "a"}), &["kind"])
        ]),
        json!([{"anyOf": [{"type": "string"}]}, {"type": "null"}]),
    ] {
        let error = one_of(schemas.clone()).expect_err("ambiguous").to_string();
        assert!(error.starts_with("#/oneOf has "), "{schemas}: {error}");
    }
}

/// The rules that a body refers to: words outside of literals, classes and counts.
fn references(body: &str) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    let mut word = String::new();
    let mut end = None;
    let mut characters = body.chars();
    while let Some(character) = characters.next() {
        if let Some(closing) = end {
            match character {
                '\\' => drop(characters.next()),
                _ if character == closing => end = None,
                _ => {}
            }
            continue;
        }
        if character.is_ascii_alphanumeric() || character == '-' {
            word.push(character);
            continue;
        }
        words.insert(std::mem::take(&mut word));
        end = match character {
            '"' => Some('"'),
            '[' => Some(']'),
            '{' => Some('}'),
            _ => None,
        };
    }
    words.insert(word);
    words.remove("");
    words
}

/// Every rule is defined once, has a body, and refers to rules that there are.
fn check_rules(text: &str) {
    let rules: Vec<_> = text
        .lines()
        .map(|line| line.split_once(" ::= ").expect("a rule"))
        .collect();
    let names: BTreeSet<&str> = rules.iter().map(|(name, _)| *name).collect();
    assert_eq!(names.len(), rules.len(), "a rule twice\n{text}");
    for (name, body) in &rules {
        assert!(!body.trim().is_empty(), "{name} is empty\n{text}");
        for reference in references(body) {
            assert!(
                names.contains(reference.as_str()),
                "{name} needs '{reference}'\n{text}"
            );
        }
    }
}

/// JSON that looks like a schema, mostly a wrong one.
fn schema_like() -> impl Strategy<Value = Value> {
    const KEYS: &[&str] = &[
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "minItems",
        "maxItems",
        "enum",
        "const",
        "anyOf",
        "oneOf",
        "allOf",
        "minimum",
        "exclusiveMaximum",
        "$ref",
        "$defs",
        "minLength",
        "maxLength",
        "format",
        "pattern",
        "title",
        "a",
        "\"]\n",
    ];
    const WORDS: &[&str] = &[
        "object",
        "array",
        "string",
        "integer",
        "null",
        "date",
        "^[^a]{2,}|\"(b|\\d)?$",
        "#",
        "#/$defs/a",
        "a",
        "\"]\n",
    ];
    let word = || proptest::sample::select(WORDS);
    let leaf = prop_oneof![
        word().prop_map(Value::from),
        (0u64..1200).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(5, 60, 5, move |inner| {
        let members = (proptest::sample::select(KEYS), inner.clone());
        let typed = (word(), prop::collection::vec(members, 0..5)).prop_map(|(kind, members)| {
            let mut object: Map<String, Value> =
                [("type".to_owned(), json!(kind))].into_iter().collect();
            object.extend(
                members
                    .into_iter()
                    .map(|(key, value)| (key.to_owned(), value)),
            );
            Value::Object(object)
        });
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(Value::from),
            typed.boxed()
        ]
    })
}

proptest! {
    #[test]
    fn whatever_is_sent_becomes_rules_or_an_error(schema in schema_like()) {
        if let Ok(text) = grammar(&schema) {
            check_rules(&text);
        }
    }
}
