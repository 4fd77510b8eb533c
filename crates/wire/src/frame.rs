//! Frames: how a [`Message`] and its floats lie in a byte stream.
//!
//! ```text
//! u32 head length · u32 payload length (floats) · head (postcard) · payload (f32, little-endian)
//! ```
//!
//! A connection's first bytes are the preamble `BRGD` and the protocol version, in a layout that
//! no later version changes, so that a mismatch can always be named.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Message, PROTOCOL_VERSION};

const PREAMBLE: [u8; 4] = *b"BRGD";

/// The most that a peer may make us allocate for one frame.
#[derive(Debug, Clone, Copy)]
pub struct FrameLimits {
    /// Bytes of the head.
    pub head_bytes: u32,
    /// Floats of the payload.
    pub payload_floats: u32,
}

impl FrameLimits {
    /// For the handshake, before anything about the model is known.
    pub const HANDSHAKE: Self = Self {
        head_bytes: 64 * 1024,
        payload_floats: 0,
    };

    /// For steps of at most `batch_tokens` rows of `row_floats` floats.
    pub fn for_rows(batch_tokens: u32, row_floats: u32) -> Self {
        Self {
            // A token costs at most 5 bytes, a span with its sampling parameters well under 100, an
            // output with its likeliest tokens under 512; a step that starts a sequence may bring
            // a grammar and biases.
            head_bytes: batch_tokens.saturating_mul(512).saturating_add(512 * 1024),
            payload_floats: batch_tokens.saturating_mul(row_floats),
        }
    }
}

/// What can go wrong with a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer closed the connection between two frames.
    #[error("the connection was closed")]
    Closed,
    /// The stream failed, or ended within a frame.
    #[error("{}", describe(.0))]
    Io(#[from] io::Error),
    /// The first bytes are not ours.
    #[error("the peer does not speak Brigade's protocol")]
    Foreign,
    /// The peer speaks another version.
    #[error(
        "the peer speaks protocol version {theirs}, this side {ours}: upgrade {}",
        if theirs < ours { "the peer" } else { "this side" }
    )]
    Version {
        /// The peer's version.
        theirs: u16,
        /// Ours.
        ours: u16,
    },
    /// A length beyond the limits.
    #[error("a frame of {head_bytes} bytes and {payload_floats} floats is larger than agreed")]
    TooLarge {
        /// Bytes of the head.
        head_bytes: u32,
        /// Floats of the payload.
        payload_floats: u32,
    },
    /// The head is no message.
    #[error("a frame holds no message of this protocol: {0}")]
    Malformed(#[from] postcard::Error),
}

/// What a time-out is called depends on the platform, and none of its names helps.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "no answer in time".to_owned(),
        _ => error.to_string(),
    }
}

/// Writes the preamble that opens a connection.
pub fn write_preamble(stream: &mut impl Write) -> Result<(), FrameError> {
    let mut bytes = [0; 6];
    bytes[..4].copy_from_slice(&PREAMBLE);
    bytes[4..].copy_from_slice(&PROTOCOL_VERSION.to_le_bytes());
    stream.write_all(&bytes)?;
    Ok(())
}

/// Reads the preamble and compares the version.
pub fn read_preamble(stream: &mut impl Read) -> Result<(), FrameError> {
    let mut bytes = [0; 6];
    stream.read_exact(&mut bytes)?;
    if bytes[..4] != PREAMBLE {
        return Err(FrameError::Foreign);
    }
    let theirs = u16::from_le_bytes([bytes[4], bytes[5]]);
    if theirs == PROTOCOL_VERSION {
        Ok(())
    } else {
        Err(FrameError::Version {
            theirs,
            ours: PROTOCOL_VERSION,
        })
    }
}

/// Writes a value with its length before it: what nodes say to each other beside the chains.
pub fn send_value(stream: &mut impl Write, value: &impl Serialize) -> Result<(), FrameError> {
    let mut buffer = postcard::to_extend(value, vec![0; 4])?;
    let length = (buffer.len() - 4) as u32;
    buffer[..4].copy_from_slice(&length.to_le_bytes());
    stream.write_all(&buffer)?;
    stream.flush()?;
    Ok(())
}

