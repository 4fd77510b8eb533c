//! What the tasks tell the user, on stderr.

use std::time::{Duration, Instant};

use anyhow::Result;

/// A duration as a person would write it: `0.4 s`, `12 s`, `3 min 07 s`, `1 h 02 min`.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", time.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A known number of steps, announced as `[2/5] release build`, each with its time at its end.
pub(crate) struct Steps {
    total: usize,
    done: Vec<(String, Duration)>,
}

impl Steps {
    pub(crate) fn new(total: usize) -> Self {
        Self {
            total,
            done: Vec::with_capacity(total),
        }
    }

    /// Announces `name`, runs `work` and tells its time; an error carries the step's name.
    pub(crate) fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.announce(name);
        let start = Instant::now();
        let outcome = work();
        let time = start.elapsed();
        let number = format!("[{}/{}]", self.done.len() + 1, self.total);
        match outcome {
            Ok(value) => {
                eprintln!("{number} {name}: {}", duration(time));
                self.done.push((name.to_owned(), time));
                Ok(value)
            }
            Err(error) => Err(error.context(format!("{name} failed after {}", duration(time)))),
        }
    }

    /// Announces a step that this process will not see the end of.
    pub(crate) fn announce(&self, name: &str) {
        eprintln!("\n[{}/{}] {name} …", self.done.len() + 1, self.total);
    }

    /// The finished steps with their times, one a line, and the sum.
    pub(crate) fn table(&self) -> String {
        let total = (
            "total".to_owned(),
            self.done.iter().map(|(_, time)| *time).sum(),
        );
        let rows = || self.done.iter().chain(std::iter::once(&total));
        let width = rows()
            .map(|(name, _)| name.chars().count())
            .max()
            .unwrap_or(0);
        let lines: Vec<String> = rows()
            .map(|(name, time)| format!("  {name:width$}  {:>12}", duration(*time)))
            .collect();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let cases = [
            (412, "0.4 s"),
            (9_960, "10.0 s"),
            (12_400, "12 s"),
            (187_000, "3 min 07 s"),
            (3_725_000, "1 h 02 min"),
        ];
        for (milliseconds, text) in cases {
            assert_eq!(duration(Duration::from_millis(milliseconds)), text);
        }
    }

    #[test]
    fn a_failed_step_is_named_and_not_listed() {
        let mut steps = Steps::new(2);
        steps.step("first", || Ok(())).unwrap();
        let error = steps
            .step("second", || -> Result<()> { anyhow::bail!("no luck") })
            .unwrap_err();
        assert!(format!("{error:#}").starts_with("second failed after"));
        let table = steps.table();
        assert!(
            table.contains("first") && table.contains("total"),
            "{table}"
        );
        assert!(!table.contains("second"), "{table}");
    }
}
