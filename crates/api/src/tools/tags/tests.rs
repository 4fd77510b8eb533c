use serde_json::json;

use super::*;
use crate::{
    grammar::{Grammar, Thought, derive::derive},
    tools::{Parser, parser::Part},
};

fn tool(strict: bool, parameters: Value) -> Tool {
    Tool {
        name: "plan".to_owned(),
        parameters: Some(parameters),
        strict,
        declaration: Value::Null,
    }
}

fn schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "days": {"type": "integer", "minimum": 1, "maximum": 30},
            "factor": {"type": "number"},
            "exact": {"type": "boolean"},
            "unit": {"enum": ["C", "the other"]},
            "stops": {"type": "array", "items": {"$ref": "#/$defs/stop"}, "minItems": 1},
            "note": {"type": ["string", "null"]},
            "city": {"type": "string"},
        },
        "required": ["days", "unit", "stops"],
        "$defs": {"stop": {"type": "object", "properties": {"at": {"type": "integer"}}}},
    })
}

/// An answer in both dialects with these arguments.
fn written(arguments: &[(&str, &str)]) -> [(Format, String); 2] {
    let all = |write: fn(&str, &str) -> String| -> String {
        let texts: Vec<_> = arguments
            .iter()
            .map(|(key, value)| write(key, value))
            .collect();
        texts.concat()
    };
    let coder = all(|key, value| format!("<parameter={key}>\n{value}\n</parameter>\n"));
    let glm =
        all(|key, value| format!("<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n"));
    let coder = format!("<tool_call>\n<function=plan>\n{coder}</function>\n</tool_call>");
    [
        (Format::Coder, coder),
        (Format::Glm, format!("<tool_call>plan\n{glm}</tool_call>")),
    ]
}

/// The text and the arguments of the calls of an answer, the same whatever pieces it comes in.
fn read_all(format: Format, answer: &str, tool: &Tool) -> (String, Vec<Value>) {
    let characters: Vec<char> = answer.chars().collect();
    let mut results = [1, 2, 7, usize::MAX].into_iter().map(|size| {
        let mut parser = Parser::new(format, std::slice::from_ref(tool), usize::MAX);
        let mut parts = Vec::new();
        for piece in characters.chunks(size.min(characters.len())) {
            parser.push(&piece.iter().collect::<String>(), &mut parts);
        }
        parser.finish(&mut parts);
        let (mut text, mut calls) = (String::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text(more) => text.push_str(&more),
                Part::Call(call) => calls.push(serde_json::from_str(&call.arguments).unwrap()),
            }
        }
        (text, calls)
    });
    let first = results.next().unwrap();
    assert!(results.all(|other| other == first), "{answer:?}");
    first
}

