//! Pages for a terminal, complete without colour.

mod bars;
mod table;
mod wrap;

use std::ops::RangeInclusive;

use crate::evidence::Evidence;
use crate::page::Page;
use crate::page::doc::{Block, Cell, Doc, Figure, Section};
use crate::page::format::clean;

/// Columns of a line where there is no terminal, as in a file.
pub const WIDTH: usize = 96;

/// Columns that a page is laid out for: narrower ones break its tables, wider ones are hard to
/// read.
const WIDTHS: RangeInclusive<usize> = 72..=132;

/// Characters of a figure's value, at most.
const VALUE: usize = 40;

/// Characters that a figure's remark has beside it, at least.
const REMARK: usize = 20;

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

/// A page as text; it ends with a line feed. No line has more than `columns`, within 72 and 132,
/// but for words that must stay whole: addresses and commands.
pub fn render(page: &impl Page, style: Style, columns: usize) -> String {
    render_doc(&page.doc(), style, columns)
}

/// A page's blocks as text.
pub fn render_doc(doc: &Doc, style: Style, columns: usize) -> String {
    let mut out = Sheet {
        text: String::new(),
        style,
        width: columns.clamp(*WIDTHS.start(), *WIDTHS.end()),
    };
    let title = clean(&doc.title);
    for line in wrap::wrap(&title, out.width) {
        out.push(&style.paint("1", &line));
    }
    out.rule('═', &title);
    for sentence in &doc.answer {
        out.paragraph(sentence, "");
    }
    if !doc.figures.is_empty() {
        out.push("");
        figures(&mut out, &doc.figures);
    }
    for section in &doc.sections {
        self::section(&mut out, section);
    }
    if doc.sections.iter().any(has_rates) {
        out.push("");
        out.paragraph(&legend(), "");
    }
    out.text
}

/// What a page is written on.
pub(crate) struct Sheet {
    text: String,
    pub(crate) style: Style,
    /// Columns of a line, at most.
    pub(crate) width: usize,
}

impl Sheet {
    /// Adds a line without blanks at its end.
    pub(crate) fn push(&mut self, line: &str) {
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A paragraph, its first line after `mark`, the others below the first one's text.
    pub(crate) fn paragraph(&mut self, text: &str, mark: &str) {
        let indent = mark.chars().count();
        let lines = wrap::wrap(&clean(text), self.width - indent);
        for (index, line) in lines.iter().enumerate() {
            let before = if index == 0 {
                mark.to_owned()
            } else {
                " ".repeat(indent)
            };
            self.push(&format!("{before}{line}"));
        }
    }

    /// A line below a title.
    fn rule(&mut self, mark: char, title: &str) {
        let length = title.chars().count().min(self.width);
        self.push(&mark.to_string().repeat(length));
    }
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

fn section(out: &mut Sheet, section: &Section) {
    let title = wrap::cut(&clean(&section.title), out.width);
    out.push("");
    out.push(&out.style.paint("1", &title));
    out.rule('─', &title);
    for (index, block) in section.blocks.iter().enumerate() {
        if index > 0 {
            out.push("");
        }
        self::block(out, block);
    }
}

fn block(out: &mut Sheet, block: &Block) {
    match block {
        Block::Text { text } => out.paragraph(text, ""),
        Block::Heading { text } => {
            for line in wrap::wrap(&clean(text), out.width) {
                out.push(&out.style.paint("1", &line));
            }
        }
        Block::Code { text } => {
            for line in text.lines() {
                out.push(&format!("  {}", clean(line)));
            }
        }
        Block::List { items } => {
            for item in items {
                out.paragraph(item, "· ");
            }
        }
        Block::Pairs { pairs } => self::pairs(out, pairs),
        Block::Table(table) => table::render(out, table),
        Block::Memory(memory) => bars::memory(out, memory),
        Block::Chart(chart) => bars::chart(out, chart),
    }
}

fn figures(out: &mut Sheet, figures: &[Figure]) {
    let label = widest(figures.iter().map(|figure| figure.label.as_str()));
    let most = out.width.saturating_sub(label + 6 + REMARK).min(VALUE);
    let value = widest(figures.iter().map(|figure| figure.value.as_str())).min(most);
    for figure in figures {
        let name = pad(&clean(&figure.label), label);
        let number = pad(&wrap::cut(&clean(&figure.value), value), value);
        let number = out.style.paint("1", &number);
        let left = out.width.saturating_sub(label + value + 6).max(REMARK);
        let mut notes = wrap::wrap(&clean(&figure.note), left).into_iter();
        let first = notes.next().unwrap_or_default();
        out.push(&format!("  {name}  {number}  {first}"));
        for note in notes {
            out.push(&format!("{:1$}{note}", "", label + value + 6));
        }
    }
}

fn pairs(out: &mut Sheet, pairs: &[(String, String)]) {
    let names = widest(pairs.iter().map(|(name, _)| name.as_str())).min(26);
    for (name, meaning) in pairs {
        let name = clean(name);
        let lines = wrap::wrap(&clean(meaning), out.width - names - 4);
        let mut lines = lines.into_iter();
        if name.chars().count() > names {
            for line in wrap::wrap(&name, out.width - 2) {
                out.push(&format!("  {line}"));
            }
        } else {
            let first = lines.next().unwrap_or_default();
            out.push(&format!("  {}  {first}", pad(&name, names)));
        }
        for line in lines {
            out.push(&format!("{:1$}{line}", "", names + 4));
        }
    }
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
