//! The `tojson` filter as the Hugging Face libraries define it: Python's `json.dumps` with
//! `ensure_ascii=False` and no HTML escapes.

use std::fmt::Write as _;
use std::io::{self, Write};

use minijinja::{Error, ErrorKind, Value, value::Kwargs};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

#[expect(clippy::needless_pass_by_value, reason = "the signature of a filter")]
pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<u8> = options.get("indent")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    options.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        None if indent.is_some() => (",", ": "),
        None => (", ", ": "),
        Some([item, key]) => (item.as_str(), key.as_str()),
        Some(_) => return Err(invalid("tojson: separators must be two strings")),
    };
    let mut bytes = Vec::new();
    let formatter = Python {
        indent,
        item,
        key,
        depth: 0,
        empty: true,
    };
    value
        .serialize(&mut Serializer::with_formatter(&mut bytes, formatter))
        .map_err(|error| invalid("tojson: no JSON for this value").with_source(error))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| invalid("tojson: not UTF-8").with_source(error))?;
    Ok(if ensure_ascii == Some(true) {
        ascii(&text)
    } else {
        text
    })
}

fn invalid(message: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Characters outside ASCII stand only within strings, where an escape means the same.
fn ascii(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            result.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                // Writing to a string cannot fail.
                let _ = write!(result, "\\u{unit:04x}");
            }
        }
    }
    result
}

/// Python's spacing, which is not `serde_json`'s.
struct Python<'a> {
    indent: Option<u8>,
    item: &'a str,
    key: &'a str,
    depth: usize,
    empty: bool,
}

impl Python<'_> {
    fn begin<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: u8) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        writer.write_all(&[bracket])
    }

    fn end<W: ?Sized + Write>(&mut self, writer: &mut W, bracket: u8) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.new_line(writer)?;
        }
        self.empty = false;
        writer.write_all(&[bracket])
    }

    fn separate<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if !first {
            writer.write_all(self.item.as_bytes())?;
        }
        self.empty = false;
        self.new_line(writer)
    }

    fn new_line<W: ?Sized + Write>(&self, writer: &mut W) -> io::Result<()> {
        let Some(indent) = self.indent else {
            return Ok(());
        };
        writer.write_all(b"\n")?;
        writer.write_all(&vec![b' '; usize::from(indent) * self.depth])
    }
}

impl Formatter for Python<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b'[')
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b']')
    }

    fn begin_array_value<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.separate(writer, first)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.begin(writer, b'{')
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.end(writer, b'}')
    }

    fn begin_object_key<W: ?Sized + Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.separate(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(self.key.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{Environment, context};

    /// Expected values: Python's `json.dumps(x, ensure_ascii=False, …)`.
    #[test]
    fn tojson_is_python_json_dumps() {
        let mut environment = Environment::new();
        environment.add_filter("tojson", super::tojson);
        let value =
            serde_json::json!({"a": [1, 2.5, true, null], "b": {}, "c": [], "d": "<é\"\n😀>"});
        for (expression, expected) in [
            (
                "x|tojson",
                r#"{"a": [1, 2.5, true, null], "b": {}, "c": [], "d": "<é\"\n😀>"}"#,
            ),
            (
                "x|tojson(indent=2)",
                "{\n  \"a\": [\n    1,\n    2.5,\n    true,\n    null\n  ],\n  \"b\": {},\n  \"c\": [],\n  \"d\": \"<é\\\"\\n😀>\"\n}",
            ),
            (
                "x.d|tojson(ensure_ascii=true)",
                r#""<\u00e9\"\n\ud83d\ude00>""#,
            ),
            ("x.a|tojson(separators=(',', ':'))", "[1,2.5,true,null]"),
        ] {
            let rendered = environment
                .render_str(&format!("{{{{ {expression} }}}}"), context! { x => &value })
                .unwrap();
            assert_eq!(rendered, expected, "{expression}");
        }
        assert!(
            environment
                .render_str("{{ x|tojson(sort=1) }}", ())
                .is_err()
        );
    }
}
