use serde_json::json;

use super::*;
use crate::grammar::Thought;

#[test]
fn families_are_told_by_their_templates() {
    for (template, support) in [
        ("{{ messages }}", Support::None),
        ("tools … <tool_call>", Support::Calls(Format::Hermes)),
        ("tools <tool_call> <function=", Support::UnknownFormat),
        (
            "tools <tool_call> <function= <parameter=",
            Support::Calls(Format::Coder),
        ),
        ("tools <tool_call> <arg_key>", Support::UnknownFormat),
        (
            "tools <tool_call> <arg_key> <arg_value>",
            Support::Calls(Format::Glm),
        ),
        ("tools [TOOL_CALLS]", Support::Calls(Format::Mistral)),
        (
            "tools [TOOL_CALLS] [ARGS]",
            Support::Calls(Format::MistralArgs),
        ),
        ("tools <|tool_call|>", Support::Calls(Format::Bar)),
        ("tools <|python_tag|>", Support::Calls(Format::Llama)),
        ("tools", Support::UnknownFormat),
    ] {
        assert_eq!(Support::of(template), support, "{template}");
    }
}

#[test]
fn only_strict_functions_insist_on_their_schema() {
    let odd =
        json!({"type": "object", "properties": {"a": {"type": "string", "pattern": "(?=x)"}}});
    let tool = |strict| Tool {
        name: "f".to_owned(),
        parameters: Some(odd.clone()),
        strict,
        declaration: Value::Null,
    };
    let (loose, strict) = (tool(false), tool(true));
    let root = |tool: &Tool| Format::Hermes.required(&mut Grammar::new(), &[tool], false);
    assert!(root(&loose).is_ok());
    let error = root(&strict).unwrap_err().to_string();
    assert!(error.contains("'pattern'"), "{error}");
}

#[test]
fn a_call_is_written_as_the_family_writes_it() {
    let tool = Tool {
        name: "f".to_owned(),
        parameters: None,
        strict: false,
        declaration: Value::Null,
    };
    for (format, begin, call) in [
        (
            Format::Hermes,
            r#""<tool_call>""#,
            r#""{\"name\": \"f\", \"arguments\": " object "}""#,
        ),
        (
            Format::Llama,
            r#""""#,
            r#""{\"name\": \"f\", \"parameters\": " object "}""#,
        ),
        (
            Format::Mistral,
            r#""[TOOL_CALLS]""#,
            r#""{\"name\": \"f\", \"arguments\": " object "}""#,
        ),
        (
            Format::MistralArgs,
            r#""[TOOL_CALLS]""#,
            r#""f[ARGS]" object"#,
        ),
        (
            Format::Bar,
            r#""<|tool_call|>""#,
            r#""{\"name\": \"f\", \"arguments\": " object "}""#,
        ),
    ] {
        let mut grammar = Grammar::new();
        let root = format.required(&mut grammar, &[&tool], true).unwrap();
        let text = grammar.finish(&root, Thought::None);
        assert!(
            text.contains(&format!("::= {begin} ")),
            "{format:?}\n{text}"
        );
        assert!(text.contains(call), "{format:?}\n{text}");
    }
}
