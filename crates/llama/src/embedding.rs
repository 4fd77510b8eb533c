//! The token embedding of a first stage.

use std::fs::File;
use std::io;

use llama_cpp_sys_2 as sys;

use crate::LlamaError;

/// A `token_embd` tensor that stays on disk: rows are read and dequantized as tokens come, which
/// costs the page cache's few hundred bytes a token instead of the whole table in memory.
#[derive(Debug)]
pub struct EmbeddingTable {
    file: File,
    offset: u64,
    rows: u32,
    width: usize,
    row_bytes: usize,
    kind: sys::ggml_type,
    scale: f32,
    buffer: Vec<u8>,
}

impl EmbeddingTable {
    /// The table of `rows` rows of `width` values of ggml type `kind`, which starts at byte
    /// `offset` of `file`; each value is multiplied by `scale` after dequantization, as the
    /// model's family does (1 for most).
    pub fn new(
        file: File,
        offset: u64,
        rows: u32,
        width: usize,
        kind: u32,
        scale: f32,
    ) -> Result<Self, LlamaError> {
        let kind = kind as sys::ggml_type;
        if kind >= sys::GGML_TYPE_COUNT {
            return Err(LlamaError::Mismatch(format!("unknown ggml type {kind}")));
        }
        // SAFETY: `kind` is a valid type id; both functions only read static tables.
        let (row_bytes, block) = unsafe {
            (
                sys::ggml_row_size(kind, width as i64),
                sys::ggml_blck_size(kind),
            )
        };
        if width == 0 || block <= 0 || width as i64 % block != 0 {
            return Err(LlamaError::Mismatch(format!(
                "an embedding row of {width} values cannot be of ggml type {kind}"
            )));
        }
        Ok(Self {
            file,
            offset,
            rows,
            width,
            row_bytes,
            kind,
            scale,
            buffer: vec![0; row_bytes],
        })
    }

    /// Values of a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Appends the embedding of `token` to `output`.
    pub fn read(&mut self, token: u32, output: &mut Vec<f32>) -> Result<(), LlamaError> {
        if token >= self.rows {
            return Err(LlamaError::Mismatch(format!(
                "token {token} is outside the vocabulary of {}",
                self.rows
            )));
        }
        let at = self.offset + u64::from(token) * self.row_bytes as u64;
        read_exact_at(&self.file, &mut self.buffer, at)?;
        let start = output.len();
        output.resize(start + self.width, 0.0);
        let row = &mut output[start..];
        if self.kind == sys::GGML_TYPE_F32 {
            for (value, bytes) in row.iter_mut().zip(self.buffer.chunks_exact(4)) {
                *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
        } else {
            // SAFETY: `kind` was checked, the traits are static. `to_float` reads `width` values
            // of the type, which are exactly the `row_bytes` bytes of the buffer, and writes
            // `width` floats, which is the length of `row`.
            unsafe {
                let traits = &*sys::ggml_get_type_traits(self.kind);
                let to_float = traits.to_float.ok_or_else(|| {
                    LlamaError::Mismatch(format!("ggml type {} has no values", self.kind))
                })?;
                to_float(
                    self.buffer.as_ptr().cast(),
                    row.as_mut_ptr(),
                    self.width as i64,
                );
            }
        }
        #[expect(
            clippy::float_cmp,
            reason = "exactly 1 means that the family has no scale"
        )]
        if self.scale != 1.0 {
            for value in row {
                *value *= self.scale;
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        let read = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[read..];
        offset += read as u64;
    }
    Ok(())
}
