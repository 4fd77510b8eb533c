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

/// Widths by content; what is too much is taken from the widest columns of words.
fn widths(table: &Table, rows: &[Vec<String>]) -> Vec<usize> {
    let longest = |index: usize| {
        let title = table
            .columns
            .get(index)
            .map_or(0, |c| c.title.chars().count());
        let cells = rows.iter().filter_map(|row| row.get(index));
        cells
            .map(|text| text.chars().count())
            .fold(title, usize::max)
    };
    let mut widths: Vec<usize> = (0..table.columns.len()).map(longest).collect();
    let gaps = GAP * widths.len();
    loop {
        let sum: usize = widths.iter().sum();
        let words = table.columns.iter().enumerate();
        let widest = words
            .filter(|(_, column)| column.align == Align::Left)
            .map(|(index, _)| index)
            .max_by_key(|index| widths.get(*index).copied().unwrap_or(0));
        let Some(width) = widest.and_then(|index| widths.get_mut(index)) else {
            return widths;
        };
        if sum + gaps <= WIDTH || *width <= 12 {
            return widths;
        }
        *width -= 1;
    }
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
