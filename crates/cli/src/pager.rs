//! Long pages through a pager, chosen as git chooses its own.

use std::ffi::OsString;
use std::io::{self, Seek, Write};
use std::process::Command;

/// A command line with one of these is the shell's to read.
const OF_SHELL: &[char] = &[
    '|', '&', ';', '<', '>', '(', ')', '$', '`', '\\', '"', '\'', '*', '?', '[', '#', '~', '=', '%',
];

/// The pager's command in words; `None` where nobody wants one.
pub(crate) fn chosen(variable: impl Fn(&str) -> Option<OsString>) -> Option<Vec<String>> {
    let named = variable("BRIGADE_PAGER").or_else(|| variable("PAGER"));
    let line = named.unwrap_or_else(|| "less".into());
    let line = line.to_string_lossy();
    let words = line.split_whitespace().collect::<Vec<_>>();
    if words.is_empty() || words == ["cat"] {
        return None;
    }
    let shell = ["sh", "-c", &line];
    let by_shell = cfg!(unix) && line.contains(OF_SHELL);
    let words = if by_shell { &shell } else { &words[..] };
    Some(words.iter().map(|word| (*word).to_owned()).collect())
}

/// Shows a text through a pager; fails where it cannot be started.
pub(crate) fn show(text: &str, words: &[String]) -> io::Result<()> {
    let [program, args @ ..] = words else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    // From a file, so that a pager that leaves early breaks no pipe.
    let mut file = tempfile::tempfile()?;
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    let mut command = Command::new(program);
    command.args(args).stdin(file);
    if std::env::var_os("LESS").is_none() {
        // Ends where all fits on the screen, takes colours, and leaves the page there.
        command.env("LESS", "FRX");
    }
    become_it(command)
}

/// In this process's place: Ctrl-C is then the pager's alone.
#[cfg(unix)]
fn become_it(mut command: Command) -> io::Result<()> {
    Err(std::os::unix::process::CommandExt::exec(&mut command))
}

#[cfg(not(unix))]
fn become_it(mut command: Command) -> io::Result<()> {
    command.status().map(|_| ())
}

#[cfg(test)]
mod tests;
