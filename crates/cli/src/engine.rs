//! The commands that run models, and those that their child processes are started with.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::bail;
use brigade_node::child;
use clap::Subcommand;
use tracing_subscriber::EnvFilter;

use crate::{commands, workers};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// A throwaway cluster on this machine: real node processes, one OpenAI-compatible address
    Lab(commands::lab::Args),
    /// Chat with a model on this machine, or answer once
    Run(commands::run::Args),
    /// Compare a model cut into stages with the whole model, bit for bit
    Parity(commands::parity::Args),
    /// Measure stages against the whole model: speed and memory
    Bench(commands::bench::Args),
    /// Make a key for the API
    Key(commands::key::Args),
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

pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            EnvFilter::try_from_env("BRIGADE_LOG").unwrap_or_else(|_| EnvFilter::new("error")),
        )
        .with_target(false)
        .init();
    match command {
        Command::Lab(args) => commands::lab::run(&args),
        Command::Run(args) => commands::run::run(args),
        Command::Parity(args) => commands::parity::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Key(args) => commands::key::run(&args),
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
