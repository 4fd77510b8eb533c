//! The `brigade` program: commands, terminal output, and what ties the crates together.
//!
//! Data goes to standard output, everything else to standard error. Only this crate prints.

mod backend;
mod commands;
mod model;
mod output;
mod signals;
mod workers;

use std::process::ExitCode;

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
    #[command(hide = true)]
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
        .with_env_filter(
            EnvFilter::try_from_env("BRIGADE_LOG").unwrap_or_else(|_| EnvFilter::new("error")),
        )
        .with_target(false)
        .init();
    let result = match cli.command {
        Command::Lab(args) => commands::lab::run(&args),
        Command::Run(args) => commands::run::run(args),
        Command::Parity(args) => commands::parity::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::BuildInfo(args) => Ok(commands::build_info::run(&args)),
        Command::Node => {
            brigade_node::run_node();
            Ok(ExitCode::SUCCESS)
        }
        Command::Stage => workers::stage(),
        Command::Tokenizer => Ok(workers::tokenizer()),
        Command::RpcServer => workers::rpc_server(),
        Command::BenchWhole => Ok(workers::bench_whole()),
    };
    result.unwrap_or_else(|error| {
        eprintln!("brigade: {error:#}");
        ExitCode::FAILURE
    })
}
