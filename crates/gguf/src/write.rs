//! Putting GGUF files together.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::header::{DEFAULT_ALIGNMENT, MAX_ALIGNMENT, MAX_TENSOR_NAME_BYTES};
use crate::layout::{Layout, Segment};
use crate::value::{Value, encode_text};
use crate::{GgmlType, GgufError};

/// Where a tensor's data come from.
#[derive(Debug, Clone)]
pub enum TensorData {
    /// From here.
    Bytes(Vec<u8>),
    /// All bytes are 0.
    Zeros,
    /// From one of the model's files.
    Copy {
        /// Which file, from 0.
        part: usize,
        /// From the start of that file.
        offset: u64,
    },
}

/// A tensor of a file that is being put together.
#[derive(Debug, Clone)]
pub struct NewTensor {
    /// Its name.
    pub name: String,
    /// Its shape, the length of a row first; up to four, none of them 0.
    pub dims: Vec<u64>,
    /// Its element type.
    pub ggml_type: GgmlType,
    /// Its data.
    pub data: TensorData,
}

impl NewTensor {
    /// Its size in bytes, without padding.
    pub fn bytes(&self) -> Result<u64, GgufError> {
        let bytes = match self.dims[..] {
            [_, _, _, _, _, ..] => None,
            ref dims if dims.contains(&0) => None,
            ref dims => self.ggml_type.tensor_bytes(dims),
        };
        bytes.ok_or_else(|| {
            GgufError::Malformed(format!(
                "tensor `{}` cannot be {:?} of {}",
                self.name, self.dims, self.ggml_type
            ))
        })
    }
}

/// A GGUF file (version 3) that is being put together.
#[derive(Debug, Clone, Default)]
pub struct Builder<'a> {
    metadata: Vec<(String, Cow<'a, Value>)>,
    tensors: Vec<NewTensor>,
}

impl<'a> Builder<'a> {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key: in its place if it is there, else as the last one.
    pub fn set(&mut self, key: &str, value: Value) -> &mut Self {
        self.put(key, Cow::Owned(value))
    }

    /// Sets a key to a value that is not copied until the file is written.
    pub fn set_ref(&mut self, key: &str, value: &'a Value) -> &mut Self {
        self.put(key, Cow::Borrowed(value))
    }

    fn put(&mut self, key: &str, value: Cow<'a, Value>) -> &mut Self {
        match self.metadata.iter_mut().find(|(name, _)| name == key) {
            Some(entry) => entry.1 = value,
            None => self.metadata.push((key.into(), value)),
        }
        self
    }

    /// Removes a key, if it is there.
    pub fn unset(&mut self, key: &str) -> &mut Self {
        self.metadata.retain(|(name, _)| name != key);
        self
    }

    /// Appends a tensor.
    pub fn tensor(&mut self, tensor: NewTensor) -> &mut Self {
        self.tensors.push(tensor);
        self
    }

    /// The file. Fails where the tensors or the alignment make none.
    pub fn layout(self) -> Result<Layout, GgufError> {
        let alignment = self.alignment()?;
        let mut head = Vec::new();
        head.extend(b"GGUF");
        head.extend(3u32.to_le_bytes());
        head.extend((self.tensors.len() as u64).to_le_bytes());
        head.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            encode_text(key.as_bytes(), &mut head);
            head.extend((value.value_type() as u32).to_le_bytes());
            value.encode(&mut head);
        }
        let mut offset = 0u64;
        let mut sizes = Vec::with_capacity(self.tensors.len());
        let mut seen = HashSet::new();
        for tensor in &self.tensors {
            let bytes = tensor.bytes()?;
            let wrong_data =
                matches!(&tensor.data, TensorData::Bytes(data) if data.len() as u64 != bytes);
            let too_long = tensor.name.len() as u64 > MAX_TENSOR_NAME_BYTES;
            if wrong_data || too_long || !seen.insert(&tensor.name) {
                return Err(GgufError::Malformed(format!(
                    "tensor `{}` stands twice, has too long a name or data of another size",
                    tensor.name
                )));
            }
            encode_text(tensor.name.as_bytes(), &mut head);
            head.extend((tensor.dims.len() as u32).to_le_bytes());
            head.extend(tensor.dims.iter().flat_map(|dim| dim.to_le_bytes()));
            head.extend(tensor.ggml_type.id().to_le_bytes());
            head.extend(offset.to_le_bytes());
            sizes.push(bytes);
            offset = offset
                .checked_add(bytes)
                .and_then(|end| end.checked_next_multiple_of(alignment))
                .filter(|&end| i64::try_from(end).is_ok())
                .ok_or_else(|| GgufError::Malformed("the tensors are too large".into()))?;
        }
        let mut layout = Layout::default();
        layout.push(Segment::Bytes(head));
        for (tensor, len) in self.tensors.into_iter().zip(sizes) {
            let padding = layout.len().next_multiple_of(alignment) - layout.len();
            layout.push(Segment::Zeros(padding));
            layout.push(match tensor.data {
                TensorData::Bytes(bytes) => Segment::Bytes(bytes),
                TensorData::Zeros => Segment::Zeros(len),
                TensorData::Copy { part, offset } => Segment::Copy { part, offset, len },
            });
        }
        let padding = layout.len().next_multiple_of(alignment) - layout.len();
        layout.push(Segment::Zeros(padding));
        Ok(layout)
    }

    fn alignment(&self) -> Result<u64, GgufError> {
        let key = "general.alignment";
        let value = self.metadata.iter().find(|(name, _)| name == key);
        match value.map(|(_, value)| value.as_ref()) {
            None => Ok(DEFAULT_ALIGNMENT),
            Some(Value::U32(v)) if v.is_power_of_two() && u64::from(*v) <= MAX_ALIGNMENT => {
                Ok(u64::from(*v))
            }
            Some(other) => Err(GgufError::Malformed(format!(
                "{other:?} is not an alignment"
            ))),
        }
    }
}
