//! Pieces over the links between daemons, turn by turn.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::Duration;

use brigade_wire::FrameError;
use brigade_wire::frame::{receive_value, send_value};
use serde::{Deserialize, Serialize};

use super::Holding;
use super::ledger::PieceHash;
use crate::link::Link;

/// The most bytes of a question or of an answer's head.
const LIMIT: u32 = 1 << 20;

/// Hashes in one message.
pub(super) const HASHES_AT_ONCE: usize = 4096;

/// How long an answer may take. Whoever has a whole file hashes it when it is asked.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a node asks of another that has a model.
#[derive(Debug, Serialize, Deserialize)]
enum Ask {
    /// The bytes before the weights of one of its files.
    Header(u32),
    /// The hashes of these pieces.
    Hashes(Vec<u32>),
    /// Nothing: these are the hashes of what the asking node was the first to fetch.
    Learn(Vec<(u32, PieceHash)>),
    /// A piece.
    Piece(u32),
}

/// The answer to an [`Ask`].
#[derive(Debug, Serialize, Deserialize)]
enum Tell {
    /// So many bytes follow; of a header, with the size of its file.
    Bytes(u64, u64),
    /// For each piece, what it must be, if that is known.
    Hashes(Vec<Option<PieceHash>>),
    /// It is noted.
    Learned,
    /// It cannot be had.
    Not(String),
}

/// Answers until the asking node has what it wants.
pub(crate) fn serve(link: &mut Link, holding: &mut Holding) -> Result<(), FrameError> {
    loop {
        let ask = match receive_value::<Ask>(link, LIMIT) {
            Ok(ask) => ask,
            Err(FrameError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        };
        let bytes = match ask {
            Ask::Hashes(pieces) => {
                let hashes = pieces.iter().map(|&piece| holding.hash(piece));
                send_value(link, &Tell::Hashes(hashes.collect()))?;
                continue;
            }
            Ask::Learn(hashes) => {
                if let Err(error) = holding.learn(&hashes) {
                    tracing::warn!(%error, "hashes of a model's pieces cannot be kept");
                }
                send_value(link, &Tell::Learned)?;
                continue;
            }
            Ask::Header(part) => holding.header(part),
            Ask::Piece(piece) => holding.read(piece).map(|bytes| (bytes, 0)),
        };
        match bytes {
            Ok((bytes, file_bytes)) => {
                send_value(link, &Tell::Bytes(bytes.len() as u64, file_bytes))?;
                link.write_all(&bytes)?;
                link.flush()?;
            }
            Err(error) => send_value(link, &Tell::Not(error.to_string()))?,
        }
    }
}

/// The asking end.
#[derive(Debug)]
pub(crate) struct Asking {
    link: Link,
}

impl Asking {
    pub(crate) fn new(link: Link) -> Result<Self, FrameError> {
        link.socket().set_read_timeout(Some(PATIENCE))?;
        link.socket().set_write_timeout(Some(PATIENCE))?;
        Ok(Self { link })
    }

    /// Which pieces the other node has: the first that it says.
    pub(crate) fn ranges(&mut self) -> Result<Vec<(u32, u32)>, FrameError> {
        receive_value(&mut self.link, LIMIT)
    }

    fn bytes(&mut self, ask: &Ask, limit: u64) -> Result<(Vec<u8>, u64), FrameError> {
        send_value(&mut self.link, ask)?;
        match receive_value(&mut self.link, LIMIT)? {
            Tell::Bytes(bytes, file_bytes) if bytes <= limit => {
                let mut buffer = vec![0; bytes as usize];
                self.link.read_exact(&mut buffer)?;
                Ok((buffer, file_bytes))
            }
            Tell::Not(reason) => Err(std::io::Error::other(reason).into()),
            _ => Err(FrameError::Foreign),
        }
    }

    /// The header of one of a model's files, and that file's size.
    pub(super) fn header(&mut self, part: u32) -> Result<(Vec<u8>, u64), FrameError> {
        self.bytes(&Ask::Header(part), brigade_gguf::header::MAX_HEADER_BYTES)
    }

    /// A piece.
    pub(super) fn piece(&mut self, number: u32, bytes: u64) -> Result<Vec<u8>, FrameError> {
        let (got, _) = self.bytes(&Ask::Piece(number), bytes)?;
        if got.len() as u64 == bytes {
            Ok(got)
        } else {
            Err(FrameError::Foreign)
        }
    }

    /// What pieces must be, as far as the other node knows.
    pub(super) fn hashes(&mut self, pieces: &[u32]) -> Result<Vec<Option<PieceHash>>, FrameError> {
        send_value(&mut self.link, &Ask::Hashes(pieces.to_vec()))?;
        match receive_value(&mut self.link, LIMIT)? {
            Tell::Hashes(hashes) if hashes.len() == pieces.len() => Ok(hashes),
            _ => Err(FrameError::Foreign),
        }
    }

    /// Tells what pieces are that were fetched here first.
    pub(super) fn learn(&mut self, hashes: &[(u32, PieceHash)]) -> Result<(), FrameError> {
        for some in hashes.chunks(HASHES_AT_ONCE) {
            send_value(&mut self.link, &Ask::Learn(some.to_vec()))?;
            let Tell::Learned = receive_value(&mut self.link, LIMIT)? else {
                return Err(FrameError::Foreign);
            };
        }
        Ok(())
    }
}

impl Drop for Asking {
    /// The daemon holds the same socket, so closing it would not be enough.
    fn drop(&mut self) {
        let _ = self.link.socket().shutdown(Shutdown::Both);
    }
}
