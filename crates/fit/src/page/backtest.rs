//! How wrong the planner is, and where.

use serde::Serialize;

use super::Page;
use super::doc::{Block, Cell, Doc, Figure, Row, Section, Table};
use super::format::{brief, count, fine_percent, sentence, thousands};

/// Facts that a prediction needs, by the names that refusals have for them.
const COLUMNS: [&str; 7] = [
    "quant",
    "split",
    "machine",
    "params_b",
    "active_params_b",
    "mem_bandwidth_gbs",
    "fp16_tflops",
];

/// Predicted against measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BacktestPage {
    /// `brigade.backtest/1`.
    pub schema: &'static str,
    /// Decode on one node.
    pub decode: Accuracy,
    /// Prefill on one node.
    pub prefill: Accuracy,
    /// The same by hardware, quantization, split, whether the size is stated, program, and tokens in
    /// the cache; pipelines over nodes as well.
    pub groups: Vec<GroupRow>,
    /// The worst misses of decode, then those of prefill; the worst first.
    pub worst: Vec<Miss>,
    /// Rows without a prediction, and which fact is missing.
    pub refused: Vec<RefusedRow>,
}

/// How near predictions come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Accuracy {
    /// Rows that are predicted.
    pub n: usize,
    /// Rows that state such a rate.
    pub of: usize,
    /// Median of |predicted − measured| ÷ measured; 0 without rows.
    pub median_ape: f64,
    /// Its 90th percentile.
    pub p90_ape: f64,
    /// Share of rows whose measurement lies within the 80 % interval.
    pub coverage_80: f64,
}

/// Rows that have something in common.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupRow {
    /// By what, such as `family`.
    pub by: String,
    /// Which, such as `apple`.
    pub name: String,
    /// `decode` or `prefill`.
    pub metric: String,
    /// How near predictions come.
    #[serde(flatten)]
    pub accuracy: Accuracy,
}

/// A row that was predicted badly.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Miss {
    /// Its id.
    pub id: String,
    /// What was measured: model, quantization and machine.
    pub what: String,
    /// `decode` or `prefill`.
    pub metric: String,
    /// What was measured, in tokens a second.
    pub measured: f64,
    /// What was predicted.
    pub predicted: f64,
    /// |predicted − measured| ÷ measured.
    pub ape: f64,
    /// Why, where that is known.
    pub why: Option<String>,
}

/// A row that was not predicted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RefusedRow {
    /// Its id.
    pub id: String,
    /// Which fact is missing.
    pub reason: String,
}

impl Page for BacktestPage {
    fn doc(&self) -> Doc {
        let mut blocks = vec![Block::Table(accuracy(self))];
        blocks.extend(uneven(self));
        let mut sections = vec![Section::new("accuracy", "Accuracy", blocks)];
        if !self.groups.is_empty() {
            sections.push(Section::new("groups", "By group", groups(self)));
        }
        if !self.worst.is_empty() {
            sections.push(Section::new(
                "worst",
                "Worst misses",
                vec![Block::Table(worst(self))],
            ));
        }
        if !self.refused.is_empty() {
            let title = format!("Rows without a prediction ({})", self.refused.len());
            sections.push(Section::new(
                "refused",
                title,
                vec![
                    Block::Table(refused_by_fact(self)),
                    Block::heading("Row by row"),
                    Block::Table(refused(self)),
                ],
            ));
        }
        Doc {
            kind: "Backtest",
            title: "How wrong are the predictions?".into(),
            answer: answer(self),
            figures: figures(self),
            sections,
        }
    }
}

