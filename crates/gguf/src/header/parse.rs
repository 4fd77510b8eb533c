//! Parsing of bytes that a stranger wrote.
//!
//! Nothing is allocated from a claimed count or length: buffers grow with the bytes that have
//! really been read, and lists with the entries that have really been parsed.

use std::collections::HashSet;
use std::io::{self, BufReader, Read, Seek, SeekFrom};

use super::{
    DEFAULT_ALIGNMENT, Header, MAX_ALIGNMENT, MAX_HEADER_BYTES, MAX_KEY_BYTES, MAX_KEYS,
    MAX_TENSOR_NAME_BYTES, MAX_TENSORS, TensorInfo,
};
use crate::value::{Array, Text, Value, ValueType};
use crate::{GgmlType, GgufError};

const CHUNK_BYTES: u64 = 1 << 20;

/// Reads front to back, knows what is left, and hashes what it has read.
struct Input<R> {
    reader: BufReader<R>,
    position: u64,
    len: u64,
    hasher: blake3::Hasher,
}

impl<R: Read + Seek> Input<R> {
    fn new(mut reader: R) -> Result<Self, GgufError> {
        let len = reader.seek(SeekFrom::End(0)).map_err(GgufError::Read)?;
        reader.rewind().map_err(GgufError::Read)?;
        Ok(Self {
            reader: BufReader::with_capacity(64 << 10, reader),
            position: 0,
            len,
            hasher: blake3::Hasher::new(),
        })
    }

    /// Makes sure that `bytes` more can be there at all.
    fn expect(&self, bytes: u64, what: &str) -> Result<(), GgufError> {
        if bytes > self.len - self.position {
            return Err(GgufError::Truncated(what.into()));
        }
        if bytes > MAX_HEADER_BYTES - self.position {
            return Err(GgufError::TooLarge {
                what: "the size of the header".into(),
                value: self.position.saturating_add(bytes),
                limit: MAX_HEADER_BYTES,
            });
        }
        Ok(())
    }

