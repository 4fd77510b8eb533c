//! `brigade plan`: who computes which layers, how fast, and the commands that do it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use brigade_fit::catalog::Catalog;
use brigade_fit::cluster::Cluster;
use brigade_fit::emit::{self, Engine, Nodes};
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
    /// Print the commands that run the plan with Brigade or another engine
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
    /// Brigade: the nodes, and the model on them
    Brigade,
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
            Emit::Brigade => Self::Brigade,
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
        let model = planner::as_named(model, &args.model);
        let nodes = args.on.nodes();
        // What the catalog knows is no name of weights.
        let named = catalog.model(&args.model).is_err();
        let named = named.then_some(args.model.as_str());
        let commands = commands(&model, (named, nodes), &cluster, &ask, &speed, engine)?;
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
        let usual = model.production_quant(Some(reads));
        bail!(
            "{name} reads {}, and {} is {}; choose --quant {}",
            format_name(reads),
            quant.name,
            format_name(quant.format),
            usual.map_or_else(|| readable.join(", "), |usual| usual.name.clone())
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
    (named, nodes): (Option<&str>, Nodes),
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
            let mut said = format!(
                "the catalog has no weights of {} that people serve with {}",
                model.name,
                engine.title()
            );
            if engine == Engine::Vllm {
                said = format!("{said}. {}", checkpoints(model, cluster, ask, speed));
            }
            said
        })?;
    let plan = verdict::plan(model, cluster, ask, speed)?;
    let Some(plan) = plan.filter(|_| verdict.tier != Tier::Unknown) else {
        let mut reasons = verdict.reasons.clone();
        if engine == Engine::Vllm && ask.quant.is_none() {
            reasons.push(checkpoints(model, cluster, ask, speed));
        }
        bail!("there is no plan to run: {}", reasons.join(" "));
    };
    let run = emit::Run {
        model,
        quant,
        cluster,
        plan: &plan,
        load: verdict.load,
        named,
        nodes,
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

/// Which checkpoints of a model for vLLM the catalog has, and which of them would fit.
fn checkpoints(model: &Model, cluster: &Cluster, ask: &Ask, speed: &SpeedModel) -> String {
    let mut quants: Vec<_> = model
        .quants
        .iter()
        .filter(|quant| quant.format == Format::Safetensors)
        .collect();
    quants.sort_by_key(|quant| std::cmp::Reverse(quant.weights.total()));
    let names: Vec<&str> = quants.iter().map(|quant| quant.name.as_str()).collect();
    let listed = match &names[..] {
        [most @ .., last] if !most.is_empty() => format!("{} and {last}", most.join(", ")),
        names => names.concat(),
    };
    let mut said = format!("The catalog has it for vLLM at {listed}");
    let known = |kind: &str| names.iter().any(|name| name.to_uppercase().contains(kind));
    if !known("AWQ") && !known("GPTQ") {
        said.push_str(" only; AWQ and GPTQ checkpoints are not in it");
    }
    let fits = quants.iter().find(|quant| {
        let ask = Ask {
            quant: Some(quant.name.clone()),
            detail: Detail::Brief,
            ..ask.clone()
        };
        let verdict = verdict::assess(model, cluster, &ask, speed);
        verdict.is_ok_and(|verdict| matches!(verdict.tier, Tier::Comfortable | Tier::Borderline))
    });
    match fits {
        Some(fits) => format!(
            "{said}. With a checkpoint at {quant} there is a plan: --quant {quant}.",
            quant = fits.name
        ),
        None => format!("{said}."),
    }
}
