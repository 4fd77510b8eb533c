//! The demo: from a fresh clone to what four machines could run, and to four nodes that answer a question.

use std::convert::Infallible;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::say::Steps;
use crate::setup::{self, Consent, Purpose};
use crate::{compile, models};

/// What happens after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The nodes go on serving until Ctrl-C.
    Serve,
    Exit,
}

/// The combo whose page is shown.
const COMBO: &str = "quad-mac-mini-m4-pro-64gb";
const NODES: &str = "4";
/// Its answer is long enough for a speed to mean something.
const QUESTION: &str = "Why is the sky blue?";

pub(crate) fn run(after: After, consent: Consent) -> Result<()> {
    let mut steps = Steps::new(7);
    // First what needs no C++: there is something to read while llama.cpp compiles.
    let planner = steps.step("the planner alone", compile::planner)?;
    steps.step("what would run on four Mac minis?", || {
        brigade(&planner, &["fit", "--on", COMBO])
    })?;
    steps.step("set-up", || setup::run(Purpose::Demo, consent))?;
    let binary = steps.step("release build", compile::release)?;
    let model = steps.step("demo model", models::demo)?;
    let model = model
        .to_str()
        .context("the demo model's path is not UTF-8")?;
    steps.step("parity: the whole model against four stages", || {
        brigade(&binary, &["parity", model, "--stages", NODES])
    })?;
    let lab = ["lab", "--nodes", NODES, "--model", model];
    let name = "four nodes, one answer";
    match after {
        After::Exit => steps.step(name, || {
            brigade(&binary, &[&lab[..], &["--once", QUESTION]].concat())
        }),
        After::Serve => {
            steps.announce(name);
            let _: Infallible = become_lab(&binary, &lab)?;
            Ok(())
        }
    }
}

fn brigade(binary: &Path, arguments: &[&str]) -> Result<()> {
    let status = Command::new(binary)
        .args(arguments)
        .status()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    if !status.success() {
        bail!("`brigade {}` failed ({status})", arguments[0]);
    }
    Ok(())
}

/// Replaces this process, so that Ctrl-C and the shell deal with the lab itself.
fn become_lab(binary: &Path, lab: &[&str]) -> Result<Infallible> {
    let error = Command::new(binary)
        .args(lab)
        .args(["--ask", QUESTION])
        .exec();
    Err(error).with_context(|| format!("cannot run {}", binary.display()))
}
