//! What a node has of a model, for whoever asks.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use brigade_gguf::{
    Lease, Piece, Source, find_stage, pieces, pieces_in, stage_files, stored_stages,
};

use super::Offer;
use super::ledger::{Ledger, PieceHash};
use super::places::Places;

/// A model, and the pieces of it that are here.
#[derive(Debug)]
pub(crate) struct Holding {
    source: Arc<Source>,
    pieces: Vec<Piece>,
    /// The file in which a piece lies, and where.
    places: HashMap<u32, (PathBuf, u64)>,
    /// Hashes of pieces; where the whole model is here, it is hashed when somebody asks.
    ledger: Option<Ledger>,
    /// Keep its files until nobody asks any more.
    _leases: Vec<Lease>,
}

impl Holding {
    /// All of a model.
    pub(super) fn whole(source: Arc<Source>) -> Option<Self> {
        // One that was written since it was opened is another model.
        source.open_files().ok()?;
        let pieces = pieces(source.model());
        let files = source.files();
        let place = |(index, piece): (usize, &Piece)| {
            Some((
                index as u32,
                (files.get(piece.part)?.path.clone(), piece.offset),
            ))
        };
        let places = pieces
            .iter()
            .enumerate()
            .map(place)
            .collect::<Option<_>>()?;
        let lease = source.lease().ok()?;
        Some(Self {
            source,
            pieces,
            places,
            ledger: None,
            _leases: vec![lease],
        })
    }

    /// What was fetched of a model: its headers, and files that are complete.
    pub(super) fn fetched(folder: &Path, offer: &Offer) -> Option<Self> {
        let first = offer.names.first()?;
        let there = Places::of(folder);
        let source = Source::open(&there.hollow.join(first)).ok()?;
        let ledger = Ledger::open(&there.hashes).ok();
        if let Ok(whole) = Source::open(&there.whole.join(first)) {
            return Some(Self {
                ledger,
                ..Self::whole(Arc::new(whole))?
            });
        }
        let pieces = pieces(source.model());
        let mut places = HashMap::new();
        let mut leases = vec![source.lease().ok()?];
        let dir = there.stages;
        for layers in stored_stages(&dir).iter().map(|stage| stage.layers) {
            let Some(files) = find_stage(&source, layers, &dir) else {
                continue;
            };
            leases.push(files.lease);
            for (file, layout) in stage_files(&source, layers).ok()? {
                for (piece, position) in pieces_in(&layout, &pieces).ok()? {
                    places.entry(piece).or_insert((dir.join(&file), position));
                }
            }
        }
        Some(Self {
            source: Arc::new(source),
            pieces,
            places,
            ledger,
            _leases: leases,
        })
    }

    /// The numbers of its pieces, as half-open ranges.
    pub(crate) fn ranges(&self) -> Vec<(u32, u32)> {
        let mut numbers: Vec<u32> = self.places.keys().copied().collect();
        numbers.sort_unstable();
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, end)) if *end == number => *end += 1,
                _ => ranges.push((number, number + 1)),
            }
        }
        ranges
    }

    /// The bytes before the weights of one of the model's files.
    pub(crate) fn header(&self, part: u32) -> io::Result<(Vec<u8>, u64)> {
        let (header, file) = self
            .source
            .model()
            .parts()
            .get(part as usize)
            .zip(self.source.files().get(part as usize))
            .ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; header.data_offset() as usize];
        File::open(&file.path)?.read_exact(&mut bytes)?;
        Ok((bytes, header.file_bytes()))
    }

    /// A piece's bytes.
    pub(crate) fn read(&self, number: u32) -> io::Result<Vec<u8>> {
        let piece = self
            .pieces
            .get(number as usize)
            .ok_or(io::ErrorKind::NotFound)?;
        let (path, position) = self.places.get(&number).ok_or(io::ErrorKind::NotFound)?;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(*position))?;
        let mut bytes = vec![0; piece.bytes as usize];
        file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The hash that a piece must have, if it is known here.
    pub(crate) fn hash(&self, number: u32) -> Option<PieceHash> {
        match &self.ledger {
            Some(ledger) => ledger.get(number),
            None => Some(*blake3::hash(&self.read(number).ok()?).as_bytes()),
        }
    }

    /// Takes over hashes of what another node was the first to fetch.
    pub(crate) fn learn(&mut self, hashes: &[(u32, PieceHash)]) -> io::Result<()> {
        match &mut self.ledger {
            Some(ledger) => ledger.note(hashes),
            None => Ok(()),
        }
    }
}
