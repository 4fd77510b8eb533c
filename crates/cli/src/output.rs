//! What several commands print.

#[cfg(feature = "engine")]
mod cluster;

use std::io::{self, Write as _};

use anyhow::Context;

#[cfg(feature = "engine")]
pub(crate) use cluster::{
    Told, nodes_table, progress, progress_done, progress_text, status, stream,
};

/// Bytes in the unit that suits them, 10⁶ or 10⁹ based.
pub(crate) fn bytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    if megabytes >= 1000.0 {
        format!("{:.1} GB", megabytes / 1000.0)
    } else {
        format!("{megabytes:.1} MB")
    }
}

const UNWRITTEN: &str = "cannot write to standard output";

/// Prints a line of data.
#[cfg(feature = "engine")]
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .context(UNWRITTEN)
}

/// Prints a document that ends with a line feed. A reader that has seen enough (`| head`) is no
/// error.
pub(crate) fn document(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context(UNWRITTEN),
    }
}

/// Prints a line for a person on standard error, where nobody may be listening.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Asks for input on standard error.
#[cfg(feature = "engine")]
pub(crate) fn ask(text: &str) {
    let mut out = io::stderr().lock();
    let _ = write!(out, "{text}").and_then(|()| out.flush());
}
