//! Schemas from strangers: each is kept or refused, and costs nobody else anything.

use brigade_gguf::testing::TinyModel;
use serde_json::{Map, Value, json};

use crate::support::{Lab, Scratch, Signal, chat, post};

fn with_schema(schema: &Value) -> Value {
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    chat("Hello", 6, &json!({"response_format": format}))
}

/// An object with this many properties, none of which must be there.
fn wide(count: usize) -> Value {
    let properties: Map<String, Value> = (0..count)
        .map(|index| (format!("p{index}"), json!({"type": "null"})))
        .collect();
    json!({"type": "object", "properties": properties})
}

/// Arrays within arrays.
fn deep(depth: usize) -> Value {
    (0..depth).fold(
        json!({"type": "null"}),
        |inner, _| json!({"type": "array", "items": inner, "minItems": 1}),
    )
}

/// Each level has two ways into the next: what is followed doubles with each bracket.
fn doubling(levels: usize) -> Value {
    let mut definitions = Map::new();
    for level in 0..levels {
        let next = json!({"$ref": format!("#/$defs/l{}", level + 1)});
        let way =
            |most: u32| json!({"type": "array", "items": next, "minItems": 1, "maxItems": most});
        definitions.insert(format!("l{level}"), json!({"anyOf": [way(2), way(3)]}));
    }
    definitions.insert(format!("l{levels}"), json!({"type": "null"}));
    json!({"$ref": "#/$defs/l0", "$defs": definitions})
}

#[test]
fn hostile_schemas_are_kept_or_refused() {
    let scratch = Scratch::new();
    let model = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let lab = Lab::start(scratch, &model, &["--nodes", "2", "--threads", "1"]);
    let usual = chat("Hello", 6, &json!({}));
    let expected = post(lab.api(), &usual);
    assert_eq!(expected.0, 200, "{expected:?}");

    let names = json!({"\"": {"type": "null"}, "\\\n\u{1}\u{0}é\u{1F600}": {"const": "\"\\\u{0}"}});
    for (status, schema) in [
        (200, json!({"type": "object"})),
        (200, wide(300)),
        (400, wide(5000)),
        (200, deep(30)),
        (400, deep(60)),
        (400, doubling(40)),
        (400, json!({"$ref": "#"})),
        (400, json!({"anyOf": [{"$ref": "#"}, {"$ref": "#"}]})),
        (200, json!({"type": "array", "items": {"$ref": "#"}})),
        (200, json!({"type": "string", "maxLength": 1000})),
        (200, json!({"enum": [{"a": [1, "]"]}, "\u{1F600}", null]})),
        (
            200,
            json!({"type": "object", "properties": names, "required": ["\""]}),
        ),
    ] {
        let (actual, body) = post(lab.api(), &with_schema(&schema));
        let shown: String = schema.to_string().chars().take(200).collect();
        assert_eq!(actual, status, "{shown}: {body}");
    }
    // More repetitions than llama.cpp's parser takes, which its child finds out.
    let inner = json!({"type": "array", "items": {"type": "null"}, "maxItems": 1000});
    let many = json!({"type": "array", "items": inner, "maxItems": 1000});
    let (status, body) = post(lab.api(), &with_schema(&many));
    assert!(status == 200 || status == 400, "{body}");

    // The same stages and the same tokenizer still answer, and as before.
    let (status, body) = post(lab.api(), &usual);
    assert_eq!((status, &body["choices"]), (200, &expected.1["choices"]));
    lab.end(Signal::TERM);
}
