//! Aligned columns; the widest column of words gives way where a row is too long.

use super::{Style, WIDTH, pad, push, wrap};
use crate::evidence::Evidence;
use crate::page::doc::{Align, Cell, Row, Table};
use crate::page::format::{clean, interval, percent, tier};
use crate::verdict::Tier;

const GAP: usize = 2;
const BAR: usize = 8;

pub(crate) fn render(out: &mut String, table: &Table, style: Style) {
    let rows: Vec<Vec<String>> = table.rows.iter().map(texts).collect();
    let widths = widths(table, &rows);
    let heads = table.columns.iter().map(|column| column.title.clone());
    line(
        out,
        table,
        &heads.collect::<Vec<_>>(),
        &widths,
        |_, text| style.paint("2", text),
    );
    for (row, texts) in table.rows.iter().zip(&rows) {
        line(out, table, texts, &widths, |column, text| {
            match row.cells.get(column) {
                Some(Cell::Tier { tier }) => style.paint(colour(*tier), text),
                Some(Cell::Use { share }) => style.paint(share_colour(*share), text),
                _ => text.to_owned(),
            }
        });
        for note in wrap::wrap(&clean(&row.note), WIDTH - 6) {
            push(out, &style.paint("2", &format!("      {note}")));
        }
    }
}

fn texts(row: &Row) -> Vec<String> {
    row.cells.iter().map(text).collect()
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Text { text } | Cell::Link { text, .. } => clean(text),
        Cell::Tier { tier: it } => tier(*it).to_owned(),
        Cell::Use { share } => format!("{} {:>5}", bar(*share), percent(*share)),
        Cell::Rate { estimate } => {
            format!("{} {}", interval(estimate), mark(estimate.evidence))
        }
    }
}

/// A tier of evidence in few letters, as a row has no room for more.
pub(crate) fn mark(evidence: Evidence) -> &'static str {
    match evidence {
        Evidence::Measured => "meas",
        Evidence::MeasuredNear => "near",
        Evidence::Community => "comm",
        Evidence::Extrapolated => "extr",
        Evidence::Estimated => "est",
    }
}

/// A share in eight blocks: full ones, and an arrow where it is more than all.
fn bar(share: f64) -> String {
    if !share.is_finite() {
        return " ".repeat(BAR);
    }
    if share > 1.0 {
        return format!("{}▶", "█".repeat(BAR - 1));
    }
    let full = ((share * BAR as f64).round() as usize).min(BAR);
    format!("{}{}", "█".repeat(full), "░".repeat(BAR - full))
}

fn colour(tier: Tier) -> &'static str {
    match tier {
        Tier::Comfortable => "32",
        Tier::Borderline => "33",
        Tier::NotPractical => "31",
        Tier::Unknown => "2",
    }
}

fn share_colour(share: f64) -> &'static str {
    if share <= crate::placement::COMFORTABLE {
        "32"
    } else if share <= 1.0 {
        "33"
    } else {
        "31"
    }
}

/// Widths by content. What is too much is taken from the widest columns of words, down to their
/// longest words; then from titles of numbers; and where even that is too much, from words that
/// are broken.
fn widths(table: &Table, rows: &[Vec<String>]) -> Vec<usize> {
    let all = table.columns.iter().enumerate();
    let bounds: Vec<Bounds> = all
        .map(|(index, column)| Bounds::of(table, rows, index, &column.title))
        .collect();
    let mut widths: Vec<usize> = bounds.iter().map(|own| own.most).collect();
    let gaps = GAP * widths.len();
    while widths.iter().sum::<usize>() + gaps > WIDTH {
        let shrinking = |least: fn(&Bounds) -> usize, align: Align| {
            let all = widths.iter().zip(&bounds).zip(&table.columns).enumerate();
            all.filter(|(_, ((width, own), column))| column.align == align && **width > least(own))
                .max_by_key(|(_, ((width, _), _))| **width)
                .map(|(index, _)| index)
        };
        let next = shrinking(|own| own.words, Align::Left)
            .or_else(|| shrinking(|own| own.words, Align::Right))
            .or_else(|| shrinking(|own| own.broken, Align::Left))
            .or_else(|| shrinking(|own| own.broken, Align::Right));
        match next.and_then(|index| widths.get_mut(index)) {
            Some(width) => *width -= 1,
            None => break,
        }
    }
    widths
}

/// How wide a column may be.
struct Bounds {
    /// In one line.
    most: usize,
    /// With no word broken.
    words: usize,
    /// With words broken; drawn cells are never.
    broken: usize,
}

impl Bounds {
    fn of(table: &Table, rows: &[Vec<String>], index: usize, title: &str) -> Self {
        let mut bounds = Self {
            most: title.chars().count(),
            words: longest_word(title),
            broken: 4,
        };
        for (row, texts) in table.rows.iter().zip(rows) {
            let (Some(cell), Some(text)) = (row.cells.get(index), texts.get(index)) else {
                continue;
            };
            let length = text.chars().count();
            let whole = !matches!(cell, Cell::Text { .. } | Cell::Link { .. });
            bounds.most = bounds.most.max(length);
            bounds.words = bounds
                .words
                .max(if whole { length } else { longest_word(text) });
            bounds.broken = bounds.broken.max(if whole { length } else { 0 });
        }
        // An id or address of a word would leave no room for the others.
        bounds.words = bounds.words.min(bounds.broken.max(24));
        bounds
    }
}

fn longest_word(text: &str) -> usize {
    let words = text.split(' ').map(|word| word.chars().count());
    words.max().unwrap_or(0)
}

/// One row, in as many lines as its longest cell takes.
fn line(
    out: &mut String,
    table: &Table,
    texts: &[String],
    widths: &[usize],
    paint: impl Fn(usize, &str) -> String,
) {
    let cells: Vec<Vec<String>> = texts
        .iter()
        .zip(widths)
        .map(|(text, width)| wrap::wrap(text, *width))
        .collect();
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for at in 0..height {
        let mut line = String::new();
        for (index, (column, width)) in table.columns.iter().zip(widths).enumerate() {
            let text = cells
                .get(index)
                .and_then(|lines| lines.get(at))
                .map_or("", String::as_str);
            let blanks = " ".repeat(width.saturating_sub(text.chars().count()));
            let shown = paint(index, text);
            line.push_str(&" ".repeat(GAP));
            match column.align {
                Align::Left => {
                    line.push_str(&shown);
                    line.push_str(&blanks);
                }
                Align::Right => {
                    line.push_str(&blanks);
                    line.push_str(&shown);
                }
            }
        }
        push(out, &pad(&line, 0));
    }
}
