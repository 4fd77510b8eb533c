//! One or several GGUF files, read as one model.

use std::collections::HashSet;

use crate::{GgufError, Header, TensorInfo, Value};

/// Keys of a file that is one of several parts.
pub(crate) const SPLIT_PREFIX: &str = "split.";

/// A model: the metadata of its first file, and the tensors of all of them.
#[derive(Debug, Clone)]
pub struct Model {
    parts: Vec<Header>,
}

/// A tensor, and the file in which it lies.
#[derive(Debug, Clone, Copy)]
pub struct ModelTensor<'a> {
    /// Which of the model's files, from 0.
    pub part: usize,
    /// The tensor; its offset counts from the start of that file.
    pub info: &'a TensorInfo,
}

impl Model {
    /// Joins the headers of a model's files, in order. Fails where they are not the parts of
    /// one model.
    pub fn from_headers(parts: Vec<Header>) -> Result<Self, GgufError> {
        let Some(first) = parts.first() else {
            return Err(GgufError::Malformed("a model without a file".into()));
        };
        let count = split_count(first);
        for (index, header) in parts.iter().enumerate() {
            check_part(header, index as u32, count)?;
        }
        if parts.len() as u32 != count {
            return Err(GgufError::WrongPart {
                number: 1,
                count: parts.len() as u32,
                found: format!("a file that says it has {count} parts"),
            });
        }
        let mut seen = HashSet::new();
        for tensor in parts.iter().flat_map(Header::tensors) {
            if !seen.insert(tensor.name()) {
                return Err(GgufError::Malformed(format!(
                    "the tensor `{}` stands in two parts",
                    tensor.name()
                )));
            }
        }
        if let Some(total) = first.get("split.tensors.count").and_then(Value::as_u64)
            && count > 1
            && total != seen.len() as u64
        {
            return Err(GgufError::Malformed(format!(
                "the parts have {} tensors in all, not {total}",
                seen.len()
            )));
        }
        drop(seen);
        Ok(Self { parts })
    }

    /// The header of the first file, whose metadata are the model's.
    pub fn header(&self) -> &Header {
        &self.parts[0]
    }

    /// The headers of all files.
    pub fn parts(&self) -> &[Header] {
        &self.parts
    }

    /// The tensors of all files.
    pub fn tensors(&self) -> impl Iterator<Item = ModelTensor<'_>> {
        self.parts.iter().enumerate().flat_map(|(part, header)| {
            let tensors = header.tensors().iter();
            tensors.map(move |info| ModelTensor { part, info })
        })
    }

    /// The tensor of that name.
    pub fn tensor(&self, name: &str) -> Option<ModelTensor<'_>> {
        self.parts
            .iter()
            .enumerate()
            .find_map(|(part, header)| Some((part, header.tensor(name)?)))
            .map(|(part, info)| ModelTensor { part, info })
    }

    /// Bytes of all tensors, without padding.
    pub fn tensor_bytes(&self) -> u64 {
        self.tensors().map(|tensor| tensor.info.bytes()).sum()
    }

    /// Bytes of all files.
    pub fn file_bytes(&self) -> u64 {
        self.parts.iter().map(Header::file_bytes).sum()
    }

    /// A name for these headers and file sizes: equal files have equal names on every machine.
    pub fn identity(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for header in &self.parts {
            hasher.update(header.hash().as_bytes());
            hasher.update(&header.file_bytes().to_le_bytes());
        }
        hasher.finalize()
    }
}

/// Parts of the model that a file belongs to.
pub(crate) fn split_count(header: &Header) -> u32 {
    header.get_u32("split.count").unwrap_or(1).max(1)
}

/// Checks that a file is part `index`, from 0, of `count`.
pub(crate) fn check_part(header: &Header, index: u32, count: u32) -> Result<(), GgufError> {
    let wrong = |found| GgufError::WrongPart {
        number: index + 1,
        count,
        found,
    };
    let actual = split_count(header);
    if actual != count {
        return Err(wrong(format!("it says it is one of {actual}")));
    }
    if count > 1 {
        let number = header.require_u32("split.no")?;
        if number != index {
            return Err(wrong(format!(
                "it says it is number {}",
                number.saturating_add(1)
            )));
        }
    }
    Ok(())
}
