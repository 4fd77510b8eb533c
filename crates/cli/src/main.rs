//! The `brigade` program: commands, terminal output, and what ties the crates together.
//!
//! Data goes to standard output, everything else to standard error. Only this crate prints.

mod backend;
mod commands;
mod model;
mod output;
mod signals;
mod workers;

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::bail;
use brigade_node::child;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Several machines, one language model: the model's layers are cut into stages, one per node.
#[derive(Debug, Parser)]
#[command(name = "brigade", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// A throwaway cluster on this machine: real node processes, one OpenAI-compatible address
    Lab(commands::lab::Args),
    /// Chat with a model on this machine, or answer once
    Run(commands::run::Args),
    /// Compare a model cut into stages with the whole model, bit for bit
    Parity(commands::parity::Args),
    /// Measure stages against the whole model: speed and memory
    Bench(commands::bench::Args),
    /// What llama.cpp was built with
    BuildInfo(commands::build_info::Args),
    #[command(hide = true)]
    Node,
    #[command(hide = true)]
    Stage,
    #[command(hide = true)]
    Tokenizer,
    #[command(hide = true)]
    RpcServer,
    #[command(hide = true)]
    BenchWhole,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            EnvFilter::try_from_env("BRIGADE_LOG").unwrap_or_else(|_| EnvFilter::new("error")),
        )
        .with_target(false)
        .init();
    let result = run(cli.command);
    result.unwrap_or_else(|error| {
        output::note(&format!("brigade: {error:#}"));
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Lab(args) => commands::lab::run(&args),
        Command::Run(args) => commands::run::run(args),
        Command::Parity(args) => commands::parity::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::BuildInfo(args) => commands::build_info::run(&args),
        _ if !child::has_parent() => bail!("this command is for brigade itself to start"),
        Command::Node => {
            brigade_node::run_node();
            Ok(ExitCode::SUCCESS)
        }
        Command::Stage => workers::stage(),
        Command::Tokenizer => Ok(workers::tokenizer()),
        Command::RpcServer => workers::rpc_server(),
        Command::BenchWhole => Ok(commands::bench::whole::serve()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Splits a line as a shell does, as far as the README needs it: quotes, no escapes.
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