#[test]
fn values_are_what_the_schema_says() {
    let tool = tool(false, schema());
    let arguments = [
        ("days", "3"),
        ("factor", "1.5"),
        ("exact", "true"),
        ("unit", "the other"),
        ("stops", r#"[{"at": 1}]"#),
        ("note", "null"),
        ("city", "5"),
        ("undeclared", "6"),
    ];
    let expected = json!({"days": 3, "factor": 1.5, "exact": true, "unit": "the other",
        "stops": [{"at": 1}], "note": null, "city": "5", "undeclared": "6"});
    for (format, answer) in written(&arguments) {
        let (text, calls) = read_all(format, &format!("Well.\n{answer}\n{answer}"), &tool);
        assert_eq!(
            (text.as_str(), calls.as_slice()),
            ("Well.", &[expected.clone(), expected.clone()][..]),
            "{format:?}"
        );
    }
    // Strings with lines, quotes, tags and nothing; a word of Python's.
    for value in [
        "a\n\n b ",
        "\"q\"",
        "<p>\n</parameter> </arg_value>x",
        "",
        "True",
        "None",
        "null",
    ] {
        for (format, answer) in written(&[("city", value), ("exact", "False")]) {
            let expected = json!({"city": value, "exact": false});
            assert_eq!(
                read_all(format, &answer, &tool),
                (String::new(), vec![expected]),
                "{answer}"
            );
        }
    }
    for (format, answer) in written(&[]) {
        assert_eq!(
            read_all(format, &answer, &tool),
            (String::new(), vec![json!({})])
        );
    }
    let tight = "<tool_call>plan<arg_key>days</arg_key><arg_value>3</arg_value></tool_call>";
    assert_eq!(read_all(Format::Glm, tight, &tool).1, [json!({"days": 3})]);
}

#[test]
fn what_cannot_be_read_stays_text() {
    let tool = tool(false, schema());
    for (key, value) in [
        ("days", "many"),
        ("days", "1.5"),
        ("exact", "1"),
        ("unit", "K"),
        ("stops", "[{]"),
    ] {
        for (format, answer) in written(&[("city", "Oslo"), (key, value)]) {
            assert_eq!(
                read_all(format, &answer, &tool),
                (answer.clone(), vec![]),
                "{format:?}"
            );
        }
    }
    for (format, answer) in [
        (
            Format::Coder,
            "<tool_call>\n<function=other>\n</function>\n</tool_call>",
        ),
        (
            Format::Coder,
            "<tool_call>\n<function=plan>\n<parameter=days>\n3\n</function>\n</tool_call>",
        ),
        (
            Format::Coder,
            "<tool_call>\n<function=plan>\n<parameter=days>\n3\n</parameter>",
        ),
        (Format::Coder, "<tool_call>{\"name\": \"plan\"}</tool_call>"),
        (Format::Glm, "<tool_call>other</tool_call>"),
        (
            Format::Glm,
            "<tool_call>plan<arg_key>days</arg_key></tool_call>",
        ),
        (
            Format::Glm,
            "<tool_call>plan\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>",
        ),
    ] {
        assert_eq!(read_all(format, answer, &tool), (answer.to_owned(), vec![]));
    }
}

/// What a call that must be made looks like, is read as one that keeps the schema.
#[test]
fn calls_by_the_grammar_keep_the_schema() {
    let strict = tool(true, schema());
    for format in [Format::Coder, Format::Glm] {
        let mut grammar = Grammar::new();
        let root = format.required(&mut grammar, &[&strict], true).unwrap();
        let text = grammar.finish(&root, Thought::None);
        let mut cities = 0;
        for seed in 1..300_u64 {
            let answer = derive(&text, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            let (rest, calls) = read_all(format, &answer, &strict);
            assert!(rest.is_empty() && !calls.is_empty(), "{answer}");
            for call in calls {
                assert!((1..=30).contains(&call["days"].as_u64().unwrap()), "{call}");
                assert!(["C", "the other"].contains(&call["unit"].as_str().unwrap()));
                assert!(!call["stops"].as_array().unwrap().is_empty());
                assert!(call.get("factor").is_none_or(Value::is_number), "{call}");
                assert!(call.get("exact").is_none_or(Value::is_boolean), "{call}");
                cities += usize::from(call.get("city").is_some_and(Value::is_string));
            }
        }
        assert!(cities > 0);
    }
}

#[test]
fn strict_functions_insist_on_what_tags_can_keep() {
    let property = |schema: Value| json!({"type": "object", "properties": {"a": schema}});
    for (parameters, reason) in [
        (
            property(json!({"type": "string", "maxLength": 3})),
            "bounds strings",
        ),
        (property(json!({"enum": ["<b>"]})), "bounds strings"),
        (
            property(json!({"anyOf": [{"enum": ["b"]}, {"type": "integer"}]})),
            "listed strings",
        ),
        (
            property(json!({"type": "number", "multipleOf": 2})),
            "'multipleOf'",
        ),
        (
            json!({"type": "object", "properties": {"a>": {"type": "null"}}}),
            "a name that",
        ),
        (
            json!({"anyOf": [{"type": "null"}]}),
            "not the schema of an object",
        ),
    ] {
        for format in [Format::Coder, Format::Glm] {
            let root = |strict| {
                let tool = tool(strict, parameters.clone());
                format.required(&mut Grammar::new(), &[&tool], false)
            };
            assert!(root(false).is_ok(), "{parameters}");
            let error = root(true).expect_err("refused").to_string();
            assert!(error.contains(reason), "{parameters}: {error}");
        }
    }
}
