//! `brigade backtest`: predictions against measurements.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use brigade_fit::calibrate::{backtest, backtest_all};
use brigade_fit::catalog::measurements;

use crate::planner::{self, Show};

/// The most of a file of measurements.
const MAX_BYTES: u64 = 64 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Measurements in the columns of the catalog's measurements.csv [default: those]
    #[arg(value_name = "FILE.csv")]
    file: Option<PathBuf>,
    #[command(flatten)]
    show: Show,
}

pub(crate) fn run(args: &Args, catalog: Option<&Path>) -> anyhow::Result<ExitCode> {
    let catalog = planner::catalog(catalog)?;
    let page = match &args.file {
        None => backtest_all(&catalog),
        Some(path) => {
            let name = path.display().to_string();
            let text = planner::read_text(path, MAX_BYTES);
            let text = text.with_context(|| format!("cannot read {name}"))?;
            let rows = measurements::read(&text, &name, &catalog.sources)?;
            if rows.is_empty() {
                bail!("{name} has no rows, only a header");
            }
            backtest(&catalog, &rows)
        }
    };
    args.show.page(&page)?;
    Ok(ExitCode::SUCCESS)
}
