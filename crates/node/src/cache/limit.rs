//! Keeping the cache below a limit: what was used least recently goes, and never what is needed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use brigade_gguf::{Layers, Need, Removal, Source, WriteLock};
use serde::{Deserialize, Serialize};

use super::contents::{CachedModel, CachedPart, Came, What, cached};
use crate::NodeError;
use crate::node_process::stage_dir;

/// Held by whoever makes room, so that two do not drop twice as much.
const ROOM_LOCK: &str = ".room.lock";

/// A cache folder, and what may be kept in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cache {
    /// The folder.
    pub folder: PathBuf,
    /// The most bytes of models in it; without it, nothing is ever dropped.
    pub limit_bytes: Option<u64>,
    /// What is needed though nothing may run it now.
    pub pins: Vec<Pin>,
}

/// What a model that shall be loaded needs of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Where its stages lie.
    stages: PathBuf,
    /// Which of them are needed.
    layers: Vec<Layers>,
}

impl Pin {
    /// What these layers of a model, which is run by this name, need in a cache folder.
    pub fn new(source: &Source, name: &str, cache: &Path, layers: Vec<Layers>) -> Self {
        Self {
            stages: stage_dir(source, name, cache),
            layers,
        }
    }

    fn needs(&self, model: &CachedModel, part: &CachedPart) -> bool {
        self.stages == model.stages
            && match part.what {
                What::Stage(layers) => self.layers.contains(&layers),
                What::Whole | What::Header => true,
            }
    }
}

/// Something that could be dropped.
struct Candidate {
    name: String,
    part: CachedPart,
    bytes: u64,
    last_used: Option<SystemTime>,
}

impl Cache {
    /// One without a limit.
    pub fn unlimited(folder: PathBuf) -> Self {
        Self {
            folder,
            limit_bytes: None,
            pins: Vec::new(),
        }
    }

    /// Whether a model that shall be loaded needs this.
    pub fn is_pinned(&self, model: &CachedModel, part: &CachedPart) -> bool {
        self.pins.iter().any(|pin| pin.needs(model, part))
    }

    /// Drops what was used least recently, until so many bytes more are within the limit. Where that
    /// cannot be reached, nothing is dropped and an error says so.
    pub fn make_room(&self, wanted_bytes: u64) -> Result<(), NodeError> {
        let Some(limit_bytes) = self.limit_bytes else {
            return Ok(());
        };
        let _lock = WriteLock::acquire(&self.folder, ROOM_LOCK)?;
        let models = cached(&self.folder);
        let parts = models.iter().flat_map(|model| &model.parts);
        let mut used: u64 = parts.map(CachedPart::reserved_bytes).sum();
        let fits = |used: u64| used.saturating_add(wanted_bytes) <= limit_bytes;
        if fits(used) {
            return Ok(());
        }
        let mut candidates = self.candidates(&models);
        candidates.sort_by_key(|one| one.last_used);
        let droppable = candidates.iter().map(|one| one.bytes).sum();
        if !fits(used.saturating_sub(droppable)) {
            return Err(NodeError::CacheFull {
                wanted_bytes,
                limit_bytes,
                needed_bytes: used.saturating_sub(droppable),
            });
        }
        for one in candidates {
            if fits(used) {
                break;
            }
            let removed = one.part.stored.remove();
            match removed {
                Ok(Removal::Freed(_)) => {
                    used = used.saturating_sub(one.bytes);
                    tracing::info!(
                        part = one.name,
                        bytes = one.bytes,
                        limit_bytes,
                        "dropped from the cache, for it was used least recently"
                    );
                }
                // Somebody was faster.
                Ok(Removal::Refused(_)) => {}
                Err(error) => tracing::warn!(part = one.name, %error, "cannot be dropped"),
            }
        }
        Ok(())
    }

    /// What may go: not what others have put there, nor what is needed, nor the header of something
    /// that stays.
    fn candidates(&self, models: &[CachedModel]) -> Vec<Candidate> {
        let ours = models.iter().filter(|model| model.came != Came::Put);
        let mut candidates = Vec::new();
        for model in ours {
            for part in &model.parts {
                let alone = part.what != What::Header || model.parts.len() == 1;
                let unused = || part.stored.need() == Need::Unused;
                if alone && !self.is_pinned(model, part) && unused() {
                    candidates.push(Candidate {
                        name: format!("{}/{}", model.name, part.what),
                        bytes: part.reserved_bytes(),
                        last_used: part.stored.last_used(),
                        part: part.clone(),
                    });
                }
            }
        }
        candidates
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, FileTimes};
    use std::time::Duration;

    use brigade_gguf::prepare_stage;
    use brigade_gguf::testing::TinyModel;

    use super::*;

    /// Four stages of one layer each, the first of them used last.
    struct Fixture {
        folder: tempfile::TempDir,
        source: Source,
        bytes: u64,
    }

