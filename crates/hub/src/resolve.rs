//! From a name to a model's files, with their headers.

use std::path::Path;

use brigade_gguf::{Model, split_prefix};
use serde::{Deserialize, Serialize};

use crate::client::Pace;
use crate::header::ReadHeader;
use crate::{Client, HubError, HubRef, ModelRef, header, pick, repo, url};

/// The most parts of a split model.
const MAX_PARTS: u32 = 999;

/// Where a file lies, for every node alike: each asks the hub of its own settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Location {
    /// Here.
    Url(String),
    /// In a hub's repository.
    Hub {
        /// `owner/name`.
        repo: String,
        /// The commit.
        commit: String,
        /// The path in the repository.
        path: String,
    },
}

impl Location {
    /// The address to ask for it at.
    pub(crate) fn url(&self, client: &Client) -> String {
        match self {
            Self::Url(url) => url.clone(),
            Self::Hub { repo, commit, path } => format!(
                "{}/{}/resolve/{commit}/{}",
                client.endpoint(),
                url::encode_path(repo),
                url::encode_path(path)
            ),
        }
    }

    /// The file's name.
    pub fn file_name(&self) -> &str {
        match self {
            Self::Url(address) => url::file_name(address),
            Self::Hub { path, .. } => path.rsplit('/').next().unwrap_or(path),
        }
    }
}

/// A file on a server, as it was when its header was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteFile {
    /// Where it lies.
    pub location: Location,
    /// Its size.
    pub bytes: u64,
    /// What the server calls this version of it: its `ETag`.
    pub version: Option<String>,
}

/// A model on servers: its headers, and where the rest can be had.
#[derive(Debug)]
pub struct Resolved {
    /// The name of its file, without the number of a part and the ending.
    pub name: String,
    /// The model.
    pub model: Model,
    /// Its files, in order.
    pub files: Vec<RemoteFile>,
    /// The bytes before the weights of each file.
    pub headers: Vec<Vec<u8>>,
    /// Bytes of files that were transferred.
    pub received_bytes: u64,
}

impl Client {
    /// Finds a model's files, and reads their headers; given any part of a split one by its URL,
    /// those of all parts.
    pub fn resolve(&self, reference: &ModelRef) -> Result<Resolved, HubError> {
        match reference {
            here @ (ModelRef::Path(_) | ModelRef::Ollama(_)) => {
                Err(HubError::NotRemote(here.to_string()))
            }
            ModelRef::Hub(hub) => self.resolve_hub(hub).map_err(|error| {
                let there = self.caches().of_repository(&hub.repo).into_iter();
                let there: Vec<_> = there.map(|kept| kept.reference).collect();
                if there.is_empty() {
                    return error;
                }
                HubError::ButHere {
                    error: Box::new(error),
                    there,
                }
            }),
            ModelRef::Url(at) => self.resolve_url(at),
        }
    }

    fn resolve_hub(&self, hub: &HubRef) -> Result<Resolved, HubError> {
        let listing = repo::list(self, hub)?;
        let picked = pick::pick(hub, &listing.files)?;
        let mut pace = Pace::new(self.patience());
        let mut read = Vec::new();
        for path in &picked.paths {
            let location = Location::Hub {
                repo: hub.repo.clone(),
                commit: listing.commit.clone(),
                path: path.clone(),
            };
            read.push(header::read(self, &mut pace, location)?);
        }
        let name = picked.name.rsplit('/').next().unwrap_or(&picked.name);
        join(name, &hub.to_string(), read, &pace)
    }

    fn resolve_url(&self, at: &str) -> Result<Resolved, HubError> {
        let at = url::direct(at);
        let mut pace = Pace::new(self.patience());
        let first = header::read(self, &mut pace, Location::Url(at.clone()))?;
        let count = first.header.get_u32("split.count").unwrap_or(1);
        let (path, query) = url::split_query(&at);
        let file = url::file_name(&at);
        let shown = url::shown(&at);
        if count <= 1 {
            let name = file.strip_suffix(".gguf").unwrap_or(file);
            return join(name, &shown, vec![first], &pace);
        }
        let prefix = split_prefix(Path::new(path), count).filter(|_| count <= MAX_PARTS);
        let Some(prefix) = prefix else {
            return Err(HubError::SplitName {
                place: shown,
                count,
            });
        };
        let folder = &path[..path.len() - file.len()];
        let mut first = Some(first);
        let mut read = Vec::new();
        for number in 1..=count {
            let part = format!("{folder}{prefix}-{number:05}-of-{count:05}.gguf{query}");
            match first.take_if(|_| part == at) {
                Some(header) => read.push(header),
                None => read.push(header::read(self, &mut pace, Location::Url(part))?),
            }
        }
        join(prefix, &shown, read, &pace)
    }
}

fn join(name: &str, named: &str, read: Vec<ReadHeader>, pace: &Pace) -> Result<Resolved, HubError> {
    let (mut parts, mut files, mut headers) = (Vec::new(), Vec::new(), Vec::new());
    for one in read {
        parts.push(one.header);
        files.push(one.file);
        headers.push(one.bytes);
    }
    let model = Model::from_headers(parts).map_err(|error| HubError::Gguf {
        place: named.to_owned(),
        error,
    })?;
    let mut name: String = name.chars().filter(|one| !one.is_control()).collect();
    if name.is_empty() {
        "model".clone_into(&mut name);
    }
    Ok(Resolved {
        name,
        model,
        files,
        headers,
        received_bytes: pace.bytes,
    })
}