/// The accuracy in two sentences, and how uneven it is.
pub(super) fn answer(page: &BacktestPage) -> Vec<String> {
    let words = |(name, it): (&str, &Accuracy)| {
        format!(
            "{}: median error {} and 90th percentile {} over {}; the 80 % interval holds {} of them.",
            sentence(name).trim_end_matches('.'),
            fine_percent(it.median_ape),
            fine_percent(it.p90_ape),
            if it.of > it.n {
                format!("{} rows", rows_of(it))
            } else {
                count(it.n, "row")
            },
            fine_percent(it.coverage_80)
        )
    };
    let mut answer: Vec<String> = predicted(page).map(words).collect();
    if answer.is_empty() {
        answer.push("None of the rows is predicted.".into());
    }
    if let Some([least, most]) = extremes(page) {
        answer.push(format!(
            "The interval holds unevenly by family of hardware: from {least} to {most}."
        ));
    }
    answer
}

/// The rates of which rows are predicted.
fn predicted(page: &BacktestPage) -> impl Iterator<Item = (&'static str, &Accuracy)> {
    let rates = [("decode", &page.decode), ("prefill", &page.prefill)];
    rates.into_iter().filter(|(_, it)| it.n > 0)
}

/// Rows of a group, from which on its share in the interval says something.
const ENOUGH: usize = 20;

/// The families of hardware of whose measurements the interval holds least and most.
fn extremes(page: &BacktestPage) -> Option<[String; 2]> {
    let families = page
        .groups
        .iter()
        .filter(|group| group.by == "hardware" && group.accuracy.n >= ENOUGH);
    let share = |group: &&GroupRow| group.accuracy.coverage_80;
    let least = families
        .clone()
        .min_by(|a, b| share(a).total_cmp(&share(b)))?;
    let most = families.max_by(|a, b| share(a).total_cmp(&share(b)))?;
    let words = |group: &GroupRow| {
        format!(
            "{} of {} on {}",
            fine_percent(group.accuracy.coverage_80),
            group.metric,
            group.name
        )
    };
    (least != most).then(|| [words(least), words(most)])
}

/// How unevenly the interval holds from one family of hardware to another.
pub(super) fn uneven(page: &BacktestPage) -> Option<Block> {
    let [least, most] = extremes(page)?;
    Some(Block::text(format!(
        "Uneven by family of hardware. The interval was made to hold eight of ten measurements; in a single family it held fewer or more: from {least} to {most}, of families with at least {ENOUGH} rows. The table by hardware, below, has each: read it for yours before you rely on an interval."
    )))
}

/// How wrong it is, and on how many rates.
pub(super) fn figures(test: &BacktestPage) -> Vec<Figure> {
    let error = |(name, it): (&str, &Accuracy)| {
        Figure::new(
            format!("Error of {name}"),
            fine_percent(it.median_ape),
            format!("median; 90th percentile {}", fine_percent(it.p90_ape)),
        )
    };
    let mut figures: Vec<Figure> = predicted(test).map(error).collect();
    let mut held = predicted(test).map(|(name, it)| (name, fine_percent(it.coverage_80)));
    if let Some((name, share)) = held.next() {
        let others = held.map(|(name, share)| format!(", {share} of {name}"));
        let note = format!("of {name}{}", others.collect::<String>());
        figures.push(Figure::new("In the 80 % interval", share, note));
    }
    figures.push(Figure::new(
        "Measured rates",
        thousands((test.decode.of + test.prefill.of) as i64),
        format!(
            "{} predicted, each by a fit that has not seen its chip",
            thousands((test.decode.n + test.prefill.n) as i64)
        ),
    ));
    figures
}

/// `478 of 536`: the rows that are predicted, of those that state the rate.
fn rows_of(it: &Accuracy) -> String {
    let predicted = thousands(it.n as i64);
    if it.of > it.n {
        format!("{predicted} of {}", thousands(it.of as i64))
    } else {
        predicted
    }
}

pub(super) fn accuracy(page: &BacktestPage) -> Table {
    let rows = [("decode", page.decode), ("prefill", page.prefill)];
    let rows = rows.into_iter().filter(|(_, it)| it.of > 0);
    let titles = [
        "Rate",
        ">Rows",
        ">Median error",
        ">90th percentile",
        ">In the 80 % interval",
    ];
    Table::new("Errors of all rows of one node", &titles).rows(rows.map(|(name, it)| {
        let mut cells = vec![Cell::text(name)];
        cells.extend(numbers(&it));
        Row::new(cells)
    }))
}

