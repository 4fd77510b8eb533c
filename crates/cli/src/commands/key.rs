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
    let others = std::fs::read_to_string(&args.file).unwrap_or_default();
    let has_name = |line: &str| line.split_whitespace().next() == Some(args.name.as_str());
    let mut options = OpenOptions::new();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
        .open(&args.file)
        .and_then(|mut file| writeln!(file, "{line}"))
        .with_context(|| format!("cannot write {}", args.file.display()))?;
    output::line(&key)?;
    output::note(
        "It is shown this once. Without its line in the file it is good no more, from the next \
         start of the server.",
    );
    if others.lines().any(has_name) {
        output::note(&format!(
            "{} has other keys in {}, which stay good",
            args.name,
            args.file.display()
        ));
    }
    Ok(ExitCode::SUCCESS)
}
