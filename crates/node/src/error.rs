//! The crate's error.

use std::io;
use std::path::PathBuf;

/// What can go wrong when an instance is set up or runs.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// A process could not be started.
    #[error("cannot start {name}: {error}")]
    Spawn {
        /// The process.
        name: String,
        /// Why.
        error: io::Error,
    },
    /// A process ended, or does not answer.
    #[error("{name} is gone: {how}")]
    ChildGone {
        /// The process.
        name: String,
        /// How it ended.
        how: String,
    },
    /// A process reported that it cannot do what it was told.
    #[error("{name}: {reason}")]
    Refused {
        /// The process.
        name: String,
        /// Why.
        reason: String,
    },
    /// A process said something that it should not.
    #[error("{name} broke the protocol: {reason}")]
    Protocol {
        /// The process.
        name: String,
        /// What happened.
        reason: String,
    },
    /// The model file cannot be used.
    #[error(transparent)]
    Gguf(#[from] brigade_gguf::GgufError),
    /// A file or folder of ours cannot be used.
    #[error("{path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The chain of stages cannot be built, or broke.
    #[error("{0}")]
    Chain(String),
    /// The text cannot be tokenized.
    #[error("cannot tokenize the text: {0}")]
    Tokenize(String),
    /// The request cannot be taken.
    #[error(transparent)]
    Submit(#[from] brigade_engine::scheduler::SubmitError),
    /// The cache folder's name cannot be told to other processes.
    #[error("the cache folder {0} is not UTF-8; set BRIGADE_CACHE to another one")]
    CacheName(PathBuf),
    /// The model's file here is not the one that the coordinator means.
    #[error(
        "{0} is another file here than on the node that loads it: copy that node's file here, \
         or name another path for this node"
    )]
    AnotherModel(PathBuf),
    /// A model on servers cannot be found.
    #[error(transparent)]
    Hub(#[from] brigade_hub::HubError),
    /// A model's bytes did not come.
    #[error("{0}")]
    Delivery(String),
    /// A model is not wanted any more that was being started.
    #[error("the start was broken off")]
    BrokenOff,
    /// No folder for the state is known.
    #[error("no home folder is known; set BRIGADE_HOME to a folder for this node's state")]
    NoHome,
    /// A daemon holds the state folder.
    #[error("brigade is already running with the state folder {0}")]
    HomeInUse(PathBuf),
    /// No daemon answers commands.
    #[error("no daemon is running here: start one with `brigade up`")]
    NoDaemon,
    /// A node cannot be reached, or broke off.
    #[error("{node}: {error}")]
    Peer {
        /// Its name or address.
        node: String,
        /// What happened.
        error: brigade_wire::FrameError,
    },
    /// A node will have nothing to do with this one.
    #[error("{node} refuses: {refusal}")]
    PeerRefuses {
        /// Its name or address.
        node: String,
        /// Why.
        refusal: crate::Refusal,
    },
    /// The daemon cannot do what it was asked for.
    #[error("{0}")]
    Daemon(String),
    /// A name means no node, or several.
    #[error(transparent)]
    Find(#[from] brigade_wire::members::FindError),
    /// What is needed is more than the cache may hold.
    #[error(
        "{} more are needed in the cache, which may hold {} and has {} that must stay: raise \
         --cache-limit (BRIGADE_CACHE_LIMIT), or unload a model", gigabytes(*wanted_bytes),
        gigabytes(*limit_bytes), gigabytes(*needed_bytes)
    )]
    CacheFull {
        /// What was to be written.
        wanted_bytes: u64,
        /// The limit.
        limit_bytes: u64,
        /// What is in use, declared or put there by others.
        needed_bytes: u64,
    },
    /// The cache has nothing of this name, or several things.
    #[error("{}", not_cached(asked, names))]
    NotCached {
        /// What was asked for.
        asked: String,
        /// What may be meant.
        names: Vec<String>,
    },
    /// No folder for the cache is known.
    #[error("no home folder is known; set BRIGADE_CACHE to a folder for stage files")]
    NoCache,
}

fn not_cached(asked: &str, names: &[String]) -> String {
    if names.is_empty() {
        return format!("{asked} is not in the cache: `brigade models` lists what is");
    }
    format!("{asked} may be {}: name one", names.join(", "))
}

fn gigabytes(bytes: u64) -> String {
    format!("{:.2} GB", bytes as f64 / 1e9)
}
