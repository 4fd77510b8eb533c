//! `brigade calibrate`: what this machine does with weights of each type.

mod check;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use brigade_fit::speed::calibration::Calibration;

use crate::about::Calibrations;
use crate::calibrator::Measuring;
use crate::commands::lab::Trial;
use crate::{model, output};
use check::Compared;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Threads that compute [default: the cores of this machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Run this model in a lab as well, compare with what is predicted, and let predictions of other
    /// models learn from it
    #[arg(long, value_name = "MODEL")]
    check: Vec<PathBuf>,
    /// How many stages --check runs
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "2", requires = "check",
        value_parser = clap::value_parser!(u32).range(1..))]
    stages: Vec<u32>,
    /// Links of the lab of --check, as `brigade lab` has them
    #[arg(long, value_name = "[A-B:]LINK", requires = "check")]
    link: Vec<String>,
    /// How many answers --check measures
    #[arg(long, value_name = "N", default_value_t = 5, requires = "check", value_parser = clap::value_parser!(u32).range(1..=1000))]
    answers: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let threads = model::threads(args.threads, 1)?;
    let mut trials = Vec::new();
    for model in &args.check {
        for &nodes in &args.stages {
            trials.push(Trial {
                model,
                nodes,
                threads,
                links: &args.link,
                answers: args.answers,
            });
        }
    }
    // What cannot work is said before anything is measured.
    for trial in &trials {
        trial.check()?;
    }
    let measuring = Measuring::start(threads)?;
    let mut calibration = measuring.finish(|what| output::status(&format!("measuring {what}")))?;
    output::progress_done();
    let home = brigade_node::home_dir()?;
    std::fs::create_dir_all(&home)?;
    let catalog = crate::planner::catalog(None)?;
    let facts = crate::about::facts(&catalog, None);
    Calibrations::keep(&home, &facts, &calibration)?;
    if args.json && args.check.is_empty() {
        output::line(&serde_json::to_string(&calibration)?)?;
    } else if !args.json {
        output::document(&table(&calibration))?;
        output::note(
            "The planner uses this from now on, here and, where the daemon runs, in its cluster.",
        );
    }
    for trial in &trials {
        let compared = Compared::by(trial)?;
        output::line(&if args.json {
            serde_json::to_string(&compared)?
        } else {
            compared.line()
        })?;
        match compared.check() {
            Ok(check) => {
                calibration.checks.push(check);
                Calibrations::keep(&home, &facts, &calibration)?;
            }
            Err(why) => output::note(&format!("Nothing is learnt from that: {why}.")),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(calibration: &Calibration) -> String {
    let Calibration {
        threads,
        step_ms,
        layer_ms,
        kv_gb_s,
        vocabulary_ms,
        types,
        checks: _,
    } = calibration;
    let mut table = format!(
        "{threads} threads: {step_ms:.3} ms a step, {:.1} µs a layer, KV cache at {kv_gb_s:.1} GB/s, \
         {vocabulary_ms:.3} ms to choose among 100,000 tokens\n\n{:<6}  {:>12}  {:>8}  {}\n",
        layer_ms * 1e3,
        "type",
        "decode",
        "a row",
        "GFLOP/s by tokens at once"
    );
    for rates in types {
        let batches = rates.batches.iter();
        let batches: Vec<_> = batches
            .map(|(tokens, rate)| format!("{tokens}: {rate:.0}"))
            .collect();
        let _ = writeln!(
            table,
            "{:<6}  {:>7.1} GB/s  {:>5.1} ns  {}",
            rates.ggml_type,
            rates.decode_gb_s,
            rates.row_ns,
            batches.join("  ")
        );
    }
    table
}
