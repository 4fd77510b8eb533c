//! `brigade plan`: who computes which layers, how fast, and the commands that do it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use brigade_fit::catalog::Catalog;
use brigade_fit::cluster::Cluster;
use brigade_fit::emit::{self, Engine};
use brigade_fit::model::{Format, Model};
use brigade_fit::page::PlanPage;
use brigade_fit::placement::Objective;
use brigade_fit::speed::SpeedModel;
use brigade_fit::verdict::{self, Ask, Detail, Tier};

use crate::output;
use crate::planner::{self, Asked, On, Show};

#[derive(Debug, clap::Args)]
#[command(after_long_help = planner::MACHINES_HELP)]
pub(crate) struct Args {
    /// A model of the catalog, a GGUF file or a config.json, the http(s) address of one, or
    /// `hf:owner/repo[:QUANT][@revision]`
    #[arg(value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    on: On,
    #[command(flatten)]
    asked: Asked,
    /// What to be best at [default: one node where that is comfortable, else the roomiest pipeline]
    #[arg(long, value_enum)]
    objective: Option<Goal>,
    #[command(flatten)]
    show: Show,
    /// Print the commands that run the plan with another engine
    #[arg(long, value_enum, conflicts_with = "Show", value_name = "ENGINE")]
    emit: Option<Emit>,
}

/// [`Objective`] on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Goal {
    /// One answer as fast as can be
    OneStream,
    /// Many answers at once
    ManyStreams,
    /// The largest context
    LargestContext,
}

impl From<Goal> for Objective {
    fn from(goal: Goal) -> Self {
        match goal {
            Goal::OneStream => Self::OneStream,
            Goal::ManyStreams => Self::ManyStreams,
            Goal::LargestContext => Self::LargestContext,
        }
    }
}

/// [`Engine`] on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Emit {
    /// llama.cpp's server, with its RPC servers on the other nodes
    LlamaServer,
    /// exo
    Exo,
    /// vLLM
    Vllm,
}

impl From<Emit> for Engine {
    fn from(emit: Emit) -> Self {
        match emit {
            Emit::LlamaServer => Self::LlamaServer,
            Emit::Exo => Self::Exo,
            Emit::Vllm => Self::Vllm,
        }
    }
}

pub(crate) fn run(args: &Args, catalog: Option<&Path>) -> anyhow::Result<ExitCode> {
    let catalog = planner::catalog(catalog)?;
    let model = planner::model(&catalog, &args.model)?;
    let cluster = args.on.machines(&catalog)?;
    args.asked.note_cut(&model);
    let speed = planner::speed(&catalog);
    let ask = args.asked.ask(args.objective.map(Into::into), Detail::Full);
    if let Some(emit) = args.emit {
        let engine = emit.into();
        possible(&catalog, &model, &cluster, &ask, engine)?;
        let commands = commands(&model, &cluster, &ask, &speed, engine)?;
        output::document(&commands)?;
        return Ok(ExitCode::SUCCESS);
    }
    args.show
        .page(&PlanPage::new(&catalog, &model, &cluster, &ask, &speed)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether the engine has a backend for the machines and reads a format that the model is in:
/// without either no plan needs to be sought.
fn possible(
    catalog: &Catalog,
    model: &Model,
    cluster: &Cluster,
    ask: &Ask,
    engine: Engine,
) -> anyhow::Result<()> {
    let (name, reads) = (engine.title(), engine.format());
    let mut runtimes = catalog.runtimes.iter();
    let runtime = runtimes.find(|runtime| runtime.id == engine.runtime());
    if let Some(device) = runtime.and_then(|runtime| runtime.foreign_device(cluster)) {
        bail!("{name} has no backend for {device}");
    }
    let names = |reads: Format| {
        let quants = model.quants.iter().filter(move |own| own.format == reads);
        quants.map(|quant| quant.name.as_str()).collect::<Vec<_>>()
    };
    let readable = names(reads);
    if readable.is_empty() {
        let others = [Format::Gguf, Format::Mlx, Format::Safetensors].into_iter();
        let others = others.filter(|format| !names(*format).is_empty());
        let others: Vec<&str> = others.map(format_name).collect();
        bail!(
            "{name} reads {}, and {} is known in {} only",
            format_name(reads),
            model.name,
            others.join(" and ")
        );
    }
    if let Some(asked) = &ask.quant
        && !readable.iter().any(|own| own.eq_ignore_ascii_case(asked))
        && let Some(quant) = model
            .quants
            .iter()
            .find(|quant| quant.name.eq_ignore_ascii_case(asked))
    {
        bail!(
            "{name} reads {}, and {} is {}; choose --quant {}",
            format_name(reads),
            quant.name,
            format_name(quant.format),
            readable.join(", ")
        );
    }
    Ok(())
}

fn format_name(format: Format) -> &'static str {
    match format {
        Format::Gguf => "GGUF",
        Format::Mlx => "MLX",
        Format::Safetensors => "safetensors",
    }
}

/// The commands that run the plan with an engine.
fn commands(
    model: &Model,
    cluster: &Cluster,
    ask: &Ask,
    speed: &SpeedModel,
    engine: Engine,
) -> anyhow::Result<String> {
    let shown = verdict::assess(model, cluster, ask, speed)?;
    let mut ask = ask.clone();
    ask.format = Some(engine.format());
    let ask = &ask;
    let verdict = verdict::assess(model, cluster, ask, speed)?;
    let quant = model
        .quants
        .iter()
        .find(|quant| {
            quant.name == verdict.quant && ask.format.is_none_or(|format| format == quant.format)
        })
        .with_context(|| {
            format!(
                "{} has no weights in a format that {} reads",
                model.name,
                engine.name()
            )
        })?;
    let plan = verdict::plan(model, cluster, ask, speed)?;
    let Some(plan) = plan.filter(|_| verdict.tier != Tier::Unknown) else {
        bail!("there is no plan to run: {}", verdict.reasons.join(" "));
    };
    let run = emit::Run {
        model,
        quant,
        cluster,
        plan: &plan,
        load: verdict.load,
    };
    let mut commands = emit::emit(&run, engine)?;
    if shown.quant != verdict.quant {
        // Without --emit the plan is at the quantization that suits the machines best.
        commands.insert_str(
            0,
            &format!(
                "# {} reads {}, so this is the plan at {quant}; --quant {quant} shows its page.\n",
                engine.title(),
                format_name(engine.format()),
                quant = verdict.quant
            ),
        );
    }
    if !commands.ends_with('\n') {
        commands.push('\n');
    }
    Ok(commands)
}
