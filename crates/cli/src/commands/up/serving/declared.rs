//! What shall be loaded, in a file of the state folder: after a power cut it comes back by itself.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use brigade_gguf::{Layers, Source};
use brigade_hub::ModelRef;
use brigade_node::Pin;
use serde::{Deserialize, Serialize};

use crate::control::LoadOrder;

/// A model that shall be loaded, with the stages that it was given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Declared {
    /// What requests call it.
    pub(super) name: String,
    pub(super) order: LoadOrder,
}

impl Declared {
    /// What it needs of a cache on this machine; nothing of files that are not here.
    pub(super) fn pins(&self, cache: &Path) -> impl Iterator<Item = Pin> {
        let LoadOrder {
            model,
            header,
            on,
            stages,
            ..
        } = &self.order;
        let named = match model {
            ModelRef::Path(path) => Some(path),
            _ => header.as_ref(),
        };
        // A node may have been given a path of its own.
        let paths = named
            .into_iter()
            .chain(on.iter().filter_map(|(_, path)| path.as_ref()));
        paths.filter_map(move |path| {
            let source = Source::open(path).ok()?;
            let layers = stages.iter().map(|stage| Layers::from(stage.layers));
            Some(Pin::new(&source, &self.name, cache, layers.collect()))
        })
    }
}

/// The file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
}

impl Store {
    pub(super) fn open(home: &Path) -> Self {
        Self {
            path: home.join("instances.json"),
        }
    }

    /// What was written last.
    pub(super) fn read(&self) -> anyhow::Result<Vec<Declared>> {
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", self.path.display()));
            }
        };
        serde_json::from_slice(&text).with_context(|| {
            format!(
                "{} cannot be read; without it, models that were loaded do not come back",
                self.path.display()
            )
        })
    }

    pub(super) fn write(&self, declared: &[Declared]) -> anyhow::Result<()> {
        brigade_node::write_private(&self.path, &serde_json::to_vec_pretty(declared)?)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }
}
