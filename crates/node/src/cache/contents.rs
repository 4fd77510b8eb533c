//! What lies in the cache, by model.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use brigade_gguf::{Layers, Need, Removal, Stored, StoredStage, stored_stages};
use brigade_hub::RemoteFile;

use super::{Cache, PUT, STAGES};
use crate::NodeError;
use crate::delivery::places::{HEADER_LOCK, Places, WHOLE_LOCK};
use crate::delivery::{FETCHED, described};

/// What the cache has of one version of a model.
#[derive(Debug, Clone)]
pub struct CachedModel {
    /// Its own name in the cache.
    pub name: String,
    /// What its model is called, which others may be called too.
    pub model: String,
    /// How it came here.
    pub came: Came,
    /// What is there, stages in order.
    pub parts: Vec<CachedPart>,
    /// The folder of its stages.
    pub(super) stages: PathBuf,
}

/// How something came into the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// Cut out of a file of this machine, where that is known.
    Cut(Option<String>),
    /// From servers; or, where none is named, from other nodes.
    Fetched(Vec<RemoteFile>),
    /// Somebody put it there.
    Put,
}

/// Something in the cache that is used and removed by itself.
#[derive(Debug, Clone)]
pub struct CachedPart {
    /// What it is.
    pub what: What,
    /// Whether all of it is there.
    pub is_complete: bool,
    /// Its files.
    pub stored: Stored,
}

/// What a part is of its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// These layers.
    Stage(Layers),
    /// All of it.
    Whole,
    /// Its headers, in files with holes for the weights, and hashes of pieces.
    Header,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(layers) => layers.fmt(f),
            Self::Whole => f.write_str("whole"),
            Self::Header => f.write_str("header"),
        }
    }
}

/// What became of a model that was to be removed.
#[derive(Debug, Default)]
pub struct Removed {
    /// Parts that are gone.
    pub gone: Vec<String>,
    /// Bytes that are free now.
    pub freed_bytes: u64,
    /// Parts that stay.
    pub kept: Vec<(String, Why)>,
}

/// Why something stays in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Some process uses it.
    Used,
    /// It is being written or fetched.
    Written,
    /// A model that shall be loaded needs it.
    Declared,
}

impl Why {
    /// Why this stays now, if it does.
    pub fn of(cache: &Cache, model: &CachedModel, part: &CachedPart) -> Option<Self> {
        match part.stored.need() {
            Need::Unused => cache.is_pinned(model, part).then_some(Self::Declared),
            taken => Self::taken(taken),
        }
    }

    fn taken(need: Need) -> Option<Self> {
        match need {
            Need::Unused => None,
            Need::Used => Some(Self::Used),
            Need::Written => Some(Self::Written),
        }
    }
}

/// The models in the cache, by name.
pub fn cached(cache: &Path) -> Vec<CachedModel> {
    let all = cut(cache).chain(fetched(cache)).chain(put(cache));
    let mut models: Vec<_> = all.collect();
    models.retain(|model| !model.parts.is_empty());
    models.sort_by(|a, b| a.name.cmp(&b.name));
    models
}

fn cut(cache: &Path) -> impl Iterator<Item = CachedModel> {
    inside(&cache.join(STAGES)).map(|(name, folder)| {
        let stages = stored_stages(&folder);
        CachedModel {
            model: without_hash(&name),
            name,
            came: Came::Cut(stages.iter().find_map(|stage| stage.source.clone())),
            stages: folder,
            parts: stages.into_iter().map(CachedPart::from).collect(),
        }
    })
}

fn fetched(cache: &Path) -> impl Iterator<Item = CachedModel> {
    inside(&cache.join(FETCHED)).map(|(name, folder)| {
        let there = Places::of(&folder);
        let lock = |name| Some(folder.join(name));
        let existing = |paths: &[&PathBuf]| -> Vec<PathBuf> {
            let paths = paths.iter().filter(|path| path.exists());
            paths.map(|path| PathBuf::clone(path)).collect()
        };
        let stages = stored_stages(&there.stages);
        let mut parts: Vec<_> = stages.into_iter().map(CachedPart::from).collect();
        parts.push(CachedPart {
            what: What::Whole,
            is_complete: there.whole.exists(),
            stored: Stored {
                lock: lock(WHOLE_LOCK),
                paths: existing(&[&there.whole, &there.begun]),
            },
        });
        parts.push(CachedPart {
            what: What::Header,
            is_complete: true,
            stored: Stored {
                lock: lock(HEADER_LOCK),
                paths: existing(&[&there.description, &there.hollow, &there.hashes]),
            },
        });
        parts.retain(|part| !part.stored.paths.is_empty());
        CachedModel {
            model: without_hash(&name),
            name,
            came: Came::Fetched(described(&folder).map_or_else(Vec::new, |offer| offer.remote)),
            parts,
            stages: there.stages,
        }
    })
}

