//! Pages for a terminal of 96 columns, complete without colour.

mod bars;
mod table;
mod wrap;

use crate::evidence::Evidence;
use crate::page::Page;
use crate::page::doc::{Block, Cell, Doc, Figure, Section};
use crate::page::format::clean;

/// Columns of a line, at most.
pub(crate) const WIDTH: usize = 96;

/// Characters of a figure's value, at most.
const VALUE: usize = 40;

/// Whether marks of colour may be used; nothing is said by colour alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Style {
    /// Text only.
    #[default]
    Plain,
    /// Bold headings and coloured tiers, by ANSI sequences.
    Ansi,
}

impl Style {
    /// The text in an ANSI style, such as `1` for bold, where that is wanted.
    pub(crate) fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Ansi if text.is_empty() => String::new(),
            Self::Ansi => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
}

/// A page as text; it ends with a line feed.
pub fn render(page: &impl Page, style: Style) -> String {
    render_doc(&page.doc(), style)
}

/// A page's blocks as text.
pub fn render_doc(doc: &Doc, style: Style) -> String {
    let mut out = String::new();
    let title = clean(&doc.title);
    for line in wrap::wrap(&title, WIDTH) {
        push(&mut out, &style.paint("1", &line));
    }
    push(&mut out, &"═".repeat(title.chars().count().min(WIDTH)));
    for sentence in &doc.answer {
        paragraph(&mut out, sentence, "");
    }
    if !doc.figures.is_empty() {
        out.push('\n');
        figures(&mut out, &doc.figures, style);
    }
    for section in &doc.sections {
        self::section(&mut out, section, style);
    }
    if doc.sections.iter().any(has_rates) {
        out.push('\n');
        paragraph(&mut out, &legend(), "");
    }
    out
}

fn has_rates(section: &Section) -> bool {
    section.blocks.iter().any(|block| match block {
        Block::Table(table) => {
            let mut cells = table.rows.iter().flat_map(|row| &row.cells);
            cells.any(|cell| matches!(cell, Cell::Rate { .. }))
        }
        _ => false,
    })
}

/// What the marks of rates mean.
fn legend() -> String {
    let tiers = [
        Evidence::Measured,
        Evidence::MeasuredNear,
        Evidence::Community,
        Evidence::Extrapolated,
        Evidence::Estimated,
    ];
    let marks = tiers.map(|tier| format!("{} {}", table::mark(tier), tier.name()));
    format!(
        "Rates: best estimate (80 % interval) and how it is known: {}.",
        marks.join(", ")
    )
}

fn section(out: &mut String, section: &Section, style: Style) {
    let title = wrap::cut(&clean(&section.title), WIDTH);
    out.push('\n');
    push(out, &style.paint("1", &title));
    push(out, &"─".repeat(title.chars().count().min(WIDTH)));
    for (index, block) in section.blocks.iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        self::block(out, block, style);
    }
}

fn block(out: &mut String, block: &Block, style: Style) {
    match block {
        Block::Text { text } => paragraph(out, text, ""),
        Block::Heading { text } => {
            for line in wrap::wrap(&clean(text), WIDTH) {
                push(out, &style.paint("1", &line));
            }
        }
        Block::Code { text } => {
            for line in text.lines() {
                push(out, &format!("  {}", clean(line)));
            }
        }
        Block::List { items } => {
            for item in items {
                paragraph(out, item, "· ");
            }
        }
        Block::Pairs { pairs } => self::pairs(out, pairs),
        Block::Table(table) => table::render(out, table, style),
        Block::Memory(memory) => bars::memory(out, memory),
        Block::Chart(chart) => bars::chart(out, chart),
    }
}

fn figures(out: &mut String, figures: &[Figure], style: Style) {
    let label = widest(figures.iter().map(|figure| figure.label.as_str()));
    let value = widest(figures.iter().map(|figure| figure.value.as_str())).min(VALUE);
    for figure in figures {
        let name = pad(&clean(&figure.label), label);
        let number = style.paint("1", &pad(&wrap::cut(&clean(&figure.value), value), value));
        let left = WIDTH.saturating_sub(label + value + 6).max(20);
        let mut notes = wrap::wrap(&clean(&figure.note), left).into_iter();
        let first = notes.next().unwrap_or_default();
        push(out, &format!("  {name}  {number}  {first}"));
        for note in notes {
            push(out, &format!("{:1$}{note}", "", label + value + 6));
        }
    }
}

fn pairs(out: &mut String, pairs: &[(String, String)]) {
    let names = widest(pairs.iter().map(|(name, _)| name.as_str())).min(26);
    for (name, meaning) in pairs {
        let name = clean(name);
        let lines = wrap::wrap(&clean(meaning), WIDTH - names - 4);
        let mut lines = lines.into_iter();
        if name.chars().count() > names {
            push(out, &format!("  {name}"));
        } else {
            let first = lines.next().unwrap_or_default();
            push(out, &format!("  {}  {first}", pad(&name, names)));
        }
        for line in lines {
            push(out, &format!("{:1$}{line}", "", names + 4));
        }
    }
}

/// A paragraph, its first line after `mark`, the others below the first one's text.
fn paragraph(out: &mut String, text: &str, mark: &str) {
    let indent = mark.chars().count();
    for (index, line) in wrap::wrap(&clean(text), WIDTH - indent).iter().enumerate() {
        let before = if index == 0 {
            mark.to_owned()
        } else {
            " ".repeat(indent)
        };
        push(out, &format!("{before}{line}"));
    }
}

/// Adds a line without blanks at its end.
pub(crate) fn push(out: &mut String, line: &str) {
    out.push_str(line.trim_end());
    out.push('\n');
}

/// The text with blanks after it, up to a width.
pub(crate) fn pad(text: &str, width: usize) -> String {
    let blanks = width.saturating_sub(text.chars().count());
    format!("{text}{}", " ".repeat(blanks))
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests;