    /// Fills `buffer`; the caller sees to the hash.
    fn fill(&mut self, buffer: &mut [u8], what: &str) -> Result<(), GgufError> {
        self.expect(buffer.len() as u64, what)?;
        self.reader
            .read_exact(buffer)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => GgufError::Truncated(what.into()),
                _ => GgufError::Read(error),
            })?;
        self.position += buffer.len() as u64;
        Ok(())
    }

    /// Appends `count` bytes to `out`; the caller sees to the hash.
    fn append(&mut self, count: u64, out: &mut Vec<u8>, what: &str) -> Result<(), GgufError> {
        self.expect(count, what)?;
        let mut left = count;
        while left > 0 {
            let chunk = left.min(CHUNK_BYTES) as usize;
            let start = out.len();
            out.resize(start + chunk, 0);
            self.fill(&mut out[start..], what)?;
            left -= chunk as u64;
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes, what)?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    fn bytes(&mut self, count: u64, what: &str) -> Result<Vec<u8>, GgufError> {
        let mut bytes = Vec::new();
        self.append(count, &mut bytes, what)?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    /// A length and that many bytes, of UTF-8.
    fn name(&mut self, limit: u64, what: &str) -> Result<String, GgufError> {
        let length = self.u64(what)?;
        at_most(length, limit, || format!("the length of {what}"))?;
        String::from_utf8(self.bytes(length, what)?)
            .map_err(|_| GgufError::Malformed(format!("{what} is not UTF-8")))
    }

    fn value(&mut self, value_type: ValueType, what: &str) -> Result<Value, GgufError> {
        Ok(match value_type {
            ValueType::U8 => Value::U8(u8::from_le_bytes(self.array(what)?)),
            ValueType::I8 => Value::I8(i8::from_le_bytes(self.array(what)?)),
            ValueType::U16 => Value::U16(u16::from_le_bytes(self.array(what)?)),
            ValueType::I16 => Value::I16(i16::from_le_bytes(self.array(what)?)),
            ValueType::U32 => Value::U32(u32::from_le_bytes(self.array(what)?)),
            ValueType::I32 => Value::I32(i32::from_le_bytes(self.array(what)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.array(what)?)),
            ValueType::Bool => Value::Bool(self.array::<1>(what)? != [0]),
            ValueType::U64 => Value::U64(u64::from_le_bytes(self.array(what)?)),
            ValueType::I64 => Value::I64(i64::from_le_bytes(self.array(what)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.array(what)?)),
            ValueType::String => {
                let length = self.u64(what)?;
                Value::String(Text(self.bytes(length, what)?))
            }
            ValueType::Array => Value::Array(self.values(what)?),
        })
    }

    fn values(&mut self, what: &str) -> Result<Array, GgufError> {
        let element = self.value_type(what)?;
        let len = self.u64(what)?;
        let bytes = match (element.fixed_bytes(), element) {
            (Some(width), _) => {
                let count = len
                    .checked_mul(width)
                    .ok_or_else(|| GgufError::Truncated(what.into()))?;
                self.bytes(count, what)?
            }
            (None, ValueType::String) => {
                let mut bytes = Vec::new();
                for _ in 0..len {
                    let start = bytes.len();
                    self.append(8, &mut bytes, what)?;
                    let mut length = [0; 8];
                    length.copy_from_slice(&bytes[start..]);
                    self.append(u64::from_le_bytes(length), &mut bytes, what)?;
                }
                self.hasher.update(&bytes);
                bytes
            }
            // llama.cpp reads no such file, and depth would be a way to exhaust the stack.
            (None, _) => {
                return Err(GgufError::Malformed(format!("{what} nests arrays")));
            }
        };
        Ok(Array::from_raw(element, len, bytes))
    }

    fn value_type(&mut self, what: &str) -> Result<ValueType, GgufError> {
        let id = self.u32(what)?;
        ValueType::from_id(id)
            .ok_or_else(|| GgufError::Malformed(format!("{what} has the unknown type {id}")))
    }
}

pub(super) fn parse(input: &mut (impl Read + Seek)) -> Result<Header, GgufError> {
    let mut input = Input::new(input)?;
    let version = preamble(&mut input)?;
    let tensor_count = input.u64("the number of tensors")?;
    at_most(tensor_count, MAX_TENSORS, || "the number of tensors".into())?;
    let key_count = input.u64("the number of keys")?;
    at_most(key_count, MAX_KEYS, || "the number of keys".into())?;

    let metadata = metadata(&mut input, key_count)?;
    let alignment = alignment(&metadata)?;
    let mut tensors = tensors(&mut input, tensor_count)?;

    let data_offset = if tensors.is_empty() {
        input.position
    } else {
        input.position.next_multiple_of(alignment)
    };
    place(&mut tensors, data_offset, alignment, input.len)?;
    Ok(Header {
        version,
        metadata,
        tensors,
        alignment,
        data_offset,
        file_bytes: input.len,
        hash: input.hasher.finalize(),
    })
}

fn preamble<R: Read + Seek>(input: &mut Input<R>) -> Result<u32, GgufError> {
    // What is too short for the magic is not a truncated GGUF file but none at all.
    if input.len < 4 || input.array::<4>("the magic")? != *b"GGUF" {
        return Err(GgufError::NotGguf);
    }
    let version = input.u32("the version")?;
    match version {
        2 | 3 => Ok(version),
        _ if matches!(version.swap_bytes(), 1..=3) => Err(GgufError::BigEndian),
        _ => Err(GgufError::UnsupportedVersion(version)),
    }
}

fn metadata<R: Read + Seek>(
    input: &mut Input<R>,
    count: u64,
) -> Result<Vec<(String, Value)>, GgufError> {
    let mut metadata = Vec::new();
    let mut seen = HashSet::new();
    for index in 0..count {
        let key = input.name(MAX_KEY_BYTES, &format!("key {index}"))?;
        if key.is_empty() {
            return Err(GgufError::Malformed(format!("key {index} is empty")));
        }
        if !seen.insert(key.clone()) {
            return Err(GgufError::Malformed(format!(
                "the key `{key}` stands twice"
            )));
        }
        let what = format!("the value of `{key}`");
        let value_type = input.value_type(&what)?;
        let value = input.value(value_type, &what)?;
        metadata.push((key, value));
    }
    Ok(metadata)
}

fn alignment(metadata: &[(String, Value)]) -> Result<u64, GgufError> {
    let key = "general.alignment";
    let Some((_, value)) = metadata.iter().find(|(name, _)| name == key) else {
        return Ok(DEFAULT_ALIGNMENT);
    };
    let &Value::U32(alignment) = value else {
        return Err(GgufError::WrongType {
            key: key.into(),
            expected: "a u32",
        });
    };
    if !alignment.is_power_of_two() {
        return Err(GgufError::Malformed(format!(
            "the alignment {alignment} is not a power of two"
        )));
    }
    at_most(alignment.into(), MAX_ALIGNMENT, || "the alignment".into())?;
    Ok(alignment.into())
}

/// Tensors with offsets as they stand in the header, from the start of the data.
fn tensors<R: Read + Seek>(input: &mut Input<R>, count: u64) -> Result<Vec<TensorInfo>, GgufError> {
    let mut tensors = Vec::new();
    let mut seen = HashSet::new();
    for index in 0..count {
        let name = input.name(
            MAX_TENSOR_NAME_BYTES,
            &format!("the name of tensor {index}"),
        )?;
        if !seen.insert(name.clone()) {
            return Err(GgufError::Malformed(format!(
                "the tensor `{name}` stands twice"
            )));
        }
        let what = format!("the entry of tensor `{name}`");
        let dim_count = input.u32(&what)?;
        at_most(dim_count.into(), 4, || {
            format!("the number of dimensions of tensor `{name}`")
        })?;
        let mut dims = [1; 4];
        for dim in &mut dims[..dim_count as usize] {
            *dim = input.u64(&what)?;
            if *dim == 0 {
                return Err(GgufError::Malformed(format!(
                    "tensor `{name}` has a dimension of 0"
                )));
            }
        }
        let id = input.u32(&what)?;
        let ggml_type = GgmlType::from_id(id).ok_or_else(|| {
            GgufError::Malformed(format!("tensor `{name}` has the unknown type {id}"))
        })?;
        let bytes = ggml_type.tensor_bytes(&dims).ok_or_else(|| {
            GgufError::Malformed(format!("tensor `{name}` cannot be {dims:?} of {ggml_type}"))
        })?;
        let offset = input.u64(&what)?;
        tensors.push(TensorInfo {
            name,
            dims,
            dim_count: dim_count as usize,
            ggml_type,
            offset,
            bytes,
        });
    }
    Ok(tensors)
}

/// Turns offsets into positions in the file. As llama.cpp demands, each tensor starts where
/// the one before ends, padded; so none overlaps another.
fn place(
    tensors: &mut [TensorInfo],
    data_offset: u64,
    alignment: u64,
    file_bytes: u64,
) -> Result<(), GgufError> {
    let mut next = 0u64;
    for tensor in tensors {
        if tensor.offset != next {
            return Err(GgufError::Malformed(format!(
                "tensor `{}` has the offset {}, not {next}, where the one before ends",
                tensor.name, tensor.offset
            )));
        }
        let end = data_offset
            .checked_add(next)
            .and_then(|start| start.checked_add(tensor.bytes));
        if end.is_none_or(|end| end > file_bytes) {
            return Err(GgufError::Truncated(format!("tensor `{}`", tensor.name)));
        }
        tensor.offset = data_offset + next;
        next = (next + tensor.bytes)
            .checked_next_multiple_of(alignment)
            .unwrap_or(u64::MAX);
    }
    Ok(())
}

fn at_most(value: u64, limit: u64, what: impl FnOnce() -> String) -> Result<(), GgufError> {
    if value <= limit {
        return Ok(());
    }
    Err(GgufError::TooLarge {
        what: what(),
        value,
        limit,
    })
}
