//! `brigade key`: a key for the API.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};

use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Whose key it is: a word, for logs
    name: String,
    /// The file that keeps its hash, for --api-key-file; made if it is not there
    #[arg(long, value_name = "PATH")]
    file: PathBuf,
}

/// Prints the key, which is kept nowhere else.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if args.name.is_empty() || !args.name.chars().all(word) {
        bail!(
            "'{}' is no name; use letters, digits, '-', '_' and '.'",
            args.name
        );
    }
    let mut random = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .context("this machine gives no random bytes")?;
    let (key, line) = brigade_api::new_key(&args.name, random);
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&args.file)
        .and_then(|mut file| writeln!(file, "{line}"))
        .with_context(|| format!("cannot write {}", args.file.display()))?;
    output::line(&key)?;
    Ok(ExitCode::SUCCESS)
}
