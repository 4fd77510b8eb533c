//! A model's weights in pieces of a bounded size, the same ones on every machine: what nodes ask
//! each other for, hash and note.

use crate::layout::{Layout, Segment};
use crate::{GgufError, Model};

/// The most bytes of a piece.
pub const PIECE_BYTES: u64 = 8 << 20;

/// Some bytes of one tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Piece {
    /// Which of the model's files, from 0.
    pub part: usize,
    /// Where it starts, in bytes from the start of that file.
    pub offset: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// All pieces of a model's tensors, in the order of its files. A function of the headers alone.
pub fn pieces(model: &Model) -> Vec<Piece> {
    let mut pieces = Vec::new();
    for tensor in model.tensors() {
        let mut done = 0;
        while done < tensor.info.bytes() {
            let bytes = PIECE_BYTES.min(tensor.info.bytes() - done);
            pieces.push(Piece {
                part: tensor.part,
                offset: tensor.info.offset() + done,
                bytes,
            });
            done += bytes;
        }
    }
    pieces
}

/// Which of the `pieces` a file consists of: their numbers, and where each lies in that file.
/// Fails where the file holds a part of a tensor.
pub fn pieces_in(layout: &Layout, pieces: &[Piece]) -> Result<Vec<(u32, u64)>, GgufError> {
    let mut found = Vec::new();
    let mut position = 0;
    for segment in layout.segments() {
        if let &Segment::Copy { part, offset, len } = segment {
            let key = |piece: &Piece| (piece.part, piece.offset);
            let mut index = pieces.partition_point(|piece| key(piece) < (part, offset));
            let mut done = 0;
            while done < len {
                let piece = pieces.get(index).filter(|piece| {
                    key(piece) == (part, offset + done) && piece.bytes <= len - done
                });
                let Some(piece) = piece else {
                    return Err(GgufError::Malformed(
                        "a part of a tensor is asked for".into(),
                    ));
                };
                found.push((index as u32, position + done));
                (index, done) = (index + 1, done + piece.bytes);
            }
        }
        position += segment.len();
    }
    Ok(found)
}
