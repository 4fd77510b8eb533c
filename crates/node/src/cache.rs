//! The cache folder: where it is, what lies in it, and removing that.
//!
//! ```text
//! stages/NAME-HASH/   stage files that were cut out of files of this machine
//! fetched/NAME-KEY/   what came from servers and other nodes, see `delivery`
//! models/             files that others put there, such as `cargo demo`
//! ```

mod contents;
mod limit;

use std::path::PathBuf;

use crate::NodeError;
pub use contents::{CachedModel, CachedPart, Came, Removed, What, Why, cached, remove_cached};
pub use limit::{Cache, Pin};

/// The folder of stages in the cache.
pub(crate) const STAGES: &str = "stages";

/// The folder of models that others put into the cache.
const PUT: &str = "models";

/// The cache folder: `BRIGADE_CACHE`, else the platform's cache folder for `brigade`.
pub fn cache_dir() -> Result<PathBuf, NodeError> {
    let folder = find()?;
    match folder.to_str() {
        Some(_) => Ok(folder),
        None => Err(NodeError::CacheName(folder)),
    }
}

fn find() -> Result<PathBuf, NodeError> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = variable("BRIGADE_CACHE") {
        return Ok(folder.into());
    }
    // The XDG specification says to ignore a relative path.
    let xdg = variable("XDG_CACHE_HOME").map(PathBuf::from);
    if let Some(folder) = xdg.filter(|folder| folder.is_absolute()) {
        return Ok(folder.join("brigade"));
    }
    let home = PathBuf::from(variable("HOME").ok_or(NodeError::NoCache)?);
    Ok(if cfg!(target_os = "macos") {
        home.join("Library/Caches/brigade")
    } else {
        home.join(".cache/brigade")
    })
}
