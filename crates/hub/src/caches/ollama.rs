//! The models of Ollama: a manifest for each name, which says by its hash what the weights are.
//!
//! ```text
//! manifests/registry.ollama.ai/library/NAME/TAG
//! blobs/sha256-…
//! ```

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Kept, Program, inside};

/// Where names lead that say nothing else.
const REGISTRY: &str = "registry.ollama.ai";
const LIBRARY: &str = "library";
const LATEST: &str = "latest";

/// The kind of layer that is a GGUF file.
const WEIGHTS: &str = "application/vnd.ollama.image.model";

/// The most of a manifest; real ones have a kilobyte.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;

/// A model by its name for Ollama.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OllamaModel {
    /// `host/namespace/name`, the last of these or the last two.
    pub name: String,
    /// Without it `latest`.
    pub tag: Option<String>,
}

impl fmt::Display for OllamaModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ollama:{}", self.name)?;
        match &self.tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
struct Manifest {
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: String,
    size: u64,
}

/// A model of this name.
pub(super) fn find(root: &Path, model: &OllamaModel) -> Option<Kept> {
    let parts: Vec<&str> = model.name.split('/').collect();
    let [host, space, name] = match parts[..] {
        [name] => [REGISTRY, LIBRARY, name],
        [space, name] => [REGISTRY, space, name],
        [host, space, name] => [host, space, name],
        _ => return None,
    };
    let tag = model.tag.as_deref().unwrap_or(LATEST);
    let manifest = root
        .join("manifests")
        .join(host)
        .join(space)
        .join(name)
        .join(tag);
    kept(root, &manifest, model.to_string())
}

/// All models.
pub(super) fn all(root: &Path) -> Vec<Kept> {
    let mut all = Vec::new();
    for (host, folder) in inside(&root.join("manifests")) {
        for (space, folder) in inside(&folder) {
            for (name, folder) in inside(&folder) {
                let name = match (host.as_str(), space.as_str()) {
                    (REGISTRY, LIBRARY) => name,
                    (REGISTRY, space) => format!("{space}/{name}"),
                    (host, space) => format!("{host}/{space}/{name}"),
                };
                for (tag, manifest) in inside(&folder) {
                    let model = OllamaModel {
                        name: name.clone(),
                        tag: (tag != LATEST).then_some(tag),
                    };
                    all.extend(kept(root, &manifest, model.to_string()));
                }
            }
        }
    }
    all
}

/// What a manifest names, if all of it is here.
fn kept(root: &Path, manifest: &Path, reference: String) -> Option<Kept> {
    if fs::metadata(manifest).ok()?.len() > MAX_MANIFEST_BYTES {
        return None;
    }
    let manifest: Manifest = serde_json::from_slice(&fs::read(manifest).ok()?).ok()?;
    let mut weights = manifest
        .layers
        .iter()
        .filter(|layer| layer.media_type == WEIGHTS);
    let (Some(layer), None) = (weights.next(), weights.next()) else {
        return None;
    };
    let path = blob(root, &layer.digest)?;
    // What is unfinished has another name, and a size all the same.
    (fs::metadata(&path).ok()?.len() == layer.size).then_some(Kept {
        by: Program::Ollama,
        reference,
        path,
        bytes: layer.size,
    })
}

fn blob(root: &Path, digest: &str) -> Option<PathBuf> {
    let hash = digest.strip_prefix("sha256:")?;
    let is_hash = hash.len() == 64 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then(|| root.join("blobs").join(format!("sha256-{hash}")))
}
