//! What a benchmark found, as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Args;
use crate::output;

/// One kind of speed.
pub(super) type Pick = fn(&Speed) -> f64;

/// The kinds of speed.
const KINDS: [(&str, Pick); 2] = [
    ("decode", |speed| speed.decode),
    ("prefill", |speed| speed.prefill),
];

/// One measurement of one side, in tokens a second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Speed {
    /// All prompts' tokens until the last of them has its first token.
    pub(super) prefill: f64,
    /// While every stream is being answered.
    pub(super) decode: f64,
}

impl Speed {
    /// From the times at which each stream's tokens came, counted from the start. `None` if a
    /// stream has none, or there is no time in which all were being answered.
    pub(super) fn of(prompt_tokens: usize, streams: &[Vec<Duration>]) -> Option<Self> {
        let begin = streams.iter().map(|times| times.first()).max()??;
        let end = streams.iter().map(|times| times.last()).min()??;
        let decoding = end.checked_sub(*begin).filter(|time| !time.is_zero())?;
        let tokens = streams
            .iter()
            .flatten()
            .filter(|time| (begin..=end).contains(time))
            .count();
        Some(Self {
            prefill: (prompt_tokens * streams.len()) as f64 / begin.as_secs_f64(),
            // The token that begins the time was computed before it.
            decode: (tokens - 1) as f64 / decoding.as_secs_f64(),
        })
    }
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
#[derive(Debug)]
pub(super) struct Results {
    /// What was run: cores, streams and so on.
    setting: Value,
    heading: String,
    /// Names of the sides; the stages are the last one.
    sides: Vec<&'static str>,
    /// The sides' speeds, one right after the other.
    rows: Vec<Vec<Speed>>,
    /// Of the last round.
    pub(super) usage: Option<Usage>,
}

/// Lowest, median and highest of some values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    min: f64,
    pub(super) median: f64,
    max: f64,
}

impl Spread {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Self {
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

    pub(super) fn json(self) -> Value {
        json!({"min": self.min, "median": self.median, "max": self.max})
    }

    pub(super) fn text(self, digits: usize) -> String {
        let Self { min, median, max } = self;
        format!("{median:.digits$} ({min:.digits$} to {max:.digits$})")
    }
}

impl Results {
    pub(super) fn new(args: &Args, cores: &[usize]) -> Self {
        let sides = if args.rpc {
            vec!["whole", "rpc", "stages"]
        } else {
            vec!["whole", "stages"]
        };
        Self {
            setting: json!({
                "stages": args.stages,
                "cuts": args.cuts,
                "streams": args.streams,
                "prompt_tokens": args.prompt_tokens,
                "tokens": args.tokens,
                "cores": cores,
                "whole_cores": args.whole_cores,
            }),
            heading: format!(
                "{} stages, streams: {}, cores {cores:?}, the whole model on {} of them",
                args.stages, args.streams, args.whole_cores,
            ),
            sides,
            rows: Vec::new(),
            usage: None,
        }
    }

    pub(super) fn add(&mut self, speeds: &[Speed]) {
        self.rows.push(speeds.to_vec());
    }

    /// Of one side, and of the stages divided by it; of the stages themselves the first alone.
    pub(super) fn spreads(&self, side: usize, pick: Pick) -> (Spread, Option<Spread>) {
        let stages = self.sides.len() - 1;
        let ratios = self
            .rows
            .iter()
            .map(|row| pick(&row[stages]) / pick(&row[side]));
        (
            Spread::of(self.rows.iter().map(|row| pick(&row[side]))),
            (side < stages).then(|| Spread::of(ratios)),
        )
    }

    pub(super) fn json(&self) -> Value {
        let mut json = json!({
            "schema": "brigade.bench/2",
            "pairs": self.rows.len(),
            "pss_bytes": self.usage.map(|usage| usage.pss),
            "pss_allowed_bytes": self.usage.map(|usage| usage.allowed),
        });
        for (key, value) in self.setting.as_object().into_iter().flatten() {
            json[key] = value.clone();
        }
        for (kind, pick) in KINDS {
            for (index, side) in self.sides.iter().enumerate() {
                let (speed, ratio) = self.spreads(index, pick);
                json[kind][side]["tok_s"] = speed.json();
                if let Some(ratio) = ratio {
                    json[kind][side]["stages_ratio"] = ratio.json();
                }
            }
        }
        json
    }

    pub(super) fn table(&self) -> String {
        let mut table = format!(
            "{}; measured {} times: median (lowest to highest)\n{:<17}{:<24}{}\n",
            self.heading,
            self.rows.len(),
            "",
            "tok/s",
            "stages / it",
        );
        for (kind, pick) in KINDS {
            for (index, side) in self.sides.iter().enumerate() {
                let (speed, ratio) = self.spreads(index, pick);
                let ratio = ratio.map_or_else(String::new, |ratio| ratio.text(3));
                let line = format!("{kind:<9}{side:<8}{:<24}{ratio}", speed.text(1));
                let _ = writeln!(table, "{}", line.trim_end());
            }
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

    #[test]
    fn speed_counts_while_all_streams_are_answered() {
        let times = |seconds: &[u64]| seconds.iter().copied().map(Duration::from_secs).collect();
        // From 4 s, where the second stream has its first token, to 6 s.
        let streams: [Vec<_>; 2] = [times(&[2, 3, 4, 5, 6]), times(&[4, 5, 6, 7, 8])];
        let speed = Speed::of(10, &streams).unwrap();
        assert!((speed.prefill - 5.0).abs() < 1e-12, "{speed:?}");
        assert!((speed.decode - 2.5).abs() < 1e-12, "{speed:?}");
        assert_eq!(Speed::of(10, &[times(&[1]), times(&[])]), None);
        assert_eq!(Speed::of(10, &[times(&[1])]), None);
    }
}
