//! The hidden commands that run in child processes, where llama.cpp lives.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use brigade_engine::Stage;
use brigade_gguf::{Embedding, Source};
use brigade_llama::{EmbeddingTable, LlamaStage, Role, Setup, StageConfig, Vocabulary};
use brigade_node::{
    Memory, RpcOrder, RpcReport, StageIdentity, StageOrder, StageReady, StageReport, StageSource,
    TokenizerOrder, TokenizerReport, VocabularyFacts, child,
};

use crate::devices;

/// How long an RPC server may take to listen.
const RPC_START: Duration = Duration::from_secs(10);

/// `brigade stage`: loads a stage, reports where it listens, and serves chains.
pub(crate) fn stage() -> anyhow::Result<ExitCode> {
    let orders = child::orders::<StageOrder>();
    let Ok(order) = orders.recv() else {
        return Ok(ExitCode::SUCCESS);
    };
    match load_stage(&order, Setup::Stage) {
        Ok((listener, ready, mut stage)) => {
            let identity = StageIdentity {
                build: ready.build.clone(),
                model: order.model,
                params: order.params,
                guard: order.guard,
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

pub(crate) fn load_stage(
    order: &StageOrder,
    setup: Setup,
) -> anyhow::Result<(TcpListener, StageReady, LlamaStage)> {
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
        setup,
        devices: devices::chosen(),
    })?;
    let listener = order.listen.bind()?;
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
            (TokenizerOrder::CheckGrammar(grammar), Some(vocabulary)) => {
                match vocabulary.check_grammar(&grammar) {
                    Ok(()) => TokenizerReport::GrammarWorks,
                    Err(error) => TokenizerReport::Failed(error.to_string()),
                }
            }
            (TokenizerOrder::Tokenize(_) | TokenizerOrder::CheckGrammar(_), None) => {
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
    let pieces: Vec<_> = (0..vocabulary.len() as u32)
        .map(|token| vocabulary.piece(token, false))
        .collect();
    let control = (0..).zip(&pieces).filter(|(_, piece)| piece.is_empty());
    VocabularyFacts {
        control: control
            .map(|(token, _)| (token, text(Some(token))))
            .filter(|(_, text)| !text.is_empty())
            .collect(),
        longest_piece: (0..vocabulary.len() as u32)
            .map(|token| vocabulary.piece(token, true).len())
            .max()
            .unwrap_or(0),
        bos: text(vocabulary.bos()),
        eos: text(vocabulary.eos()),
        end_of_generation: vocabulary.end_of_generation(),
        pieces,
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
