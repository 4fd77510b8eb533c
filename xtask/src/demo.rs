//! The demo: from a fresh clone to four nodes that answer a question.

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

const NODES: &str = "4";
const QUESTION: &str = "What is the capital of France? Explain.";

pub(crate) fn run(after: After, consent: Consent) -> Result<()> {
    let mut steps = Steps::new(5);
    steps.step("set-up", || setup::run(Purpose::Demo, consent))?;
    let binary = steps.step("release build", compile::release)?;
    let model = steps.step("demo model", models::demo)?;
    steps.step("parity: the whole model against four stages", || {
        brigade(&binary, &["parity"], &model, &["--stages", NODES])
    })?;
    let lab = ["lab", "--nodes", NODES, "--model"];
    let name = "four nodes, one answer";
    match after {
        After::Exit => steps.step(name, || {
            brigade(&binary, &lab, &model, &["--once", QUESTION])
        }),
        After::Serve => {
            steps.announce(name);
            let _: Infallible = become_lab(&binary, &lab, &model)?;
            Ok(())
        }
    }
}

fn brigade(binary: &Path, before: &[&str], model: &Path, after: &[&str]) -> Result<()> {
    let status = Command::new(binary)
        .args(before)
        .arg(model)
        .args(after)
        .status()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    if !status.success() {
        bail!("`brigade {}` failed ({status})", before[0]);
    }
    Ok(())
}

/// Replaces this process, so that Ctrl-C and the shell deal with the lab itself.
fn become_lab(binary: &Path, lab: &[&str], model: &Path) -> Result<Infallible> {
    let error = Command::new(binary)
        .args(lab)
        .arg(model)
        .args(["--ask", QUESTION])
        .exec();
    Err(error).with_context(|| format!("cannot run {}", binary.display()))
}
