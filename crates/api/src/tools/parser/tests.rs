use proptest::prelude::*;

use super::*;

fn tool(name: &str) -> Tool {
    Tool {
        name: name.to_owned(),
        parameters: None,
        strict: false,
        declaration: Value::Null,
    }
}

/// The text and the calls of an answer, the same whatever pieces it comes in.
fn read_most(format: Format, most: usize, answer: &str) -> (String, Vec<(String, String)>) {
    let characters: Vec<char> = answer.chars().collect();
    let mut results = (1..=characters.len()).map(|size| {
        let mut parser = Parser::new(format, &[tool("add"), tool("now")], most);
        let mut parts = Vec::new();
        for piece in characters.chunks(size) {
            parser.push(&piece.iter().collect::<String>(), &mut parts);
        }
        parser.finish(&mut parts);
        let (mut text, mut calls) = (String::new(), Vec::new());
        for part in parts {
            match part {
                Part::Text(more) => text.push_str(&more),
                Part::Call(call) => calls.push((call.name, call.arguments)),
            }
        }
        assert_eq!(parser.has_calls(), !calls.is_empty());
        (text, calls)
    });
    let first = results.next().unwrap();
    assert!(results.all(|other| other == first), "{answer:?}");
    first
}

fn read(format: Format, answer: &str) -> (String, Vec<(String, String)>) {
    read_most(format, usize::MAX, answer)
}

fn call(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

#[test]
fn hermes() {
    let add = call("add", r#"{"b":1,"a":2}"#);
    let one = "<tool_call>\n{\"name\": \"add\", \"arguments\": {\"b\": 1, \"a\": 2}}\n</tool_call>";
    assert_eq!(
        read(Format::Hermes, one),
        (String::new(), vec![add.clone()])
    );
    let both = format!("I add.\n\n{one}\n<tool_call>{{\"name\": \"now\"}}</tool_call>\n");
    assert_eq!(
        read(Format::Hermes, &both),
        ("I add.".to_owned(), vec![add.clone(), call("now", "{}")])
    );
    assert_eq!(
        read_most(Format::Hermes, 1, &both),
        ("I add.".to_owned(), vec![add.clone()])
    );
    // Cut off before the mark, and yet complete.
    assert_eq!(
        read(Format::Hermes, one.trim_end_matches("\n</tool_call>")),
        (String::new(), vec![add])
    );
}

#[test]
fn what_cannot_be_read_stays_text() {
    for text in [
        "no call at all \n",
        "a < b <tool",
        "<tool_call>{\"name\": 1}</tool_call> and on",
        "<tool_call>{\"name\": \"add\", \"argum",
        "<tool_call></tool_call>",
    ] {
        assert_eq!(read(Format::Hermes, text), (text.to_owned(), vec![]));
    }
    for text in ["[TOOL_CALLS]", "[TOOL_CALLS][{]", "[TOOL_CALLS]add"] {
        assert_eq!(read(Format::Mistral, text), (text.to_owned(), vec![]));
    }
}

#[test]
fn llama() {
    let add = call("add", r#"{"a":1}"#);
    for answer in [
        r#"{"name": "add", "parameters": {"a": 1}}"#,
        r#"<|python_tag|>{"type": "function", "name": "add", "parameters": {"a": 1}}"#,
        r#"  {"name": "add", "arguments": "{\"a\":1}"}"#,
    ] {
        assert_eq!(
            read(Format::Llama, answer),
            (String::new(), vec![add.clone()]),
            "{answer}"
        );
    }
    let two = r#"{"name": "add", "parameters": {"a": 1}}; {"name": "now", "parameters": {}}"#;
    assert_eq!(read(Format::Llama, two).1, [add, call("now", "{}")]);
    // JSON that is an answer, and a tool that nobody declared.
    for text in [
        r#"{"answer": 42}"#,
        r#"{"name": "rm", "parameters": {}}"#,
        "Well, {}",
    ] {
        assert_eq!(read(Format::Llama, text), (text.to_owned(), vec![]));
    }
}

#[test]
fn mistral_and_bar() {
    let calls = vec![call("add", r#"{"a":1}"#), call("now", "{}")];
    for answer in [
        r#"[TOOL_CALLS][{"name": "add", "arguments": {"a": 1}}, {"name": "now", "arguments": {}}]"#,
        r#"[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]now[ARGS]{}"#,
        r#"[TOOL_CALLS]add{"a": 1}[TOOL_CALLS]now{}"#,
        r#"[TOOL_CALLS]add[CALL_ID]123[ARGS]{"a": 1}[TOOL_CALLS]now[ARGS]{}"#,
    ] {
        assert_eq!(
            read(Format::Mistral, answer),
            (String::new(), calls.clone()),
            "{answer}"
        );
    }
    let bar =
        r#"<|tool_call|>[{"name": "add", "arguments": {"a": 1}}, {"name": "now"}]<|/tool_call|>"#;
    assert_eq!(read(Format::Bar, bar), (String::new(), calls));
}

const FORMATS: [Format; 7] = [
    Format::Hermes,
    Format::Coder,
    Format::Glm,
    Format::Llama,
    Format::Mistral,
    Format::MistralArgs,
    Format::Bar,
];

/// Pieces of calls of all families, in any order.
fn fragments() -> impl Strategy<Value = String> {
    const FRAGMENTS: &[&str] = &[
        "<tool_call>",
        "</tool_call>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "<|tool_call|>",
        "<|python_tag|>",
        "{\"name\": \"add\", \"arguments\": {}}",
        "{\"name\": \"add\",",
        "<function=add>",
        "</function>",
        "<parameter=a>",
        "</parameter>",
        "<arg_key>",
        "</arg_key>",
        "<arg_value>",
        "</arg_value>",
        "{",
        "}",
        "[",
        "]",
        "add",
        "\"",
        " ",
        "\n",
        "<",
        "é",
        "text",
        ";",
    ];
    prop::collection::vec(proptest::sample::select(FRAGMENTS), 0..12).prop_map(|f| f.concat())
}

proptest! {
    /// An answer without a call comes out as it went in, however it was cut.
    #[test]
    fn nothing_is_lost(answer in fragments()) {
        for format in FORMATS {
            if answer.is_empty() {
                continue;
            }
            let (text, calls) = read(format, &answer);
            if calls.is_empty() {
                prop_assert_eq!(text, &answer[..]);
            } else {
                prop_assert!(calls.iter().all(|(name, _)| name == "add"));
            }
        }
    }
}
