//! A file that does not exist yet, as a list of what it is made of.

use std::io::{self, Read, Seek, SeekFrom, Write};

use crate::GgufError;

const BUFFER_BYTES: usize = 1 << 20;

/// A run of bytes of a [`Layout`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// These.
    Bytes(Vec<u8>),
    /// That many zeros.
    Zeros(u64),
    /// A byte range of one of the model's files.
    Copy {
        /// Which file, from 0.
        part: usize,
        /// From the start of that file.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

impl Segment {
    /// Bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(len) | Self::Copy { len, .. } => *len,
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The contents of a file: literal bytes, and ranges of other files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    segments: Vec<Segment>,
    len: u64,
}

impl Layout {
    /// Appends a segment.
    pub(crate) fn push(&mut self, segment: Segment) {
        if !segment.is_empty() {
            self.len += segment.len();
            self.segments.push(segment);
        }
    }

    /// The segments, in order, none of them empty.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Bytes of the whole file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Writes the file to `out`, reading from `parts`, with one buffer of 1 MiB. After each
    /// buffer `progress` learns how many bytes of the file are written.
    pub fn write_to<R: Read + Seek>(
        &self,
        parts: &mut [R],
        out: &mut impl Write,
        mut progress: impl FnMut(u64),
    ) -> Result<(), GgufError> {
        let mut buffer = vec![0; BUFFER_BYTES.min(self.len as usize)];
        let mut done = 0;
        for segment in &self.segments {
            match segment {
                Segment::Bytes(bytes) => {
                    out.write_all(bytes).map_err(GgufError::Write)?;
                    done += bytes.len() as u64;
                    progress(done);
                }
                Segment::Zeros(len) => {
                    let mut left = *len;
                    let zeros = left.min(buffer.len() as u64) as usize;
                    buffer[..zeros].fill(0);
                    while left > 0 {
                        let count = left.min(zeros as u64);
                        out.write_all(&buffer[..count as usize])
                            .map_err(GgufError::Write)?;
                        left -= count;
                        done += count;
                        progress(done);
                    }
                }
                Segment::Copy { part, offset, len } => {
                    let input = parts
                        .get_mut(*part)
                        .ok_or_else(|| GgufError::Read(io::ErrorKind::NotFound.into()))?;
                    input
                        .seek(SeekFrom::Start(*offset))
                        .map_err(GgufError::Read)?;
                    let mut left = *len;
                    while left > 0 {
                        let count = left.min(buffer.len() as u64) as usize;
                        read_exact(input, &mut buffer[..count])?;
                        out.write_all(&buffer[..count]).map_err(GgufError::Write)?;
                        left -= count as u64;
                        done += count as u64;
                        progress(done);
                    }
                }
            }
        }
        Ok(())
    }
}

fn read_exact(input: &mut impl Read, buffer: &mut [u8]) -> Result<(), GgufError> {
    input
        .read_exact(buffer)
        .map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => GgufError::Truncated("the weights".into()),
            _ => GgufError::Read(error),
        })
}
