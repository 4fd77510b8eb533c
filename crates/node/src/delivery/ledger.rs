//! Hashes of pieces in a file: lines that are only ever appended.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// BLAKE3 of a piece.
pub(crate) type PieceHash = [u8; 32];

/// Known hashes of pieces, by the piece's number.
#[derive(Debug)]
pub(super) struct Ledger {
    known: HashMap<u32, PieceHash>,
    file: File,
}

impl Ledger {
    /// Opens a ledger, which is empty where there is none. A line that a crash cut off is none.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            read => read?,
        };
        let mut file = File::options().create(true).append(true).open(path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        let mut known = HashMap::new();
        for line in text.lines() {
            if let Some((number, hash)) = parse(line) {
                known.entry(number).or_insert(hash);
            }
        }
        Ok(Self { known, file })
    }

    pub(super) fn get(&self, piece: u32) -> Option<PieceHash> {
        self.known.get(&piece).copied()
    }

    pub(super) fn pieces(&self) -> impl Iterator<Item = (u32, PieceHash)> {
        self.known.iter().map(|(&piece, &hash)| (piece, hash))
    }

    /// Notes hashes of pieces that have none yet: the first stays.
    pub(super) fn note(&mut self, hashes: &[(u32, PieceHash)]) -> io::Result<()> {
        use std::fmt::Write as _;
        let mut text = String::new();
        for &(piece, hash) in hashes {
            if let std::collections::hash_map::Entry::Vacant(entry) = self.known.entry(piece) {
                entry.insert(hash);
                let _ = writeln!(text, "{piece} {}", blake3::Hash::from_bytes(hash).to_hex());
            }
        }
        self.file.write_all(text.as_bytes())
    }
}

fn parse(line: &str) -> Option<(u32, PieceHash)> {
    let (number, hash) = line.split_once(' ')?;
    let hash = blake3::Hash::from_hex(hash).ok()?;
    Some((number.parse().ok()?, *hash.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_hash_of_a_piece_stays_and_half_a_line_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hashes");
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.note(&[(3, [1; 32]), (4, [2; 32])]).unwrap();
        ledger.note(&[(3, [9; 32])]).unwrap();
        drop(ledger);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 10]).unwrap();
        let mut ledger = Ledger::open(&path).unwrap();
        assert_eq!((ledger.get(3), ledger.get(4)), (Some([1; 32]), None));
        ledger.note(&[(4, [5; 32])]).unwrap();
        let ledger = Ledger::open(&path).unwrap();
        assert_eq!(
            (ledger.get(3), ledger.get(4)),
            (Some([1; 32]), Some([5; 32]))
        );
    }
}
