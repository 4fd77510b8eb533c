//! How a model's bytes come to the node that runs them.
//!
//! A model has a key, which stands for its headers and for the version of its files. Its weights
//! are divided into pieces (`brigade_gguf::pieces`), the same on every node. A node that is asked
//! for a stage and has no file of the model gets the headers from the coordinator, then the
//! pieces of its stage and no others: from the hub and from every node that has them, whichever
//! is faster (`fetch`). Of each piece the first that came is hashed, and the coordinator keeps
//! the hash (`ledger`); what comes later from anywhere must have it.
//!
//! Everything lies in the cache, in a folder for the key:
//!
//! ```text
//! fetched/NAME-KEY/model.json   what it is
//!                  hollow/      its headers, in files with holes for the weights
//!                  stages/      stage files
//!                  hashes       of pieces
//!                  whole/       its files, where all of them were wanted
//! ```

mod bring;
mod fetch;
mod holding;
mod ledger;
mod output;
pub(crate) mod peer;
pub(crate) mod places;
mod supply;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use brigade_gguf::Source;
use brigade_gguf::WriteLock;
use brigade_hub::{Client, RemoteFile, Resolved};
use serde::{Deserialize, Serialize};

use crate::NodeError;
use crate::cache::{Cache, Pin};
pub(crate) use bring::Brought;
pub(crate) use fetch::Fetching;
use fetch::deliver;
pub(crate) use holding::Holding;
use places::Places;

/// The folder in the cache.
pub(crate) const FETCHED: &str = "fetched";

/// The most bytes of a `model.json`.
const MAX_DESCRIPTION_BYTES: u64 = 1 << 20;

/// What a node is told of a model that it may not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Offer {
    /// The model's key.
    pub(crate) key: String,
    /// Its files' names.
    pub(crate) names: Vec<String>,
    /// Its files on servers, if they lie there.
    pub(crate) remote: Vec<RemoteFile>,
}

/// What lies in a folder of `fetched`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Description {
    schema: String,
    offer: Offer,
}

const SCHEMA: &str = "brigade.fetched/1";

/// Fetches a model from its servers as a whole, for a machine that is alone; what of it is in the
/// cache folder already is not fetched again. An error of `progress` ends it.
pub fn fetch_model(
    client: &Client,
    reference: &brigade_hub::ModelRef,
    cache: &Cache,
    mut progress: impl FnMut(crate::Progress) -> Result<(), NodeError>,
) -> Result<Source, NodeError> {
    let resolved = client.resolve(reference)?;
    let delivery = Delivery::new(client.clone(), cache.clone());
    delivery.fetch_whole(&resolved, |state| {
        progress(crate::Progress::Fetching {
            node: "this machine".to_owned(),
            done_bytes: state.done_bytes,
            total_bytes: state.total_bytes,
            bytes_per_second: state.bytes_per_second,
        })
    })
}

/// A daemon's part in deliveries.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) client: Client,
    folder: PathBuf,
    cache: Mutex<Cache>,
    /// Models whose whole files lie on this machine, by key.
    local: Mutex<HashMap<String, Arc<Source>>>,
}

impl Delivery {
    pub(crate) fn new(client: Client, cache: Cache) -> Self {
        Self {
            client,
            folder: cache.folder.clone(),
            cache: Mutex::new(cache),
            local: Mutex::default(),
        }
    }

    /// The cache, with what must stay in it now.
    pub(crate) fn cache(&self) -> Cache {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.clone()
    }

