//! `brigade parity`: whole against staged, bit for bit.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_gguf::{Balance, Layers};
use brigade_node::{Cluster, End, Event, Links, Placement, Prompt, Text, Tokenizer};
use serde_json::{Value, json};

use crate::model::Decoding;
use crate::{model, output};

/// The text that prompts are made of, repeated as often as needed.
const PROMPT: &str = "<|im_start|>user\nWhat is the capital of France? Explain.<|im_end|>\n\
                      <|im_start|>assistant\n";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file, or the first of several
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// How many stages, of even size
    #[arg(long, value_name = "N")]
    stages: Option<u32>,
    /// The first layer of each stage after the first, such as 5,11
    #[arg(long, value_name = "LAYERS", value_delimiter = ',')]
    cuts: Option<Vec<u32>>,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 64, value_name = "P")]
    prompt_tokens: u32,
    /// The prompt's text, repeated as often as needed [default: a question about France]
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Tokens to generate
    #[arg(long, default_value_t = 32, value_name = "T")]
    tokens: u32,
    /// Prompt tokens of one step
    #[arg(long, default_value_t = 64, value_name = "C")]
    chunk: u32,
    /// Threads of each process
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: u32,
    /// Encrypt the stages' links, as between machines
    #[arg(long)]
    encrypted: bool,
    /// Write the staged side's logits here: little-endian f32, one row of the vocabulary for each
    /// generated token
    #[arg(long, value_name = "FILE")]
    dump_logits: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One side of the comparison.
struct Side {
    tokens: Vec<u32>,
    logits: Vec<Vec<f32>>,
    first: Duration,
    rest: Duration,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let source = model::open(&args.model)?;
    let ranges = match (&args.cuts, args.stages) {
        (Some(cuts), Some(stages)) if stages as usize != cuts.len() + 1 => {
            bail!(
                "--cuts makes {} stages of it, --stages says {stages}",
                cuts.len() + 1
            )
        }
        (Some(cuts), _) => model::cut(&source, cuts)?,
        (None, Some(stages)) => model::even(&source, stages, Balance::default())?,
        (None, None) => bail!("say how many stages (--stages 4) or where to cut (--cuts 5,11)"),
    };
    check(args)?;
    // The last token needs no place in the context.
    let needed = args.prompt_tokens.saturating_add(args.tokens - 1);
    let context_tokens = model::context(&source, Some(needed))?;
    let tokenizer = Tokenizer::start(source.path())?;
    let prompt = prompt(args, &tokenizer)?;

    // An unwritable file is better known before the computing than after it.
    let mut dump_file = match &args.dump_logits {
        Some(path) => Some(
            File::create(path)
                .with_context(|| format!("cannot write logits to {}", path.display()))?,
        ),
        None => None,
    };

    let whole = side(args, Placement::Whole, context_tokens, &tokenizer, &prompt)?;
    let staged_placement = Placement::Stages(ranges.clone());
    let staged = side(args, staged_placement, context_tokens, &tokenizer, &prompt)?;
    if let Some(file) = &mut dump_file {
        dump(file, &staged.logits).context("cannot write the logits")?;
    }

