//! Aligned columns; the widest column of words gives way where a row is too long.

use super::{Sheet, widest, wrap};
use crate::evidence::Evidence;
use crate::page::doc::{Align, Cell, Table};
use crate::page::format::{clean, glue, interval, percent, tier};
use crate::verdict::Tier;

/// Blanks before a column, and where room is scarce.
const GAP: (usize, usize) = (2, 1);
const BAR: usize = 8;

pub(crate) fn render(out: &mut Sheet, table: &Table) {
    let grid = Grid::of(table, out.width);
    let style = out.style;
    let heads: Vec<Vec<String>> = table
        .columns
        .iter()
        .zip(&grid.widths)
        .map(|(column, width)| wrap::wrap(&column.title, *width))
        .collect();
    line(out, table, &heads, &grid, |_, text| style.paint("2", text));
    for row in &table.rows {
        let cells: Vec<Vec<String>> = row
            .cells
            .iter()
            .zip(&grid.widths)
            .map(|(cell, width)| lines(cell, *width))
            .collect();
        line(out, table, &cells, &grid, |column, text| {
            match row.cells.get(column) {
                Some(Cell::Tier { tier }) => style.paint(colour(*tier), text),
                Some(Cell::Use { share }) => style.paint(share_colour(*share), text),
                _ => text.to_owned(),
            }
        });
        for note in wrap::wrap(&clean(&row.note), out.width - 6) {
            out.push(&style.paint("2", &format!("      {note}")));
        }
    }
}

fn text(cell: &Cell) -> String {
    match cell {
        Cell::Text { text } | Cell::Link { text, .. } => clean(text),
        Cell::Tier { tier: it } => tier(*it).to_owned(),
        Cell::Use { share } => format!("{} {}", bar(*share), share_text(*share)),
        Cell::Rate { estimate } => {
            format!("{} {}", interval(estimate), mark(estimate.evidence))
        }
    }
}

/// A share as a number, those of a column below each other.
fn share_text(share: f64) -> String {
    format!("{:>5}", percent(share))
}

