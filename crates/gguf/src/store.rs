//! Stage files on disk: written whole or not at all, and used again while they are valid.

mod claim;
mod lease;
mod manifest;
mod stored;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, SyncSender};
use std::thread;

use crate::layout::Layout;
use crate::slice::{self, StageBytes};
use crate::{GgufError, Layers, Source};
pub use claim::{Claim, Unfilled, claim_stage, stage_files};
pub use lease::{Lease, WriteLock};
use manifest::{Manifest, Output};
pub use stored::{Need, Removal, Stored, StoredStage, stored_stages};

/// What a stage process loads.
#[derive(Debug, Clone)]
pub struct StageFiles {
    /// The stage's layers.
    pub layers: Layers,
    /// What llama.cpp loads: a stage file, or the model's own first file where the stage is
    /// the whole model.
    pub model: PathBuf,
    /// The file with the token embedding, for the first of several stages.
    pub embedding: Option<PathBuf>,
    /// Bytes of the weights in both.
    pub bytes: StageBytes,
    /// Where they came from.
    pub origin: Origin,
    /// Keeps them where they are.
    pub lease: Lease,
}

/// How [`prepare_stage`] came by its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// They are the model's own.
    Original,
    /// They were there, and valid.
    Reused,
    /// They were written.
    Written,
}

/// Makes sure that the stage with these layers lies in the folder `dir`, which is created if
/// need be and should belong to this model alone: `<start>-<end>.gguf`,
/// `<start>-<end>.embd.gguf` for the first stage, and a manifest `<start>-<end>.json`.
///
/// Files that the manifest proves to be valid are left as they are. Otherwise they are written
/// under other names and renamed when they are complete, so that whoever finds a stage file
/// finds all of it. Callers in other threads or processes that want the same stage wait for
/// the first of them. Of a hollow source nothing can be cut. `progress` learns how many bytes of how many are written.
pub fn prepare_stage(
    source: &Source,
    layers: Layers,
    dir: &Path,
    mut progress: impl FnMut(u64, u64),
) -> Result<StageFiles, GgufError> {
    let model = source.model();
    let bytes = slice::stage_bytes(model, layers)?;
    if layers.is_whole(model.header().block_count()?) {
        if source.is_hollow() {
            return Err(GgufError::Hollow.at(source.path()));
        }
        return Ok(StageFiles {
            layers,
            model: source.path().to_owned(),
            embedding: None,
            bytes,
            origin: Origin::Original,
            lease: source.lease()?,
        });
    }
    let stem = stem(layers);
    let lock = WriteLock::acquire(dir, &format!("{stem}.lock"))?;
    if is_valid(source, layers, dir) {
        return files(layers, dir, bytes, Origin::Reused);
    }
    if source.is_hollow() {
        return Err(GgufError::Hollow.at(source.path()));
    }

    remove_leftovers(&lock, dir, &stem);
    let layouts = stage_files(source, layers)?;
    let total = layouts.iter().map(|(_, layout)| layout.len()).sum();
    let mut before = 0;
    let mut outputs = Vec::new();
    for (name, layout) in &layouts {
        let report = |done| progress(before + done, total);
        outputs.push(write_layout(source, layout, dir, &stem, name, report)?);
        before += layout.len();
    }
    // A source that was overwritten while it was read gives neither the old model nor the new.
    drop(source.open_files()?);
    let manifest = Manifest::new(source, layers, outputs);
    let json = manifest.to_json();
    let manifest_path = dir.join(format!("{stem}.json"));
    write_file(dir, &stem, &manifest_path, |out| {
        out.write_all(&json).map_err(GgufError::Write)
    })?;
    files(layers, dir, bytes, Origin::Written)
}

/// A stage's files in the folder `dir`, if they are there and valid. Whoever writes them is not
/// waited for.
pub fn find_stage(source: &Source, layers: Layers, dir: &Path) -> Option<StageFiles> {
    let bytes = slice::stage_bytes(source.model(), layers).ok()?;
    let valid = is_valid(source, layers, dir);
    valid.then(|| files(layers, dir, bytes, Origin::Reused).ok())?
}

/// What the names of a stage's files begin with.
fn stem(layers: Layers) -> String {
    format!("{}-{}", layers.start, layers.end)
}

/// Whether a stage's files are there, and what cutting it would give.
fn is_valid(source: &Source, layers: Layers, dir: &Path) -> bool {
    let manifest = Manifest::load(&dir.join(format!("{}.json", stem(layers))));
    manifest.is_some_and(|manifest| manifest.is_valid(source, layers, dir))
}

