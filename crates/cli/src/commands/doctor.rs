//! `brigade doctor`: what stops a cluster, and what to do about it.
//!
//! Whatever tools and files say is read by pure functions, one module a matter; [`look`] asks them.

mod cluster;
mod firewall;
mod look;
mod machine;
mod network;
mod power;

use std::fmt::Write as _;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is known of one matter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Check {
    name: &'static str,
    outcome: Outcome,
    /// What is the case, in a line.
    why: String,
    /// What to do, in a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Ok,
    /// It may stop a cluster, or slows it down.
    Warning,
    /// It stops a cluster.
    Problem,
    NotApplicable,
    /// It could not be told.
    Unknown,
}

impl Check {
    fn new(name: &'static str, outcome: Outcome, why: impl Into<String>) -> Self {
        Self {
            name,
            outcome,
            why: why.into(),
            fix: None,
        }
    }

    fn ok(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, Outcome::Ok, why)
    }

    fn warning(name: &'static str, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, Outcome::Warning, why).with_fix(fix)
    }

    fn problem(name: &'static str, why: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::new(name, Outcome::Problem, why).with_fix(fix)
    }

    fn not_applicable(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, Outcome::NotApplicable, why)
    }

    fn unknown(name: &'static str, why: impl Into<String>) -> Self {
        Self::new(name, Outcome::Unknown, why)
    }

    fn with_fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let checks = look::all();
    if args.json {
        let json = json!({ "schema": "brigade.doctor/1", "checks": checks });
        output::line(&json.to_string())?;
    } else {
        output::document(&report(&checks))?;
    }
    let problem = checks.iter().any(|check| check.outcome == Outcome::Problem);
    Ok(if problem {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// The checks as a person reads them: what needs doing stands out, what concerns this machine
/// not at all is only named.
fn report(checks: &[Check]) -> String {
    let mut text = String::new();
    let width = checks.iter().map(|check| check.name.len()).max();
    let width = width.unwrap_or_default();
    for check in checks {
        let word = match check.outcome {
            Outcome::Ok => "ok",
            Outcome::Warning => "WARNING",
            Outcome::Problem => "PROBLEM",
            Outcome::Unknown => "unknown",
            Outcome::NotApplicable => continue,
        };
        let _ = writeln!(text, "{word:<7}  {:<width$}  {}", check.name, check.why);
        if let Some(fix) = &check.fix {
            let _ = writeln!(text, "{:<7}  {:<width$}  → {fix}", "", "");
        }
    }
    let of = |outcome: Outcome| checks.iter().filter(move |check| check.outcome == outcome);
    let spared: Vec<&str> = of(Outcome::NotApplicable).map(|check| check.name).collect();
    if !spared.is_empty() {
        let _ = writeln!(text, "\nnot for this machine: {}", spared.join(", "));
    }
    let counted = |outcome: Outcome, one: &str, many: &str| match of(outcome).count() {
        0 => format!("no {many}"),
        1 => format!("1 {one}"),
        count => format!("{count} {many}"),
    };
    let _ = writeln!(
        text,
        "\n{}, {}",
        counted(Outcome::Problem, "problem", "problems"),
        counted(Outcome::Warning, "warning", "warnings")
    );
    text
}

#[cfg(test)]
mod tests;
