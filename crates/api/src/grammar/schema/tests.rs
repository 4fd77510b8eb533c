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
            json!({"type": "string", "pattern": "a+"}),
            "# has the keyword 'pattern', which is not supported",
        ),
        (
            json!({"type": "integer", "minimum": 1}),
            "# has the keyword 'minimum', which is not supported",
        ),
        (
            json!({"oneOf": [{"type": "null"}]}),
            "# has the keyword 'oneOf', which is not supported",
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
    let mut names = std::collections::BTreeSet::new();
    for line in text.lines() {
        let (name, body) = line.split_once(" ::= ").unwrap();
        assert!(names.insert(name), "{name} twice");
        assert!(!body.trim().is_empty(), "{line}");
    }
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
