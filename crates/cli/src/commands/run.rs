//! `brigade run`: chat with a model, or answer once.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use brigade_api::{ChatMessage, ChatTemplate, Role};
use brigade_node::{Cluster, End, Placement, Prompt, Tokenizer};
use brigade_wire::SamplingParams;

use crate::devices::DeviceArgs;
use crate::model::{self, Decoding, Engine};
use crate::output::{self, Told};

/// What is read of standard input; no context holds more.
const LONGEST_PROMPT_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A GGUF file, or the first of several; `hf:owner/repo[:QUANT][@revision]`, the address of a
    /// file, or `ollama:name[:tag]`
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// Answer this and end; without it, chat (or answer what standard input holds)
    #[arg(value_name = "PROMPT")]
    prompt: Option<String>,
    /// Context, in tokens [default: the model's own, 4096 at most]
    #[arg(long, value_name = "N")]
    ctx: Option<u32>,
    /// Guess up to N tokens ahead from what was said before, and have them verified in one step,
    /// where that turns out to be faster (0: never)
    #[arg(long, default_value_t = 0, value_name = "N",
        value_parser = clap::value_parser!(u32).range(0..=16))]
    draft: u32,
    /// Run it in one process, or through llama.cpp's RPC [default: stages, one of them]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
    /// Threads that compute [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    threads: Option<u32>,
    #[command(flatten)]
    devices: DeviceArgs,
    /// The most tokens of an answer
    #[arg(long, default_value_t = 1024, value_name = "N")]
    max_tokens: u32,
    /// 0 takes the most likely token, higher values are more varied
    #[arg(long, default_value_t = 0.7, value_name = "T")]
    temperature: f32,
    /// Choose among the k most likely tokens; 0 for all
    #[arg(long, default_value_t = 0, value_name = "K")]
    top_k: u32,
    /// Choose among the most likely tokens that together reach this probability
    #[arg(long, default_value_t = 0.95, value_name = "P")]
    top_p: f32,
    /// Leave out tokens less likely than this fraction of the most likely one
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    min_p: f32,
    /// Makes tokens seen before less likely; 1 for no penalty
    #[arg(long, default_value_t = 1.0, value_name = "R")]
    repetition_penalty: f32,
    /// Makes a varied answer repeatable [default: a new one each time]
    #[arg(long, value_name = "SEED")]
    seed: Option<u64>,
}

impl Args {
    fn sampling(&self) -> SamplingParams {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        SamplingParams {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed.unwrap_or(now),
            ..SamplingParams::default()
        }
    }
}

pub(crate) fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.devices.apply();
    let source = model::open(&args.model)?;
    let context_tokens = model::context(&source, args.ctx)?;
    let decoding = Decoding::alone(args.draft);
    decoding.check(&source)?;
    let placement = match args.engine {
        Some(Engine::LlamaRpc) => Placement::Rpc(model::alike(&source, 1)?),
        Some(Engine::Stages) | None => Placement::Whole,
    };
    let prompt = match &args.prompt {
        Some(prompt) => Some(prompt.clone()),
        None if io::stdin().is_terminal() => None,
        None => {
            let mut text = String::new();
            io::stdin()
                .lock()
                .take(LONGEST_PROMPT_BYTES)
                .read_to_string(&mut text)
                .context("cannot read the prompt from standard input")?;
            Some(text)
        }
    };
    if prompt
        .as_ref()
        .is_some_and(|prompt| prompt.trim().is_empty())
    {
        bail!("the prompt is empty");
    }
    // What the request would be refused for is better known before the model is loaded.
    brigade_engine::sampling::check(&args.sampling())?;
    if args.max_tokens == 0 {
        bail!("--max-tokens must be at least 1");
    }
    let tokenizer = Tokenizer::start(source.path())?;
    let template = model::chat_template(&source, None, tokenizer.facts())?;
    if template.is_none() {
        output::note("the model has no chat template: it continues the text instead of chatting");
    }
    let spec = model::spec(source, placement, context_tokens, decoding, args.threads)?;
    let cluster = Cluster::start(&spec, &tokenizer, output::progress())?;
    output::progress_done();
    let session = Session {
        cluster,
        tokenizer,
        template,
        args,
    };
    match prompt {
        Some(prompt) => {
            session.answer(&[model::user(&prompt)])?;
        }
        None => session.chat()?,
    }
    Ok(ExitCode::SUCCESS)
}

struct Session {
    cluster: Cluster,
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
    args: Args,
}

impl Session {
    fn answer(&self, messages: &[ChatMessage]) -> anyhow::Result<Told> {
        let tokens = model::conversation(messages, self.template.as_ref(), &self.tokenizer)?;
        let prompt_tokens = tokens.len();
        let start = Instant::now();
        let mut answer = self.cluster.instance.submit(Prompt {
            tokens,
            max_tokens: self.args.max_tokens,
            sampling: self.args.sampling(),
            stop: Vec::new(),
            end: End::Respected,
            want_logits: false,
            user: 0,
            visible: Vec::new(),
        })?;
        let told = output::stream(&mut answer, start, output::piece)?;
        output::note(&told.summary(prompt_tokens));
        Ok(told)
    }

    fn chat(&self) -> anyhow::Result<()> {
        output::note(&format!(
            "{}: type a message; Ctrl-D ends, Ctrl-C ends at once.",
            self.args.model.display()
        ));
        let mut messages = Vec::new();
        let mut lines = io::stdin().lock().lines();
        loop {
            output::ask("> ");
            let Some(line) = lines.next() else {
                output::note("");
                return Ok(());
            };
            let line = line?;
            if line.trim().is_empty() {
                continue;
            }
            messages.push(model::user(&line));
            match self.answer(&messages) {
                Ok(told) => messages.push(ChatMessage::new(Role::Assistant, told.text)),
                // A conversation that became too long can be begun anew; a dead stage cannot.
                Err(error) if self.cluster.instance.failure().is_none() => {
                    output::note(&format!("brigade: {error:#}; the conversation starts anew"));
                    messages.clear();
                }
                Err(error) => return Err(error),
            }
        }
    }
}
