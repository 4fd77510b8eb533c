//! Stage files that are filled from elsewhere than from files of this machine.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::{Manifest, Origin, Output, StageFiles, WriteLock, is_valid, sync_folder, write_file};
use crate::layout::{Layout, Segment};
use crate::slice::{self, StageBytes};
use crate::{GgufError, Layers, Source, Stamp};

/// What is there of a stage.
#[derive(Debug)]
pub enum Claim {
    /// All of it, and valid.
    Ready(StageFiles),
    /// Nothing, or a part.
    Unfilled(Unfilled),
}

/// A stage to be filled by the caller, who alone does so.
#[derive(Debug)]
pub struct Unfilled {
    layers: Layers,
    bytes: StageBytes,
    dir: PathBuf,
    stem: String,
    files: Vec<(String, Layout)>,
    _lock: WriteLock,
}

/// Takes the stage with these layers, which are not all, in the folder `dir`, to be filled from
/// elsewhere: of `source`, the header is enough. Waits for whoever else fills it.
pub fn claim_stage(source: &Source, layers: Layers, dir: &Path) -> Result<Claim, GgufError> {
    let model = source.model();
    let bytes = slice::stage_bytes(model, layers)?;
    let stem = super::stem(layers);
    let lock = WriteLock::acquire(dir, &format!("{stem}.lock"))?;
    if is_valid(source, layers, dir) {
        let files = super::files(layers, dir, bytes, Origin::Reused)?;
        return Ok(Claim::Ready(files));
    }
    Ok(Claim::Unfilled(Unfilled {
        layers,
        bytes,
        dir: dir.to_owned(),
        files: stage_files(source, layers)?,
        stem,
        _lock: lock,
    }))
}

/// The files of a stage by their names, as they will be.
pub fn stage_files(source: &Source, layers: Layers) -> Result<Vec<(String, Layout)>, GgufError> {
    let model = source.model();
    let stem = super::stem(layers);
    let mut files = vec![(format!("{stem}.gguf"), slice::stage_layout(model, layers)?)];
    if layers.is_first() {
        files.push((format!("{stem}.embd.gguf"), slice::embedding_layout(model)?));
    }
    Ok(files)
}

impl Unfilled {
    /// Where the caller keeps what it has, which stays when it is interrupted.
    pub fn folder(&self) -> PathBuf {
        self.dir.join(format!(".{}.fetch", self.stem))
    }

    /// What the files consist of.
    pub fn layouts(&self) -> impl Iterator<Item = &Layout> {
        self.files.iter().map(|(_, layout)| layout)
    }

    /// Takes over the files, which the caller has filled except for their literal bytes and
    /// zeros; they must have their full size. The folder is removed.
    pub fn finish(self, source: &Source, filled: &[PathBuf]) -> Result<StageFiles, GgufError> {
        let mut outputs = Vec::new();
        for ((name, layout), path) in self.files.iter().zip(filled) {
            let write = || {
                let mut file = File::options().read(true).write(true).open(path)?;
                write_literals(&mut file, layout)?;
                file.sync_all()?;
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(File::open(path)?)?;
                fs::rename(path, self.dir.join(name))?;
                Ok((Stamp::of(&file.metadata()?)?, hasher.finalize()))
            };
            let (stamp, hash) = write().map_err(|error| GgufError::Write(error).at(path))?;
            outputs.push(Output::new(name, stamp, hash));
        }
        sync_folder(&self.dir).map_err(|error| GgufError::Write(error).at(&self.dir))?;
        let json = Manifest::new(source, self.layers, outputs).to_json();
        let manifest = self.dir.join(format!("{}.json", self.stem));
        write_file(&self.dir, &self.stem, &manifest, |out| {
            out.write_all(&json).map_err(GgufError::Write)
        })?;
        // What cannot be removed only takes space.
        let _ = fs::remove_dir_all(self.folder());
        super::files(self.layers, &self.dir, self.bytes, Origin::Written)
    }
}

/// Writes what a layout holds itself.
fn write_literals(file: &mut File, layout: &Layout) -> std::io::Result<()> {
    use std::io::{Seek as _, SeekFrom};
    let mut position = 0;
    for segment in layout.segments() {
        if let Segment::Bytes(bytes) = segment {
            file.seek(SeekFrom::Start(position))?;
            file.write_all(bytes)?;
        }
        position += segment.len();
    }
    Ok(())
}
