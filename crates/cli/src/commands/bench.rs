//! `brigade bench`: stages against stock llama.cpp on the same cores, in one run.
//!
//! The yardstick is llama.cpp running the original file in one process, without sockets, scheduler
//! or sampler, and where asked for its own distributed engine, RPC. All sides are loaded anew for
//! each round, because where a process's memory happens to lie moves its speed by some percent, and
//! take turns within it.

mod cores;
mod peers;
mod report;
mod slice;
mod staged;
pub(crate) mod stock;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::bail;
use brigade_node::{ClusterSpec, Placement, Text, Tokenizer};

use crate::model::Decoding;
use crate::{model, output};
use cores::pin;
use report::{Results, Speed};
use staged::Staged;
use stock::Stock;

#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are switches")]
pub(crate) struct Args {
    /// A GGUF file, or the first of several [default: the demo model]
    #[arg(value_name = "MODEL")]
    model: Option<PathBuf>,
    /// How many stages
    #[arg(long, default_value_t = 4, value_name = "N")]
    stages: u32,
    /// The layers before which to cut, instead of stages of even work
    #[arg(
        long,
        value_name = "LAYERS",
        value_delimiter = ',',
        conflicts_with = "stages"
    )]
    cuts: Option<Vec<u32>>,
    /// At what the stages' work is even: a model's head is computed for each token of an answer,
    /// and hardly for prompts
    #[arg(long, value_enum, default_value_t, conflicts_with = "cuts")]
    balance: Balance,
    /// How many prompts are answered at the same time
    #[arg(long, default_value_t = 1, value_name = "N")]
    streams: u32,
    /// Measure llama.cpp's RPC too, with a server for each stage
    #[arg(long)]
    rpc: bool,
    /// The README's table: stages, RPC and one process at three kinds of work, on cores 0 and 1
    #[arg(long, conflicts_with_all = [
        "stages", "cuts", "balance", "streams", "rpc", "prompt_tokens", "tokens", "stock_chunk", "cores",
        "whole_cores", "json",
    ])]
    peers: bool,
    /// Measure how fast a stage is cut out of the model, against `cp` of as many bytes; without a
    /// model, out of one that is made for it
    #[arg(long, conflicts_with_all = [
        "stages", "cuts", "balance", "streams", "rpc", "peers", "rounds", "prompt_tokens", "tokens", "chunk",
        "stock_chunk", "cores", "whole_cores",
    ])]
    slice: bool,
    /// How often all sides are loaded anew
    #[arg(long, default_value_t = 10, value_name = "N")]
    rounds: u32,
    /// Measurements of each side in each round, or of cutting
    #[arg(long, default_value_t = 3, value_name = "N")]
    pairs: u32,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 128, value_name = "P")]
    prompt_tokens: usize,
    /// Tokens to generate for each prompt
    #[arg(long, default_value_t = 64, value_name = "T")]
    tokens: u32,
    /// Prompt tokens of one step of the stages
    #[arg(long, default_value_t = 64, value_name = "C")]
    chunk: u32,
    /// Prompt tokens of one step of the other sides [default: as the stages]
    #[arg(long, value_name = "C")]
    stock_chunk: Option<u32>,
    /// Cores to pin to: stages and RPC servers take turns over all of them
    /// [default: the last core for everything]
    #[arg(long, value_name = "CORES", value_delimiter = ',')]
    cores: Option<Vec<usize>>,
    /// How many of the cores, and threads, the whole model gets
    #[arg(long, default_value_t = 1, value_name = "N")]
    whole_cores: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// See [`brigade_gguf::Balance`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Balance {
    /// Answers of many users
    Decode,
    /// Prompts
    Prompts,
    /// Between the two, as everywhere else
    #[default]
    Both,
}

impl From<Balance> for brigade_gguf::Balance {
    fn from(balance: Balance) -> Self {
        match balance {
            Balance::Decode => Self::Decode,
            Balance::Prompts => Self::Prompts,
            Balance::Both => Self::Both,
        }
    }
}

/// One way to run the model.
enum Side {
    Stages(Box<Staged>),
    Stock(Stock),
}

impl Side {
    fn speed(&mut self, prompt: &[u32], args: &Args) -> anyhow::Result<Speed> {
        match self {
            Self::Stages(staged) => staged.speed(prompt, args),
            Self::Stock(stock) => stock.speed(prompt, args),
        }
    }
}

