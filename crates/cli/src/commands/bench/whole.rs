//! The yardstick: stock llama.cpp on the original file, in a process of its own, without
//! sockets, scheduler or sampler.

use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::bail;
use brigade_engine::{Input, Stage};
use brigade_llama::LlamaStage;
use brigade_node::child::{self, ChildProcess, Reports};
use brigade_node::{ClusterSpec, StageOrder, StageSource};
use brigade_wire::{KvOp, SeqId, Span, StageParams, Want};
use serde::{Deserialize, Serialize};

use super::{Args, Speed, speed};
use crate::workers::load_stage;

/// Stock llama.cpp on the original file, in a process of its own.
pub(super) struct Whole {
    pub(super) process: ChildProcess,
    reports: Reports,
}

impl Whole {
    pub(super) fn start(spec: &ClusterSpec) -> anyhow::Result<Self> {
        let (mut process, reports) = child::spawn("bench-whole", "the whole model")?;
        process.order(&Order::Load(StageOrder {
            model: spec.name.clone(),
            files: StageSource::Whole(spec.source.path().to_owned()),
            params: StageParams {
                context_tokens: spec.context_tokens,
                sequences: 1,
                batch_tokens: spec.chunk_tokens,
                flash_attention: true,
            },
            threads: 1,
            rpc: Vec::new(),
            bind: std::net::Ipv4Addr::LOCALHOST.into(),
            guard: None,
        }))?;
        let mut whole = Self { process, reports };
        match whole.report()? {
            Report::Loaded => Ok(whole),
            other => bail!("the whole model does not load: {other:?}"),
        }
    }

    fn report(&mut self) -> anyhow::Result<Report> {
        match self.reports.read()? {
            Some(report) => Ok(report),
            None => Err(self.process.gone().into()),
        }
    }

    pub(super) fn speed(&mut self, args: &Args, prompt: &[u32]) -> anyhow::Result<Speed> {
        let order = Order::Generate(prompt.to_vec(), args.chunk, args.tokens);
        self.process.order(&order)?;
        match self.report()? {
            Report::Times(first, rest) => Ok(speed(
                args,
                Duration::from_nanos(first),
                Duration::from_nanos(rest),
            )),
            other => bail!("the whole model does not run: {other:?}"),
        }
    }
}

/// What the bare model is told to measure: [`Report`] answers each order.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    /// Load this.
    Load(StageOrder),
    /// Forget everything, prefill these tokens in chunks, then take the most likely token this
    /// many times.
    Generate(Vec<u32>, u32, u32),
}

/// What the bare model measured.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    /// Loaded.
    Loaded,
    /// Nanoseconds to the first token, and for the ones after it.
    Times(u64, u64),
    /// It did not work.
    Failed(String),
}

/// `brigade bench-whole`: stock llama.cpp on the original file, without sockets, sampler or
/// scheduler, as the yardstick for stages.
pub(crate) fn serve() -> ExitCode {
    let orders: mpsc::Receiver<Order> = child::orders();
    let mut stage = None;
    while let Ok(order) = orders.recv() {
        let report = match (order, &mut stage) {
            (Order::Load(order), _) => match load_stage(&order) {
                Ok((_, _, loaded)) => {
                    stage = Some(loaded);
                    Report::Loaded
                }
                Err(error) => Report::Failed(format!("{error:#}")),
            },
            (Order::Generate(prompt, chunk, tokens), Some(stage)) => {
                match generate(stage, &prompt, chunk as usize, tokens) {
                    Ok((first, rest)) => {
                        Report::Times(first.as_nanos() as u64, rest.as_nanos() as u64)
                    }
                    Err(error) => Report::Failed(format!("{error:#}")),
                }
            }
            (Order::Generate(..), None) => Report::Failed("nothing is loaded".into()),
        };
        child::report(&report);
    }
    ExitCode::SUCCESS
}

fn generate(
    stage: &mut LlamaStage,
    prompt: &[u32],
    chunk: usize,
    tokens: u32,
) -> anyhow::Result<(Duration, Duration)> {
    let start = Instant::now();
    stage.apply(KvOp::Remove {
        seq: SeqId(0),
        from: 0,
    })?;
    let mut logits = Vec::new();
    let mut position = 0;
    let mut forward = |tokens: &[u32], want, logits: &mut Vec<f32>| {
        let span = Span {
            seq: SeqId(0),
            position,
            tokens: tokens.to_vec(),
            want,
            sampling: None,
            prompt_tokens: 0,
        };
        position += tokens.len() as u32;
        stage.forward(&[span], Input::Tokens(tokens), logits)
    };
    let mut chunks = prompt.chunks(chunk).peekable();
    while let Some(tokens) = chunks.next() {
        let want = if chunks.peek().is_some() {
            Want::Nothing
        } else {
            Want::Token
        };
        forward(tokens, want, &mut logits)?;
    }
    let mut token = most_likely(&logits);
    let first = start.elapsed();
    let start = Instant::now();
    for _ in 1..tokens {
        forward(&[token], Want::Token, &mut logits)?;
        token = most_likely(&logits);
    }
    Ok((first, start.elapsed()))
}

fn most_likely(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as u32
}
