//! What shall be loaded, in a file of the state folder: after a power cut it comes back by itself.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::control::LoadOrder;

/// A model that shall be loaded, with the stages that it was given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Declared {
    /// What requests call it.
    pub(super) name: String,
    pub(super) order: LoadOrder,
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
