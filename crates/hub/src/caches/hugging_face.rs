//! The cache of Hugging Face's tools:
//!
//! ```text
//! models--owner--name/refs/main               the commit that a branch was at
//!                     snapshots/COMMIT/FILE   links to what is complete
//!                     blobs/…                 contents, by hash
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use super::inside;
use crate::HubRef;

/// A repository at a commit.
pub(super) struct Snapshot {
    pub(super) repo: String,
    pub(super) commit: String,
    /// Whether the branch `main` was there when it was last looked at.
    pub(super) is_main: bool,
    pub(super) folder: PathBuf,
}

/// The folder of a repository's files at a commit.
pub(super) fn snapshot(root: &Path, repo: &str, commit: &str) -> PathBuf {
    folder(root, repo).join("snapshots").join(commit)
}

/// The folder of a repository's files at the revision that is meant.
pub(super) fn meant(root: &Path, hub: &HubRef) -> Option<PathBuf> {
    let revision = hub.revision.as_deref().unwrap_or("main");
    let commit = pointed(&folder(root, &hub.repo), revision);
    let commit = commit.unwrap_or_else(|| revision.to_owned());
    let found = snapshot(root, &hub.repo, &commit);
    // `refs/pr/1` is no folder here.
    (!commit.contains('/') && found.is_dir()).then_some(found)
}

/// All snapshots.
pub(super) fn snapshots(root: &Path) -> Vec<Snapshot> {
    let mut all = Vec::new();
    for (name, folder) in inside(root) {
        let repo = name
            .strip_prefix("models--")
            .and_then(|name| name.split_once("--"));
        let Some((owner, name)) = repo else {
            continue;
        };
        let main = pointed(&folder, "main");
        for (commit, files) in inside(&folder.join("snapshots")) {
            all.push(Snapshot {
                repo: format!("{owner}/{name}"),
                is_main: main.as_ref() == Some(&commit),
                commit,
                folder: files,
            });
        }
    }
    all
}

fn folder(root: &Path, repo: &str) -> PathBuf {
    root.join(format!("models--{}", repo.replace('/', "--")))
}

/// The commit that a branch or a tag was at.
fn pointed(folder: &Path, revision: &str) -> Option<String> {
    let path = folder.join("refs").join(revision);
    if fs::metadata(&path).ok()?.len() > 100 {
        return None;
    }
    let commit = fs::read_to_string(path).ok()?;
    let commit = commit.trim();
    let is_commit = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| commit.to_owned())
}