    let verdict = Verdict::of(&whole, &staged);
    if args.json {
        output::line(&verdict.json(args, &ranges, &whole, &staged).to_string())?;
    } else {
        output::line(&verdict.sentence(args, &ranges, &whole, &staged))?;
    }
    Ok(if verdict.equal() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn check(args: &Args) -> anyhow::Result<()> {
    for (name, value) in [
        ("--prompt-tokens", u64::from(args.prompt_tokens)),
        ("--tokens", u64::from(args.tokens)),
        ("--chunk", u64::from(args.chunk)),
        ("--threads", u64::from(args.threads)),
    ] {
        if value == 0 {
            bail!("{name} must be at least 1");
        }
    }
    Ok(())
}

fn prompt(args: &Args, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
    let text = args.prompt.as_deref().unwrap_or(PROMPT);
    let mut repeats = 1;
    loop {
        let mut tokens = tokenizer.tokenize(Text {
            text: text.repeat(repeats),
            add_special: true,
            parse_special: true,
        })?;
        let wanted = args.prompt_tokens as usize;
        if tokens.len() >= wanted {
            tokens.truncate(wanted);
            return Ok(tokens);
        }
        if tokens.len() < repeats {
            bail!("the prompt's text makes no tokens");
        }
        repeats = repeats * wanted / tokens.len().max(1) + 1;
    }
}

fn side(
    args: &Args,
    placement: Placement,
    context_tokens: u32,
    tokenizer: &Tokenizer,
    prompt: &[u32],
) -> anyhow::Result<Side> {
    let source = model::open(&args.model)?;
    let threads = Some(args.threads);
    let mut spec = model::spec(
        source,
        placement,
        context_tokens,
        Decoding::alone(0),
        threads,
    )?;
    spec.keeps_prefixes = false;
    spec.chunk_tokens = args.chunk;
    if args.encrypted {
        spec.links = Links::Encrypted;
    }
    let cluster = Cluster::start(&spec, tokenizer, output::progress())?;
    output::progress_done();
    let start = Instant::now();
    let mut answer = cluster.instance.submit(Prompt {
        want_logits: true,
        ..Prompt::greedy(prompt.to_vec(), args.tokens, End::Ignored)
    })?;
    let mut side = Side {
        tokens: Vec::new(),
        logits: Vec::new(),
        first: Duration::ZERO,
        rest: Duration::ZERO,
    };
    while let Some(event) = answer.next_blocking() {
        match event {
            Event::Token { token, logits, .. } => {
                if side.tokens.is_empty() {
                    side.first = start.elapsed();
                }
                side.rest = start.elapsed().saturating_sub(side.first);
                side.tokens.push(token);
                side.logits
                    .push(logits.context("the stage returned no logits")?);
            }
            Event::Started { .. } | Event::Done { .. } => {}
            Event::Failed(reason) | Event::Refused(reason) => bail!("{reason}"),
        }
    }
    Ok(side)
}

fn dump(file: &mut File, rows: &[Vec<f32>]) -> std::io::Result<()> {
    let mut file = BufWriter::new(file);
    for value in rows.iter().flatten() {
        file.write_all(&value.to_le_bytes())?;
    }
    file.flush()
}

impl Side {
    fn prefill_tok_s(&self, prompt_tokens: u32) -> f64 {
        f64::from(prompt_tokens) / self.first.as_secs_f64().max(1e-9)
    }

    fn decode_tok_s(&self) -> f64 {
        self.tokens.len().saturating_sub(1) as f64 / self.rest.as_secs_f64().max(1e-9)
    }

    fn json(&self, prompt_tokens: u32) -> Value {
        json!({
            "prefill_tok_s": self.prefill_tok_s(prompt_tokens),
            "decode_tok_s": self.decode_tok_s(),
        })
    }
}

/// What the comparison says.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Verdict {
    equal_logits: bool,
    max_abs_diff: f32,
    tokens_equal: bool,
}

impl Verdict {
    fn of(whole: &Side, staged: &Side) -> Self {
        let bits = |rows: &[Vec<f32>]| -> Vec<u32> {
            rows.iter().flatten().map(|value| value.to_bits()).collect()
        };
        let differences = whole
            .logits
            .iter()
            .flatten()
            .zip(staged.logits.iter().flatten())
            .map(|(a, b)| (a - b).abs());
        Self {
            equal_logits: bits(&whole.logits) == bits(&staged.logits),
            max_abs_diff: differences.fold(0.0, f32::max),
            tokens_equal: whole.tokens == staged.tokens,
        }
    }

    fn equal(self) -> bool {
        self.equal_logits && self.tokens_equal
    }

    fn json(self, args: &Args, ranges: &[Layers], whole: &Side, staged: &Side) -> Value {
        json!({
            "schema": "brigade.parity/1",
            "stages": ranges,
            "prompt_tokens": args.prompt_tokens,
            "chunk": args.chunk,
            "tokens": staged.tokens,
            "equal_logits": self.equal_logits,
            "max_abs_diff": self.max_abs_diff,
            "tokens_equal": self.tokens_equal,
            "whole": whole.json(args.prompt_tokens),
            "staged": staged.json(args.prompt_tokens),
        })
    }

    fn sentence(self, args: &Args, ranges: &[Layers], whole: &Side, staged: &Side) -> String {
        let cut: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        let verdict = match (self.equal_logits, self.tokens_equal) {
            (true, true) => "equal, bit for bit".to_owned(),
            (false, true) => format!("tokens equal, logits up to {} apart", self.max_abs_diff),
            _ => format!("DIFFERENT, logits up to {} apart", self.max_abs_diff),
        };
        format!(
            "parity: whole and {} stages ({}) over {} prompt and {} generated tokens: {verdict}\n\
             decode {:.1} tok/s whole, {:.1} staged; prefill {:.0} tok/s whole, {:.0} staged",
            ranges.len(),
            cut.join(", "),
            args.prompt_tokens,
            staged.tokens.len(),
            whole.decode_tok_s(),
            staged.decode_tok_s(),
            whole.prefill_tok_s(args.prompt_tokens),
            staged.prefill_tok_s(args.prompt_tokens),
        )
    }
}
