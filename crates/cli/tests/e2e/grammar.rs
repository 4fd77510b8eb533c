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
        (200, json!({"type": "string", "pattern": "^.{0,1000}$"})),
        (
            200,
            json!({"type": "string", "pattern": "(a|aa){1,300}[^\\u0100-\u{10FFFD}\"]?b|^\\S"}),
        ),
        (
            400,
            json!({"type": "string", "pattern": "((a{99}){99}){99}"}),
        ),
        (400, json!({"type": "string", "pattern": "(a*)*"})),
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

/// What each kind of rule allows is what comes out, to its end.
#[test]
fn schemas_are_kept_to_the_end() {
    let scratch = Scratch::new();
    let model = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let lab = Lab::start(scratch, &model, &["--nodes", "2", "--threads", "1"]);
    let object = |kind: &str, value: Value| {
        json!({"type": "object", "properties": {"kind": {"const": kind}, "v": value},
            "required": ["kind", "v"]})
    };
    let number = json!({"type": "integer", "minimum": -12, "exclusiveMaximum": 2345});
    let text = json!({"type": "string", "pattern": "^[a-c]{2}-\\d{2}(x|\"y\\\\)?$"});
    let schema = json!({"oneOf": [object("number", number), object("text", text)]});
    let format = json!({"type": "json_schema", "json_schema": {"name": "x", "schema": schema}});
    for seed in 0..4 {
        let extra = json!({"response_format": format, "temperature": 1.5, "seed": seed});
        let (status, body) = post(lab.api(), &chat("Hello", 450, &extra));
        assert_eq!(status, 200, "{body}");
        assert_eq!(body["choices"][0]["finish_reason"], "stop", "{body}");
        let content = body["choices"][0]["message"]["content"].as_str();
        let item: Value = serde_json::from_str(content.expect("text")).expect("JSON");
        if item["kind"] == "number" {
            let number = item["v"].as_i64().expect("a number");
            assert!((-12..2345).contains(&number), "{item}");
            continue;
        }
        assert_eq!(item["kind"], "text", "{item}");
        let text = item["v"].as_str().expect("a string");
        let (head, rest) = text.split_at(5);
        let head: Vec<char> = head.chars().collect();
        let in_head = head[..2].iter().all(|c| ('a'..='c').contains(c))
            && head[2] == '-'
            && head[3..].iter().all(char::is_ascii_digit);
        assert!(in_head && ["", "x", "\"y\\"].contains(&rest), "{item}");
    }
    lab.end(Signal::TERM);
}

/// A call that must be made is made in the way of the model's family.
#[test]
fn calls_as_tags_are_made_by_the_grammar() {
    let parameters = json!({
        "type": "object",
        "properties": {
            "days": {"type": "integer", "minimum": 1, "maximum": 30},
            "exact": {"type": "boolean"},
            "unit": {"enum": ["C", "the other"]},
        },
        "required": ["days", "exact", "unit"],
    });
    let tools = json!([{"type": "function",
        "function": {"name": "plan", "parameters": parameters, "strict": true}}]);
    let extra = json!({"tools": tools, "tool_choice": "required", "parallel_tool_calls": false,
        "temperature": 1.5, "seed": 1});
    for marks in ["<function=<parameter=", "<arg_key><arg_value>"] {
        let scratch = Scratch::new();
        let model = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
        let template = scratch.path("template.jinja");
        let text =
            format!("{{% if tools %}}<tool_call>{marks}{{% endif %}}{{{{ messages[0].content }}}}");
        std::fs::write(&template, text).expect("a template");
        let path = template.to_str().expect("a path");
        let args = ["--nodes", "2", "--threads", "1", "--chat-template", path];
        let lab = Lab::start(scratch, &model, &args);
        let (status, body) = post(lab.api(), &chat("Hello", 450, &extra));
        assert_eq!(status, 200, "{body}");
        let choice = &body["choices"][0];
        assert_eq!(choice["finish_reason"], "tool_calls", "{body}");
        let call = &choice["message"]["tool_calls"][0]["function"];
        assert_eq!(call["name"], "plan", "{body}");
        let arguments = call["arguments"].as_str().expect("arguments");
        let arguments: Value = serde_json::from_str(arguments).expect("JSON");
        assert!((1..=30).contains(&arguments["days"].as_u64().expect("days")));
        assert!(arguments["exact"].is_boolean(), "{body}");
        assert!(["C", "the other"].contains(&arguments["unit"].as_str().expect("a unit")));
        lab.end(Signal::TERM);
    }
}
