//! The record beside a stage's files that says whether they are still valid.

use std::fs::{self, File};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Layers, Source, Stamp};

/// Goes up whenever the same model and layers give other bytes.
const SLICER_VERSION: u32 = 1;
const SCHEMA: &str = "brigade.stage/1";
/// No manifest is longer.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    schema: String,
    slicer: u32,
    layers: Layers,
    source: Vec<Part>,
    outputs: Vec<Output>,
    /// Where the model lay, for people: a file that moves is the same model.
    #[serde(default)]
    pub(super) path: Option<String>,
}

/// A file of the model that was cut.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    header_blake3: String,
    stamp: Stamp,
}

/// A file that was written.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Output {
    name: String,
    stamp: Stamp,
    blake3: String,
}

impl Output {
    pub(super) fn new(name: &str, stamp: Stamp, hash: blake3::Hash) -> Self {
        Self {
            name: name.into(),
            stamp,
            blake3: hash.to_hex().to_string(),
        }
    }

    /// A file with the recorded size and time is taken for what was written; one with another
    /// time, such as a copy, is read.
    fn is_valid(&self, dir: &Path) -> bool {
        let path = dir.join(&self.name);
        let Ok(stamp) = fs::metadata(&path).and_then(|metadata| Stamp::of(&metadata)) else {
            return false;
        };
        if stamp == self.stamp {
            return true;
        }
        let same = || {
            let mut hasher = blake3::Hasher::new();
            hasher.update_reader(File::open(&path).ok()?).ok()?;
            Some(hasher.finalize().to_hex().as_str() == self.blake3)
        };
        stamp.bytes == self.stamp.bytes && same() == Some(true)
    }
}

impl Manifest {
    pub(super) fn new(source: &Source, layers: Layers, outputs: Vec<Output>) -> Self {
        Self {
            schema: SCHEMA.into(),
            slicer: SLICER_VERSION,
            layers,
            source: parts(source),
            outputs,
            // Of what was fetched, the header alone lies somewhere.
            path: (!source.is_hollow()).then(|| source.path().to_string_lossy().into_owned()),
        }
    }

    /// The names of the stage's files.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &str> {
        self.outputs.iter().map(|output| output.name.as_str())
    }

    /// The manifest in a file; none where it cannot be understood, for it can be made again.
    pub(super) fn load(path: &Path) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > MAX_BYTES {
            return None;
        }
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).expect("strings and numbers have a JSON form")
    }

    /// Whether the files in `dir` are what cutting `layers` out of `source` would give.
    pub(super) fn is_valid(&self, source: &Source, layers: Layers, dir: &Path) -> bool {
        let stem = super::stem(layers);
        let mut names = vec![format!("{stem}.gguf")];
        if layers.is_first() {
            names.push(format!("{stem}.embd.gguf"));
        }
        self.schema == SCHEMA
            && self.slicer == SLICER_VERSION
            && self.layers == layers
            && self.source == parts(source)
            && self.outputs.iter().map(|output| &output.name).eq(&names)
            && self.outputs.iter().all(|output| output.is_valid(dir))
    }
}

fn parts(source: &Source) -> Vec<Part> {
    let headers = source.model().parts();
    headers
        .iter()
        .zip(source.files())
        .map(|(header, file)| Part {
            header_blake3: header.hash().to_hex().to_string(),
            stamp: file.stamp,
        })
        .collect()
}