    impl Fixture {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("tiny.gguf");
            TinyModel::llama(4).write(&path).unwrap();
            let source = Source::open(&path).unwrap();
            let mut fixture = Self {
                folder,
                source,
                bytes: 0,
            };
            for start in 0..4 {
                let dir = stage_dir(&fixture.source, "tiny", fixture.cache());
                let layers = Layers::new(start, start + 1);
                let files = prepare_stage(&fixture.source, layers, &dir, |_, _| {}).unwrap();
                drop(files);
                for entry in fs::read_dir(&dir).unwrap() {
                    let path = entry.unwrap().path();
                    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                    if name.starts_with(&format!("{start}-")) {
                        let time = SystemTime::UNIX_EPOCH
                            + Duration::from_secs(1_700_000_000 - u64::from(start));
                        let file = File::options().write(true).open(&path).unwrap();
                        let times = FileTimes::new().set_accessed(time).set_modified(time);
                        file.set_times(times).unwrap();
                    }
                }
            }
            fixture.bytes = fixture.sizes().iter().map(|(_, bytes)| bytes).sum();
            fixture
        }

        fn cache(&self) -> &Path {
            self.folder.path()
        }

        fn with_limit(&self, limit_bytes: u64) -> Cache {
            Cache {
                limit_bytes: Some(limit_bytes),
                ..Cache::unlimited(self.cache().to_owned())
            }
        }

        fn sizes(&self) -> Vec<(String, u64)> {
            let models = cached(self.cache());
            let parts = models.iter().flat_map(|model| &model.parts);
            parts
                .map(|part| (part.what.to_string(), part.reserved_bytes()))
                .collect()
        }

        fn names(&self) -> Vec<String> {
            self.sizes().into_iter().map(|(name, _)| name).collect()
        }
    }

    #[test]
    fn without_a_limit_or_below_it_nothing_goes() {
        let fixture = Fixture::new();
        let unlimited = Cache::unlimited(fixture.cache().to_owned());
        unlimited.make_room(u64::MAX).unwrap();
        fixture
            .with_limit(fixture.bytes + 10)
            .make_room(10)
            .unwrap();
        assert_eq!(fixture.names(), ["0..1", "1..2", "2..3", "3..4"]);
    }

    #[test]
    fn what_was_used_least_recently_goes_first_and_no_more_than_needed() {
        let fixture = Fixture::new();
        fixture.with_limit(fixture.bytes).make_room(1).unwrap();
        assert_eq!(fixture.names(), ["0..1", "1..2", "2..3"]);
        // Whatever is used becomes the latest.
        let dir = stage_dir(&fixture.source, "tiny", fixture.cache());
        drop(prepare_stage(&fixture.source, Layers::new(2, 3), &dir, |_, _| {}).unwrap());
        let left = fixture.sizes().iter().map(|(_, bytes)| bytes).sum();
        fixture.with_limit(left).make_room(1).unwrap();
        assert_eq!(fixture.names(), ["0..1", "2..3"]);
    }

    #[test]
    fn what_is_used_or_shall_be_loaded_stays() {
        let fixture = Fixture::new();
        let dir = stage_dir(&fixture.source, "tiny", fixture.cache());
        let last = Layers::new(3, 4);
        let used = prepare_stage(&fixture.source, last, &dir, |_, _| {}).unwrap();
        let pin = Pin::new(
            &fixture.source,
            "tiny",
            fixture.cache(),
            vec![Layers::new(2, 3)],
        );
        let mut cache = fixture.with_limit(fixture.bytes);
        cache.pins = vec![pin];
        // Four times what the two others have is more than can be dropped.
        let error = cache.make_room(fixture.bytes).unwrap_err().to_string();
        assert!(error.contains("raise --cache-limit"), "{error}");
        assert_eq!(fixture.names().len(), 4);
        let kept: u64 = fixture.sizes()[2..].iter().map(|(_, bytes)| bytes).sum();
        cache.make_room(fixture.bytes - kept).unwrap();
        assert_eq!(fixture.names(), ["2..3", "3..4"]);
        drop(used);
        cache.pins.clear();
        cache.make_room(fixture.bytes).unwrap();
        assert!(fixture.names().is_empty());
    }

    #[test]
    fn what_others_put_there_counts_and_stays() {
        let fixture = Fixture::new();
        let put = fixture.cache().join("models/other.gguf");
        fs::create_dir(put.parent().unwrap()).unwrap();
        fs::write(&put, vec![0; 100]).unwrap();
        fixture.with_limit(100).make_room(0).unwrap();
        assert_eq!(fixture.names(), ["whole"]);
        assert!(fixture.with_limit(100).make_room(1).is_err());
        assert!(put.exists());
    }
}
