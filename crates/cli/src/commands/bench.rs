//! `brigade bench`: stages against stock llama.cpp.

use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file
    #[arg(value_name = "MODEL")]
    model: PathBuf,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("{}", args.model.display())
}
