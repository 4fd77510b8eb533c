//! The hidden commands that run in child processes, where llama.cpp lives.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::Context;
use brigade_engine::{Input, Stage};
use brigade_gguf::{Embedding, Source};
use brigade_llama::{EmbeddingTable, LlamaStage, Role, StageConfig, Vocabulary};
use brigade_node::{
    Memory, RpcOrder, RpcReport, StageIdentity, StageOrder, StageReady, StageReport, StageSource,
    TokenizerOrder, TokenizerReport, VocabularyFacts, child,
};
use brigade_wire::{SeqId, Span, Want};
use serde::{Deserialize, Serialize};

/// How long an RPC server may take to listen.
const RPC_START: Duration = Duration::from_secs(10);

/// `brigade stage`: loads a stage, reports where it listens, and serves chains.
pub(crate) fn stage() -> anyhow::Result<ExitCode> {
    let orders = child::orders::<StageOrder>();
    let Ok(order) = orders.recv() else {
        return Ok(ExitCode::SUCCESS);
    };
    match load_stage(&order) {
        Ok((listener, ready, mut stage)) => {
            let identity = StageIdentity {
                build: ready.build.clone(),
                model: order.model,
                params: order.params,
            };
            child::report(&StageReport::Ready(ready));
            let error = brigade_node::serve_stage(&listener, &identity, &mut stage);
            Err(error).context("cannot accept connections any more")
        }
        Err(error) => {
            child::report(&StageReport::Failed(format!("{error:#}")));
            Ok(ExitCode::FAILURE)
        }
    }
}

fn load_stage(order: &StageOrder) -> anyhow::Result<(TcpListener, StageReady, LlamaStage)> {
    let (path, role) = match &order.files {
        StageSource::Whole(path) => (path, Role::Whole),
        StageSource::First { stage, embedding } => {
            (stage, Role::First(embedding_table(embedding)?))
        }
        StageSource::Middle(path) => (path, Role::Middle),
        StageSource::Last(path) => (path, Role::Last),
    };
    let stage = LlamaStage::load(StageConfig {
        path: path.clone(),
        role,
        params: order.params.clone(),
        threads: order.threads,
        rpc: order.rpc.clone(),
    })?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let memory = stage.memory_use();
    let ready = StageReady {
        address: listener.local_addr()?,
        build: brigade_llama::build(),
        hidden_size: stage.hidden_size() as u32,
        vocabulary: stage.vocabulary().map(|tokens| tokens as u32),
        memory: Memory {
            weights_bytes: memory.weights_bytes,
            kv_bytes: memory.kv_bytes,
            compute_bytes: memory.compute_bytes,
        },
    };
    Ok((listener, ready, stage))
}

fn embedding_table(path: &std::path::Path) -> anyhow::Result<EmbeddingTable> {
    let source = Source::open(path)?;
    let embedding = Embedding::of(source.model())?;
    let table = EmbeddingTable::new(
        File::open(path)?,
        embedding.offset,
        u32::try_from(embedding.rows)?,
        embedding.width as usize,
        embedding.ggml_type.id(),
        embedding.scale,
    )?;
    Ok(table)
}

/// `brigade tokenizer`: a vocabulary that answers.
pub(crate) fn tokenizer() -> ExitCode {
    let orders = child::orders::<TokenizerOrder>();
    let mut vocabulary = None;
    while let Ok(order) = orders.recv() {
        let report = match (order, &vocabulary) {
            (TokenizerOrder::Load(path), _) => match Vocabulary::load(&path) {
                Ok(loaded) => {
                    let facts = vocabulary_facts(&loaded);
                    vocabulary = Some(loaded);
                    TokenizerReport::Loaded(facts)
                }
                Err(error) => TokenizerReport::Failed(error.to_string()),
            },
            (TokenizerOrder::Tokenize(text), Some(vocabulary)) => {
                match vocabulary.tokenize(&text.text, text.add_special, text.parse_special) {
                    Ok(tokens) => TokenizerReport::Tokens(tokens),
                    Err(error) => TokenizerReport::Failed(error.to_string()),
                }
            }
            (TokenizerOrder::Tokenize(_), None) => {
                TokenizerReport::Failed("no vocabulary is loaded".to_owned())
            }
        };
        child::report(&report);
    }
    ExitCode::SUCCESS
}

fn vocabulary_facts(vocabulary: &Vocabulary) -> VocabularyFacts {
    let text = |token: Option<u32>| {
        token.map_or_else(String::new, |token| {
            String::from_utf8_lossy(&vocabulary.piece(token, true)).into_owned()
        })
    };
    VocabularyFacts {
        pieces: (0..vocabulary.len() as u32)
            .map(|token| vocabulary.piece(token, false))
            .collect(),
        bos: text(vocabulary.bos()),
        eos: text(vocabulary.eos()),
        end_of_generation: vocabulary.end_of_generation(),
    }
}

/// `brigade rpc-server`: llama.cpp's RPC server.
pub(crate) fn rpc_server() -> anyhow::Result<ExitCode> {
    let orders = child::orders::<RpcOrder>();
    let Ok(order) = orders.recv() else {
        return Ok(ExitCode::SUCCESS);
    };
    // The server takes a port number only: find a free one and leave it to the server.
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    std::thread::spawn(move || report_when_listening(address));
    let Err(error) = brigade_llama::rpc::serve(address, order.threads) else {
        return Ok(ExitCode::SUCCESS);
    };
    child::report(&RpcReport::Failed(error.to_string()));
    Ok(ExitCode::FAILURE)
}

fn report_when_listening(address: SocketAddr) {
    let deadline = Instant::now() + RPC_START;
    while Instant::now() < deadline {
        if TcpStream::connect_timeout(&address, RPC_START).is_ok() {
            child::report(&RpcReport::Ready(address));
            return;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child::report(&RpcReport::Failed(format!("nothing listens at {address}")));
}

/// What the bare model is told to measure: [`BenchReport`] answers each order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum BenchOrder {
    /// Load; reports the bytes that llama.cpp allocated.
    Load(StageOrder),
    /// Forget everything, prefill these tokens in chunks, then take the most likely token this
    /// many times.
    Generate(Vec<u32>, u32, u32),
}

/// What the bare model measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum BenchReport {
    /// Loaded.
    Loaded,
    /// Nanoseconds to the first token, and for the ones after it.
    Times(u64, u64),
    /// It did not work.
    Failed(String),
}

/// `brigade bench-whole`: stock llama.cpp on the original file, without sockets, sampler or
/// scheduler, as the yardstick for stages.
pub(crate) fn bench_whole() -> ExitCode {
    let orders: mpsc::Receiver<BenchOrder> = child::orders();
    let mut stage = None;
    while let Ok(order) = orders.recv() {
        let report = match (order, &mut stage) {
            (BenchOrder::Load(order), _) => match load_stage(&order) {
                Ok((_, _, loaded)) => {
                    stage = Some(loaded);
                    BenchReport::Loaded
                }
                Err(error) => BenchReport::Failed(format!("{error:#}")),
            },
            (BenchOrder::Generate(prompt, chunk, tokens), Some(stage)) => {
                match generate(stage, &prompt, chunk as usize, tokens) {
                    Ok((first, rest)) => {
                        BenchReport::Times(first.as_nanos() as u64, rest.as_nanos() as u64)
                    }
                    Err(error) => BenchReport::Failed(format!("{error:#}")),
                }
            }
            (BenchOrder::Generate(..), None) => BenchReport::Failed("nothing is loaded".into()),
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
    stage.clear();
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