impl Args {
    fn check(&self, cores: &[usize]) -> anyhow::Result<()> {
        if self.rounds == 0 || self.pairs == 0 || self.prompt_tokens == 0 || self.streams == 0 {
            bail!("--rounds, --pairs, --streams and --prompt-tokens must be at least 1");
        }
        if self.tokens < 2 || self.chunk == 0 || self.stock_chunk == Some(0) {
            bail!("--tokens must be at least 2, a chunk at least 1");
        }
        let available = std::thread::available_parallelism().map_or(1, usize::from);
        if cores.is_empty() || cores.iter().any(|core| *core >= available) {
            bail!("this machine has cores 0 to {}", available - 1);
        }
        if !(1..=cores.len()).contains(&self.whole_cores) {
            bail!("--whole-cores must be 1 to {}, as --cores are", cores.len());
        }
        Ok(())
    }

    fn stock_chunk(&self) -> u32 {
        self.stock_chunk.unwrap_or(self.chunk)
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.slice {
        return slice::run(args);
    }
    let mut args = args.clone();
    if let Some(cuts) = &args.cuts {
        args.stages = cuts.len() as u32 + 1;
    }
    let args = &args;
    let path = model::path(args.model.as_deref())?;
    if args.peers {
        let results = peers::WORKLOADS
            .iter()
            .map(|workload| bench(&workload.args(args), &path))
            .collect::<anyhow::Result<Vec<_>>>()?;
        output::document(&peers::table(&results))?;
        return Ok(ExitCode::SUCCESS);
    }
    let results = bench(args, &path)?;
    if args.json {
        output::line(&results.json().to_string())?;
    } else {
        output::line(&results.table())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn bench(args: &Args, path: &Path) -> anyhow::Result<Results> {
    let cores = match &args.cores {
        Some(cores) => cores.clone(),
        None => vec![std::thread::available_parallelism().map_or(1, usize::from) - 1],
    };
    args.check(&cores)?;
    // Children inherit it.
    pin(None, &cores)?;
    // What cannot be is refused before anything is made.
    spec(args, path)?;
    let tokenizer = Tokenizer::start(path)?;
    let prompt = prompt(args, &tokenizer)?;
    let mut results = Results::new(args, &cores);
    for round in 0..args.rounds {
        output::note(&format!("round {} of {}", round + 1, args.rounds));
        measure(args, path, &cores, &tokenizer, &prompt, &mut results)?;
    }
    Ok(results)
}

/// One round. A side's measurement is followed by the other sides', in alternating order.
fn measure(
    args: &Args,
    path: &Path,
    cores: &[usize],
    tokenizer: &Tokenizer,
    prompt: &[u32],
    results: &mut Results,
) -> anyhow::Result<()> {
    let spec = spec(args, path)?;
    let whole = Stock::whole(&spec, args, &cores[..args.whole_cores])?;
    let mut sides = vec![Side::Stock(whole)];
    if args.rpc {
        sides.push(Side::Stock(Stock::rpc(&spec, args, cores)?));
    }
    let staged = Staged::start(&spec, tokenizer, cores)?;
    sides.push(Side::Stages(Box::new(staged)));
    // All sides once, to be warm.
    for side in &mut sides {
        side.speed(prompt, args)?;
    }
    for pair in 0..args.pairs {
        let mut speeds = vec![Speed::default(); sides.len()];
        for turn in 0..sides.len() {
            let index = if pair % 2 == 0 {
                turn
            } else {
                sides.len() - 1 - turn
            };
            speeds[index] = sides[index].speed(prompt, args)?;
        }
        results.add(&speeds);
    }
    if let Some(Side::Stages(staged)) = sides.last() {
        results.usage = staged.usage(spec.source.model().file_bytes());
    }
    Ok(())
}

fn spec(args: &Args, path: &Path) -> anyhow::Result<ClusterSpec> {
    let source = model::open(path)?;
    let needed = u32::try_from(args.prompt_tokens)?.saturating_add(args.tokens);
    let context_tokens = model::context(&source, Some(needed))?;
    let ranges = match &args.cuts {
        Some(cuts) => model::cut(&source, cuts)?,
        None => model::even(&source, args.stages, args.balance.into())?,
    };
    let placement = Placement::Stages(ranges);
    let decoding = Decoding {
        streams: args.streams,
        draft: 0,
    };
    let mut spec = model::spec(source, placement, context_tokens, decoding, Some(1))?;
    // Every repetition reads the same prompt.
    spec.keeps_prefixes = false;
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
