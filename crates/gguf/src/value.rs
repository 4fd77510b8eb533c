//! Metadata values.

use std::borrow::Cow;
use std::ops::Range;

/// A string of the header. The format says UTF-8, but tokenizers hold arbitrary bytes, and
/// llama.cpp does not look; so the bytes are kept as they are.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(pub Vec<u8>);

impl Text {
    /// The string, if it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The string, for a person to read.
    pub fn to_str_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.to_str_lossy(), f)
    }
}

/// The type of a [`Value`], by the format's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ValueType {
    /// `u8`.
    U8 = 0,
    /// `i8`.
    I8 = 1,
    /// `u16`.
    U16 = 2,
    /// `i16`.
    I16 = 3,
    /// `u32`.
    U32 = 4,
    /// `i32`.
    I32 = 5,
    /// `f32`.
    F32 = 6,
    /// One byte; anything but 0 is true.
    Bool = 7,
    /// Bytes with a length before them.
    String = 8,
    /// Values of one type that is not an array.
    Array = 9,
    /// `u64`.
    U64 = 10,
    /// `i64`.
    I64 = 11,
    /// `f64`.
    F64 = 12,
}

impl ValueType {
    /// The type with the format's number `id`.
    pub fn from_id(id: u32) -> Option<Self> {
        use ValueType::{Array, Bool, F32, F64, I8, I16, I32, I64, String, U8, U16, U32, U64};
        [
            U8, I8, U16, I16, U32, I32, F32, Bool, String, Array, U64, I64, F64,
        ]
        .get(id as usize)
        .copied()
    }

    /// Bytes of one value, where all have the same number.
    pub fn fixed_bytes(self) -> Option<u64> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// One metadata value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `u8`.
    U8(u8),
    /// `i8`.
    I8(i8),
    /// `u16`.
    U16(u16),
    /// `i16`.
    I16(i16),
    /// `u32`.
    U32(u32),
    /// `i32`.
    I32(i32),
    /// `f32`.
    F32(f32),
    /// `bool`.
    Bool(bool),
    /// A string.
    String(Text),
    /// An array.
    Array(Array),
    /// `u64`.
    U64(u64),
    /// `i64`.
    I64(i64),
    /// `f64`.
    F64(f64),
}

impl Value {
    /// Its type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Self::U8(_) => ValueType::U8,
            Self::I8(_) => ValueType::I8,
            Self::U16(_) => ValueType::U16,
            Self::I16(_) => ValueType::I16,
            Self::U32(_) => ValueType::U32,
            Self::I32(_) => ValueType::I32,
            Self::F32(_) => ValueType::F32,
            Self::Bool(_) => ValueType::Bool,
            Self::String(_) => ValueType::String,
            Self::Array(_) => ValueType::Array,
            Self::U64(_) => ValueType::U64,
            Self::I64(_) => ValueType::I64,
            Self::F64(_) => ValueType::F64,
        }
    }

    /// An integer of any width that fits.
    pub fn as_u64(&self) -> Option<u64> {
        match *self {
            Self::U8(v) => Some(v.into()),
            Self::U16(v) => Some(v.into()),
            Self::U32(v) => Some(v.into()),
            Self::U64(v) => Some(v),
            Self::I8(v) => v.try_into().ok(),
            Self::I16(v) => v.try_into().ok(),
            Self::I32(v) => v.try_into().ok(),
            Self::I64(v) => v.try_into().ok(),
            _ => None,
        }
    }

    /// An integer of any width that fits.
    pub fn as_u32(&self) -> Option<u32> {
        self.as_u64()?.try_into().ok()
    }

    /// A 32-bit float.
    pub fn as_f32(&self) -> Option<f32> {
        match *self {
            Self::F32(v) => Some(v),
            _ => None,
        }
    }

    /// A boolean.
    pub fn as_bool(&self) -> Option<bool> {
        match *self {
            Self::Bool(v) => Some(v),
            _ => None,
        }
    }

    /// A string that is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => text.as_str(),
            _ => None,
        }
    }

    /// An array.
    pub fn as_array(&self) -> Option<&Array> {
        match self {
            Self::Array(array) => Some(array),
            _ => None,
        }
    }

    /// Appends the value, without its type, as it stands in a file.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::U8(v) => out.push(*v),
            Self::I8(v) => out.extend(v.to_le_bytes()),
            Self::U16(v) => out.extend(v.to_le_bytes()),
            Self::I16(v) => out.extend(v.to_le_bytes()),
            Self::U32(v) => out.extend(v.to_le_bytes()),
            Self::I32(v) => out.extend(v.to_le_bytes()),
            Self::F32(v) => out.extend(v.to_le_bytes()),
            Self::Bool(v) => out.push(u8::from(*v)),
            Self::String(v) => encode_text(&v.0, out),
            Self::Array(v) => {
                out.extend((v.element as u32).to_le_bytes());
                out.extend(v.len.to_le_bytes());
                out.extend_from_slice(&v.bytes);
            }
            Self::U64(v) => out.extend(v.to_le_bytes()),
            Self::I64(v) => out.extend(v.to_le_bytes()),
            Self::F64(v) => out.extend(v.to_le_bytes()),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::String(Text(text.into()))
    }
}

