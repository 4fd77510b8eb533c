//! Finds what the build, the demo and the tests need, and installs what is missing.
//!
//! Nothing is installed before the command is shown. With root's rights it then runs; without, it runs
//! through sudo after a question, and where nobody can answer the command is left to the user.

mod install;
mod probe;

use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::models;
use install::{Package, System};

/// What the tools are for; each purpose includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Compiling the binary.
    Build,
    /// Also fetching the demo model, if it is not there yet.
    Demo,
    /// Also the checks and the end-to-end tests.
    Verify,
}

/// Whether to ask before sudo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    Ask,
    Given,
}

/// Something that must be on the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    CxxCompiler,
    Cmake,
    Make,
    Libclang,
    /// A python3 that can download from the Python index: by pip, or by a virtual environment that brings pip.
    Pip,
    /// A python3 that can make virtual environments.
    Venv,
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CxxCompiler => "a C++ compiler with its standard library",
            Self::Cmake => "cmake",
            Self::Make => "make",
            Self::Libclang => "libclang",
            Self::Pip => "python3 with pip or venv",
            Self::Venv => "python3 (3.10 or later) with venv",
        })
    }
}

impl Purpose {
    fn needs(self) -> Vec<Need> {
        let mut needs = vec![Need::CxxCompiler, Need::Cmake, Need::Make, Need::Libclang];
        match self {
            Self::Build => {}
            Self::Demo if models::demo_is_there() => {}
            Self::Demo => needs.push(Need::Pip),
            // A virtual environment brings pip along.
            Self::Verify => needs.push(Need::Venv),
        }
        needs
    }
}

/// Makes sure that everything for `purpose` is there.
pub(crate) fn run(purpose: Purpose, consent: Consent) -> Result<()> {
    let missing = missing_of(&purpose.needs());
    if missing.is_empty() {
        eprintln!("      every tool is there{}", ccache_note());
    } else {
        eprintln!("      missing: {}", list(&missing));
        install(&missing, consent)?;
        let still = missing_of(&missing);
        if !still.is_empty() {
            let hint = if cfg!(target_os = "macos") {
                "; if Apple's installer has just opened, let it finish and run this again"
            } else {
                "; install it by hand and run this again"
            };
            bail!("still missing: {}{hint}", list(&still));
        }
    }
    if purpose >= Purpose::Verify {
        rust_components()?;
    }
    Ok(())
}

fn missing_of(needs: &[Need]) -> Vec<Need> {
    needs
        .iter()
        .copied()
        .filter(|need| !probe::is_met(*need))
        .collect()
}

fn list(needs: &[Need]) -> String {
    needs
        .iter()
        .map(Need::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn ccache_note() -> &'static str {
    if crate::host::which("ccache").is_some() {
        "; llama.cpp's objects are kept by ccache"
    } else {
        ""
    }
}

fn install(missing: &[Need], consent: Consent) -> Result<()> {
    let system = System::detect();
    let packages = install::packages(system, missing);
    let Some(plan) = install::plan(system, &packages, install::lists_are_old()) else {
        bail!(
            "cannot install {} on this system; install {} and run this again",
            list(missing),
            packages
                .iter()
                .map(Package::to_string)
                .collect::<Vec<_>>()
                .join(", ")
        );
    };
    let prefix = if plan.as_root && !crate::host::is_root() {
        sudo(&plan, consent)?
    } else {
        eprintln!("      running: {}", plan.shell(&[]));
        &[]
    };
    for command in &plan.commands {
        let line: Vec<&str> = prefix.iter().copied().chain(command.words()).collect();
        let mut process = Command::new(line[0]);
        process
            .args(&line[1..])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdout(Stdio::from(std::io::stderr()));
        let status = process
            .status()
            .with_context(|| format!("cannot run `{}`", line.join(" ")))?;
        if !status.success() {
            // One unreachable package list does not stop the others from being enough.
            if command.may_fail {
                eprintln!(
                    "      `{}` failed; going on with what is there",
                    line.join(" ")
                );
            } else {
                bail!("`{}` failed ({status})", line.join(" "));
            }
        }
    }
    Ok(())
}

/// The words to put before each command, once the user has agreed.
fn sudo(plan: &install::Plan, consent: Consent) -> Result<&'static [&'static str]> {
    const ASKING: &[&str] = &["sudo"];
    const SILENT: &[&str] = &["sudo", "-n"];

    if crate::host::which("sudo").is_none() {
        bail!(
            "this needs root's rights, and there is no sudo; as root, run\n  {}",
            plan.shell(&[])
        );
    }
    let by_hand = format!("run this, then try again:\n  {}", plan.shell(ASKING));
    let terminal = std::io::stdin().is_terminal();
    match (consent, terminal) {
        (Consent::Ask, false) => bail!("this needs sudo, and nobody can be asked here; {by_hand}"),
        (Consent::Given, false) => {
            eprintln!("      running: {}", plan.shell(SILENT));
            Ok(SILENT)
        }
        (Consent::Given, true) => {
            eprintln!("      running: {}", plan.shell(ASKING));
            Ok(ASKING)
        }
        (Consent::Ask, true) => {
            eprint!("      to run: {}\n      run it? [Y/n] ", plan.shell(ASKING));
            std::io::stderr().flush()?;
            let mut answer = String::new();
            let read = std::io::stdin().read_line(&mut answer)?;
            if read == 0 || !matches!(answer.trim().to_lowercase().as_str(), "" | "y" | "yes") {
                bail!("not installed; {by_hand}");
            }
            Ok(ASKING)
        }
    }
}

/// rustfmt and clippy, which a minimal toolchain lacks.
fn rust_components() -> Result<()> {
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(command, _)| {
            !crate::compile::cargo()
                .args([command, "--version"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        })
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if crate::host::which("rustup").is_none() {
        bail!("missing: {names}; install them with your Rust toolchain");
    }
    eprintln!("      running: rustup component add {names}");
    let status = Command::new("rustup")
        .args(["component", "add"])
        .args(&missing)
        .status()?;
    if !status.success() {
        bail!("`rustup component add {names}` failed ({status})");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verify_needs_more_than_the_build() {
        let build = Purpose::Build.needs();
        let verify = Purpose::Verify.needs();
        assert!(build.iter().all(|need| verify.contains(need)));
        assert!(!build.contains(&Need::Venv) && verify.contains(&Need::Venv));
    }
}
