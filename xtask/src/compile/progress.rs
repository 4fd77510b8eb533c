//! Runs cargo and keeps telling that it is alive. llama.cpp's build takes minutes in which cargo says
//! nothing: cmake's output goes to a file that only appears at the end.

use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Write, stderr};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

use super::target_dir;
use crate::say;

/// How often the line on a terminal is redrawn, and how long a log stays silent.
const REDRAW: Duration = Duration::from_millis(500);
const SILENCE: Duration = Duration::from_secs(30);

/// Runs a cargo command; `doing` names it on the progress line. stdout is left alone.
pub(crate) fn watched(mut command: Command, doing: &str) -> Result<()> {
    let terminal = stderr().is_terminal();
    command
        .stderr(Stdio::piped())
        .env("CARGO_TERM_PROGRESS_WHEN", "never");
    if terminal && std::env::var_os("NO_COLOR").is_none() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command.spawn().context("cannot run cargo")?;
    let lines = child
        .stderr
        .take()
        .map(lines_of)
        .context("cargo has no stderr")?;
    follow(&lines, doing, terminal);
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo failed ({status})");
    }
    Ok(())
}

/// The lines of a child's stderr, read on a thread of their own; the channel ends with the child.
fn lines_of(stderr: ChildStderr) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        while reader
            .read_until(b'\n', &mut line)
            .is_ok_and(|read| read > 0)
        {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if sender.send(text).is_err() {
                break;
            }
            line.clear();
        }
    });
    lines
}

fn follow(lines: &Receiver<String>, doing: &str, terminal: bool) {
    let start = Instant::now();
    let llama = LlamaBuild::since(SystemTime::now());
    if llama.is_first() {
        eprintln!("      the first build here compiles llama.cpp, which takes minutes");
    }
    let wait = if terminal { REDRAW } else { SILENCE };
    let mut drawn = false;
    loop {
        let event = lines.recv_timeout(wait);
        // A closed stderr is only a lost message.
        let mut out = stderr().lock();
        if drawn {
            _ = write!(out, "\r\x1b[2K");
            drawn = false;
        }
        match event {
            Ok(line) => _ = writeln!(out, "{line}"),
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let llama = llama
                    .done()
                    .map_or_else(String::new, |done| format!(", {done}"));
                let line = format!("      {doing}: {}{llama}", say::duration(start.elapsed()));
                if terminal {
                    _ = write!(out, "{line}");
                    _ = out.flush();
                    drawn = true;
                } else {
                    _ = writeln!(out, "{line}");
                }
            }
        }
    }
}

/// The C++ build of llama.cpp inside cargo's, seen by the files that it leaves.
struct LlamaBuild {
    /// cargo's folder of build script outputs.
    folder: PathBuf,
    since: SystemTime,
}

impl LlamaBuild {
    fn since(since: SystemTime) -> Self {
        let folder = target_dir().join("release/build");
        Self { folder, since }
    }

    /// Whether there is no build yet, finished or not.
    fn is_first(&self) -> bool {
        self.builds().next().is_none()
    }

    /// How far a build that began after `since` is; `None` where there is none.
    fn done(&self) -> Option<String> {
        let build = self
            .builds()
            .find(|build| self.is_new(&build.join("CMakeFiles")))?;
        let objects = count_objects(&build);
        // What cmake's makefiles count to, links included.
        let marks = fs::read_to_string(build.join("CMakeFiles/progress.marks"));
        let marks = marks
            .ok()
            .and_then(|marks| marks.trim().parse::<usize>().ok());
        Some(match marks {
            Some(marks) if marks > 0 => format!("llama.cpp {} %", (objects * 100 / marks).min(99)),
            _ => format!("llama.cpp {objects} files"),
        })
    }

    /// cmake's build folders, of this and of earlier builds.
    fn builds(&self) -> impl Iterator<Item = PathBuf> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries
            .filter(|entry| {
                let name = entry.file_name();
                name.to_string_lossy().starts_with("llama-cpp-sys-2-")
            })
            .map(|entry| entry.path().join("out/build"))
            .filter(|build| build.is_dir())
    }

    fn is_new(&self, path: &Path) -> bool {
        fs::metadata(path)
            .and_then(|meta| meta.modified())
            .is_ok_and(|modified| modified >= self.since)
    }
}

fn count_objects(folder: &Path) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => count_objects(&entry.path()),
            _ => usize::from(entry.path().extension().is_some_and(|end| end == "o")),
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_is_seen_by_its_files() {
        let folder = std::env::temp_dir().join(format!("xtask-progress-{}", std::process::id()));
        let llama = LlamaBuild {
            folder: folder.clone(),
            since: SystemTime::UNIX_EPOCH,
        };
        assert!(llama.is_first());
        assert_eq!(llama.done(), None);

        let build = folder.join("llama-cpp-sys-2-0123/out/build");
        fs::create_dir_all(build.join("CMakeFiles")).unwrap();
        fs::create_dir_all(build.join("ggml/deep")).unwrap();
        for object in ["a.cpp.o", "ggml/b.c.o", "ggml/deep/c.o", "ggml/deep/c.o.d"] {
            fs::write(build.join(object), "").unwrap();
        }
        assert!(!llama.is_first());
        assert_eq!(llama.done().unwrap(), "llama.cpp 3 files");
        fs::write(build.join("CMakeFiles/progress.marks"), "12\n").unwrap();
        assert_eq!(llama.done().unwrap(), "llama.cpp 25 %");
        fs::write(build.join("CMakeFiles/progress.marks"), "2\n").unwrap();
        assert_eq!(llama.done().unwrap(), "llama.cpp 99 %");

        let later = LlamaBuild {
            since: SystemTime::now() + Duration::from_secs(60),
            ..llama
        };
        assert_eq!(later.done(), None, "an older build is not this one");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn lines_arrive_and_the_channel_ends() {
        let mut child = Command::new("sh")
            .args(["-c", "printf 'one\\ntwo\\r\\nthree' >&2"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stderr.take().unwrap());
        assert_eq!(lines.iter().collect::<Vec<_>>(), ["one", "two", "three"]);
        child.wait().unwrap();
    }

    #[test]
    fn a_failing_command_is_an_error() {
        assert!(watched(Command::new("true"), "testing").is_ok());
        assert!(watched(Command::new("false"), "testing").is_err());
    }
}