/// A stage's files, which are whole and from now on in use. Whoever removes them waits for the
/// stage's lock, which the caller has.
fn files(
    layers: Layers,
    dir: &Path,
    bytes: StageBytes,
    origin: Origin,
) -> Result<StageFiles, GgufError> {
    let stem = stem(layers);
    let model = dir.join(format!("{stem}.gguf"));
    let embedding = layers
        .is_first()
        .then(|| dir.join(format!("{stem}.embd.gguf")));
    let lease = Lease::of([&model].into_iter().chain(&embedding).map(PathBuf::as_path))?;
    Ok(StageFiles {
        layers,
        model,
        embedding,
        bytes,
        origin,
        lease,
    })
}

/// Writes one file, and says what it has written.
fn write_layout(
    source: &Source,
    layout: &Layout,
    dir: &Path,
    stem: &str,
    name: &str,
    progress: impl FnMut(u64),
) -> Result<Output, GgufError> {
    let path = dir.join(name);
    let mut parts = source.open_files()?;
    let mut hasher = blake3::Hasher::new();
    let stamp = write_file(dir, stem, &path, |out| {
        let mut out = Tee {
            out,
            hasher: &mut hasher,
        };
        layout.write_to(&mut parts, &mut out, progress)
    })?;
    Ok(Output::new(name, stamp, hasher.finalize()))
}

/// Writes a file under another name, and renames it once it is complete and on the disk. On an
/// error nothing is left.
fn write_file(
    dir: &Path,
    stem: &str,
    path: &Path,
    write: impl FnOnce(&mut BufWriter<Pushing<'_>>) -> Result<(), GgufError>,
) -> Result<crate::Stamp, GgufError> {
    let written = || {
        let temporary = tempfile::Builder::new()
            .prefix(&temporary_prefix(stem))
            .suffix(TEMPORARY_SUFFIX)
            .tempfile_in(dir)
            .map_err(GgufError::Write)?;
        let file = temporary.as_file();
        let (push, due) = mpsc::sync_channel(1);
        thread::scope(|scope| {
            // An error is told once, to whoever syncs next: it must not be lost here.
            let pushing = scope.spawn(move || {
                for () in due {
                    file.sync_data()?;
                }
                io::Result::Ok(())
            });
            let mut out = BufWriter::new(Pushing {
                file,
                written: 0,
                push,
            });
            write(&mut out)?;
            out.flush().map_err(GgufError::Write)?;
            drop(out);
            match pushing.join() {
                Ok(result) => result.map_err(GgufError::Write),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })?;
        file.sync_all().map_err(GgufError::Write)?;
        let file = temporary
            .persist(path)
            .map_err(|error| GgufError::Write(error.error))?;
        let metadata = file.metadata().map_err(GgufError::Write)?;
        sync_folder(dir).map_err(GgufError::Write)?;
        crate::Stamp::of(&metadata).map_err(GgufError::Write)
    };
    written().map_err(|error| error.at(path))
}

/// After so many bytes the disk is put to work, while more is read and hashed: at the end little is
/// left to wait for.
const PUSH_BYTES: usize = 64 << 20;

/// A file that goes to the disk while it is being written.
struct Pushing<'a> {
    file: &'a File,
    /// Bytes since the last push.
    written: usize,
    push: SyncSender<()>,
}

impl Write for Pushing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.written += count;
        if self.written >= PUSH_BYTES {
            self.written = 0;
            // Where the disk is still at it, the next push comes soon enough.
            let _ = self.push.try_send(());
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Makes a rename survive a power cut.
fn sync_folder(dir: &Path) -> io::Result<()> {
    if cfg!(unix) {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

const TEMPORARY_SUFFIX: &str = ".part";

fn temporary_prefix(stem: &str) -> String {
    format!(".{stem}.")
}

/// Hashes what it writes.
struct Tee<'a, W> {
    out: W,
    hasher: &'a mut blake3::Hasher,
}

impl<W: Write> Write for Tee<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Removes what a killed writer of this stage left, if the lock's holder is the only one.
fn remove_leftovers(lock: &WriteLock, dir: &Path, stem: &str) {
    let Ok(entries) = fs::read_dir(dir) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| {
            name.starts_with(&temporary_prefix(stem)) && name.ends_with(TEMPORARY_SUFFIX)
        });
        if ours && lock.is_alone() {
            // What cannot be removed only takes space.
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0-1.gguf");
        let result = write_file(dir.path(), "0-1", &path, |out| {
            out.write_all(&vec![1; 100_000]).map_err(GgufError::Write)?;
            Err(GgufError::Write(io::ErrorKind::StorageFull.into()))
        });
        let error = result.unwrap_err().to_string();
        assert!(
            error.contains("0-1.gguf: cannot write: no storage space; free some space"),
            "{error}"
        );
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failure_leaves_the_file_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0-1.gguf");
        fs::write(&path, "whole").unwrap();
        let result = write_file(dir.path(), "0-1", &path, |out| {
            out.write_all(b"half").map_err(GgufError::Write)?;
            Err(GgufError::Truncated("the weights".into()))
        });
        assert!(result.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
