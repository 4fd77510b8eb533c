//! Reads GGUF model files, cuts ranges of layers out of them, and writes the pieces.
//!
//! The way of a stage: [`Source::open`] reads the headers of a model's files into a [`Model`];
//! [`plan_even`] or [`plan_cuts`] divides its layers and [`check_stages`] says whether its
//! [`Architecture`] allows that; [`prepare_stage`] writes a stage's files into a folder or
//! finds them there.
//!
//! Below that, everything is a function of headers: [`stage_layout`] gives a stage file as a
//! [`Layout`], a list of literal bytes and of byte ranges to copy, which is written from any
//! `Read + Seek` with constant memory. Nothing here knows what a weight means; what differs
//! between architectures is data in one table.
//!
//! Headers are hostile input. See [`Header::read`] for what holds whatever they claim.

mod architecture;
mod cuts;
mod error;
mod ggml_type;
pub mod header;
mod layout;
mod model;
mod pieces;
mod slice;
mod source;
mod store;
mod synthetic;
#[cfg(feature = "testing")]
pub mod testing;
mod value;
mod write;

pub use architecture::Architecture;
pub use cuts::{Balance, Layers, check_stages, head_layers, plan_cuts, plan_even};
pub use error::GgufError;
pub use ggml_type::GgmlType;
pub use header::{Header, TensorInfo};
pub use layout::{Layout, Segment};
pub use model::{Model, ModelTensor};
pub use pieces::{PIECE_BYTES, Piece, pieces, pieces_in};
pub use slice::{DUMMY_TOKENS, Embedding, StageBytes, embedding_layout, stage_bytes, stage_layout};
pub use source::{Source, SourceFile, Stamp, split_prefix};
pub use store::{
    Claim, Lease, Need, Origin, Removal, StageFiles, Stored, StoredStage, Unfilled, WriteLock,
    claim_stage, find_stage, prepare_stage, stage_files, stored_stages,
};
pub use synthetic::Synthetic;
pub use value::{Array, Text, Value, ValueType};
pub use write::{Builder, NewTensor, TensorData};