fn put(cache: &Path) -> impl Iterator<Item = CachedModel> {
    inside(&cache.join(PUT)).filter_map(|(file, path)| {
        let model = file.strip_suffix(".gguf")?.to_owned();
        let stored = Stored {
            lock: None,
            paths: vec![path],
        };
        Some(CachedModel {
            name: format!("{PUT}/{file}"),
            model,
            came: Came::Put,
            parts: vec![CachedPart {
                what: What::Whole,
                is_complete: true,
                stored,
            }],
            // It has none.
            stages: PathBuf::new(),
        })
    })
}

impl CachedPart {
    /// Bytes that it takes, or will take when it is complete.
    pub(super) fn reserved_bytes(&self) -> u64 {
        if self.is_complete {
            self.stored.disk_bytes()
        } else {
            self.stored.full_bytes()
        }
    }
}

impl From<StoredStage> for CachedPart {
    fn from(stage: StoredStage) -> Self {
        Self {
            what: What::Stage(stage.layers),
            is_complete: stage.is_complete,
            stored: stage.stored,
        }
    }
}

/// What lies in a folder, with names that can be shown.
fn inside(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}

/// A folder's name without what tells it from others of the same model.
fn without_hash(folder: &str) -> String {
    let is_hash =
        |text: &str| text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match folder.rsplit_once('-') {
        Some((model, hash)) if is_hash(hash) => model.to_owned(),
        _ => folder.to_owned(),
    }
}

/// Removes what a name means, as far as nobody needs it: a model of [`cached`], or a part of one as
/// `NAME/0..15`, `NAME/whole`. A model may be called by what others are called too, if there are none.
pub fn remove_cached(cache: &Cache, name: &str) -> Result<Removed, NodeError> {
    let models = cached(&cache.folder);
    let (model, part) = find(&models, name)?;
    let mut removed = Removed::default();
    for one in &model.parts {
        let shown = format!("{}/{}", model.name, one.what);
        let is_meant = match part {
            Some(part) => one.what.to_string() == part,
            // Of what else is here, the header is needed.
            None => one.what != What::Header || removed.kept.is_empty(),
        };
        if !is_meant {
            continue;
        }
        if cache.is_pinned(model, one) {
            let why = Why::of(cache, model, one).unwrap_or(Why::Declared);
            removed.kept.push((shown, why));
            continue;
        }
        let failed = |error: io::Error| NodeError::File {
            path: one.stored.paths.first().cloned().unwrap_or_default(),
            error,
        };
        match one.stored.remove().map_err(failed)? {
            Removal::Freed(bytes) => {
                removed.freed_bytes += bytes;
                removed.gone.push(shown);
            }
            Removal::Refused(need) => {
                removed
                    .kept
                    .extend(Why::taken(need).map(|why| (shown, why)));
            }
        }
    }
    Ok(removed)
}

fn find<'a>(
    models: &'a [CachedModel],
    asked: &'a str,
) -> Result<(&'a CachedModel, Option<&'a str>), NodeError> {
    if let Some(model) = models.iter().find(|model| model.name == asked) {
        return Ok((model, None));
    }
    let same: Vec<_> = models.iter().filter(|model| model.model == asked).collect();
    if let [model] = same[..] {
        return Ok((model, None));
    }
    let part = asked.rsplit_once('/').and_then(|(name, part)| {
        let model = models.iter().find(|model| model.name == name)?;
        let is_there = |one: &CachedPart| one.what != What::Header && one.what.to_string() == part;
        model
            .parts
            .iter()
            .any(is_there)
            .then_some((model, Some(part)))
    });
    part.ok_or_else(|| {
        let names: Vec<_> = same.iter().map(|model| model.name.clone()).collect();
        NodeError::NotCached {
            asked: asked.to_owned(),
            names,
        }
    })
}