fn numbers(it: &Accuracy) -> Vec<Cell> {
    let shares = [it.median_ape, it.p90_ape, it.coverage_80];
    let shares = shares.map(|share| match it.n {
        0 => Cell::text("–"),
        _ => Cell::text(fine_percent(share)),
    });
    let mut cells = vec![Cell::text(rows_of(it))];
    cells.extend(shares);
    cells
}

/// The groups, a heading and a table for each kind of them.
pub(super) fn groups(page: &BacktestPage) -> Vec<Block> {
    let mut blocks = Vec::new();
    for alike in page.groups.chunk_by(|a, b| a.by == b.by) {
        let Some(first) = alike.first() else { continue };
        let heading = sentence(&format!("by {}", first.by));
        let titles = [
            "Group",
            "Rate",
            ">Rows",
            ">Median error",
            ">90th percentile",
            ">In the 80 % interval",
        ];
        let rows = alike.iter().map(|group| {
            let mut cells = vec![
                Cell::text(group.name.clone()),
                Cell::text(group.metric.clone()),
            ];
            cells.extend(numbers(&group.accuracy));
            Row::new(cells)
        });
        blocks.push(Block::heading(heading.trim_end_matches('.')));
        let caption = format!("Errors by {}", first.by);
        blocks.push(Block::Table(Table::new(caption, &titles).rows(rows)));
    }
    blocks
}

/// The worst misses, with the reason where it is known.
pub(super) fn worst(page: &BacktestPage) -> Table {
    let titles = [
        "Row",
        "What was measured",
        "Rate",
        ">Measured",
        ">Predicted",
        ">Error",
    ];
    Table::new("The worst misses, in tokens a second", &titles).rows(page.worst.iter().map(
        |miss| {
            Row::new(vec![
                Cell::text(miss.id.clone()),
                Cell::text(miss.what.clone()),
                Cell::text(miss.metric.clone()),
                Cell::text(brief(miss.measured)),
                Cell::text(brief(miss.predicted)),
                Cell::text(fine_percent(miss.ape)),
            ])
            .note(miss.why.as_deref().map(sentence).unwrap_or_default())
        },
    ))
}

/// Refused rows by what is missing: the fact before the colon, or that it cannot be true.
pub(super) fn refused_by_fact(page: &BacktestPage) -> Table {
    let mut facts: Vec<(String, usize, &str)> = Vec::new();
    for row in &page.refused {
        let fact = match row.reason.split_once(':') {
            // A name of a column; anything else is a sentence about the row.
            Some((name, _)) if COLUMNS.contains(&name) => name.to_owned(),
            _ => "no fact: the rate cannot be what it says".to_owned(),
        };
        match facts.iter_mut().find(|(known, ..)| *known == fact) {
            Some((_, rows, _)) => *rows += 1,
            None => facts.push((fact, 1, &row.reason)),
        }
    }
    facts.sort_by_key(|(fact, rows, _)| (std::cmp::Reverse(*rows), fact.clone()));
    let rows = facts.into_iter().map(|(fact, rows, example)| {
        let example = example
            .strip_prefix(&format!("{fact}: "))
            .unwrap_or(example);
        Row::new(vec![
            Cell::text(fact),
            Cell::text(thousands(rows as i64)),
            Cell::text(example.to_owned()),
        ])
    });
    let titles = ["Missing fact", ">Rows", "As of the first of them"];
    Table::new("Rows without a prediction, by missing fact", &titles).rows(rows)
}

fn refused(page: &BacktestPage) -> Table {
    Table::new("Rows without a prediction", &["Row", "Missing"]).rows(page.refused.iter().map(
        |row| {
            Row::new(vec![
                Cell::text(row.id.clone()),
                Cell::text(row.reason.clone()),
            ])
        },
    ))
}

#[cfg(test)]
mod tests;
