//! Chat templates of several families, rendered here and by Jinja2 (`templates/expected.py`).

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use brigade_api::{ChatMessage, ChatTemplate, Role, TemplateError};
use serde::Deserialize;

#[derive(Deserialize)]
struct Document {
    now: u64,
    conversations: BTreeMap<String, Vec<Message>>,
    expected: BTreeMap<String, BTreeMap<String, Expected>>,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
    name: Option<String>,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expected {
    Prompt(String),
    Refused(String),
}

fn message(role: Role, content: &str) -> ChatMessage {
    ChatMessage::new(role, content)
}

impl From<&Message> for ChatMessage {
    fn from(of: &Message) -> Self {
        let role = match of.role.as_str() {
            "system" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            other => panic!("{other}"),
        };
        Self {
            name: of.name.clone(),
            ..message(role, &of.content)
        }
    }
}

#[test]
fn prompts_equal_jinja2() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates");
    let text = fs::read_to_string(folder.join("expected.json")).unwrap();
    let document: Document = serde_json::from_str(&text).unwrap();
    let now = UNIX_EPOCH + Duration::from_secs(document.now);
    let templates = fs::read_dir(&folder)
        .unwrap()
        .filter(|entry| {
            let path = entry.as_ref().unwrap().path();
            path.extension().is_some_and(|ext| ext == "jinja")
        })
        .count();
    assert_eq!(
        document.expected.len(),
        templates,
        "run tests/templates/expected.py"
    );
    for (name, results) in &document.expected {
        let source = fs::read_to_string(folder.join(format!("{name}.jinja"))).unwrap();
        let template = ChatTemplate::new(&source, "<s>", "</s>").unwrap();
        for (conversation, expected) in results {
            let messages: Vec<_> = document.conversations[conversation]
                .iter()
                .map(ChatMessage::from)
                .collect();
            let rendered = match template.render(&messages, &[], None, now) {
                Ok(prompt) => Expected::Prompt(prompt),
                Err(TemplateError::Refused(message)) => Expected::Refused(message),
                Err(error) => panic!("{name} on '{conversation}': {error}"),
            };
            assert_eq!(&rendered, expected, "{name} on '{conversation}'");
        }
    }
}

#[test]
fn a_broken_template_is_refused_with_its_place() {
    let error = ChatTemplate::new("{% for %}", "", "").unwrap_err();
    assert!(matches!(error, TemplateError::Broken(_)));
    assert!(
        error.to_string().contains("line 1") || error.to_string().contains(":1"),
        "{error}"
    );
}

#[test]
fn a_failing_template_says_why() {
    let template = ChatTemplate::new("{{ messages[7].content.x }}", "", "").unwrap();
    let error = template
        .render(&[message(Role::User, "a")], &[], None, UNIX_EPOCH)
        .unwrap_err();
    assert!(matches!(error, TemplateError::Failed(_)), "{error}");
}

#[test]
fn hostile_templates_end() {
    let bounded = |source: &str| {
        let template = ChatTemplate::new(source, "", "").unwrap();
        template
            .render(&[message(Role::User, "a")], &[], None, SystemTime::now())
            .unwrap_err()
    };
    let endless = bounded(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = b %}{% endfor %}{% endfor %}",
    );
    assert!(matches!(endless, TemplateError::TooExpensive), "{endless}");
    let verbose = bounded("{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}");
    assert!(matches!(verbose, TemplateError::TooExpensive), "{verbose}");
    let recursive = bounded("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}");
    assert!(matches!(recursive, TemplateError::Failed(_)), "{recursive}");
    assert!(ChatTemplate::new(&"{% if 1 %}".repeat(100_000), "", "").is_err());
    assert!(ChatTemplate::new(&format!("{{{{ {} }}}}", "(".repeat(100_000)), "", "").is_err());
}
