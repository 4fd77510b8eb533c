//! The commands that ask this user's daemon: `invite`, `join`, `nodes`, `forget`, `load`,
//! `unload`, `ps`.

mod show;

pub(crate) use show::address_of;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use serde_json::json;

use crate::control::{LoadOrder, Reply, Request, ask};
use crate::model::{self, Engine};
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct InviteArgs {
    /// How long the token is good
    #[arg(long, default_value_t = 15, value_name = "N")]
    minutes: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct JoinArgs {
    /// What `brigade invite` printed on a node of the cluster
    #[arg(value_name = "TOKEN")]
    token: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct NodesArgs {
    /// Show the ways between the nodes too, and how fast they are
    #[arg(long)]
    links: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ForgetArgs {
    /// A node's name, its id or the beginning of its id
    #[arg(value_name = "NODE")]
    node: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct LoadArgs {
    /// A GGUF file, or the first of several; it must lie on every node
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// The nodes in order of layers, with the file's path there where it is another one
    /// [default: all that are up, this one first]
    #[arg(long, value_name = "NODE[=PATH],…", value_delimiter = ',')]
    on: Vec<String>,
    /// Context of one sequence, in tokens [default: the model's own, 4096 at most]
    #[arg(long, value_name = "N")]
    ctx: Option<u32>,
    /// How the nodes work together [default: stages, where they support the model]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Threads of each stage [default: the cores of its node]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn invite(args: &InviteArgs) -> anyhow::Result<ExitCode> {
    let seconds = args.minutes.saturating_mul(60);
    let Reply::Invited(invited) = ask(&Request::Invite { seconds }, |_| {})? else {
        return confused();
    };
    let line = format!("brigade up --join {}", invited.token);
    if args.json {
        let json = json!({
            "schema": "brigade.invite/1",
            "token": invited.token,
            "command": line,
            "seconds": invited.seconds,
        });
        output::line(&json.to_string())?;
    } else {
        output::line(&line)?;
        output::note(&show::invitation(&invited));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn join(args: JoinArgs) -> anyhow::Result<ExitCode> {
    // A damaged token is known without the daemon.
    args.token.parse::<brigade_wire::token::Token>()?;
    let Reply::Joined(inviter) = ask(&Request::Join(args.token), |_| {})? else {
        return confused();
    };
    output::note(&format!("joined the cluster of {inviter}"));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn nodes(args: &NodesArgs) -> anyhow::Result<ExitCode> {
    let Reply::Nodes { nodes, nearby } = ask(&Request::Nodes, |_| {})? else {
        return confused();
    };
    let links = if args.links {
        let Reply::Links(links) = ask(&Request::Links, |_| {})? else {
            return confused();
        };
        Some(links)
    } else {
        None
    };
    if args.json {
        let mut json = json!({ "schema": "brigade.nodes/1", "nodes": nodes, "nearby": nearby });
        if let Some(links) = links {
            json["links"] = json!(links);
        }
        output::line(&json.to_string())?;
    } else {
        let mut text = show::nodes(&nodes);
        if let Some(links) = links {
            text.push('\n');
            text.push_str(&show::links(&links));
        }
        text.push_str(&show::nearby(&nearby));
        output::document(&text)?;
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn forget(args: ForgetArgs) -> anyhow::Result<ExitCode> {
    let Reply::Forgot(name) = ask(&Request::Forget(args.node), |_| {})? else {
        return confused();
    };
    output::note(&format!(
        "{name} is forgotten: it comes back with a new invitation only"
    ));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn load(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    // As this command sees it; the daemon may have been started elsewhere.
    let source = model::open(&args.model)?;
    let on = args.on.iter().map(|seat| match seat.split_once('=') {
        Some((node, path)) => (node.to_owned(), Some(PathBuf::from(path))),
        None => (seat.clone(), None),
    });
    let order = LoadOrder {
        model: source.path().to_owned(),
        on: on.collect(),
        context: args.ctx,
        threads: args.threads,
        engine: args.engine,
    };
    let reply = ask(&Request::Load(order), output::status);
    output::progress_done();
    let Reply::Serving(running) = reply? else {
        return confused();
    };
    if args.json {
        output::line(&show::running_json(Some(&running)).to_string())?;
    } else {
        output::document(&show::running(&running))?;
        output::note(&show::try_it(&running));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn unload() -> anyhow::Result<ExitCode> {
    let Reply::Unloaded(name) = ask(&Request::Unload, |_| {})? else {
        return confused();
    };
    output::note(&format!("{name} is unloaded"));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn ps(args: &JsonArgs) -> anyhow::Result<ExitCode> {
    let Reply::Running(running) = ask(&Request::Ps, |_| {})? else {
        return confused();
    };
    match &running {
        _ if args.json => output::line(&show::running_json(running.as_ref()).to_string())?,
        Some(running) => output::document(&show::running(running))?,
        None => output::note("no model is loaded here"),
    }
    Ok(ExitCode::SUCCESS)
}

fn confused() -> anyhow::Result<ExitCode> {
    bail!("the daemon answered something else than was asked; start it again with this version")
}
