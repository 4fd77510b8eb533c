//! Models that other programs have fetched to this machine, used where they lie.
//!
//! Only what is complete counts: Hugging Face's tools link a file into a snapshot when all of it is
//! there, LM Studio and Ollama call unfinished ones something else, and a header whose file is too
//! short is none. Nothing is written to these folders.

mod hugging_face;
mod ollama;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use brigade_gguf::Source;

use crate::pick::{self, Candidate};
use crate::reference::is_name;
use crate::repo::Listed;
use crate::{HubError, HubRef, Location, ModelRef};
pub use ollama::OllamaModel;

/// How deep GGUF files lie in a repository.
const MAX_DEPTH: usize = 4;

/// Folders in which other programs keep models; those that do not exist are empty.
#[derive(Debug, Clone, Default)]
pub struct Caches {
    /// Of Hugging Face's tools: with folders such as `models--owner--name`.
    pub hugging_face: Vec<PathBuf>,
    /// Of LM Studio: with folders `owner/name`.
    pub lm_studio: Vec<PathBuf>,
    /// Of Ollama: with the folders `manifests` and `blobs`.
    pub ollama: Vec<PathBuf>,
}

/// A program that keeps models.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Hugging Face's tools, and what is built on them.
    HuggingFace,
    /// LM Studio.
    LmStudio,
    /// Ollama.
    Ollama,
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HuggingFace => "Hugging Face",
            Self::LmStudio => "LM Studio",
            Self::Ollama => "Ollama",
        })
    }
}

/// A model that another program keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Who keeps it.
    pub by: Program,
    /// What finds it, as it can be typed.
    pub reference: String,
    /// Its first file.
    pub path: PathBuf,
    /// Bytes of all its files.
    pub bytes: u64,
}

impl Caches {
    /// A model that a name means, if it is here; a path or an address means none. Fails for a name
    /// that means this machine only, and for nothing on it.
    pub fn find(&self, reference: &ModelRef) -> Result<Option<Source>, HubError> {
        match reference {
            ModelRef::Path(_) | ModelRef::Url(_) => Ok(None),
            ModelRef::Hub(hub) => Ok(self.repositories(hub).find_map(|folder| {
                let picked = pick::pick(hub, &files(&folder)).ok()?;
                // What cannot be opened is fetched instead.
                Source::open(&folder.join(&picked.paths[0])).ok()
            })),
            ModelRef::Ollama(name) => {
                let found = self.ollama.iter().find_map(|root| ollama::find(root, name));
                let found = found.ok_or_else(|| HubError::NotInOllama {
                    asked: name.to_string(),
                    there: self.ollama().map(|kept| kept.reference).collect(),
                })?;
                let source = Source::open(&found.path).map_err(|error| HubError::Gguf {
                    place: name.to_string(),
                    error,
                })?;
                Ok(Some(source))
            }
        }
    }

    /// A file of a hub's repository at a commit; none where another node's words lead elsewhere.
    pub fn find_file(&self, location: &Location) -> Option<PathBuf> {
        let Location::Hub { repo, commit, path } = location else {
            return None;
        };
        let mut parts = repo
            .split('/')
            .chain([commit.as_str()])
            .chain(path.split('/'));
        if !parts.all(is_name) {
            return None;
        }
        let snapshots = self.hugging_face.iter();
        let mut files = snapshots.map(|root| hugging_face::snapshot(root, repo, commit).join(path));
        files.find(|path| path.is_file())
    }

    /// What is here of a repository, whatever its quantization or revision.
    pub fn of_repository(&self, repo: &str) -> Vec<Kept> {
        let of = |kept: &Kept| match kept.reference.parse() {
            Ok(ModelRef::Hub(hub)) => hub.repo == repo,
            _ => false,
        };
        self.list().into_iter().filter(of).collect()
    }

    /// All that is here.
    pub fn list(&self) -> Vec<Kept> {
        let mut all: Vec<Kept> = self.hugging_face().collect();
        all.extend(self.lm_studio());
        all.extend(self.ollama());
        all
    }

    /// Folders with files of a repository, at the revision that is meant.
    fn repositories(&self, hub: &HubRef) -> impl Iterator<Item = PathBuf> {
        let snapshots = self
            .hugging_face
            .iter()
            .filter_map(move |root| hugging_face::meant(root, hub));
        // LM Studio keeps what was last there, and does not say of which revision.
        let rootless = hub.revision.is_none().then_some(&self.lm_studio);
        let folders = rootless
            .into_iter()
            .flatten()
            .map(move |root| root.join(&hub.repo));
        snapshots.chain(folders)
    }

    fn hugging_face(&self) -> impl Iterator<Item = Kept> {
        let roots = self.hugging_face.iter();
        roots
            .flat_map(|root| hugging_face::snapshots(root))
            .flat_map(|found| {
                let revision = (!found.is_main).then_some(found.commit);
                kept(
                    Program::HuggingFace,
                    &found.repo,
                    revision.as_deref(),
                    &found.folder,
                )
            })
    }

    fn lm_studio(&self) -> impl Iterator<Item = Kept> {
        let owners = self.lm_studio.iter().flat_map(|root| inside(root));
        let repos = owners.flat_map(|(owner, folder)| {
            let repos = inside(&folder).into_iter();
            repos.map(move |(name, folder)| (format!("{owner}/{name}"), folder))
        });
        repos.flat_map(|(repo, folder)| kept(Program::LmStudio, &repo, None, &folder))
    }

    fn ollama(&self) -> impl Iterator<Item = Kept> {
        self.ollama.iter().flat_map(|root| ollama::all(root))
    }
}

/// The models in a folder of a repository's files.
fn kept(by: Program, repo: &str, revision: Option<&str>, folder: &Path) -> Vec<Kept> {
    let files = files(folder);
    let kept = |(label, candidate): (String, Candidate)| Kept {
        by,
        reference: HubRef {
            repo: repo.to_owned(),
            quantization: Some(label),
            revision: revision.map(str::to_owned),
        }
        .to_string(),
        path: folder.join(&candidate.paths[0]),
        bytes: candidate.bytes,
    };
    pick::labelled(&files).into_iter().map(kept).collect()
}

/// The files below a folder, as a hub lists them.
fn files(folder: &Path) -> Vec<Listed> {
    let mut files = Vec::new();
    collect(folder, "", MAX_DEPTH, &mut files);
    files
}

fn collect(folder: &Path, before: &str, depth: usize, files: &mut Vec<Listed>) {
    for (name, path) in inside(folder) {
        // Links are followed; where one leads to is not there until it is complete.
        match fs::metadata(&path) {
            Ok(found) if found.is_file() => files.push(Listed {
                path: format!("{before}{name}"),
                size: Some(found.len()),
            }),
            Ok(_) if depth > 1 => collect(&path, &format!("{before}{name}/"), depth - 1, files),
            _ => {}
        }
    }
}

/// What lies in a folder, by name.
fn inside(folder: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named =
        entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())));
    let mut all: Vec<_> = named.filter(|(name, _)| !name.starts_with('.')).collect();
    all.sort();
    all
}

#[cfg(test)]
mod tests;
