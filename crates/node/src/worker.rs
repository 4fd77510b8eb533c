//! What the processes of a node are told and what they report.
//!
//! A daemon or a command starts a node process; the node cuts its stage file and starts a stage
//! process. Orders go down and reports come up as lines of JSON, see [`crate::child`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::thread;

use brigade_gguf::Layers;
use brigade_wire::StageParams;
use serde::{Deserialize, Serialize};

use crate::cache::Cache;
use crate::delivery::Offer;
use crate::link::Guard;
use crate::listen::Listen;

/// Memory that llama.cpp allocated for a stage, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Weights.
    pub weights_bytes: u64,
    /// KV cache of all sequences.
    pub kv_bytes: u64,
    /// Compute buffers and logits.
    pub compute_bytes: u64,
}

/// What a stage process is told, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageOrder {
    /// The model's name, for the handshake.
    pub model: String,
    /// The files.
    pub files: StageSource,
    /// What all stages agree on.
    pub params: StageParams,
    /// Threads that compute.
    pub threads: u32,
    /// RPC servers that hold the layers instead of this machine's devices, and how many each.
    pub rpc: Vec<(SocketAddr, u32)>,
    /// Where it listens.
    pub listen: Listen,
    /// What its connections are guarded by; without it they are not encrypted.
    pub guard: Option<Guard>,
}

/// What a stage loads, by its place in the chain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum StageSource {
    /// The original file: tokens in, logits out.
    Whole(PathBuf),
    /// A stage file and the token embedding beside it.
    First {
        /// The stage file.
        stage: PathBuf,
        /// The file with the token embedding.
        embedding: PathBuf,
    },
    /// A stage file between two others.
    Middle(PathBuf),
    /// A stage file with the head.
    Last(PathBuf),
}

/// What a stage process reports, once.
#[derive(Debug, Serialize, Deserialize)]
pub enum StageReport {
    /// It listens.
    Ready(StageReady),
    /// It cannot be loaded.
    Failed(String),
}

/// A stage that listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StageReady {
    /// Where.
    pub address: SocketAddr,
    /// Build of llama.cpp.
    pub build: String,
    /// Width of a hidden state, in floats.
    pub hidden_size: u32,
    /// Tokens in the vocabulary, if it gives logits.
    pub vocabulary: Option<u32>,
    /// What llama.cpp allocated.
    pub memory: Memory,
}

/// What an RPC server process is told, once. It reports [`RpcReport`].
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RpcOrder {
    /// Threads that compute.
    pub threads: u32,
}

/// What an RPC server process reports, once.
#[derive(Debug, Serialize, Deserialize)]
pub enum RpcReport {
    /// It listens here.
    Ready(SocketAddr),
    /// It cannot.
    Failed(String),
}

/// What a node process is told, once.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum NodeOrder {
    /// Cut these layers out of a model and run them.
    Stage {
        /// The layers.
        shard: Shard,
        /// Where stage files are kept.
        cache: Cache,
        /// Where the stage listens.
        listen: Listen,
    },
    /// Run the whole model.
    Whole {
        /// Its file.
        path: PathBuf,
        /// How.
        run: RunParams,
        /// RPC servers that hold the layers instead of this machine's devices, and how many each.
        rpc: Vec<(SocketAddr, u32)>,
        /// What its connections are guarded by.
        guard: Option<Guard>,
    },
    /// Serve llama.cpp's RPC, on loopback.
    Rpc {
        /// Threads that compute; without it, as many as the node has cores.
        threads: Option<u32>,
    },
}

/// What a coordinator asks a daemon to run for it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Job {
    /// A stage.
    Stage(Box<Shard>),
    /// An RPC server, to be reached through tunnels.
    Rpc {
        /// Threads that compute; without it, as many as the node has cores.
        threads: Option<u32>,
    },
}

/// A layer range of a model for one node.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shard {
    /// The model's file, or the first of several.
    pub(crate) path: PathBuf,
    /// The identity that the model at that path must have.
    pub(crate) identity: String,
    /// The layers.
    pub(crate) layers: Layers,
    /// How.
    pub(crate) run: RunParams,
    /// What the stage's connections are guarded by.
    pub(crate) guard: Option<Guard>,
    /// Where the model can be had, if there is nothing at that path.
    pub(crate) delivery: Option<Box<Offer>>,
}

/// How a model is run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunParams {
    /// The model's name, for the handshake.
    pub(crate) model: String,
    /// What all stages agree on.
    pub(crate) params: StageParams,
    /// Threads that compute; without it, as many as the node has cores.
    pub(crate) threads: Option<u32>,
}

impl RunParams {
    /// Threads that compute here.
    pub(crate) fn threads_here(&self) -> u32 {
        threads_here(self.threads)
    }
}

/// So many threads, or as many as there are cores here.
pub(crate) fn threads_here(asked: Option<u32>) -> u32 {
    let cores = || thread::available_parallelism().map_or(1, usize::from) as u32;
    asked.unwrap_or_else(cores)
}

/// What a node process reports.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum NodeReport {
    /// The stage file is being written: bytes done, and in all.
    Slicing(u64, u64),
    /// The stage's part of the model comes from elsewhere: bytes done, in all, and a second.
    Fetching(u64, u64, u64),
    /// The stage listens.
    Stage {
        /// The stage's process.
        pid: u32,
        /// Bytes of its weights, with the token embedding of a first stage.
        bytes: u64,
        /// What it reported.
        ready: StageReady,
    },
    /// The RPC server listens.
    Rpc {
        /// The server's process.
        pid: u32,
        /// Where.
        address: SocketAddr,
    },
    /// It cannot do what it was told.
    Failed(String),
    /// The process that it ran is gone; how it ended.
    Gone(String),
}
