//! Pages as HTML: complete in themselves, readable without scripts, in light and dark.

mod draw;
mod site;

use std::collections::HashSet;

use minijinja::value::ViaDeserialize;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};

pub use site::site;

use crate::error::FitError;
use crate::page::Page;
use crate::page::doc::Doc;
use crate::page::format;
use crate::placement::COMFORTABLE;

/// All rules of appearance; small enough to stand in each page that is alone.
const STYLE: &str = include_str!("../templates/style.css");
const PAGE: &str = include_str!("../templates/page.html");

/// A page in one file, without links to others.
pub fn page(page: &impl Page) -> Result<String, FitError> {
    Renderer::new(&HashSet::new())?.alone(&page.doc())
}

/// Renders pages; made once for many.
pub(crate) struct Renderer {
    environment: Environment<'static>,
    /// Files of the site, to which names link.
    pages: Value,
}

impl Renderer {
    /// A renderer for a site with these files.
    pub(crate) fn new(pages: &HashSet<String>) -> Result<Self, FitError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|_| AutoEscape::Html);
        environment.set_formatter(write_value);
        environment.add_filter("clean", |text: &str| format::clean(text));
        environment.add_filter("title", |text: &str| {
            // Stands in a string of CSS: no quotes, no escapes.
            format::clean(text).replace(['\'', '\\'], "\u{2019}")
        });
        environment.add_filter("lines", |text: &str| {
            let lines: Vec<String> = text.lines().map(format::clean).collect();
            lines.join("\n")
        });
        environment.add_filter("linked", |text: &str| Value::from_safe_string(linked(text)));
        environment.add_filter("percent", format::percent);
        environment.add_filter("brief", format::brief);
        environment.add_filter("bar", |share: f64| {
            (share * 100.0).clamp(0.0, 100.0).round() as i64
        });
        environment.add_filter("tier", |name: String| name.replace('-', " "));
        environment.add_filter("memory", |bars: ViaDeserialize<draw::Bars>| {
            Value::from_safe_string(draw::memory(&bars))
        });
        environment.add_filter("chart", |chart: ViaDeserialize<draw::Lines>| {
            Value::from_safe_string(draw::chart(&chart))
        });
        environment
            .add_template("page.html", PAGE)
            .map_err(|error| fault(&error))?;
        Ok(Self {
            environment,
            pages: Value::from_serialize(pages),
        })
    }

    fn alone(&self, doc: &Doc) -> Result<String, FitError> {
        self.render(doc, None)
    }

    /// A page of the site, in a file as deep as `path`.
    pub(crate) fn within(&self, doc: &Doc, path: &str) -> Result<String, FitError> {
        let root = "../".repeat(path.matches('/').count());
        self.render(doc, Some(&root))
    }

    fn render(&self, doc: &Doc, root: Option<&str>) -> Result<String, FitError> {
        let template = self
            .environment
            .get_template("page.html")
            .map_err(|error| fault(&error))?;
        let page = template.render(context! {
            doc => doc,
            alone => root.is_none(),
            root => root.unwrap_or_default(),
            pages => self.pages,
            style => STYLE,
            comfortable => COMFORTABLE,
            version => env!("CARGO_PKG_VERSION"),
        });
        page.map_err(|error| fault(&error))
    }
}

/// Writes a value as the template has it: escaped, unless it is markup already. The library's own
/// escaping takes slashes for dangerous, which addresses are full of.
fn write_value(
    out: &mut minijinja::Output,
    _state: &minijinja::State,
    value: &Value,
) -> Result<(), minijinja::Error> {
    let mut text = value.to_string();
    if !value.is_safe() {
        let plain = std::mem::take(&mut text);
        escape(&mut text, &plain);
    }
    out.write_str(&text).map_err(minijinja::Error::from)
}

/// A template that cannot be rendered: a fault of the program, which tests find.
fn fault(error: &minijinja::Error) -> FitError {
    FitError::Syntax {
        what: "page template".into(),
        hint: format!("{error:#}"),
    }
}

/// Text as HTML, with its addresses as links.
fn linked(text: &str) -> String {
    let text = format::glue(&format::clean(text));
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find("https://") {
        let (before, address) = rest.split_at(start);
        let end = address
            .find(|c: char| c.is_whitespace() || "<>\"'`;,()".contains(c))
            .unwrap_or(address.len());
        let (address, after) = address.split_at(end);
        let trimmed = address.trim_end_matches(['.', ':']);
        let shown = trimmed.strip_prefix("https://").unwrap_or(trimmed);
        escape(&mut out, before);
        out.push_str("<a rel=\"noopener\" href=\"");
        escape(&mut out, trimmed);
        out.push_str("\">");
        escape(&mut out, shown.trim_end_matches('/'));
        out.push_str("</a>");
        escape(&mut out, &address[trimmed.len()..]);
        rest = after;
    }
    escape(&mut out, rest);
    out
}

/// Adds text so that no character of it is read as markup.
pub(crate) fn escape(out: &mut String, text: &str) {
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests;
