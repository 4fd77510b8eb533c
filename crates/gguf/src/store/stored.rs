//! What lies in a cache folder, and removing it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::lease::{WriteLock, take_unused};
use super::{Manifest, TEMPORARY_SUFFIX};
use crate::Layers;

/// Files of a cache that are written, used and removed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// What a writer holds, as [`WriteLock`]; for files that others put there, nothing.
    pub lock: Option<PathBuf>,
    /// Files and folders; what proves that the others are whole is the first.
    pub paths: Vec<PathBuf>,
}

/// A stage in a folder, whole or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredStage {
    /// Its layers.
    pub layers: Layers,
    /// Whether all of it is there.
    pub is_complete: bool,
    /// The first file of the model that it was cut from, where that is known.
    pub source: Option<String>,
    /// Its files.
    pub stored: Stored,
}

/// Whether somebody needs files now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nobody.
    Unused,
    /// Some process has a [`Lease`](super::Lease) on one of them.
    Used,
    /// They are being written or fetched.
    Written,
}

/// What became of files that were to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Removal {
    /// They are gone, and so many bytes are free.
    Freed(u64),
    /// Nothing was removed, for somebody needs them.
    Refused(Need),
}

impl Stored {
    /// Bytes that they take on the disk; a hole takes none.
    pub fn disk_bytes(&self) -> u64 {
        self.sum(|metadata| on_disk(metadata).min(metadata.len()))
    }

    /// Bytes that they have, or will have when they are filled.
    pub fn full_bytes(&self) -> u64 {
        self.sum(fs::Metadata::len)
    }

    fn sum(&self, of: impl Fn(&fs::Metadata) -> u64) -> u64 {
        let metadata = self
            .files()
            .into_iter()
            .filter_map(|path| fs::metadata(path).ok());
        metadata.map(|metadata| of(&metadata)).sum()
    }

    /// When one of them was last written, or a model's file among them last read, as far as the file
    /// system tells.
    pub fn last_used(&self) -> Option<SystemTime> {
        let times = |path: PathBuf| {
            let metadata = fs::metadata(&path).ok()?;
            // Whoever looks what there is reads the other files.
            let is_model = path.extension() == Some(OsStr::new("gguf"));
            let accessed = metadata.accessed().ok().filter(|_| is_model);
            accessed.max(metadata.modified().ok())
        };
        self.files().into_iter().filter_map(times).max()
    }

    /// Whether somebody needs them now.
    pub fn need(&self) -> Need {
        match self.take() {
            Ok((_, need)) => need,
            // What may not be written to is not ours to judge.
            Err(_) => Need::Used,
        }
    }

    /// Removes them, if nobody needs them, and then their folders, where nothing else is in these.
    pub fn remove(&self) -> io::Result<Removal> {
        let (locks, need) = self.take()?;
        if need != Need::Unused {
            return Ok(Removal::Refused(need));
        }
        let freed = self.disk_bytes();
        for path in &self.paths {
            let removed = if path.is_dir() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            };
            removed.or_else(missing_is_fine)?;
        }
        if let Some(lock) = &self.lock {
            fs::remove_file(lock).or_else(missing_is_fine)?;
        }
        drop(locks);
        for folder in self
            .lock
            .iter()
            .chain(&self.paths)
            .filter_map(|path| path.parent())
        {
            // It stays where something else is in it.
            let _ = fs::remove_dir(folder);
        }
        Ok(Removal::Freed(freed))
    }

    /// Keeps writers and users away for as long as what is given back lives.
    fn take(&self) -> io::Result<(Locks, Need)> {
        let mut locks = Locks::default();
        if let Some(path) = &self.lock {
            match WriteLock::try_acquire(path)? {
                Some(lock) => locks.writer = Some(lock),
                None => return Ok((locks, Need::Written)),
            }
        }
        for path in self.files() {
            match take_unused(&path) {
                Ok(Some(file)) => locks.files.push(file),
                Ok(None) => return Ok((locks, Need::Used)),
                Err(error) => missing_is_fine(error)?,
            }
        }
        Ok((locks, Need::Unused))
    }

    /// All files, those in folders too.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        for path in &self.paths {
            collect(path, &mut files);
        }
        files
    }
}

/// Locks of files that may be removed.
#[derive(Default)]
struct Locks {
    writer: Option<WriteLock>,
    files: Vec<fs::File>,
}

impl Drop for Locks {
    fn drop(&mut self) {
        // Whoever waits for the writer's lock shall find the files free as well.
        self.files.clear();
        self.writer = None;
    }
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(path) else {
        files.push(path.to_owned());
        return;
    };
    for entry in entries.flatten() {
        collect(&entry.path(), files);
    }
}

fn missing_is_fine(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

fn on_disk(metadata: &fs::Metadata) -> u64 {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::blocks(metadata) * 512
    }
    #[cfg(not(unix))]
    {
        metadata.len()
    }
}

/// The stages in a folder, finished or begun.
pub fn stored_stages(dir: &Path) -> Vec<StoredStage> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut found: BTreeMap<Layers, Vec<PathBuf>> = BTreeMap::new();
    for entry in entries.flatten() {
        if let Some(layers) = entry.file_name().to_str().and_then(layers_of) {
            found.entry(layers).or_default().push(entry.path());
        }
    }
    let stage = |(layers, mut paths): (Layers, Vec<PathBuf>)| {
        let stem = super::stem(layers);
        let lock = dir.join(format!("{stem}.lock"));
        paths.retain(|path| *path != lock);
        let proof = dir.join(format!("{stem}.json"));
        paths.sort_by_key(|path| (*path != proof, path.clone()));
        let manifest = Manifest::load(&proof);
        let is_there = |name: &str| {
            paths
                .iter()
                .any(|path| path.file_name() == Some(OsStr::new(name)))
        };
        let stage = StoredStage {
            layers,
            is_complete: manifest
                .as_ref()
                .is_some_and(|manifest| manifest.outputs().all(is_there)),
            source: manifest.and_then(|manifest| manifest.path),
            stored: Stored {
                lock: Some(lock),
                paths,
            },
        };
        // A lock alone is what is left of somebody who did not get far.
        (!stage.stored.paths.is_empty()).then_some(stage)
    };
    found.into_iter().filter_map(stage).collect()
}

/// The layers that a file or folder is about: `0-15.gguf`, `.0-15.fetch`.
fn layers_of(name: &str) -> Option<Layers> {
    let hidden = name.strip_prefix('.');
    let (stem, rest) = hidden.unwrap_or(name).split_once('.')?;
    let (start, end) = stem.split_once('-')?;
    let ours = match hidden {
        Some(_) => rest == "fetch" || rest.ends_with(&TEMPORARY_SUFFIX[1..]),
        None => ["gguf", "embd.gguf", "json", "lock"].contains(&rest),
    };
    let layers = Layers::new(start.parse().ok()?, end.parse().ok()?);
    (ours && super::stem(layers) == stem).then_some(layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stages() {
        let layers = |name| layers_of(name).map(|layers| (layers.start, layers.end));
        for name in [
            "0-15.gguf",
            "0-15.embd.gguf",
            "0-15.json",
            "0-15.lock",
            ".0-15.fetch",
            ".0-15.aX3.part",
        ] {
            assert_eq!(layers(name), Some((0, 15)), "{name}");
        }
        for name in [
            "notes.txt",
            "0-15",
            "0-15.txt",
            ".0-15.gguf",
            "00-15.gguf",
            "0-15-30.gguf",
            "-1-2.gguf",
            "0.gguf",
        ] {
            assert_eq!(layers(name), None, "{name}");
        }
    }
}
