//! The files that are being filled with pieces, and what of them is there already.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use brigade_gguf::Piece;

use super::ledger::{Ledger, PieceHash};
use crate::NodeError;

/// A piece that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Its number.
    pub(super) number: u32,
    pub(super) piece: Piece,
    /// The file that it goes to, from 0.
    pub(super) file: usize,
    /// Where in that file.
    pub(super) position: u64,
}

/// Files that are being filled, in a folder that survives whatever ends this process.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) paths: Vec<PathBuf>,
    files: Mutex<Vec<File>>,
    journal: Mutex<Ledger>,
}

impl Output {
    /// Opens the files, or makes them with these sizes.
    pub(super) fn open(folder: &Path, sizes: &[u64]) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let (mut files, mut paths) = (Vec::new(), Vec::new());
        for (index, &bytes) in sizes.iter().enumerate() {
            let path = folder.join(index.to_string());
            let file = File::options()
                .create(true)
                .truncate(false)
                .read(true)
                .write(true)
                .open(&path)?;
            file.set_len(bytes)?;
            files.push(file);
            paths.push(path);
        }
        Ok(Self {
            paths,
            files: Mutex::new(files),
            journal: Mutex::new(Ledger::open(&folder.join("journal"))?),
        })
    }

    /// Which of the wanted pieces are there. The journal may say more than the disk kept, so they
    /// are hashed, which takes its time: `progress` learns how many bytes are there, and may end it.
    pub(super) fn present(
        &self,
        wanted: &[Wanted],
        mut progress: impl FnMut(u64) -> Result<(), NodeError>,
    ) -> Result<HashMap<u32, PieceHash>, NodeError> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let is_there = |one: &Wanted| {
            let hash = journal.get(one.number)?;
            let mut bytes = vec![0; one.piece.bytes as usize];
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            let file = &mut files[one.file];
            file.seek(SeekFrom::Start(one.position)).ok()?;
            file.read_exact(&mut bytes).ok()?;
            (*blake3::hash(&bytes).as_bytes() == hash).then_some(hash)
        };
        let (mut present, mut present_bytes) = (HashMap::new(), 0);
        for one in wanted {
            if let Some(hash) = is_there(one) {
                present.insert(one.number, hash);
                present_bytes += one.piece.bytes;
            }
            progress(present_bytes)?;
        }
        Ok(present)
    }

    /// Writes a piece, and notes that it is there.
    pub(super) fn write(&self, one: &Wanted, bytes: &[u8], hash: PieceHash) -> io::Result<()> {
        {
            let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
            let file = &mut files[one.file];
            file.seek(SeekFrom::Start(one.position))?;
            file.write_all(bytes)?;
        }
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.note(&[(one.number, hash)])
    }

    /// All hashes that are noted.
    pub(super) fn hashes(&self) -> Vec<(u32, PieceHash)> {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.pieces().collect()
    }
}