/// Appends a length and the bytes.
pub(crate) fn encode_text(text: &[u8], out: &mut Vec<u8>) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend_from_slice(text);
}

/// An array, kept as the bytes of the file: a vocabulary is one allocation, not one a token,
/// and is copied exactly.
#[derive(Clone, PartialEq, Eq)]
pub struct Array {
    element: ValueType,
    len: u64,
    bytes: Vec<u8>,
}

impl Array {
    /// `bytes` must hold `len` values of type `element`, which the parser has checked.
    pub(crate) fn from_raw(element: ValueType, len: u64, bytes: Vec<u8>) -> Self {
        Self {
            element,
            len,
            bytes,
        }
    }

    /// An array of `u32`.
    pub fn of_u32(values: &[u32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::from_raw(ValueType::U32, values.len() as u64, bytes)
    }

    /// An array of `i32`.
    pub fn of_i32(values: &[i32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::from_raw(ValueType::I32, values.len() as u64, bytes)
    }

    /// An array of `f32`.
    pub fn of_f32(values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self::from_raw(ValueType::F32, values.len() as u64, bytes)
    }

    /// An array of `bool`.
    pub fn of_bool(values: &[bool]) -> Self {
        let bytes = values.iter().map(|&v| u8::from(v)).collect();
        Self::from_raw(ValueType::Bool, values.len() as u64, bytes)
    }

    /// An array of strings.
    pub fn of_text<T: AsRef<[u8]>>(values: &[T]) -> Self {
        let mut bytes = Vec::new();
        for value in values {
            encode_text(value.as_ref(), &mut bytes);
        }
        Self::from_raw(ValueType::String, values.len() as u64, bytes)
    }

    /// The type of the elements; never an array.
    pub fn element_type(&self) -> ValueType {
        self.element
    }

    /// Number of elements.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements as they stand in the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The elements of an array of strings.
    pub fn texts(&self) -> Option<impl Iterator<Item = &[u8]>> {
        let mut rest = &self.bytes[..];
        (self.element == ValueType::String).then(|| {
            std::iter::from_fn(move || {
                let (length, tail) = rest.split_first_chunk::<8>()?;
                let (text, tail) = tail.split_at_checked(u64::from_le_bytes(*length) as usize)?;
                rest = tail;
                Some(text)
            })
        })
    }

    /// The elements of an array of integers or booleans.
    pub fn integers(&self) -> Option<impl Iterator<Item = i128>> {
        let element = self.element;
        let width = match element {
            ValueType::F32 | ValueType::F64 | ValueType::String | ValueType::Array => return None,
            _ => element.fixed_bytes()? as usize,
        };
        Some(self.bytes.chunks_exact(width).map(move |bytes| {
            let mut wide = [0; 8];
            wide[..width].copy_from_slice(bytes);
            let unsigned = u64::from_le_bytes(wide);
            match element {
                ValueType::I8 | ValueType::I16 | ValueType::I32 | ValueType::I64 => {
                    let shift = 64 - 8 * width;
                    i128::from(((unsigned << shift) as i64) >> shift)
                }
                ValueType::Bool => i128::from(unsigned != 0),
                _ => i128::from(unsigned),
            }
        }))
    }

    /// The elements of an array of `f32`.
    pub fn floats(&self) -> Option<impl Iterator<Item = f32>> {
        (self.element == ValueType::F32).then(|| {
            self.bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        })
    }

    /// Elements `range` as an array of their own; `None` where it does not have them.
    pub fn slice(&self, range: Range<u64>) -> Option<Self> {
        if range.start > range.end || range.end > self.len {
            return None;
        }
        let bytes = if let Some(width) = self.element.fixed_bytes() {
            let (start, end) = (range.start * width, range.end * width);
            self.bytes.get(start as usize..end as usize)?.to_vec()
        } else {
            let mut bytes = Vec::new();
            let texts = self.texts()?.skip(range.start as usize);
            for text in texts.take((range.end - range.start) as usize) {
                encode_text(text, &mut bytes);
            }
            bytes
        };
        Some(Self::from_raw(self.element, range.end - range.start, bytes))
    }
}

impl std::fmt::Debug for Array {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{:?}; {}]", self.element, self.len)
    }
}
