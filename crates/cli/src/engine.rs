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
    /// Start this machine's node, alone or as part of a cluster
    #[cfg(unix)]
    Up(commands::up::Args),
    /// Print the line that lets one more machine into the cluster
    #[cfg(unix)]
    Invite(commands::cluster::InviteArgs),
    /// Let this machine's node join a cluster
    #[cfg(unix)]
    Join(commands::cluster::JoinArgs),
    /// Show the cluster's nodes
    #[cfg(unix)]
    Nodes(commands::cluster::NodesArgs),
    /// Take a node out of the cluster
    #[cfg(unix)]
    Forget(commands::cluster::ForgetArgs),
    /// Run a model on the cluster; this node coordinates it
    #[cfg(unix)]
    Load(commands::cluster::LoadArgs),
    /// End a model that this node coordinates
    #[cfg(unix)]
    Unload(commands::cluster::UnloadArgs),
    /// Show the models that this node coordinates
    #[cfg(unix)]
    Ps(commands::cluster::JsonArgs),
    /// Keep `brigade up` running, by systemd or launchd
    #[cfg(unix)]
    Service(commands::service::Args),
    /// What stops a cluster on this machine, and what to do about it
    #[cfg(unix)]
    Doctor(commands::doctor::Args),
    /// A throwaway cluster on this machine: real nodes, one OpenAI-compatible address
    #[cfg(unix)]
    Lab(commands::lab::Args),
    /// Chat with a model on this machine, or answer once
    Run(commands::run::Args),
    /// Show what of models lies on this machine, what a model is, and remove what is not needed
    Models(commands::models::Args),
    /// Compare a model cut into stages with the whole model, bit for bit
    Parity(commands::parity::Args),
    /// Measure stages against the whole model: speed and memory
    Bench(commands::bench::Args),
    /// Measure what this machine does, for the planner: takes some seconds of all its cores
    Calibrate(commands::calibrate::Args),
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
    BenchStock,
    #[command(hide = true)]
    Calibrator,
    #[command(hide = true)]
    Devices,
}

/// What is logged where `BRIGADE_LOG` says nothing: a daemon says who comes and goes.
fn usual_log(command: &Command) -> &'static str {
    match command {
        #[cfg(unix)]
        Command::Up(_) if !child::has_parent() => {
            "error,brigade_node=info,brigade::commands::up=info"
        }
        // What a limit drops is told by whoever writes something else instead.
        _ => "error,brigade_node::cache=info",
    }
}

pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    let usual = usual_log(&command);
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(
            EnvFilter::try_from_env("BRIGADE_LOG").unwrap_or_else(|_| EnvFilter::new(usual)),
        )
        .with_target(false)
        .init();
    match command {
        #[cfg(unix)]
        Command::Up(args) => commands::up::run(&args),
        #[cfg(unix)]
        Command::Invite(args) => commands::cluster::invite(&args),
        #[cfg(unix)]
        Command::Join(args) => commands::cluster::join(args),
        #[cfg(unix)]
        Command::Nodes(args) => commands::cluster::nodes(&args),
        #[cfg(unix)]
        Command::Forget(args) => commands::cluster::forget(args),
        #[cfg(unix)]
        Command::Load(args) => commands::cluster::load(&args),
        #[cfg(unix)]
        Command::Unload(args) => commands::cluster::unload(args),
        #[cfg(unix)]
        Command::Ps(args) => commands::cluster::ps(&args),
        #[cfg(unix)]
        Command::Service(args) => commands::service::run(&args),
        #[cfg(unix)]
        Command::Doctor(args) => commands::doctor::run(&args),
        #[cfg(unix)]
        Command::Lab(args) => commands::lab::run(&args),
        Command::Run(args) => commands::run::run(args),
        Command::Models(args) => commands::models::run(&args),
        Command::Parity(args) => commands::parity::run(&args),
        Command::Bench(args) => commands::bench::run(&args),
        Command::Calibrate(args) => commands::calibrate::run(&args),
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
        Command::BenchStock => Ok(commands::bench::stock::serve()),
        Command::Calibrator => Ok(crate::calibrator::serve()),
        Command::Devices => Ok(crate::devices::serve()),
    }
}
