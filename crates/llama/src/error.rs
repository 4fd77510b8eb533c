//! The crate's error.

use std::path::PathBuf;

/// What can go wrong when llama.cpp is set up; errors of a running stage are
/// [`StageError`](brigade_engine::StageError)s.
#[derive(Debug, thiserror::Error)]
pub enum LlamaError {
    /// A path that cannot be handed to C.
    #[error("the path {0} holds a zero byte")]
    Path(PathBuf),
    /// llama.cpp refused the file; the reason is its own last words.
    #[error("llama.cpp cannot load {path}: {reason}")]
    Load {
        /// The file.
        path: PathBuf,
        /// llama.cpp's last error lines.
        reason: String,
    },
    /// llama.cpp could not make a context, mostly for want of memory.
    #[error("llama.cpp cannot make a context of {cells} tokens for {path}: {reason}")]
    Context {
        /// The file.
        path: PathBuf,
        /// Tokens of all sequences.
        cells: u32,
        /// llama.cpp's last error lines.
        reason: String,
    },
    /// The model and what was said about it do not agree.
    #[error("{0}")]
    Mismatch(String),
    /// A text that the tokenizer cannot take.
    #[error("text of {0} bytes is too long to tokenize")]
    TextTooLong(usize),
    /// A grammar that is none.
    #[error("llama.cpp cannot use the grammar: {0}")]
    Grammar(String),
    /// Reading embedding rows failed.
    #[error("cannot read the token embedding: {0}")]
    Embedding(#[from] std::io::Error),
    /// A device that this machine or this build does not have.
    #[error("this node has no device {name}; it has {all}")]
    Device {
        /// What was asked for.
        name: String,
        /// What there is.
        all: String,
    },
    /// The RPC backend failed.
    #[error("llama.cpp RPC: {0}")]
    Rpc(String),
}
