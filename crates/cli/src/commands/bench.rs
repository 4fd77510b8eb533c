//! `brigade bench`: stages against stock llama.cpp on the same cores, in one run.
//!
//! The yardstick is llama.cpp running the original file in one process with one thread, without
//! sockets, scheduler or sampler. Both sides are loaded anew for each round, because where a
//! process's memory happens to lie moves its speed by some percent, and take turns within it.

mod report;
pub(crate) mod whole;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_node::{Cluster, ClusterSpec, End, Event, Memory, Placement, Prompt, Text, Tokenizer};

use crate::{model, output};
use report::{Results, Speed, Usage};
use whole::Whole;

/// What a process may take beyond weights, KV cache and compute buffers, in bytes.
const PROCESS_OVERHEAD_BYTES: u64 = 20 * 1024 * 1024;

/// What the stage processes together may take of the weights, as a factor.
const WEIGHTS_ALLOWANCE: f64 = 1.15;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file, or the first of several [default: the demo model]
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    /// How many stages
    #[arg(long, default_value_t = 4, value_name = "N")]
    stages: u32,
    /// How often both sides are loaded anew
    #[arg(long, default_value_t = 10, value_name = "N")]
    rounds: u32,
    /// Pairs of measurements in each round
    #[arg(long, default_value_t = 3, value_name = "N")]
    pairs: u32,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 128, value_name = "P")]
    prompt_tokens: usize,
    /// Tokens to generate in each measurement
    #[arg(long, default_value_t = 64, value_name = "T")]
    tokens: u32,
    /// Prompt tokens of one step
    #[arg(long, default_value_t = 64, value_name = "C")]
    chunk: u32,
    /// Cores to pin to: the whole model runs on the first, stages take turns over all of them
    /// [default: the last core for everything]
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.rounds == 0 || args.pairs == 0 || args.tokens < 2 || args.prompt_tokens == 0 {
        bail!("--rounds, --pairs and --prompt-tokens must be at least 1, --tokens at least 2");
    }
    let path = model::path(args.model.as_deref())?;
    let cores = match &args.cores {
        Some(cores) => cores.clone(),
        None => vec![std::thread::available_parallelism().map_or(1, usize::from) - 1],
    };
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    if cores.is_empty() || cores.iter().any(|core| *core >= available) {
        bail!("this machine has cores 0 to {}", available - 1);
    }
    // Children inherit it.
    pin(None, &cores)?;
    let tokenizer = Tokenizer::start(&path)?;
    let prompt = prompt(args, &tokenizer)?;
    let mut results = Results::default();
    for round in 0..args.rounds {
        output::note(&format!("round {} of {}", round + 1, args.rounds));
        measure(args, &path, &cores, &tokenizer, &prompt, &mut results)?;
    }
    if args.json {
        output::line(&results.json(args.stages, &cores).to_string())?;
    } else {
        output::line(&results.table(args.stages, &cores))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(
    args: &Args,
    path: &std::path::Path,
    cores: &[usize],
    tokenizer: &Tokenizer,
    prompt: &[u32],
    results: &mut Results,
) -> anyhow::Result<()> {
    let spec = spec(args, path)?;
    let mut whole = Whole::start(&spec)?;
    pin(Some(whole.process.pid()), &cores[..1])?;
    let cluster = Cluster::start(&spec, tokenizer, |_| {})?;
    for (index, node) in cluster.nodes.iter().enumerate() {
        pin(Some(node.stage_pid), &cores[index % cores.len()..][..1])?;
    }
    // Both sides once, to be warm.
    whole.speed(args, prompt)?;
    staged_speed(args, &cluster, prompt)?;
    for pair in 0..args.pairs {
        let (a, b) = if pair % 2 == 0 {
            let whole = whole.speed(args, prompt)?;
            (whole, staged_speed(args, &cluster, prompt)?)
        } else {
            let staged = staged_speed(args, &cluster, prompt)?;
            (whole.speed(args, prompt)?, staged)
        };
        results.pairs.push((a, b));
    }
    results.usage = usage(&cluster, spec.source.model().file_bytes());
    Ok(())
}

fn spec(args: &Args, path: &std::path::Path) -> anyhow::Result<ClusterSpec> {
    let source = model::open(path)?;
    let needed = u32::try_from(args.prompt_tokens)?.saturating_add(args.tokens);
    let context_tokens = model::context(&source, Some(needed))?;
    let placement = Placement::Stages(model::even(&source, args.stages)?);
    let mut spec = model::spec(source, placement, context_tokens, Some(1))?;
    spec.sequences = 1;
    spec.chunk_tokens = args.chunk;
    Ok(spec)
}

fn prompt(args: &Args, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
    let sentence = "The quick brown fox jumps over the lazy dog. ";
    let mut tokens = tokenizer.tokenize(Text {
        text: sentence.repeat(args.prompt_tokens),
        add_special: true,
        parse_special: false,
    })?;
    tokens.truncate(args.prompt_tokens);
    Ok(tokens)
}

fn speed(args: &Args, first: Duration, rest: Duration) -> Speed {
    Speed {
        prefill: args.prompt_tokens as f64 / first.as_secs_f64(),
        decode: f64::from(args.tokens - 1) / rest.as_secs_f64(),
    }
}

fn staged_speed(args: &Args, cluster: &Cluster, prompt: &[u32]) -> anyhow::Result<Speed> {
    let start = Instant::now();
    let prompt = Prompt::greedy(prompt.to_vec(), args.tokens, End::Ignored);
    let mut answer = cluster.instance.submit(prompt)?;
    let mut first = None;
    while let Some(event) = answer.next_blocking() {
        match event {
            Event::Token { .. } => {
                first.get_or_insert_with(|| start.elapsed());
            }
            Event::Done { .. } => {
                let first = first.context("no token came")?;
                let rest = start.elapsed().saturating_sub(first);
                return Ok(speed(args, first, rest));
            }
            Event::Started => {}
            Event::Failed(reason) | Event::Refused(reason) => bail!("{reason}"),
        }
    }
    bail!("the answer ended without a reason")
}

/// Sums the stage processes; `None` where the kernel does not account for it.
fn usage(cluster: &Cluster, file_bytes: u64) -> Option<Usage> {
    let mut pss = 0;
    let mut buffers = 0;
    for node in &cluster.nodes {
        let path = format!("/proc/{}/smaps_rollup", node.stage_pid);
        let text = std::fs::read_to_string(path).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        pss += line.split_whitespace().next()?.parse::<u64>().ok()? * 1024;
        let Memory {
            kv_bytes,
            compute_bytes,
            ..
        } = node.memory?;
        buffers += kv_bytes + compute_bytes;
    }
    let allowed = (file_bytes as f64 * WEIGHTS_ALLOWANCE) as u64
        + buffers
        + PROCESS_OVERHEAD_BYTES * cluster.nodes.len() as u64;
    Some(Usage { pss, allowed })
}

#[cfg(target_os = "linux")]
fn pin(pid: Option<u32>, cores: &[usize]) -> anyhow::Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};
    let mut set = CpuSet::new();
    for &core in cores {
        if core >= CpuSet::MAX_CPU {
            bail!("there is no core {core}");
        }
        set.set(core);
    }
    let pid = pid.and_then(|pid| rustix::process::Pid::from_raw(pid as i32));
    sched_setaffinity(pid, &set).with_context(|| format!("cannot pin to cores {cores:?}"))
}

#[cfg(not(target_os = "linux"))]
fn pin(_pid: Option<u32>, _cores: &[usize]) -> anyhow::Result<()> {
    Ok(())
}
