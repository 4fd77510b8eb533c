//! A model in files of this machine.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use crate::model::{check_part, split_count};
use crate::{GgufError, Header, Lease, Model};

/// The folder's name of files without weights.
const HOLLOW: &str = "hollow";

/// A model and the files that it lies in.
#[derive(Debug, Clone)]
pub struct Source {
    model: Model,
    files: Vec<SourceFile>,
}

/// A file as it was when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its size and time.
    pub stamp: Stamp,
}

/// What changes when a file's contents change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    /// Its size.
    pub bytes: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub modified_ns: u64,
}

impl Stamp {
    pub(crate) fn of(metadata: &fs::Metadata) -> io::Result<Self> {
        let since = metadata.modified()?.duration_since(UNIX_EPOCH);
        Ok(Self {
            bytes: metadata.len(),
            modified_ns: since.map_or(0, |since| since.as_nanos() as u64),
        })
    }
}

impl Source {
    /// Opens a model. Given any part of one that is split into several files, it finds the
    /// others beside it, and says which one is missing.
    pub fn open(path: &Path) -> Result<Self, GgufError> {
        let (header, file) = open_part(path)?;
        let count = split_count(&header);
        if count == 1 {
            let model = Model::from_headers(vec![header]).map_err(|error| error.at(path))?;
            return Ok(Self {
                model,
                files: vec![file],
            });
        }
        let prefix =
            split_prefix(path, count).ok_or_else(|| GgufError::SplitName { count }.at(path))?;
        let (mut headers, mut files) = (Vec::new(), Vec::new());
        for number in 1..=count {
            let path = path.with_file_name(format!("{prefix}-{number:05}-of-{count:05}.gguf"));
            let (header, file) = match open_part(&path) {
                Err(error) if is_not_found(&error) => {
                    return Err(GgufError::MissingPart {
                        path,
                        number,
                        count,
                    });
                }
                opened => opened?,
            };
            check_part(&header, number - 1, count).map_err(|error| error.at(&path))?;
            headers.push(header);
            files.push(file);
        }
        let model = Model::from_headers(headers).map_err(|error| error.at(path))?;
        Ok(Self { model, files })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The first file's header, whose metadata are the model's.
    pub fn header(&self) -> &Header {
        self.model.header()
    }

    /// The files, in the order of their parts.
    pub fn files(&self) -> &[SourceFile] {
        &self.files
    }

    /// The first file, which is what llama.cpp wants to load the whole model.
    pub fn path(&self) -> &Path {
        &self.files[0].path
    }

    /// Whether the files have no weights, only headers: they are made by [`Source::hollow`].
    pub fn is_hollow(&self) -> bool {
        let folder = self.path().parent().and_then(Path::file_name);
        folder.is_some_and(|name| name == HOLLOW)
    }

    /// Makes files that have a model's headers and sizes, and holes in place of its weights, in a
    /// folder for them in `dir`: for whoever needs the header of a model that lies elsewhere.
    /// Files that are there already stay as they are.
    pub fn hollow(dir: &Path, files: &[(&str, &[u8], u64)]) -> Result<Self, GgufError> {
        let dir = dir.join(HOLLOW);
        let make = |path: &Path, header: &[u8], bytes: u64| {
            if fs::metadata(path).is_ok_and(|found| found.len() == bytes) {
                return Ok(());
            }
            fs::create_dir_all(&dir)?;
            let mut file = tempfile::NamedTempFile::new_in(&dir)?;
            file.write_all(header)?;
            file.as_file().set_len(bytes)?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            Ok(())
        };
        let mut first = None;
        for &(name, header, bytes) in files {
            let path = dir.join(name);
            let result: io::Result<()> = make(&path, header, bytes);
            result.map_err(|error| GgufError::Write(error).at(&path))?;
            first.get_or_insert(path);
        }
        let first = first.ok_or_else(|| GgufError::Malformed("a model without a file".into()))?;
        Self::open(&first)
    }

    /// Keeps the files where they are, for as long as what is given back lives.
    pub fn lease(&self) -> Result<Lease, GgufError> {
        Lease::of(self.files.iter().map(|file| file.path.as_path()))
    }

    /// Opens the files again, to read weights. Fails where one is not what it was.
    pub fn open_files(&self) -> Result<Vec<File>, GgufError> {
        let open = |known: &SourceFile| {
            let file = File::open(&known.path).map_err(GgufError::Read)?;
            let metadata = file.metadata().map_err(GgufError::Read)?;
            if Stamp::of(&metadata).map_err(GgufError::Read)? != known.stamp {
                return Err(GgufError::Changed);
            }
            Ok(file)
        };
        self.files
            .iter()
            .map(|known| open(known).map_err(|error| error.at(&known.path)))
            .collect()
    }
}

fn open_part(path: &Path) -> Result<(Header, SourceFile), GgufError> {
    let read = || {
        // Asked before opening, because to open a pipe waits for its writer.
        if !fs::metadata(path).map_err(GgufError::Read)?.is_file() {
            return Err(GgufError::NotAFile);
        }
        let mut file = File::open(path).map_err(GgufError::Read)?;
        let metadata = file.metadata().map_err(GgufError::Read)?;
        let stamp = Stamp::of(&metadata).map_err(GgufError::Read)?;
        Ok((Header::read(&mut file)?, stamp))
    };
    let (header, stamp) = read().map_err(|error| error.at(path))?;
    let path = path.to_owned();
    Ok((header, SourceFile { path, stamp }))
}

/// What stands before `-00001-of-00003.gguf` in the name of a part of a model in `count` files.
pub fn split_prefix(path: &Path, count: u32) -> Option<&str> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let stem = stem.strip_suffix(&format!("-of-{count:05}"))?;
    let (prefix, number) = stem.rsplit_once('-')?;
    let number = (number.len() >= 5).then(|| number.parse::<u32>().ok())??;
    (1..=count).contains(&number).then_some(prefix)
}

fn is_not_found(error: &GgufError) -> bool {
    match error {
        GgufError::InFile { error, .. } => is_not_found(error),
        GgufError::Read(error) => error.kind() == io::ErrorKind::NotFound,
        _ => false,
    }
}
