//! Grammars in llama.cpp's notation (GBNF), which the last stage keeps answers to.

#[cfg(test)]
pub(crate) mod derive;
mod schema;

use std::fmt::Write;

use serde_json::Value;

pub(crate) use schema::{SchemaError, is_annotation};

/// White space between the parts of a JSON value: as llama.cpp's own converter bounds it, so that
/// a model cannot go on with it for ever.
const SPACE: &str = r#"| " " | "\n"{1,2} [ \t]{0,20}"#;

/// Rules that every grammar for JSON has. A surrogate stands only in a pair, and a number's
/// exponent stays within a double's.
const JSON: &[(&str, &str)] = &[
    ("space", SPACE),
    ("hex", "[0-9a-fA-F]"),
    ("unit", "[0-9a-cA-CefEF] hex{3} | [dD] [0-7] hex{2}"),
    ("pair", r#"[dD] [89abAB] hex{2} "\\u" [dD] [c-fC-F] hex{2}"#),
    (
        "char",
        r#"[^"\\\x00-\x1F\x7F] | "\\" (["\\/bfnrt] | "u" (unit | pair))"#,
    ),
    ("string", r#""\"" char* "\"""#),
    ("integer", r#""-"? ("0" | [1-9] [0-9]{0,15})"#),
    (
        "number",
        r#"integer ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,2})?"#,
    ),
    ("boolean", r#""true" | "false""#),
    ("null", r#""null""#),
    ("value", "object | array | string | number | boolean | null"),
    ("member", r#"string space ":" space value"#),
    (
        "object",
        r#""{" space (member space ("," space member space)*)? "}""#,
    ),
    (
        "array",
        r#""[" space (value space ("," space value space)*)? "]""#,
    ),
];

/// A grammar in the making.
#[derive(Debug)]
pub(crate) struct Grammar {
    rules: Vec<(String, String)>,
}

impl Grammar {
    /// With the rules of JSON and without a root.
    pub(crate) fn new() -> Self {
        let rules = JSON
            .iter()
            .map(|(name, body)| ((*name).to_owned(), (*body).to_owned()));
        Self {
            rules: rules.collect(),
        }
    }

    /// Adds a rule under a name that begins like `name`, and returns it.
    pub(crate) fn add(&mut self, name: &str, body: impl Into<String>) -> String {
        let name = format!("{name}-{}", self.rules.len());
        self.rules.push((name.clone(), body.into()));
        name
    }

    /// The name of a rule for JSON that matches a schema.
    pub(crate) fn schema(&mut self, schema: &Value) -> Result<String, SchemaError> {
        schema::convert(self, schema, schema)
    }

    /// The same for a schema within a document, from which its references start.
    pub(crate) fn schema_within(
        &mut self,
        root: &Value,
        schema: &Value,
    ) -> Result<String, SchemaError> {
        schema::convert(self, root, schema)
    }

    /// The whole grammar; an answer is `root`. Where the prompt has opened a thought
    /// (`within_thought`), that is finished first, freely.
    pub(crate) fn finish(mut self, root: &str, thought: Thought) -> String {
        let root = match thought {
            Thought::None => root.to_owned(),
            Thought::Open => {
                let thought = self.until("</think>");
                format!("{thought} [ \\n]{{0,4}} {root}")
            }
        };
        let mut text = format!("root ::= {root}\n");
        for (name, body) in &self.rules {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name} ::= {body}");
        }
        text
    }

    /// A rule for any text up to the first `mark` and with it.
    pub(crate) fn until(&mut self, mark: &str) -> String {
        self.scan(&[(mark, Some(""))], false)
    }

    /// The same for a text in which `never` does not come.
    pub(crate) fn until_without(&mut self, mark: &str, never: &str) -> String {
        self.scan(&[(mark, Some("")), (never, None)], false)
    }

    /// A rule for any text without `mark`, or for one up to it, then the rule `then`.
    pub(crate) fn may(&mut self, mark: &str, then: &str) -> String {
        self.scan(&[(mark, Some(then))], true)
    }

    /// Any text up to the first of some marks and what follows it; nothing where it must not come.
    /// One rule for each part of a mark that the text may have just shown. The marks begin with the
    /// same character, which does not come again in them, and none begins another.
    fn scan(&mut self, marks: &[(&str, Option<&str>)], may_end: bool) -> String {
        let base = self.rules.len();
        let mut shown: Vec<&str> = Vec::new();
        for (mark, _) in marks {
            for (end, _) in mark.char_indices() {
                if !shown.contains(&&mark[..end]) {
                    shown.push(&mark[..end]);
                }
            }
        }
        let state = |index: usize| format!("scan-{}", base + index);
        for part in &shown {
            let (mut ways, mut not) = (Vec::new(), Vec::new());
            for (mark, then) in marks {
                let Some(next) = mark.strip_prefix(part).and_then(|rest| rest.chars().next())
                else {
                    continue;
                };
                if not.contains(&next) {
                    continue;
                }
                not.push(next);
                let longer = &mark[..part.len() + next.len_utf8()];
                let follows = match shown.iter().position(|other| *other == longer) {
                    Some(index) => Some(state(index)),
                    None => then.map(str::to_owned),
                };
                if let Some(follows) = follows {
                    ways.push(format!("{} {follows}", literal(&next.to_string())));
                }
            }
            let first = marks.first().and_then(|(mark, _)| mark.chars().next());
            if let Some(first) = first.filter(|first| !not.contains(first)) {
                ways.push(format!("{} {}", literal(&first.to_string()), state(1)));
                not.push(first);
            }
            let not: String = not.into_iter().map(class).collect();
            ways.push(format!("[^{not}] {}", state(0)));
            if may_end {
                ways.push("\"\"".to_owned());
            }
            let name = format!("scan-{}", self.rules.len());
            self.rules.push((name, ways.join(" | ")));
        }
        state(0)
    }
}

/// Whether the prompt leaves the model in the middle of a thought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Thought {
    None,
    Open,
}

/// A character within a class.
fn class(character: char) -> String {
    match character {
        ']' | '\\' | '^' | '-' => format!("\\x{:02X}", u32::from(character)),
        _ => character.to_string(),
    }
}

/// A text as a GBNF literal.
pub(crate) fn literal(text: &str) -> String {
    let mut result = String::with_capacity(text.len() + 2);
    result.push('"');
    for character in text.chars() {
        match character {
            '"' => result.push_str("\\\""),
            '\\' => result.push_str("\\\\"),
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            // Neither is taken in a literal as it is.
            control if control.is_control() => {
                let _ = write!(result, "\\u{:04X}", u32::from(control));
            }
            other => result.push(other),
        }
    }
    result.push('"');
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_escaped() {
        assert_eq!(literal("a\"b\\c\n\u{1}é"), r#""a\"b\\c\n\u0001é""#);
    }

    #[test]
    fn text_up_to_a_mark_is_a_small_machine() {
        let mut grammar = Grammar::new();
        let base = JSON.len();
        let root = grammar.until("</x");
        assert_eq!(root, format!("scan-{base}"));
        let text = grammar.finish(&root, Thought::None);
        let states: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("scan"))
            .collect();
        let [a, b, c] = [base, base + 1, base + 2].map(|state| format!("scan-{state}"));
        assert_eq!(
            states,
            [
                format!(r#"{a} ::= "<" {b} | [^<] {a}"#),
                format!(r#"{b} ::= "/" {c} | "<" {b} | [^/<] {a}"#),
                format!(r#"{c} ::= "x"  | "<" {b} | [^x<] {a}"#),
            ]
        );
    }
}
