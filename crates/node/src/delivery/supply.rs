//! Whoever pieces can be had from.

use std::collections::{HashMap, HashSet};

use brigade_gguf::PIECE_BYTES;
use brigade_hub::{Client, FetchError, RangeReader, RemoteFile};

use super::output::Wanted;
use super::peer::Asking;

/// A run of wanted pieces that lie beside each other, in order.
pub(super) type Batch = Vec<Wanted>;

/// Runs of pieces that can be asked for at once: whoever has one of them has all.
pub(super) fn batches(wanted: &[Wanted], suppliers: &[Supplier]) -> Vec<Batch> {
    /// What may lie between two tensors of a file: the most of an alignment is more, and then
    /// they are asked for apart.
    const GAP: u64 = 64;
    let mut sorted = wanted.to_vec();
    sorted.sort_by_key(|one| one.number);
    let mut batches: Vec<Batch> = Vec::new();
    for one in sorted {
        let follows = batches.last().is_some_and(|batch| {
            let (first, last) = (&batch[0], &batch[batch.len() - 1]);
            let end = last.piece.offset + last.piece.bytes;
            first.piece.part == one.piece.part
                && (end..=end + GAP).contains(&one.piece.offset)
                && one.piece.offset + one.piece.bytes - first.piece.offset <= PIECE_BYTES
                && suppliers
                    .iter()
                    .all(|supplier| supplier.has(last) == supplier.has(&one))
        });
        match batches.last_mut() {
            Some(batch) if follows => batch.push(one),
            _ => batches.push(vec![one]),
        }
    }
    batches
}

/// One connection to somebody who has pieces.
#[derive(Debug)]
pub(super) enum Supplier {
    /// A server of files, which has all.
    Server {
        client: Box<Client>,
        files: Vec<RemoteFile>,
        readers: HashMap<usize, RangeReader>,
    },
    /// Another node.
    Node {
        /// Its name.
        name: String,
        asking: Asking,
        pieces: HashSet<u32>,
        /// Its word is what the others are measured by.
        is_coordinator: bool,
    },
}

impl Supplier {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Server { files, client, .. } => match files.first().map(|file| &file.location) {
                Some(brigade_hub::Location::Url(url)) => brigade_hub::url::shown(url),
                _ => client.endpoint().to_owned(),
            },
            Self::Node { name, .. } => name.clone(),
        }
    }

    pub(super) fn has(&self, one: &Wanted) -> bool {
        match self {
            Self::Server { .. } => true,
            Self::Node { pieces, .. } => pieces.contains(&one.number),
        }
    }

    pub(super) fn has_all(&self, batch: &Batch) -> bool {
        batch.iter().all(|one| self.has(one))
    }

    /// Whether what it sends needs no other witness.
    pub(super) fn is_authority(&self) -> bool {
        matches!(
            self,
            Self::Node {
                is_coordinator: true,
                ..
            }
        )
    }

    /// Fetches a batch; `going` breaks it off.
    pub(super) fn fetch(
        &mut self,
        batch: &Batch,
        going: &dyn Fn() -> bool,
    ) -> Result<Vec<Vec<u8>>, FetchError> {
        let stopped = || FetchError::passing("nobody needs it any more");
        match self {
            Self::Node { asking, .. } => {
                let mut all = Vec::new();
                for one in batch {
                    if !going() {
                        return Err(stopped());
                    }
                    let got = asking.piece(one.number, one.piece.bytes);
                    // A link that has failed once is out of step.
                    all.push(got.map_err(|error| FetchError::lasting(error.to_string()))?);
                }
                Ok(all)
            }
            Self::Server {
                client,
                files,
                readers,
            } => {
                let (Some(first), Some(last)) = (batch.first(), batch.last()) else {
                    return Ok(Vec::new());
                };
                let part = first.piece.part;
                let file = files
                    .get(part)
                    .ok_or_else(|| FetchError::lasting("no such file"))?;
                let reader = readers
                    .entry(part)
                    .or_insert_with(|| RangeReader::of(client, file));
                let start = first.piece.offset;
                let end = last.piece.offset + last.piece.bytes;
                let mut bytes = Vec::with_capacity((end - start) as usize);
                reader.read(start, end, &mut |piece| {
                    bytes.extend_from_slice(piece);
                    if going() { Ok(()) } else { Err(stopped()) }
                })?;
                let cut = |one: &Wanted| {
                    let at = (one.piece.offset - start) as usize;
                    bytes[at..at + one.piece.bytes as usize].to_vec()
                };
                Ok(batch.iter().map(cut).collect())
            }
        }
    }
}
