//! `brigade service`: what keeps `brigade up` running, by systemd or launchd.
//!
//! The files are rendered by pure functions for both managers; [`manager`] writes them and talks
//! to the one that is here.

mod launchd;
mod manager;
mod systemd;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use serde_json::json;

use super::up;
use crate::output;
use manager::{Manager, Status};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Start `brigade up` now and whenever the machine or the session starts
    Install(InstallArgs),
    /// End the service and remove its file; the node's identity and cluster stay
    Uninstall(ScopeArgs),
    /// Show whether the service is installed and runs; the exit status is 1 if it does not
    Status(StatusArgs),
}

#[derive(Debug, clap::Args)]
struct InstallArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// With --system: the user that it runs as [default: who called sudo, else root]
    #[arg(long = "as", value_name = "USER", conflicts_with = "user")]
    run_as: Option<String>,
    /// Print the file and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Options of `brigade up`, after `--`
    #[arg(last = true, value_name = "UP OPTIONS")]
    up: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct StatusArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::Args)]
struct ScopeArgs {
    /// Of this user, without root [default, except for root]
    #[arg(long)]
    user: bool,
    /// Of the machine, from its start on; needs root
    #[arg(long, conflicts_with = "user")]
    system: bool,
}

/// Whose service it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    User,
    System,
}

/// What a manager is to run. No text in it has a control character.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    /// An absolute path.
    program: String,
    /// After the program's name.
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    scope: Scope,
    account: Account,
}

/// A user of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    name: String,
    home: String,
}

/// Files that a node may hold open: a connection for each peer, stage and request, and model files.
const OPEN_FILES: u32 = 65_536;

/// How long a node may take to end before it is killed.
const STOP_SECONDS: u32 = 15;

/// Between the end of a node and its next start.
const RESTART_SECONDS: u32 = 5;

/// In the first lines of every file that is written here: others are not touched.
const MARK: &str = "Written by `brigade service install`";

/// What a node reads from its environment, as far as it may stand in a file that others can read.
const CARRIED: [&str; 10] = [
    "BRIGADE_HOME",
    "BRIGADE_CACHE",
    "BRIGADE_CACHE_LIMIT",
    "BRIGADE_DEVICE",
    "BRIGADE_LOG",
    "XDG_DATA_HOME",
    "XDG_CACHE_HOME",
    "HF_HOME",
    "HF_HUB_CACHE",
    "OLLAMA_MODELS",
];

/// The options of `brigade up`, to see that they are some.
#[derive(Debug, Parser)]
#[command(name = "brigade up", no_binary_name = true)]
struct Up {
    #[command(flatten)]
    args: up::Args,
}

impl ScopeArgs {
    fn named(self) -> Option<Scope> {
        match self {
            Self { user: true, .. } => Some(Scope::User),
            Self { system: true, .. } => Some(Scope::System),
            _ => None,
        }
    }

    /// Where nothing was named: that of who asks.
    fn for_new(self) -> Scope {
        self.named().unwrap_or_else(|| {
            if manager::is_root() {
                Scope::System
            } else {
                Scope::User
            }
        })
    }

