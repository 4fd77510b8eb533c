//! Every check that a change must pass, in the order in which they fail soonest.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::compile::{self, PLANNER, WHOLE, cargo, planner_cargo, watched};
use crate::demo;
use crate::models::{self, Set};
use crate::python;
use crate::say::Steps;
use crate::setup::{self, Consent, Purpose};

/// How much to check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Without the docs, the dependency rules and the demo.
    Fast,
    Full,
}

pub(crate) fn run(depth: Depth, consent: Consent) -> Result<()> {
    let full = depth == Depth::Full;
    let deny = full && has_cargo_deny();
    let mut steps = Steps::new(7 + 2 * usize::from(full) + usize::from(deny));
    if full && !deny {
        eprintln!("cargo-deny is not installed: licences and duplicates are not checked");
    }

    steps.step("set-up", || setup::run(Purpose::Verify, consent))?;
    let python = steps.step("models and clients", || {
        models::fetch(Set::Test)?;
        python::with_clients()
    })?;
    steps.step("format", || {
        let mut fmt = cargo();
        fmt.args(["fmt", "--all", "--check"]);
        must_succeed(fmt, "run `cargo fmt --all`")
    })?;
    steps.step("lints", || {
        let mut clippy = cargo();
        clippy
            .arg("clippy")
            .args(WHOLE)
            .args(["--all-targets", "--", "-D", "warnings"]);
        watched(clippy, "checking")
    })?;
    steps.step("lints of the planner alone", || {
        let mut clippy = planner_cargo();
        clippy
            .arg("clippy")
            .args(PLANNER)
            .args(["--all-targets", "--", "-D", "warnings"]);
        must_succeed(clippy, "it must build without the engine")
    })?;
    steps.step("release build", compile::release)?;
    steps.step("tests", || {
        let mut test = cargo();
        test.arg("test")
            .args(WHOLE)
            .env("BRIGADE_TEST_MODELS", models::dir()?)
            .env("BRIGADE_TEST_PYTHON", &python);
        must_succeed(test, "the failed tests are named above")
    })?;
    if full {
        steps.step("docs", || {
            let mut doc = cargo();
            doc.arg("doc")
                .args(WHOLE)
                .arg("--no-deps")
                .env("RUSTDOCFLAGS", "-D warnings");
            watched(doc, "documenting")
        })?;
    }
    if deny {
        steps.step("dependency rules", || {
            let mut check = cargo();
            // Advisories need another site than the registry; whoever updates dependencies asks for them.
            check.args(["deny", "check", "bans", "licenses", "sources"]);
            must_succeed(check, "deny.toml holds the rules")
        })?;
    }
    if full {
        steps.step("demo", || demo::run(demo::After::Exit, consent))?;
    }

    println!("\nverify passed\n{}", steps.table());
    Ok(())
}

fn has_cargo_deny() -> bool {
    cargo()
        .args(["deny", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn must_succeed(mut command: Command, hint: &str) -> Result<()> {
    let status = command.status()?;
    if !status.success() {
        bail!("{status} ({hint})");
    }
    Ok(())
}