/// Reads a value of [`send_value`] that has at most so many bytes.
pub fn receive_value<T: DeserializeOwned>(
    stream: &mut impl Read,
    limit_bytes: u32,
) -> Result<T, FrameError> {
    let mut length = [0; 4];
    read_start(stream, &mut length)?;
    let length = u32::from_le_bytes(length);
    if length > limit_bytes {
        return Err(FrameError::TooLarge {
            head_bytes: length,
            payload_floats: 0,
        });
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    match postcard::take_from_bytes(&bytes)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::DeserializeUnexpectedEnd.into()),
    }
}

/// Writes frames, in one `write` each, through a buffer that it keeps.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    buffer: Vec<u8>,
}

impl<W: Write> FrameWriter<W> {
    /// Wraps a stream.
    pub fn new(stream: W) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends a message with its floats.
    pub fn send(&mut self, message: &Message, payload: &[f32]) -> Result<(), FrameError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend([0; 8]);
        buffer = postcard::to_extend(message, buffer)?;
        let head_bytes = (buffer.len() - 8) as u32;
        buffer[..4].copy_from_slice(&head_bytes.to_le_bytes());
        buffer[4..8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        buffer.reserve(payload.len() * 4);
        for value in payload {
            buffer.extend_from_slice(&value.to_le_bytes());
        }
        let sent = self.stream.write_all(&buffer);
        self.buffer = buffer;
        sent?;
        self.stream.flush()?;
        Ok(())
    }
}

/// Reads frames through buffers that it keeps.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    limits: FrameLimits,
    bytes: Vec<u8>,
    payload: Vec<f32>,
}

impl<R: Read> FrameReader<R> {
    /// Wraps a stream; [`FrameLimits::HANDSHAKE`] until [`set_limits`](Self::set_limits).
    pub fn new(stream: R) -> Self {
        Self {
            stream,
            limits: FrameLimits::HANDSHAKE,
            bytes: Vec::new(),
            payload: Vec::new(),
        }
    }

    /// Sets what the peer may send from now on.
    pub fn set_limits(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// The stream below, to read the preamble from.
    pub fn stream_mut(&mut self) -> &mut R {
        &mut self.stream
    }

    /// Waits for a message; its floats stay in [`payload`](Self::payload) until the next call.
    pub fn receive(&mut self) -> Result<Message, FrameError> {
        let mut lengths = [0; 8];
        read_start(&mut self.stream, &mut lengths)?;
        let lengths = u64::from_le_bytes(lengths);
        let (head_bytes, payload_floats) = (lengths as u32, (lengths >> 32) as u32);
        if head_bytes > self.limits.head_bytes || payload_floats > self.limits.payload_floats {
            return Err(FrameError::TooLarge {
                head_bytes,
                payload_floats,
            });
        }
        let head_bytes = head_bytes as usize;
        let total = head_bytes + payload_floats as usize * 4;
        self.bytes.resize(total, 0);
        self.stream.read_exact(&mut self.bytes)?;
        let (head, floats) = self.bytes.split_at(head_bytes);
        let (message, rest) = postcard::take_from_bytes::<Message>(head)?;
        if !rest.is_empty() {
            return Err(postcard::Error::DeserializeUnexpectedEnd.into());
        }
        self.payload.clear();
        self.payload.extend(
            floats
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        );
        Ok(message)
    }

    /// The floats of the last message.
    pub fn payload(&self) -> &[f32] {
        &self.payload
    }
}

/// Reads the lengths; an end of the stream before their first byte is a clean end.
fn read_start(stream: &mut impl Read, lengths: &mut [u8]) -> Result<(), FrameError> {
    let mut filled = 0;
    while filled < lengths.len() {
        match stream.read(&mut lengths[filled..]) {
            Ok(0) if filled == 0 => return Err(FrameError::Closed),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
