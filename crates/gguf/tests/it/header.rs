//! Headers that lie.

use std::io::{self, Cursor, Read, Seek, SeekFrom};

use brigade_gguf::testing::TinyModel;
use brigade_gguf::{GgufError, Header, Value};

/// A header put together byte by byte.
#[derive(Clone)]
struct Raw(Vec<u8>);

impl Raw {
    fn new(version: u32, tensors: u64, keys: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(keys)
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn text(mut self, text: &[u8]) -> Self {
        self = self.u64(text.len() as u64);
        self.0.extend(text);
        self
    }

    /// A tensor's entry.
    fn tensor(self, name: &str, dims: &[u64], id: u32, offset: u64) -> Self {
        let mut raw = self.text(name.as_bytes()).u32(dims.len() as u32);
        for &dim in dims {
            raw = raw.u64(dim);
        }
        raw.u32(id).u64(offset)
    }

    /// Padding, and that many bytes of data.
    fn data(mut self, bytes: usize) -> Self {
        let start = self.0.len().next_multiple_of(32);
        self.0.resize(start + bytes, 0);
        self
    }

    fn read(&self) -> Result<Header, GgufError> {
        Header::read(&mut Cursor::new(&self.0))
    }

    fn error(&self) -> String {
        self.read().expect_err("must be refused").to_string()
    }
}

const F32: u32 = 0;
const Q4_0: u32 = 2;
const U32: u32 = 4;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

#[test]
fn a_header_says_what_the_bytes_say() {
    let raw = Raw::new(3, 2, 2)
        .text(b"general.architecture")
        .u32(STRING)
        .text(b"llama")
        .text(b"llama.block_count")
        .u32(U32)
        .u32(1)
        .tensor("a", &[3], F32, 0)
        .tensor("blk.0.b", &[32, 2], Q4_0, 32)
        .data(32 + 36);
    let header = raw.read().unwrap();
    assert_eq!(header.version(), 3);
    assert_eq!(header.architecture().unwrap(), "llama");
    assert_eq!(header.block_count().unwrap(), 1);
    assert_eq!(header.alignment(), 32);
    let [a, b] = header.tensors() else {
        panic!("two tensors")
    };
    assert_eq!((a.offset(), a.bytes()), (header.data_offset(), 12));
    assert_eq!((b.offset(), b.bytes()), (header.data_offset() + 32, 36));
    assert_eq!(b.dims(), [32, 2]);
    assert_eq!(b.block(), Some((0, "b")));
    assert_eq!(a.block(), None);
    assert_eq!(header.tensor("blk.0.b"), Some(b));
}

#[test]
fn version_2_has_the_same_layout() {
    let mut bytes = TinyModel::llama(1).to_bytes();
    bytes[4] = 2;
    let header = Header::read(&mut Cursor::new(bytes)).unwrap();
    assert_eq!(header.version(), 2);
    assert_eq!(header.block_count().unwrap(), 1);
}

#[test]
fn foreign_files_are_refused_by_name() {
    for (bytes, part) in [
        (&b""[..], "not a GGUF file"),
        (b"GG", "not a GGUF file"),
        (b"PK\x03\x04 a zip file", "not a GGUF file"),
        (b"GGUF\x01\0\0\0", "version 1 is not supported"),
        (b"GGUF\x04\0\0\0", "version 4 is not supported"),
        (b"GGUF\0\0\0\0", "version 0 is not supported"),
        (b"GGUF\0\0\0\x03", "big-endian"),
        (b"GGUF\x03\0", "truncated: it ends within the version"),
    ] {
        let error = Header::read(&mut Cursor::new(bytes)).unwrap_err();
        assert!(error.to_string().contains(part), "{bytes:?}: {error}");
    }
}

#[test]
fn claims_that_no_file_can_hold_are_refused() {
    let huge = u64::MAX;
    for (raw, part) in [
        (
            Raw::new(3, huge, 0),
            "the number of tensors is 18446744073709551615",
        ),
        (
            Raw::new(3, 0, huge),
            "the number of keys is 18446744073709551615",
        ),
        (Raw::new(3, 0, 1).u64(huge), "the length of key 0"),
        (Raw::new(3, 0, 1).u64(60_000), "truncated"),
        (
            Raw::new(3, 0, 1).text(b"k").u32(STRING).u64(huge),
            "ends within the value of `k`",
        ),
        (
            Raw::new(3, 0, 1).text(b"k").u32(ARRAY).u32(U32).u64(huge),
            "truncated",
        ),
        (
            Raw::new(3, 0, 1)
                .text(b"k")
                .u32(ARRAY)
                .u32(U32)
                .u64(huge / 4 + 2),
            "truncated",
        ),
        (
            Raw::new(3, 0, 1)
                .text(b"k")
                .u32(ARRAY)
                .u32(STRING)
                .u64(huge),
            "truncated",
        ),
        (
            Raw::new(3, 0, 1).text(b"k").u32(ARRAY).u32(ARRAY).u64(1),
            "nests arrays",
        ),
        (
            Raw::new(3, 0, 1).text(b"k").u32(13).u64(1),
            "unknown type 13",
        ),
        (
            Raw::new(3, 0, 1).text(b"k").u32(ARRAY).u32(99).u64(1),
            "unknown type 99",
        ),
        (
            Raw::new(3, 0, 1).text(b"").u32(U32).u32(1),
            "key 0 is empty",
        ),
        (Raw::new(3, 0, 1).text(b"\xff").u32(U32).u32(1), "not UTF-8"),
        (
            Raw::new(3, 0, 2)
                .text(b"k")
                .u32(U32)
                .u32(1)
                .text(b"k")
                .u32(U32)
                .u32(2),
            "`k` stands twice",
        ),
    ] {
        let error = raw.error();
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn tensors_that_cannot_be_are_refused() {
    let one = |dims: &[u64], id, offset| Raw::new(3, 1, 0).tensor("t", dims, id, offset).data(64);
    for (raw, part) in [
        (one(&[16], F32, 0), ""),
        (one(&[17], F32, 0), "truncated: it ends within tensor `t`"),
        (one(&[0], F32, 0), "dimension of 0"),
        (one(&[4, 0], F32, 0), "dimension of 0"),
        (
            one(&[1; 5], F32, 0),
            "number of dimensions of tensor `t` is 5",
        ),
        (one(&[u64::MAX], F32, 0), "cannot be"),
        (one(&[1 << 32, 1 << 32], F32, 0), "cannot be"),
        (one(&[1 << 60], F32, 0), "truncated"),
        (one(&[31], Q4_0, 0), "cannot be"),
        (one(&[4], 4, 0), "unknown type 4"),
        (one(&[4], 43, 0), "unknown type 43"),
        (one(&[4], u32::MAX, 0), "unknown type"),
        (one(&[4], F32, 32), "offset 32, not 0"),
        (one(&[4], F32, u64::MAX), "offset 18446744073709551615"),
    ] {
        match raw.read() {
            Ok(_) => assert_eq!(part, ""),
            Err(error) => {
                let error = error.to_string();
                assert!(
                    !part.is_empty() && error.contains(part),
                    "{part:?}: {error}"
                );
            }
        }
    }
}

#[test]
fn tensors_must_follow_one_another() {
    let two = |name: &str, offset| {
        Raw::new(3, 2, 0)
            .tensor("a", &[9], F32, 0)
            .tensor(name, &[4], F32, offset)
            .data(128)
    };
    assert!(two("b", 64).read().is_ok());
    for offset in [0, 32, 36, 65, 96, 1 << 63] {
        assert!(
            two("b", offset)
                .error()
                .contains("where the one before ends")
        );
    }
    assert!(two("a", 64).error().contains("`a` stands twice"));
    assert!(two(&"n".repeat(63), 64).read().is_ok());
    assert!(
        two(&"n".repeat(64), 64)
            .error()
            .contains("the name of tensor 1")
    );
}

#[test]
fn the_alignment_must_be_a_small_power_of_two() {
    let aligned = |value_type, value: u32| {
        Raw::new(3, 0, 1)
            .text(b"general.alignment")
            .u32(value_type)
            .u32(value)
    };
    assert_eq!(aligned(U32, 64).read().unwrap().alignment(), 64);
    for (raw, part) in [
        (aligned(U32, 0), "not a power of two"),
        (aligned(U32, 48), "not a power of two"),
        (aligned(U32, 1 << 31), "the alignment is 2147483648"),
        (aligned(6, 32), "not a u32"),
    ] {
        let error = raw.error();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn every_truncation_of_a_model_is_an_error() {
    let bytes = TinyModel::llama(1).to_bytes();
    let header = Header::read(&mut Cursor::new(&bytes)).unwrap();
    let last = header.tensors().last().unwrap();
    let end = (last.offset() + last.bytes()) as usize;
    for len in (0..header.data_offset() as usize).chain([end - 1]) {
        let result = Header::read(&mut Cursor::new(&bytes[..len]));
        assert!(result.is_err(), "accepted {len} of {end} bytes");
    }
    assert!(Header::read(&mut Cursor::new(&bytes[..end])).is_ok());
}

/// A file of the largest size, with zeros after its first bytes.
struct Endless {
    start: Vec<u8>,
    position: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        for byte in buffer.iter_mut() {
            *byte = self.start.get(self.position as usize).copied().unwrap_or(0);
            self.position += 1;
        }
        Ok(buffer.len())
    }
}

impl Seek for Endless {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.position = match to {
            SeekFrom::Start(position) => position,
            SeekFrom::End(_) => i64::MAX as u64,
            SeekFrom::Current(by) => self.position.wrapping_add_signed(by),
        };
        Ok(self.position)
    }
}

#[test]
fn a_long_file_does_not_make_a_long_header() {
    let text = Raw::new(3, 0, 1).text(b"k").u32(STRING).u64(1 << 40);
    let numbers = Raw::new(3, 0, 1)
        .text(b"k")
        .u32(ARRAY)
        .u32(U32)
        .u64(1 << 40);
    for raw in [text, numbers] {
        let error = Header::read(&mut Endless {
            start: raw.0,
            position: 0,
        });
        let error = error.unwrap_err().to_string();
        assert!(error.contains("the size of the header"), "{error}");
    }
}

#[test]
fn strings_keep_bytes_that_are_no_text() {
    let raw = Raw::new(3, 0, 1).text(b"k").u32(STRING).text(b"a\xffb");
    let header = raw.read().unwrap();
    assert_eq!(header.get_str("k"), None);
    let Some(Value::String(text)) = header.get("k") else {
        panic!("a string")
    };
    assert_eq!(text.0, b"a\xffb");
    assert_eq!(text.to_str_lossy(), "a\u{fffd}b");
}

#[test]
fn keys_that_are_missing_or_of_another_type_are_named() {
    let model = |key: &str, value| {
        let bytes = TinyModel::llama(1).with_key(key, value).to_bytes();
        Header::read(&mut Cursor::new(bytes)).unwrap()
    };
    let text = model("llama.block_count", "many".into());
    assert_eq!(
        text.block_count().unwrap_err().to_string(),
        "the metadata's `llama.block_count` is not an integer from 0 to 4294967295"
    );
    let deep = model("llama.block_count", Value::U32(513));
    assert!(deep.block_count().unwrap_err().to_string().contains("513"));
    let other = model("general.architecture", "falcon".into());
    assert_eq!(
        other.embedding_length().unwrap_err().to_string(),
        "the metadata has no `falcon.embedding_length`"
    );
    // Whatever its width, an integer is an integer.
    assert_eq!(model("k", Value::U64(7)).get_u32("k"), Some(7));
    assert_eq!(model("k", Value::I8(-7)).get_u32("k"), None);
}
