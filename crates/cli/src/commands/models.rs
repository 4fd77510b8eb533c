//! `brigade models`: what of models lies on this machine, what a model is, and removing what lies in
//! Brigade's cache.

mod inspect;
mod list;

use std::process::ExitCode;

use anyhow::bail;
use brigade_hub::ModelRef;
use brigade_node::{Cache, Removed, cached, remove_cached};
use serde_json::json;

#[cfg(unix)]
use crate::control::{self, Reply, Request};
use crate::{hub, model, output};

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// What a model is, from its headers: architecture, layers, tensors, quantization, template,
    /// licence, where it can be cut and which engine runs it
    Inspect(InspectArgs),
    /// Remove from Brigade's cache what nobody needs now
    Remove(RemoveArgs),
}

#[derive(Debug, clap::Args)]
struct InspectArgs {
    /// A GGUF file, the address of one, `hf:owner/repo[:QUANT][@revision]` or `ollama:name[:tag]`
    #[arg(value_name = "MODEL")]
    model: ModelRef,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// A name as `brigade models` shows it, or a part of what it has as NAME/0..15 or NAME/whole
    #[arg(value_name = "NAME")]
    name: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    match &args.command {
        None => list(args.json),
        Some(Command::Inspect(args)) => inspect(args),
        Some(Command::Remove(args)) => remove(args),
    }
}

/// The cache as the daemon of this user sees it, or as this command does.
fn cache() -> anyhow::Result<Cache> {
    let own = crate::cache::cache(None)?;
    #[cfg(unix)]
    if let Ok(Reply::Cache(cache)) = control::ask(&Request::Cache, |_| {})
        && cache.folder == own.folder
    {
        return Ok(cache);
    }
    Ok(own)
}

fn list(json: bool) -> anyhow::Result<ExitCode> {
    let cache = cache()?;
    let models = list::Listed::of(&cache, &cached(&cache.folder));
    let elsewhere = hub::client().caches().list();
    if json {
        let document = list::json(&cache, &models, &elsewhere);
        output::document(&format!("{document}\n"))?;
    } else {
        output::document(&list::text(&cache, &models))?;
        output::document(&list::elsewhere(&elsewhere))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn inspect(args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let headers = model::headers(&args.model)?;
    let facts = inspect::Facts::of(&headers)?;
    if args.json {
        output::document(&format!("{}\n", serde_json::to_string(&facts)?))?;
    } else {
        output::document(&facts.text())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn remove(args: &RemoveArgs) -> anyhow::Result<ExitCode> {
    let removed = remove_cached(&cache()?, &args.name)?;
    if args.json {
        let kept = removed
            .kept
            .iter()
            .map(|(part, why)| json!({ "part": part, "why": list::why(*why) }));
        let document = json!({
            "schema": "brigade.models-remove/1",
            "removed": removed.gone,
            "freed_bytes": removed.freed_bytes,
            "kept": kept.collect::<Vec<_>>(),
        });
        output::document(&format!("{document}\n"))?;
    } else if !removed.gone.is_empty() {
        let Removed {
            gone, freed_bytes, ..
        } = &removed;
        output::note(&format!(
            "removed {}: {freed_bytes} bytes ({}) freed",
            gone.join(", "),
            output::bytes(*freed_bytes)
        ));
    }
    if removed.kept.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let kept = removed
        .kept
        .iter()
        .map(|(part, why)| format!("{part} is {}", list::why(*why)));
    let kept: Vec<_> = kept.collect();
    bail!("{}: unload it, or end what runs it, first", kept.join(", "))
}
