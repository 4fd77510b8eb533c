//! How wrong the planner is, and where.

use serde::Serialize;

use super::Page;
use super::doc::{Block, Cell, Doc, Figure, Row, Section, Table};
use super::format::{brief, count, percent, thousands};

/// Predicted against measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BacktestPage {
    /// `brigade.backtest/1`.
    pub schema: &'static str,
    /// Decode on one node.
    pub decode: Accuracy,
    /// Prefill on one node.
    pub prefill: Accuracy,
    /// The same by hardware, quantization, split, whether the size is stated, and program; pipelines
    /// over nodes as well.
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
        let mut sections = vec![Section::new(
            "accuracy",
            "Accuracy",
            vec![Block::Table(accuracy(self))],
        )];
        if !self.groups.is_empty() {
            sections.push(Section::new(
                "groups",
                "By group",
                vec![Block::Table(groups(self))],
            ));
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
                vec![Block::Table(refused(self))],
            ));
        }
        Doc {
            kind: "Backtest",
            title: "How wrong are the predictions?".into(),
            answer: answer(self),
            figures: Vec::<Figure>::new(),
            sections,
        }
    }
}

/// The accuracy in two sentences.
pub(super) fn answer(page: &BacktestPage) -> Vec<String> {
    let words = |name: &str, it: &Accuracy| {
        format!(
            "{name}: median error {} and 90th percentile {} over {}; the 80 % interval holds {}.",
            percent(it.median_ape),
            percent(it.p90_ape),
            count(it.n, "row"),
            percent(it.coverage_80)
        )
    };
    let mut answer = vec![words("Decode", &page.decode)];
    if page.prefill.n > 0 {
        answer.push(words("Prefill", &page.prefill));
    }
    answer
}

pub(super) fn accuracy(page: &BacktestPage) -> Table {
    let rows = [("decode", page.decode), ("prefill", page.prefill)];
    let titles = [
        "",
        ">Rows",
        ">Median error",
        ">90th percentile",
        ">In the 80 % interval",
    ];
    Table::new("Errors of all rows", &titles).rows(rows.into_iter().map(|(name, it)| {
        let mut cells = vec![Cell::text(name)];
        cells.extend(numbers(&it));
        Row::new(cells)
    }))
}

fn numbers(it: &Accuracy) -> Vec<Cell> {
    vec![
        Cell::text(thousands(it.n as i64)),
        Cell::text(percent(it.median_ape)),
        Cell::text(percent(it.p90_ape)),
        Cell::text(percent(it.coverage_80)),
    ]
}

pub(super) fn groups(page: &BacktestPage) -> Table {
    let titles = [
        "By",
        "Group",
        "What",
        ">Rows",
        ">Median error",
        ">90th percentile",
        ">In the 80 % interval",
    ];
    Table::new("Errors by group", &titles).rows(page.groups.iter().map(|group| {
        let mut cells = vec![
            Cell::text(group.by.clone()),
            Cell::text(group.name.clone()),
            Cell::text(group.metric.clone()),
        ];
        cells.extend(numbers(&group.accuracy));
        Row::new(cells)
    }))
}

pub(super) fn worst(page: &BacktestPage) -> Table {
    let titles = ["Row", "What", "", ">Measured", ">Predicted", ">Error"];
    Table::new("The worst misses", &titles).rows(page.worst.iter().map(|miss| {
        Row::new(vec![
            Cell::text(miss.id.clone()),
            Cell::text(miss.what.clone()),
            Cell::text(miss.metric.clone()),
            Cell::text(format!("{} tok/s", brief(miss.measured))),
            Cell::text(format!("{} tok/s", brief(miss.predicted))),
            Cell::text(percent(miss.ape)),
        ])
    }))
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
