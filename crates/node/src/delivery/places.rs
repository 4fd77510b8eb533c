//! Where the parts of a model that is fetched lie in its folder.

use std::path::{Path, PathBuf};

/// Held by whoever fetches the whole model.
pub(crate) const WHOLE_LOCK: &str = ".whole.lock";

/// Held by whoever writes the headers.
pub(crate) const HEADER_LOCK: &str = ".header.lock";

/// The paths in the folder of a model.
#[derive(Debug)]
pub(crate) struct Places {
    /// What it is.
    pub(crate) description: PathBuf,
    /// Its headers, in files with holes for the weights.
    pub(crate) hollow: PathBuf,
    /// Stage files.
    pub(crate) stages: PathBuf,
    /// Hashes of pieces.
    pub(crate) hashes: PathBuf,
    /// Its files, where all of them were wanted.
    pub(crate) whole: PathBuf,
    /// The same while they are being fetched.
    pub(crate) begun: PathBuf,
}

impl Places {
    pub(crate) fn of(folder: &Path) -> Self {
        Self {
            description: folder.join("model.json"),
            hollow: folder.join("hollow"),
            stages: folder.join("stages"),
            hashes: folder.join("hashes"),
            whole: folder.join("whole"),
            begun: folder.join(".whole.fetch"),
        }
    }
}
