//! The yardsticks: stock llama.cpp on the original file, in a process of its own, without sockets
//! of ours, sampler or scheduler; by itself, or driving RPC servers.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_engine::{Input, Stage};
use brigade_llama::{LlamaStage, Setup};
use brigade_node::child::{self, ChildProcess, Reports};
use brigade_node::{ClusterSpec, RpcOrder, RpcReport, StageOrder, StageSource};
use brigade_wire::{KvOp, SeqId, Span, StageParams, Token, Want};
use serde::{Deserialize, Serialize};

use super::cores::pin;
use super::{Args, Speed};
use crate::model;
use crate::workers::load_stage;

/// Stock llama.cpp on the original file, in a process of its own.
pub(super) struct Stock {
    process: ChildProcess,
    reports: Reports,
    /// They end with this.
    _servers: Vec<ChildProcess>,
}

impl Stock {
    /// The whole model in one process, with a thread for each of the cores.
    pub(super) fn whole(spec: &ClusterSpec, args: &Args, cores: &[usize]) -> anyhow::Result<Self> {
        Self::start(spec, args, cores, Vec::new(), Vec::new())
    }

    /// The same over an RPC server for each stage, each with one thread on its core.
    pub(super) fn rpc(spec: &ClusterSpec, args: &Args, cores: &[usize]) -> anyhow::Result<Self> {
        let mut servers = Vec::new();
        let mut addresses = Vec::new();
        let ranges = model::alike(&spec.source, args.stages)?.into_iter();
        for (index, layers) in ranges.enumerate() {
            let (mut process, mut reports) = child::spawn("rpc-server", "the RPC server")?;
            process.order(&RpcOrder { threads: 1 })?;
            match reports.read()? {
                Some(RpcReport::Ready(address)) => addresses.push((address, layers.len())),
                Some(RpcReport::Failed(reason)) => bail!("the RPC server: {reason}"),
                None => return Err(process.gone().into()),
            }
            pin(Some(process.pid()), &cores[index % cores.len()..][..1])?;
            servers.push(process);
        }
        Self::start(spec, args, cores, addresses, servers)
    }

    fn start(
        spec: &ClusterSpec,
        args: &Args,
        cores: &[usize],
        rpc: Vec<(SocketAddr, u32)>,
        servers: Vec<ChildProcess>,
    ) -> anyhow::Result<Self> {
        let (mut process, reports) = child::spawn("bench-stock", "stock llama.cpp")?;
        let threads = if rpc.is_empty() { cores.len() } else { 1 };
        pin(Some(process.pid()), cores)?;
        process.order(&Order::Load(StageOrder {
            model: spec.name.clone(),
            files: StageSource::Whole(spec.source.path().to_owned()),
            params: StageParams {
                context_tokens: spec.context_tokens,
                sequences: args.streams,
                batch_tokens: args.stock_chunk(),
                flash_attention: true,
                draft_tokens: 0,
            },
            threads: threads as u32,
            rpc,
            listen: brigade_node::Listen::LOOPBACK,
            guard: None,
        }))?;
        let mut stock = Self {
            process,
            reports,
            _servers: servers,
        };
        match stock.report()? {
            Report::Loaded => Ok(stock),
            other => bail!("stock llama.cpp does not load the model: {other:?}"),
        }
    }

    fn report(&mut self) -> anyhow::Result<Report> {
        match self.reports.read()? {
            Some(report) => Ok(report),
            None => Err(self.process.gone().into()),
        }
    }

    pub(super) fn speed(&mut self, prompt: &[Token], args: &Args) -> anyhow::Result<Speed> {
        let order = Order::Generate(Work {
            prompt: prompt.to_vec(),
            chunk: args.stock_chunk(),
            tokens: args.tokens,
            streams: args.streams,
        });
        self.process.order(&order)?;
        match self.report()? {
            Report::Times(times) => {
                Speed::of(prompt.len(), &times).context("stock llama.cpp gave no tokens")
            }
            other => bail!("stock llama.cpp does not run: {other:?}"),
        }
    }
}

/// Forget everything, prefill the prompt in chunks for one stream after the other, then take the
/// most likely token of all streams at once.
#[derive(Debug, Serialize, Deserialize)]
struct Work {
    prompt: Vec<Token>,
    chunk: u32,
    tokens: u32,
    streams: u32,
}

/// What the bare model is told; [`Report`] answers each order.
#[derive(Debug, Serialize, Deserialize)]
enum Order {
    Load(StageOrder),
    Generate(Work),
}

/// What the bare model measured.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Loaded,
    /// When each token of each stream was there, since the start.
    Times(Vec<Vec<Duration>>),
    Failed(String),
}

/// `brigade bench-stock`.
pub(crate) fn serve() -> ExitCode {
    let orders: mpsc::Receiver<Order> = child::orders();
    let mut stage = None;
    while let Ok(order) = orders.recv() {
        let done = match (order, &mut stage) {
            (Order::Load(order), _) => load_stage(&order, Setup::Stock).map(|(_, _, loaded)| {
                stage = Some(loaded);
                Report::Loaded
            }),
            (Order::Generate(work), Some(stage)) => generate(stage, &work).map(Report::Times),
            (Order::Generate(_), None) => Ok(Report::Failed("nothing is loaded".into())),
        };
        child::report(&done.unwrap_or_else(|error| Report::Failed(format!("{error:#}"))));
    }
    ExitCode::SUCCESS
}

fn generate(stage: &mut LlamaStage, work: &Work) -> anyhow::Result<Vec<Vec<Duration>>> {
    let start = Instant::now();
    let sequences = 0..work.streams;
    for seq in sequences.clone().map(SeqId) {
        stage.apply(KvOp::Remove { seq, from: 0 })?;
    }
    let mut times = vec![Vec::new(); work.streams as usize];
    let mut next = Vec::new();
    let mut logits = Vec::new();
    for seq in sequences.clone().map(SeqId) {
        let mut position = 0;
        for tokens in work.prompt.chunks(work.chunk as usize) {
            let after = position + tokens.len();
            let want = if after == work.prompt.len() {
                Want::Token
            } else {
                Want::Nothing
            };
            let spans = [span(seq, position, tokens, want)];
            stage.forward(&spans, Input::Tokens(tokens), &mut logits)?;
            position = after;
        }
        next.push(most_likely(&logits));
        times[seq.0 as usize].push(start.elapsed());
    }
    let vocabulary = stage.vocabulary().context("the model has no head")?;
    for step in 1..work.tokens as usize {
        let position = work.prompt.len() + step - 1;
        let spans: Vec<_> = sequences
            .clone()
            .zip(&next)
            .map(|(seq, &token)| span(SeqId(seq), position, &[token], Want::Token))
            .collect();
        stage.forward(&spans, Input::Tokens(&next), &mut logits)?;
        next = logits.chunks(vocabulary).map(most_likely).collect();
        let now = start.elapsed();
        for stream in &mut times {
            stream.push(now);
        }
    }
    Ok(times)
}

fn span(seq: SeqId, position: usize, tokens: &[Token], want: Want) -> Span {
    Span {
        seq,
        position: position as u32,
        tokens: tokens.to_vec(),
        want,
        sampling: None,
        prompt_tokens: 0,
    }
}

fn most_likely(logits: &[f32]) -> Token {
    let mut best = 0;
    for (token, logit) in logits.iter().enumerate() {
        if *logit > logits[best] {
            best = token;
        }
    }
    best as Token
}