/// A cell in lines of this width. A share is one line, without its bar where that has no room.
fn lines(cell: &Cell, width: usize) -> Vec<String> {
    let text = text(cell);
    match cell {
        Cell::Use { share } if text.chars().count() > width => vec![share_text(*share)],
        Cell::Use { .. } => vec![text],
        _ => wrap::wrap(&text, width),
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

/// Where columns stand.
struct Grid {
    widths: Vec<usize>,
    gap: usize,
}

impl Grid {
    /// Widths by content. What is too much for the page is taken from the widest columns, in this
    /// order: words down to the longest of them, titles of numbers the same, the bars of shares,
    /// long words, blanks, rates and tiers down to their longest words; and where even that is too
    /// much, all words are broken.
    fn of(table: &Table, most: usize) -> Self {
        let columns = 0..table.columns.len();
        let bounds: Vec<Bounds> = columns.map(|index| Bounds::of(table, index)).collect();
        let mut widths: Vec<usize> = bounds.iter().map(|own| own.most).collect();
        let mut gap = GAP.0;
        for step in STEPS {
            while widths.iter().sum::<usize>() + gap * widths.len() > most {
                if step == Step::Blanks {
                    gap = GAP.1;
                    break;
                }
                let all = widths.iter_mut().zip(&bounds);
                let shrinking = all
                    .filter(|(width, own)| **width > own.least(step))
                    .max_by_key(|(width, _)| **width);
                match shrinking {
                    // Half a bar says nothing.
                    Some((width, own)) if step == Step::Bars => *width = own.least(step),
                    Some((width, _)) => *width -= 1,
                    None => break,
                }
            }
        }
        Self { widths, gap }
    }
}

/// What is given up, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Words,
    Numbers,
    Bars,
    LongWords,
    Blanks,
    Rates,
    All,
}

const STEPS: [Step; 7] = [
    Step::Words,
    Step::Numbers,
    Step::Bars,
    Step::LongWords,
    Step::Blanks,
    Step::Rates,
    Step::All,
];

/// Letters of a word that stay together while anything else gives way.
const SYLLABLES: usize = 12;

/// Letters that stay together in any case.
const LETTERS: usize = 4;

/// How wide a column may be.
struct Bounds {
    align: Align,
    /// In one line.
    most: usize,
    /// With no word broken.
    words: usize,
    /// Of what is a word or number of a reader.
    longest: usize,
    /// Shares without their bars; 0 without shares.
    shares: usize,
    /// Rates and tiers in one line; 0 without these.
    whole: usize,
    /// Rates and tiers in two lines.
    parts: usize,
}

impl Bounds {
    fn of(table: &Table, index: usize) -> Self {
        let mut bounds = Self {
            align: Align::Left,
            most: 0,
            words: 0,
            longest: 0,
            shares: 0,
            whole: 0,
            parts: 0,
        };
        if let Some(column) = table.columns.get(index) {
            bounds.align = column.align;
            bounds.most = column.title.chars().count();
            bounds.longest = longest_word(&column.title);
            bounds.words = bounds.longest;
        }
        for cell in table.rows.iter().filter_map(|row| row.cells.get(index)) {
            let text = text(cell);
            let length = text.chars().count();
            bounds.most = bounds.most.max(length);
            match cell {
                Cell::Text { .. } | Cell::Link { .. } => {
                    bounds.longest = bounds.longest.max(longest_word(&text));
                }
                Cell::Use { share } => {
                    let short = share_text(*share).chars().count();
                    bounds.words = bounds.words.max(length);
                    bounds.shares = bounds.shares.max(short);
                }
                Cell::Tier { .. } | Cell::Rate { .. } => {
                    bounds.words = bounds.words.max(length);
                    bounds.whole = bounds.whole.max(length);
                    // A rate over its interval, not in three lines.
                    let rest = text.split_once(' ').map_or(text.as_str(), |(_, rest)| rest);
                    bounds.parts = bounds.parts.max(rest.chars().count());
                }
            }
        }
        // An id or address of a word would leave no room for the others.
        bounds.words = bounds.words.max(bounds.longest.min(24));
        bounds
    }

    /// How narrow the column may become in a step.
    fn least(&self, step: Step) -> usize {
        let bars = self.longest.min(24).max(self.whole).max(self.shares);
        let long = self.longest.min(SYLLABLES).max(self.shares);
        match (step, self.align) {
            (Step::Words, Align::Right) => self.most,
            (Step::Words, Align::Left) | (Step::Numbers, _) => self.words,
            (Step::Bars, _) if self.shares == 0 => self.words,
            (Step::Bars, _) | (Step::LongWords | Step::Blanks, Align::Right) => bars,
            (Step::LongWords | Step::Blanks, Align::Left) => long.max(self.whole),
            (Step::Rates, _) => long.max(self.parts),
            (Step::All, _) => LETTERS.max(self.shares),
        }
    }
}

/// Letters of the longest word; a number is one with its unit.
fn longest_word(text: &str) -> usize {
    widest(glue(text).split(' '))
}

/// One row, in as many lines as its longest cell takes.
fn line(
    out: &mut Sheet,
    table: &Table,
    cells: &[Vec<String>],
    grid: &Grid,
    paint: impl Fn(usize, &str) -> String,
) {
    let height = cells.iter().map(Vec::len).max().unwrap_or(0);
    for at in 0..height {
        let mut line = String::new();
        for (index, (column, width)) in table.columns.iter().zip(&grid.widths).enumerate() {
            let text = cells
                .get(index)
                .and_then(|lines| lines.get(at))
                .map_or("", String::as_str);
            let blanks = " ".repeat(width.saturating_sub(text.chars().count()));
            let shown = paint(index, text);
            line.push_str(&" ".repeat(grid.gap));
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
        out.push(&line);
    }
}
