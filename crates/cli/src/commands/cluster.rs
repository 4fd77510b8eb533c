//! The commands that ask this user's daemon: `invite`, `join`, `nodes`, `forget`, `load`,
//! `unload`, `ps`.

mod show;

pub(crate) use show::address_of;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use brigade_fit::catalog::Catalog;
use brigade_fit::cluster::Cluster;
use brigade_hub::ModelRef;
use serde::Deserialize;
use serde_json::json;

use crate::control::{LoadOrder, Reply, Request, ask};
use crate::model::{self, Decoding, Engine};
use crate::{output, placing};

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
    /// `hf:owner/repo[:QUANT][@revision]`, the address of a GGUF file, a file of this machine, or
    /// `ollama:name[:tag]`; each node fetches what it needs and has not
    #[arg(value_name = "MODEL")]
    model: ModelRef,
    /// The nodes in order of layers, with the file's path there where it is another one, or `all`
    /// that are up [default: those that the planner takes]
    #[arg(long, value_name = "NODE[=PATH],…", value_delimiter = ',')]
    on: Vec<String>,
    /// A plan to keep to: the JSON of `brigade plan MODEL --cluster --json` or of --dry-run --json
    #[arg(long, value_name = "FILE", conflicts_with = "on")]
    plan: Option<PathBuf>,
    /// Show the plan and load nothing
    #[arg(long)]
    dry_run: bool,
    /// Load what is a borderline fit without asking
    #[arg(long, short)]
    yes: bool,
    /// Context of one sequence, in tokens [default: the model's own, 4096 at most]
    #[arg(long, value_name = "N")]
    ctx: Option<u32>,
    #[command(flatten)]
    decoding: Decoding,
    /// How the nodes work together [default: stages, where they support the model]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Threads of each stage [default: the cores of its node]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=512))]
    threads: Option<u32>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UnloadArgs {
    /// Its name, as `brigade ps` shows it [default: the only one]
    #[arg(value_name = "MODEL")]
    model: Option<String>,
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
        let mut json = show::nodes_json(&nodes)?;
        json["nearby"] = json!(nearby);
        if let Some(links) = links {
            json["links"] = json!(links);
        }
        output::line(&json.to_string())?;
    } else {
        let catalog = crate::planner::catalog(None)?;
        let mut text = show::nodes(&nodes, &catalog);
        text.push_str(&show::devices(&nodes));
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
    let Reply::Forgot { node, models } = ask(&Request::Forget(args.node), |_| {})? else {
        return confused();
    };
    output::note(&format!(
        "{node} is forgotten: it comes back with a new invitation only"
    ));
    for model in models {
        output::note(&format!(
            "{model} had a stage there: `brigade unload {model}`, then load it again"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn load(args: &LoadArgs) -> anyhow::Result<ExitCode> {
    let model = match &args.model {
        // As this command sees it; the daemon may have been started elsewhere.
        here @ (ModelRef::Path(_) | ModelRef::Ollama(_)) => {
            ModelRef::Path(model::open_named(here)?.path().to_owned())
        }
        remote @ (ModelRef::Hub(_) | ModelRef::Url(_)) => remote.clone(),
    };
    let on = args.on.iter().map(|seat| match seat.split_once('=') {
        Some((node, path)) => (node.to_owned(), Some(PathBuf::from(path))),
        None => (seat.clone(), None),
    });
    let mut order = LoadOrder {
        model,
        header: None,
        on: on.collect(),
        context: args.ctx,
        decoding: args.decoding,
        threads: args.threads,
        engine: args.engine,
        given: args.plan.as_deref().map_or(Ok(Vec::new()), given)?,
        stages: Vec::new(),
    };
    let plan = Request::Plan {
        order: order.clone(),
        dry_run: args.dry_run,
    };
    let Reply::Planned(placed) = ask(&plan, |_| {})? else {
        return confused();
    };
    if args.dry_run && args.json {
        output::line(&placed.page.to_string())?;
    } else if args.dry_run {
        output::document(&placed.text)?;
    } else if !args.json {
        output::note(placed.text.trim_end());
    }
    if let Some(reason) = placed.refusal {
        bail!("{reason}");
    }
    if args.dry_run {
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(question) = placed.question {
        confirm(&question, args.yes)?;
    }
    order.stages = placed.stages;
    order.header = placed.header;
    let reply = ask(&Request::Load(order), output::status);
    output::progress_done();
    let Reply::Serving(running) = reply? else {
        return confused();
    };
    if args.json {
        output::line(&show::running_json(std::slice::from_ref(&running)).to_string())?;
    } else {
        output::document(&show::running(&running))?;
        output::note(&show::try_it(&running));
    }
    Ok(ExitCode::SUCCESS)
}

/// The stages of a plan in a file.
fn given(path: &Path) -> anyhow::Result<Vec<(String, (u32, u32))>> {
    #[derive(Deserialize)]
    struct Stage {
        node: String,
        layers: (u32, u32),
    }
    #[derive(Deserialize)]
    struct Plan {
        schema: String,
        stages: Vec<Stage>,
    }
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let plan: Plan = serde_json::from_str(&text).with_context(|| {
        format!("{shown} is no plan; `brigade load MODEL --dry-run --json` prints one")
    })?;
    if plan.schema != "brigade.plan/1" {
        bail!("{shown} is {}, not brigade.plan/1", plan.schema);
    }
    if plan.stages.is_empty() {
        bail!("the plan in {shown} has no stages: the model did not fit");
    }
    let stages = plan.stages.into_iter();
    Ok(stages.map(|stage| (stage.node, stage.layers)).collect())
}

/// Asks whether it shall be, where somebody can answer.
fn confirm(question: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("{question}; --yes loads it all the same");
    }
    output::ask(&format!("{question}. Load it? [y/N] "));
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => bail!("not loaded"),
    }
}

pub(crate) fn unload(args: UnloadArgs) -> anyhow::Result<ExitCode> {
    let Reply::Unloaded(name) = ask(&Request::Unload(args.model), |_| {})? else {
        return confused();
    };
    output::note(&format!("{name} is unloaded"));
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn ps(args: &JsonArgs) -> anyhow::Result<ExitCode> {
    let Reply::Running { here, elsewhere } = ask(&Request::Ps, |_| {})? else {
        return confused();
    };
    if args.json {
        output::line(&show::running_json(&here).to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    if here.is_empty() {
        output::note("no model is loaded here");
    } else {
        let tables: Vec<_> = here.iter().map(show::running).collect();
        output::document(&tables.join("\n"))?;
    }
    for (model, node) in elsewhere {
        output::note(&format!("{model} was loaded by {node}: `brigade ps` there"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The machines of this node's cluster as they are now, for the planner.
pub(crate) fn machines(catalog: &Catalog) -> anyhow::Result<Cluster> {
    let Reply::Nodes { nodes, .. } = ask(&Request::Nodes, |_| {})? else {
        bail!("the daemon answered something else than was asked");
    };
    let Reply::Links(links) = ask(&Request::Links, |_| {})? else {
        bail!("the daemon answered something else than was asked");
    };
    let (mut cluster, ids) = placing::cluster(&nodes, &links, catalog, None);
    let missing = nodes.iter().filter(|node| !ids.contains(&node.id));
    let missing: Vec<_> = missing.map(|node| node.name.as_str()).collect();
    if cluster.nodes.is_empty() {
        bail!("no node has said yet what machine it is: try again in a moment");
    }
    if !missing.is_empty() {
        output::note(&format!(
            "without {}, which cannot be reached or has not said what machine it is",
            missing.join(", ")
        ));
    }
    let names: Vec<_> = cluster.nodes.iter().map(|node| &*node.name).collect();
    cluster.name = format!("this cluster ({})", names.join(", "));
    Ok(cluster)
}

fn confused() -> anyhow::Result<ExitCode> {
    bail!("the daemon answered something else than was asked; start it again with this version")
}
