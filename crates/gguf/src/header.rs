//! What stands before the weights of a GGUF file.

mod parse;

use std::io::{Read, Seek};

use crate::value::{Array, Value};
use crate::{GgmlType, GgufError};

/// The most bytes of header that are read; the largest vocabularies take about 30 MB.
pub const MAX_HEADER_BYTES: u64 = 256 << 20;
/// The most metadata keys; real models have less than a hundred.
pub const MAX_KEYS: u64 = 1 << 12;
/// The most tensors of one file.
pub const MAX_TENSORS: u64 = 1 << 17;
/// The most bytes of a key.
pub const MAX_KEY_BYTES: u64 = (1 << 16) - 1;
/// The most bytes of a tensor's name, as in llama.cpp.
pub const MAX_TENSOR_NAME_BYTES: u64 = 63;
/// The largest alignment; padding must stay small beside the weights.
pub const MAX_ALIGNMENT: u64 = 1 << 16;
/// The most layers, as in llama.cpp.
pub const MAX_LAYERS: u32 = 512;
/// The alignment of a file that names none.
pub const DEFAULT_ALIGNMENT: u64 = 32;

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    name: String,
    dims: [u64; 4],
    dim_count: usize,
    ggml_type: GgmlType,
    offset: u64,
    bytes: u64,
}

impl TensorInfo {
    /// Its name, such as `blk.3.attn_q.weight`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its shape, the length of a row first; up to four, none of them 0.
    pub fn dims(&self) -> &[u64] {
        &self.dims[..self.dim_count]
    }

    /// Its element type.
    pub fn ggml_type(&self) -> GgmlType {
        self.ggml_type
    }

    /// Where it starts, in bytes from the start of the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its size in bytes, without padding.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of its layer, if it belongs to one, and what follows that number in the name.
    pub fn block(&self) -> Option<(u32, &str)> {
        let (number, rest) = self.name.strip_prefix("blk.")?.split_once('.')?;
        let layer: u32 = number.parse().ok()?;
        // `blk.01` and `blk.+1` are other names than `blk.1` to llama.cpp.
        (layer.to_string() == number).then_some((layer, rest))
    }
}

/// The header of one GGUF file: metadata and where the tensors lie.
#[derive(Debug, Clone)]
pub struct Header {
    version: u32,
    metadata: Vec<(String, Value)>,
    tensors: Vec<TensorInfo>,
    alignment: u64,
    data_offset: u64,
    file_bytes: u64,
    hash: blake3::Hash,
}

impl Header {
    /// Reads the header of a GGUF file, version 2 or 3, from the start of `input`, and checks
    /// it against the input's length.
    ///
    /// The input is hostile: whatever it claims, no more is allocated than a small multiple of
    /// what it really holds, and that is bounded by [`MAX_HEADER_BYTES`].
    pub fn read(input: &mut (impl Read + Seek)) -> Result<Self, GgufError> {
        parse::parse(input)
    }

    /// Version of the format.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Keys and values, in the file's order; no key twice.
    pub fn metadata(&self) -> &[(String, Value)] {
        &self.metadata
    }

    /// Tensors, in the file's order, which is that of their data; no name twice.
    pub fn tensors(&self) -> &[TensorInfo] {
        &self.tensors
    }

    /// What the tensors' offsets are multiples of, in bytes.
    pub fn alignment(&self) -> u64 {
        self.alignment
    }

    /// Where the tensors' data start, in bytes from the start of the file.
    pub fn data_offset(&self) -> u64 {
        self.data_offset
    }

    /// Length of the file.
    pub fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// BLAKE3 of the header's bytes.
    pub fn hash(&self) -> blake3::Hash {
        self.hash
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata
            .iter()
            .find_map(|(name, value)| (name == key).then_some(value))
    }

    /// The value of a key, if it is an integer that fits.
    pub fn get_u32(&self, key: &str) -> Option<u32> {
        self.get(key)?.as_u32()
    }

    /// The value of a key, if it is an `f32`.
    pub fn get_f32(&self, key: &str) -> Option<f32> {
        self.get(key)?.as_f32()
    }

    /// The value of a key, if it is a boolean.
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// The value of a key, if it is a string and UTF-8.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// The value of a key, if it is an array.
    pub fn get_array(&self, key: &str) -> Option<&Array> {
        self.get(key)?.as_array()
    }

    /// The integer of a key that must be there.
    pub fn require_u32(&self, key: &str) -> Result<u32, GgufError> {
        let value = self
            .get(key)
            .ok_or_else(|| GgufError::MissingKey(key.into()))?;
        value.as_u32().ok_or_else(|| GgufError::WrongType {
            key: key.into(),
            expected: "an integer from 0 to 4294967295",
        })
    }

    /// The model's architecture, such as `llama`.
    pub fn architecture(&self) -> Result<&str, GgufError> {
        let key = "general.architecture";
        let value = self
            .get(key)
            .ok_or_else(|| GgufError::MissingKey(key.into()))?;
        value.as_str().ok_or_else(|| GgufError::WrongType {
            key: key.into(),
            expected: "a string",
        })
    }

    /// A key under the architecture's own name: `block_count` gives `llama.block_count`.
    pub fn architecture_key(&self, suffix: &str) -> Result<String, GgufError> {
        Ok(format!("{}.{suffix}", self.architecture()?))
    }

    /// Number of layers; at most [`MAX_LAYERS`].
    pub fn block_count(&self) -> Result<u32, GgufError> {
        let count = self.require_u32(&self.architecture_key("block_count")?)?;
        if count > MAX_LAYERS {
            return Err(GgufError::TooLarge {
                what: "the number of layers".into(),
                value: count.into(),
                limit: MAX_LAYERS.into(),
            });
        }
        Ok(count)
    }

    /// Width of a hidden state, in floats.
    pub fn embedding_length(&self) -> Result<u32, GgufError> {
        self.require_u32(&self.architecture_key("embedding_length")?)
    }

    /// The context that the model was trained for, in tokens.
    pub fn context_length(&self) -> Result<u32, GgufError> {
        self.require_u32(&self.architecture_key("context_length")?)
    }

    /// The Jinja template that turns a conversation into a prompt.
    pub fn chat_template(&self) -> Option<&str> {
        self.get_str("tokenizer.chat_template")
    }

    /// What its authors call the model.
    pub fn name(&self) -> Option<&str> {
        self.get_str("general.name")
    }
}