    /// Where nothing was named: one that is installed.
    fn for_existing(self, manager: Manager) -> anyhow::Result<Scope> {
        if let Some(scope) = self.named() {
            return Ok(scope);
        }
        let usual = self.for_new();
        for scope in [usual, Scope::User, Scope::System] {
            if manager.file(scope)?.exists() {
                return Ok(scope);
            }
        }
        Ok(usual)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let manager = Manager::of_this_platform()?;
    match &args.command {
        Command::Install(args) => install(args, manager),
        Command::Uninstall(args) => {
            let scope = args.for_existing(manager)?;
            let file = manager.file(scope)?;
            if manager.uninstall(scope)? {
                output::note(&format!(
                    "{} is removed; who this node is and its cluster stay in its state folder",
                    file.display()
                ));
            } else {
                output::note("no service is installed");
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Status(args) => status(args, manager),
    }
}

fn install(args: &InstallArgs, manager: Manager) -> anyhow::Result<ExitCode> {
    let scope = args.scope.for_new();
    if scope == Scope::User && args.run_as.is_some() {
        bail!("--as is for a service of the machine: add --system");
    }
    let service = service(args, scope)?;
    let text = manager.render(&service)?;
    if args.dry_run {
        output::document(&text)?;
        return Ok(ExitCode::SUCCESS);
    }
    let file = manager.file(scope)?;
    let change = manager.install(&service, &text)?;
    output::note(&format!("{}: {change}", file.display()));
    if scope == Scope::System && service.account.name == "root" {
        output::note("it runs as root; `--as USER` makes it run as another user");
    }
    if let Some(hint) = manager.hint(&service) {
        output::note(&hint);
    }
    Ok(ExitCode::SUCCESS)
}

fn status(args: &StatusArgs, manager: Manager) -> anyhow::Result<ExitCode> {
    let scope = args.scope.for_existing(manager)?;
    let file = manager.file(scope)?;
    let status = if file.exists() {
        manager.status(scope)?
    } else {
        Status::Absent
    };
    if args.json {
        let json = json!({
            "schema": "brigade.service/1",
            "scope": match scope { Scope::User => "user", Scope::System => "system" },
            "file": file,
            "installed": status != Status::Absent,
            "pid": match status { Status::Runs(pid) => Some(pid), _ => None },
            "state": status.to_string(),
        });
        output::line(&json.to_string())?;
    } else {
        output::line(&match status {
            Status::Absent => "no service is installed".to_owned(),
            _ => format!("{}: {status}", file.display()),
        })?;
    }
    Ok(match status {
        Status::Runs(_) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// What is to run, checked: a mistake shows here and not in a log.
fn service(args: &InstallArgs, scope: Scope) -> anyhow::Result<Service> {
    let up = Up::try_parse_from(&args.up).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        anyhow::anyhow!(
            "after `--` go the options of `brigade up`: {}",
            first.trim_start_matches("error: ")
        )
    })?;
    up.args.must_be_repeatable()?;
    let account = match scope {
        Scope::User => manager::this_account()?,
        Scope::System => {
            let sudo = std::env::var("SUDO_USER").ok();
            let name = args.run_as.clone().or(sudo);
            manager::account(name.as_deref().unwrap_or("root"))?
        }
    };
    let environment = CARRIED
        .iter()
        .filter_map(|&name| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
            Some((name, PathBuf::from(value)))
        })
        .map(|(name, value)| Ok((name.to_owned(), utf8(value)?)))
        .collect::<anyhow::Result<_>>()?;
    let mut arguments = vec!["up".to_owned()];
    arguments.extend(args.up.iter().cloned());
    let service = Service {
        program: utf8(manager::program()?)?,
        arguments,
        environment,
        scope,
        account,
    };
    service.must_be_writable()?;
    Ok(service)
}

impl Service {
    /// Refuses what no file of a service can hold.
    fn must_be_writable(&self) -> anyhow::Result<()> {
        let values = self.environment.iter().map(|(_, value)| value);
        let texts = [&self.program, &self.account.name, &self.account.home];
        match texts
            .into_iter()
            .chain(&self.arguments)
            .chain(values)
            .find(|text| text.chars().any(char::is_control))
        {
            Some(text) => bail!("a service cannot have {text:?}: it has a control character"),
            None => Ok(()),
        }
    }

    /// The command as a shell takes it.
    fn command_line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        words
            .map(|word| shell_word(word))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// A word that a shell reads as this text.
fn shell_word(text: &str) -> String {
    let plain = |character: char| character.is_alphanumeric() || "-_./:=,@+".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn utf8(path: PathBuf) -> anyhow::Result<String> {
    path.into_os_string()
        .into_string()
        .map_err(|path| anyhow::anyhow!("a service cannot have {}", path.display()))
        .context("its name is not UTF-8")
}

#[cfg(test)]
mod tests;