#[cfg(test)]
mod tests {
    use brigade_gguf::testing::TinyModel;
    use brigade_gguf::{Source, prepare_stage};

    use super::*;

    struct Fixture {
        folder: tempfile::TempDir,
        source: Source,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join(PUT)).unwrap();
            let path = folder.path().join(PUT).join("tiny.gguf");
            TinyModel::llama(4).write(&path).unwrap();
            let source = Source::open(&path).unwrap();
            let fixture = Self { folder, source };
            for (folder, start, end) in [
                ("0123456789abcdef", 0, 2),
                ("0123456789abcdef", 2, 4),
                ("fedcba9876543210", 0, 3),
            ] {
                let dir = fixture.cache().join(STAGES).join(format!("tiny-{folder}"));
                prepare_stage(&fixture.source, Layers::new(start, end), &dir, |_, _| {}).unwrap();
            }
            fixture
        }

        fn cache(&self) -> &Path {
            self.folder.path()
        }

        fn unlimited(&self) -> Cache {
            Cache::unlimited(self.cache().to_owned())
        }

        fn names(&self) -> Vec<String> {
            let parts = |model: CachedModel| {
                let name = model.name;
                model
                    .parts
                    .into_iter()
                    .map(move |part| format!("{name}/{}", part.what))
            };
            cached(self.cache()).into_iter().flat_map(parts).collect()
        }
    }

    #[test]
    fn what_is_there_is_listed() {
        let fixture = Fixture::new();
        assert_eq!(
            fixture.names(),
            [
                "models/tiny.gguf/whole",
                "tiny-0123456789abcdef/0..2",
                "tiny-0123456789abcdef/2..4",
                "tiny-fedcba9876543210/0..3",
            ]
        );
        let models = cached(fixture.cache());
        assert!(models.iter().all(|model| model.model == "tiny"));
        let path = fixture.source.path().to_str().map(str::to_owned);
        assert_eq!(
            (&models[0].came, &models[1].came),
            (&Came::Put, &Came::Cut(path))
        );
        assert!(cached(&fixture.cache().join("none")).is_empty());
    }

    #[test]
    fn a_name_that_is_not_one_says_what_there_is() {
        let fixture = Fixture::new();
        let error = remove_cached(&fixture.unlimited(), "tiny")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "tiny may be models/tiny.gguf, tiny-0123456789abcdef, tiny-fedcba9876543210: name one"
        );
        for name in ["huge", "tiny-0123456789abcdef/0..4", "tiny/0..2", "..", ""] {
            let error = remove_cached(&fixture.unlimited(), name)
                .unwrap_err()
                .to_string();
            assert!(
                error.ends_with("is not in the cache: `brigade models` lists what is"),
                "{error}"
            );
        }
        assert_eq!(fixture.names().len(), 4);
    }

    #[test]
    fn a_part_goes_and_a_model_as_far_as_nobody_uses_it() {
        let fixture = Fixture::new();
        let removed = remove_cached(&fixture.unlimited(), "tiny-0123456789abcdef/2..4").unwrap();
        assert_eq!(removed.gone, ["tiny-0123456789abcdef/2..4"]);
        assert!(removed.freed_bytes > 0 && removed.kept.is_empty());

        let lease = fixture.source.lease().unwrap();
        let removed = remove_cached(&fixture.unlimited(), "models/tiny.gguf").unwrap();
        assert_eq!(
            removed.kept,
            [("models/tiny.gguf/whole".to_owned(), Why::Used)]
        );
        assert_eq!((removed.freed_bytes, removed.gone.len()), (0, 0));
        drop(lease);
        let removed = remove_cached(&fixture.unlimited(), "models/tiny.gguf").unwrap();
        assert_eq!(removed.freed_bytes, fixture.source.model().file_bytes());
        assert_eq!(
            fixture.names(),
            ["tiny-0123456789abcdef/0..2", "tiny-fedcba9876543210/0..3"]
        );
    }
}
