//! What a benchmark found, as a table and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::output;

/// One measurement of one side, in tokens a second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speed {
    pub(super) prefill: f64,
    pub(super) decode: f64,
}

/// Memory of all stage processes together, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Proportional set size, by the kernel's account.
    pub(super) pss: u64,
    /// What it may be.
    pub(super) allowed: u64,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(super) struct Results {
    /// The whole model and the stages, one right after the other.
    pub(super) pairs: Vec<(Speed, Speed)>,
    /// Of the last round.
    pub(super) usage: Option<Usage>,
}

/// Lowest, median and highest of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

/// One kind of speed: tokens a second of both sides, and staged divided by whole, pair by pair.
#[derive(Debug)]
struct Row {
    name: &'static str,
    whole: Spread,
    staged: Spread,
    ratio: Spread,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median = match values.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        };
        Self {
            min: values.first().copied().unwrap_or(f64::NAN),
            median,
            max: values.last().copied().unwrap_or(f64::NAN),
        }
    }

    fn json(self) -> Value {
        json!({"min": self.min, "median": self.median, "max": self.max})
    }

    fn text(self, digits: usize) -> String {
        let Self { min, median, max } = self;
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    }
}

impl Results {
    fn rows(&self) -> [Row; 2] {
        let row = |name, pick: fn(&Speed) -> f64| Row {
            name,
            whole: Spread::of(self.pairs.iter().map(|(whole, _)| pick(whole))),
            staged: Spread::of(self.pairs.iter().map(|(_, staged)| pick(staged))),
            ratio: Spread::of(
                self.pairs
                    .iter()
                    .map(|(whole, staged)| pick(staged) / pick(whole)),
            ),
        };
        [
            row("decode", |speed| speed.decode),
            row("prefill", |speed| speed.prefill),
        ]
    }

    pub(super) fn json(&self, stages: u32, cores: &[usize]) -> Value {
        let mut json = json!({
            "schema": "brigade.bench/1",
            "stages": stages,
            "pairs": self.pairs.len(),
            "cores": cores,
            "pss_bytes": self.usage.map(|usage| usage.pss),
            "pss_allowed_bytes": self.usage.map(|usage| usage.allowed),
        });
        for row in self.rows() {
            json[row.name] = json!({
                "whole_tok_s": row.whole.json(),
                "staged_tok_s": row.staged.json(),
                "ratio": row.ratio.json(),
            });
        }
        json
    }

    pub(super) fn table(&self, stages: u32, cores: &[usize]) -> String {
        let mut table = format!(
            "{stages} stages against the whole model, one thread each, cores {cores:?}, \
             {} pairs: median (lowest to highest)\n\
             {:<9}{:<24}{:<24}{}\n",
            self.pairs.len(),
            "",
            "whole, tok/s",
            "staged, tok/s",
            "staged / whole",
        );
        for row in self.rows() {
            let _ = writeln!(
                table,
                "{:<9}{:<24}{:<24}{}",
                row.name,
                row.whole.text(1),
                row.staged.text(1),
                row.ratio.text(3),
            );
        }
        if let Some(Usage { pss, allowed }) = self.usage {
            let _ = write!(
                table,
                "memory   {} PSS in the stage processes; 1.15 x the file + KV + compute + 20 MiB each is {}: {:.3} of it",
                output::bytes(pss),
                output::bytes(allowed),
                pss as f64 / allowed as f64,
            );
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even_counts() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(
            spread(&[3.0, 1.0, 2.0]),
            Spread {
                min: 1.0,
                median: 2.0,
                max: 3.0
            }
        );
        assert!((spread(&[4.0, 1.0, 2.0, 3.0]).median - 2.5).abs() < 1e-12);
    }
}
