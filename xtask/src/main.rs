//! `cargo xtask`, `cargo demo` and `cargo verify`: all that a fresh machine needs.
//!
//! A fresh machine has git, cargo, a C compiler driver (cargo links with it) and perhaps a python3.
//! From there [`setup`] installs what the build needs, [`compile`] builds the release binary and checks
//! that llama.cpp in it is optimised, [`models`] fetches the models, [`demo`] shows the whole thing and
//! [`verify`] runs every check that a change must pass. What is expensive to make or fetch lies in
//! [`cache`], outside the clone.
//!
//! Progress goes to stderr; stdout carries only results.

mod cache;
mod compile;
mod demo;
mod host;
mod models;
mod peers;
mod python;
mod release;
mod say;
mod setup;
mod verify;

use std::process::ExitCode;

use anyhow::{Result, bail};

const HELP: &str = "\
usage: cargo xtask TASK

  setup  [--yes]          install what build, demo and tests need; --yes asks nothing
  build                   build the release binary and check that llama.cpp in it is optimised
  models [--test]         fetch the demo model; --test: every model that the tests use
  demo   [--once] [--yes] four nodes, one answer; then keeps serving, or exits with --once
  verify [--fast] [--yes] format, lints, build, tests, docs, demo; --fast leaves out docs and demo
  calibrate               fit the speed model to the catalog's measurements: writes catalog/speed.toml
  peers [--write]         measure stages, llama.cpp's RPC and one process; --write: into the README
  package DIR [--flavor plain|cuda|vulkan]
                          build the release's archive for this system, for every CPU, into DIR
  checksums DIR REPOSITORY
                          write SHA256SUMS, the Homebrew formula and the installer beside DIR's
                          archives; REPOSITORY is its address, https://github.com/OWNER/NAME
  cache                   print the folder that holds models and tools between builds
  target                  print the folder that the tasks build in

`cargo demo` and `cargo verify` are short for `cargo xtask demo` and `cargo xtask verify`.

environment
  BRIGADE_CACHE           the cache folder (else $XDG_CACHE_HOME/brigade, else ~/.cache/brigade,
                          on macOS ~/Library/Caches/brigade)
  BRIGADE_DEMO_MODEL      a GGUF file that the demo uses in place of its own model
  CARGO_TARGET_DIR        the folder to build in (else one in the cache, for all clones on this CPU)
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    Setup {
        consent: setup::Consent,
    },
    Build,
    Models {
        set: models::Set,
    },
    Demo {
        after: demo::After,
        consent: setup::Consent,
    },
    Verify {
        depth: verify::Depth,
        consent: setup::Consent,
    },
    Calibrate,
    Peers {
        goal: peers::Goal,
    },
    Package {
        folder: String,
        flavor: release::Flavor,
    },
    Checksums {
        folder: String,
        repository: String,
    },
    Cache,
    Target,
}

