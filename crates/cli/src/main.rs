//! The `brigade` program: commands, terminal output, and what ties the crates together.
//!
//! Data goes to standard output, everything else to standard error. Only this crate prints.

#[cfg(feature = "engine")]
mod about;
#[cfg(feature = "engine")]
mod backend;
#[cfg(feature = "engine")]
mod cache;
#[cfg(feature = "engine")]
mod calibrator;
mod commands;
#[cfg(all(feature = "engine", unix))]
mod control;
#[cfg(feature = "engine")]
mod devices;
#[cfg(feature = "engine")]
mod engine;
mod files;
mod hub;
#[cfg(feature = "engine")]
mod model;
mod output;
mod pager;
#[cfg(all(feature = "engine", unix))]
mod placing;
mod planner;
#[cfg(feature = "engine")]
mod server;
#[cfg(feature = "engine")]
mod signals;
mod this_machine;
#[cfg(feature = "engine")]
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Several machines, one language model: what runs on which machines, and running it.
#[derive(Debug, Parser)]
#[command(name = "brigade", version, max_term_width = 100)]
#[cfg_attr(
    not(feature = "engine"),
    command(
        after_help = "This build has the planner only; `cargo xtask build` makes the one that runs models."
    )
)]
struct Cli {
    /// Folder with files of the catalog, such as links.toml or hardware.toml, whose rows replace
    /// the program's own, by id, or are added
    #[arg(long, global = true, value_name = "DIR")]
    catalog: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What runs on these machines, how well, and how that is known
    Fit(commands::fit::Args),
    /// Who computes which layers, how fast, and what else could be done
    Plan(commands::plan::Args),
    /// How wrong the predictions of speed are, and where
    Backtest(commands::backtest::Args),
    /// Names of the catalog: machines, GPUs, CPUs, links, models, combos
    Names(commands::names::Args),
    /// Write the pages of all combos, machines and models as a static site
    Site(commands::site::Args),
    #[cfg(feature = "engine")]
    #[command(flatten)]
    Engine(engine::Command),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() && std::env::args_os().any(|arg| output::acts(&arg)) => {
            output::note(error.render().to_string().trim_end());
            return ExitCode::from(2);
        }
        Err(error) => error.exit(),
    };
    let catalog = cli.catalog.as_deref();
    let result = match cli.command {
        #[cfg(feature = "engine")]
        Command::Engine(command) => engine::run(command),
        Command::Fit(args) => commands::fit::run(&args, catalog),
        Command::Plan(args) => commands::plan::run(&args, catalog),
        Command::Backtest(args) => commands::backtest::run(&args, catalog),
        Command::Names(args) => commands::names::run(&args, catalog),
        Command::Site(args) => commands::site::run(&args, catalog),
    };
    result.unwrap_or_else(|error| {
        let kind = error.downcast_ref().and_then(commands::names::list_of);
        let hint = kind.map(|kind| format!(" (`brigade names {kind}` lists them)"));
        output::error(&error, &hint.unwrap_or_default());
        ExitCode::FAILURE
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a line as a shell does, as far as the README needs it: quotes, no escapes.
    #[cfg(feature = "engine")]
    fn words(line: &str) -> Vec<String> {
        let mut words = Vec::new();
        let mut word: Option<String> = None;
        let mut quote = None;
        for character in line.chars() {
            match (quote, character) {
                (Some(open), _) if character == open => quote = None,
                (None, '"' | '\'') => {
                    quote = Some(character);
                    word.get_or_insert_default();
                }
                (None, _) if character.is_whitespace() => words.extend(word.take()),
                _ => word.get_or_insert_default().push(character),
            }
        }
        words.extend(word);
        words
    }

    #[cfg(feature = "engine")]
    #[test]
    fn every_command_in_the_readme_is_one() {
        let readme = include_str!("../../../README.md");
        let commands: Vec<&str> = readme
            .lines()
            .filter(|line| line.starts_with("brigade "))
            .collect();
        assert!(commands.len() >= 5, "{commands:?}");
        for command in commands {
            if let Err(error) = Cli::try_parse_from(words(command)) {
                panic!("{command}\n{error}");
            }
        }
    }

    #[test]
    fn arguments_are_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
