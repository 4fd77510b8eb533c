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
    /// No folder for the cache is known.
    #[error("no home folder is known; set BRIGADE_CACHE to a folder for stage files")]
    NoCache,
}