    /// Says what models that shall be loaded need.
    pub(crate) fn pin(&self, pins: Vec<Pin>) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.pins = pins;
    }

    /// The folder of a model.
    fn folder(&self, offer: &Offer) -> PathBuf {
        let name = offer.names.first().map_or("model", String::as_str);
        let name = name.strip_suffix(".gguf").unwrap_or(name);
        let name: String = name.chars().take(40).collect();
        let folder = format!("{name}-{}", offer.key.get(..16).unwrap_or(&offer.key));
        self.folder.join(FETCHED).join(folder)
    }

    /// Keeps the headers of a model that lies on servers; what is given back has no weights.
    pub(crate) fn keep(&self, resolved: &Resolved) -> Result<Source, NodeError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(resolved.model.identity().as_bytes());
        for file in &resolved.files {
            let version = file.version.as_deref().unwrap_or_default();
            hasher.update(&(version.len() as u64).to_le_bytes());
            hasher.update(version.as_bytes());
        }
        let names = resolved.files.iter().enumerate().map(|(index, file)| {
            // A query or a server may call a file anything.
            let name = file.location.file_name();
            if is_file_name(name) {
                name.to_owned()
            } else {
                format!("part-{}.gguf", index + 1)
            }
        });
        let offer = Offer {
            key: hasher.finalize().to_hex().to_string(),
            names: names.collect(),
            remote: resolved.files.clone(),
        };
        let sizes = resolved.files.iter().map(|file| file.bytes);
        let headers: Vec<_> = resolved.headers.iter().cloned().zip(sizes).collect();
        self.make(&offer, &headers)
    }

    /// Makes the folder of a model from its headers.
    fn make(&self, offer: &Offer, headers: &[(Vec<u8>, u64)]) -> Result<Source, NodeError> {
        let folder = self.folder(offer);
        let _lock = WriteLock::acquire(&folder, places::HEADER_LOCK)?;
        let files: Vec<(&str, &[u8], u64)> = offer
            .names
            .iter()
            .zip(headers)
            .map(|(name, (header, bytes))| (name.as_str(), header.as_slice(), *bytes))
            .collect();
        let source = Source::hollow(&folder, &files)?;
        let description = Description {
            schema: SCHEMA.to_owned(),
            offer: offer.clone(),
        };
        let path = Places::of(&folder).description;
        let failed = |error| NodeError::File {
            path: path.clone(),
            error,
        };
        let json = serde_json::to_vec_pretty(&description).map_err(|error| failed(error.into()))?;
        if fs::read(&path).ok().as_deref() != Some(&json) {
            let mut file = tempfile::NamedTempFile::new_in(&folder).map_err(failed)?;
            std::io::Write::write_all(&mut file, &json).map_err(failed)?;
            file.persist(&path).map_err(|error| failed(error.error))?;
        }
        Ok(source)
    }

    /// What other nodes are told of a model that this one loads, which can be had here from now on.
    pub(crate) fn offer(&self, source: &Source) -> Offer {
        if source.is_hollow()
            && let Some(folder) = source.path().ancestors().nth(2)
            && let Some(found) = described(folder)
        {
            return found;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(source.model().identity().as_bytes());
        for file in source.files() {
            hasher.update(&file.stamp.modified_ns.to_le_bytes());
        }
        let key = hasher.finalize().to_hex().to_string();
        self.local().insert(key.clone(), Arc::new(source.clone()));
        let name = |file: &brigade_gguf::SourceFile| {
            let name = file.path.file_name().unwrap_or_default();
            name.to_string_lossy().into_owned()
        };
        Offer {
            key,
            names: source.files().iter().map(name).collect(),
            remote: Vec::new(),
        }
    }

    /// A model's whole files lie here.
    pub(crate) fn have(&self, key: &str, source: Source) {
        self.local().insert(key.to_owned(), Arc::new(source));
    }

    fn local(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Source>>> {
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What this node has of a model.
    pub(crate) fn holding(&self, key: &str) -> Option<Holding> {
        if let Some(source) = self.local().get(key) {
            return Holding::whole(Arc::clone(source));
        }
        let short = key.get(..16)?;
        let folders = fs::read_dir(self.folder.join(FETCHED)).ok()?;
        let folder = folders.flatten().map(|entry| entry.path()).find(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.ends_with(&format!("-{short}")))
        })?;
        let offer = described(&folder).filter(|offer| offer.key == key)?;
        Holding::fetched(&folder, &offer)
    }
}

/// What lies in a folder of fetched models, as far as it can be read.
pub(crate) fn described(folder: &Path) -> Option<Offer> {
    let path = Places::of(folder).description;
    if fs::metadata(&path).ok()?.len() > MAX_DESCRIPTION_BYTES {
        return None;
    }
    let found: Description = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (found.schema == SCHEMA).then_some(found.offer)
}

/// Whether a name, which may come from elsewhere, is one of a file and leads nowhere else.
fn is_file_name(name: &str) -> bool {
    !name.starts_with('.')
        && (1..=200).contains(&name.len())
        && !name.contains(['/', '\\', ':', '\0'])
        && !name.chars().any(char::is_control)
}