fn main() -> ExitCode {
    match Task::parse(std::env::args().skip(1)).and_then(Task::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Task {
    /// Reads the arguments after the program's name. A bare `--` is skipped, so that
    /// `cargo demo -- --once` and `cargo demo --once` mean the same.
    fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut arguments = arguments.filter(|argument| argument != "--");
        let Some(name) = arguments.next() else {
            return Ok(Self::Help);
        };
        let mut flags = Flags(arguments.collect());
        let task = match name.as_str() {
            "help" | "--help" | "-h" => Self::Help,
            "setup" => Self::Setup {
                consent: flags.consent(),
            },
            "build" => Self::Build,
            "models" if flags.take("--test") => Self::Models {
                set: models::Set::Test,
            },
            "models" => Self::Models {
                set: models::Set::Demo,
            },
            "demo" => Self::Demo {
                consent: flags.consent(),
                after: if flags.take("--once") {
                    demo::After::Exit
                } else {
                    demo::After::Serve
                },
            },
            "verify" => Self::Verify {
                consent: flags.consent(),
                depth: if flags.take("--fast") {
                    verify::Depth::Fast
                } else {
                    verify::Depth::Full
                },
            },
            "calibrate" => Self::Calibrate,
            "peers" => Self::Peers {
                goal: if flags.take("--write") {
                    peers::Goal::Readme
                } else {
                    peers::Goal::Print
                },
            },
            "package" => Self::Package {
                flavor: release::Flavor::named(
                    &flags.value("--flavor")?.unwrap_or("plain".into()),
                )?,
                folder: flags.word("a folder")?,
            },
            "checksums" => Self::Checksums {
                folder: flags.word("a folder")?,
                repository: flags.word("the repository's address")?,
            },
            "cache" => Self::Cache,
            "target" => Self::Target,
            other => bail!("no task `{other}`; `cargo xtask help` lists them"),
        };
        if let Some(unknown) = flags.0.first() {
            bail!("`{name}` takes no `{unknown}`; `cargo xtask help` lists what it takes");
        }
        Ok(task)
    }

    fn run(self) -> Result<()> {
        match self {
            Self::Help => print!("{HELP}"),
            Self::Setup { consent } => setup::run(setup::Purpose::Verify, consent)?,
            Self::Build => {
                setup::run(setup::Purpose::Build, setup::Consent::Ask)?;
                let binary = compile::release()?;
                println!("{}", binary.display());
            }
            Self::Models { set } => {
                for path in models::fetch(set)? {
                    println!("{}", path.display());
                }
            }
            Self::Demo { after, consent } => demo::run(after, consent)?,
            Self::Calibrate => compile::calibrate()?,
            Self::Peers { goal } => peers::run(goal)?,
            Self::Verify { depth, consent } => verify::run(depth, consent)?,
            Self::Package { folder, flavor } => {
                let archive = release::package(flavor, folder.as_ref())?;
                println!("{}", archive.display());
            }
            Self::Checksums { folder, repository } => {
                release::checksums(folder.as_ref(), &repository)?;
            }
            Self::Cache => println!("{}", cache::dir()?.display()),
            Self::Target => println!("{}", compile::target_dir().display()),
        }
        Ok(())
    }
}

/// The arguments after the task's name that no one has asked for yet.
struct Flags(Vec<String>);

impl Flags {
    /// Whether `flag` was given; it is struck off.
    fn take(&mut self, flag: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|given| given != flag);
        self.0.len() != before
    }

    /// The next word that is no flag.
    fn word(&mut self, what: &str) -> Result<String> {
        match self.0.iter().position(|given| !given.starts_with("--")) {
            Some(index) => Ok(self.0.remove(index)),
            None => bail!("{what} is missing; `cargo xtask help` says what goes where"),
        }
    }

    /// The word after `flag`, if it was given; both are struck off.
    fn value(&mut self, flag: &str) -> Result<Option<String>> {
        let Some(index) = self.0.iter().position(|given| given == flag) else {
            return Ok(None);
        };
        self.0.remove(index);
        if index == self.0.len() {
            bail!("`{flag}` needs a value");
        }
        Ok(Some(self.0.remove(index)))
    }

    fn consent(&mut self) -> setup::Consent {
        if self.take("--yes") {
            setup::Consent::Given
        } else {
            setup::Consent::Ask
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::After;
    use crate::setup::Consent;
    use crate::verify::Depth;

    fn parse(line: &str) -> Result<Task> {
        Task::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn double_dash_is_optional() {
        let once = Task::Demo {
            after: After::Exit,
            consent: Consent::Ask,
        };
        assert_eq!(parse("demo --once").unwrap(), once);
        assert_eq!(parse("demo -- --once").unwrap(), once);
        assert_eq!(
            parse("demo").unwrap(),
            Task::Demo {
                after: After::Serve,
                consent: Consent::Ask,
            }
        );
    }

    #[test]
    fn flags_in_any_order() {
        assert_eq!(
            parse("verify --yes --fast").unwrap(),
            Task::Verify {
                depth: Depth::Fast,
                consent: Consent::Given,
            }
        );
        assert_eq!(
            parse("models --test").unwrap(),
            Task::Models {
                set: models::Set::Test,
            }
        );
    }

    #[test]
    fn values_and_words() {
        let task = Task::Package {
            folder: "dist".into(),
            flavor: release::Flavor::Vulkan,
        };
        assert_eq!(parse("package --flavor vulkan dist").unwrap(), task);
        assert_eq!(parse("package dist --flavor vulkan").unwrap(), task);
        for bad in [
            "package",
            "package dist --flavor",
            "package dist --flavor x",
            "checksums dist",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn unknown_words_are_refused_by_name() {
        let error = parse("demo --twice").unwrap_err().to_string();
        assert!(error.contains("`--twice`"), "{error}");
        let error = parse("dance").unwrap_err().to_string();
        assert!(error.contains("`dance`"), "{error}");
        assert!(parse("build --once").is_err());
    }

    #[test]
    fn no_task_is_help() {
        assert_eq!(parse("").unwrap(), Task::Help);
        assert_eq!(parse("--help").unwrap(), Task::Help);
    }
}
