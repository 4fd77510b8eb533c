//! The crate's one error type.

use std::io;
use std::path::{Path, PathBuf};

use crate::Layers;

/// Why a file could not be read, cut or written. Each message is whole: it holds that of the
/// error below it, which is therefore no `source`.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// Any of the others, with the file that it is about.
    #[error("{}: {error}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        error: Box<GgufError>,
    },
    /// The input failed.
    #[error("cannot read: {0}")]
    Read(io::Error),
    /// The output failed.
    #[error("cannot write: {0}{hint}", hint = write_hint(.0))]
    Write(io::Error),
    /// A folder, a device or a pipe.
    #[error("not a regular file")]
    NotAFile,
    /// The first bytes are not `GGUF`.
    #[error("not a GGUF file")]
    NotGguf,
    /// A version that is neither 2 nor 3.
    #[error(
        "GGUF version {0} is not supported, only 2 and 3 are: convert the model again with a current llama.cpp"
    )]
    UnsupportedVersion(u32),
    /// Written for a big-endian machine.
    #[error("a big-endian GGUF file is not supported: get the little-endian one")]
    BigEndian,
    /// The input ends too early.
    #[error("the file is truncated: it ends within {0}; fetch it again")]
    Truncated(String),
    /// A claim in the header that no real model makes.
    #[error("{what} is {value}, more than the {limit} that are accepted")]
    TooLarge {
        /// What is too large.
        what: String,
        /// The claim.
        value: u64,
        /// The most that is accepted.
        limit: u64,
    },
    /// The header contradicts itself or the format.
    #[error("malformed header: {0}")]
    Malformed(String),
    /// The metadata lacks a key that is needed.
    #[error("the metadata has no `{0}`")]
    MissingKey(String),
    /// A key has a value of a type that makes no sense for it.
    #[error("the metadata's `{key}` is not {expected}")]
    WrongType {
        /// The key.
        key: String,
        /// What it should be, with its article.
        expected: &'static str,
    },
    /// A tensor that is needed does not exist.
    #[error("the model has no tensor `{0}`")]
    MissingTensor(String),

    /// A part of a split model does not exist.
    #[error("part {number} of {count} of this model is missing: {}", path.display())]
    MissingPart {
        /// Where it should be.
        path: PathBuf,
        /// Its number, from 1.
        number: u32,
        /// Parts in all.
        count: u32,
    },
    /// A part of a split model whose name does not say where the others are.
    #[error(
        "one of {count} parts of a model, but its name does not end in -0000N-of-{count:05}.gguf: rename the parts"
    )]
    SplitName {
        /// Parts in all.
        count: u32,
    },
    /// A file that stands where a part should, and is not that part.
    #[error("not part {number} of {count} of the same model: {found}")]
    WrongPart {
        /// The part's number, from 1.
        number: u32,
        /// Parts in all.
        count: u32,
        /// What it is instead.
        found: String,
    },
    /// The file is not the one that was opened.
    #[error("the file changed while it was in use: start again")]
    Changed,

    /// The file has a header and no weights.
    #[error("only the header of this model is here, not its weights")]
    Hollow,

    /// Stages cannot run this architecture yet.
    #[error("stages do not support the architecture `{0}` yet: the `llama-rpc` engine runs it")]
    UnsupportedArchitecture(String),
    /// Stages cannot run this architecture with this number of layers.
    #[error(
        "stages do not support {architecture} with {layers} layers in a {of}, because {reason}: the `llama-rpc` engine runs it"
    )]
    RefusedLayerCount {
        /// The architecture.
        architecture: &'static str,
        /// The number of layers.
        layers: u32,
        /// `model` or `stage`.
        of: &'static str,
        /// What goes wrong with that number.
        reason: &'static str,
    },
    /// Somebody asked for no stage at all.
    #[error("a model needs at least one stage")]
    NoStages,
    /// A stage would have nothing to do.
    #[error("{stages} stages are more than the model's {layers} layers")]
    TooManyStages {
        /// Stages.
        stages: u32,
        /// The model's layers.
        layers: u32,
    },
    /// A cut that does not lie between two layers.
    #[error("a cut at {cut} is out of range: the model has {layers} layers, so cuts are from 1 to {}", layers.saturating_sub(1))]
    CutOutOfRange {
        /// The cut.
        cut: u32,
        /// The model's layers.
        layers: u32,
    },
    /// Cuts that repeat or go back.
    #[error("the cuts must ascend: {cut} follows {before}")]
    CutsNotAscending {
        /// The one before.
        before: u32,
        /// The one that is not larger.
        cut: u32,
    },
    /// A stage without a layer, or with one that the model does not have.
    #[error("layers {range} are not a stage of a model with {layers} layers")]
    BadRange {
        /// The range.
        range: Layers,
        /// The model's layers.
        layers: u32,
    },
    /// Stages that leave out or repeat layers.
    #[error(
        "the stages do not cover the model's {layers} layers once each: {range} does not start at {expected}"
    )]
    Gap {
        /// The stage that does not fit.
        range: Layers,
        /// Where it should start.
        expected: u32,
        /// The model's layers.
        layers: u32,
    },
}

impl GgufError {
    /// Names the file that an error is about.
    pub(crate) fn at(self, path: &Path) -> Self {
        Self::InFile {
            path: path.to_owned(),
            error: Box::new(self),
        }
    }
}

fn write_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space or choose another folder"
        }
        _ => "",
    }
}
