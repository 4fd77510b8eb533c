//! `brigade site`: every page of the catalog, as files.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use brigade_fit::calibrate::backtest_all;
use brigade_fit::html;
use brigade_fit::verdict::Ask;

use crate::{output, planner};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where the pages go; made if it is not there
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

pub(crate) fn run(args: &Args, catalog: Option<&Path>) -> anyhow::Result<ExitCode> {
    let catalog = planner::catalog(catalog)?;
    let speed = planner::speed(&catalog);
    let backtest = backtest_all(&catalog);
    let files = html::site(&catalog, &Ask::default(), &speed, Some(backtest))?;
    let count = files.len();
    for (name, text) in files {
        let path = args.dir.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        planner::write_file(&path, &text)?;
    }
    let first = args.dir.join("index.html");
    output::note(&format!("{count} files: start at {}", first.display()));
    Ok(ExitCode::SUCCESS)
}
