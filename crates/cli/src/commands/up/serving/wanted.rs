//! Models that are loaded because a request names them: files of one folder, which the operator
//! fills. Nothing is fetched from elsewhere for a request, nothing is unloaded for it, and a fit that
//! needs somebody's word is refused, as nobody is asked.
//!
//! Whoever asks for a model that is on its way waits for it. On one node that is one load for all
//! who wait. Between nodes each first tells the others what it is about to load, as it does with
//! every model, and looks a moment later: of several with the same model the one with the first id
//! loads it, and the others pass their requests on. Nodes that do not see each other may both load it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use brigade_api::BackendError;
use brigade_hub::ModelRef;
use brigade_node::Host;
use tokio::sync::watch;

use super::cluster::Announced;
use super::{Shared, without_folder};
use crate::control::LoadOrder;
use crate::model::{self, Decoding, Engine};

/// Within so much time every node that is up has heard what another one is about to load: one that
/// says nothing for so long is lost.
const HEARD: Duration = Duration::from_millis(1500);

/// Between two looks at a model that is being loaded.
const LOOK: Duration = Duration::from_millis(20);

/// The ending of the files that can be named.
const ENDING: &str = "gguf";

/// The folder, and what is on its way from it.
#[derive(Debug)]
pub(crate) struct Shelf {
    folder: PathBuf,
    /// By the model's name.
    under_way: Mutex<HashMap<String, watch::Receiver<Option<Outcome>>>>,
    /// One is placed at a time, so that the next one sees what it has taken.
    turn: Mutex<()>,
}

type Outcome = Result<(), BackendError>;

/// How it is with a model that a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// It answers, here or elsewhere.
    Answers,
    /// It is being loaded for the first time.
    OnItsWay,
    /// It is to be loaded, and cannot answer for this reason.
    InTrouble(String),
    /// Nobody has heard of it.
    Nowhere,
}

impl Shelf {
    /// A folder that must be there; what is in it may change at any time.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Self> {
        let shown = folder.display();
        let folder = std::fs::canonicalize(folder)
            .with_context(|| format!("cannot open the folder {shown} of --load-on-request"))?;
        if !folder.is_dir() {
            bail!("{shown} is no folder: --load-on-request takes the one in which the models are");
        }
        Ok(Self {
            folder,
            under_way: Mutex::default(),
            turn: Mutex::default(),
        })
    }

    /// The file that requests call so. The name is compared with those that are there and never
    /// becomes a part of a path.
    fn find(&self, name: &str) -> Option<PathBuf> {
        let files = std::fs::read_dir(&self.folder).ok()?;
        let mut paths = files.filter_map(|entry| Some(entry.ok()?.path()));
        paths.find(|path| {
            path.extension().is_some_and(|ending| ending == ENDING) && model::name_of(path) == name
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Receiver<Option<Outcome>>>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// How it is with a model that a request names.
    pub(super) fn whereabouts(&self, name: &str) -> Whereabouts {
        let own = self.lock().iter().find(|slot| slot.name() == name).cloned();
        if let Some(slot) = own {
            return match slot.trouble() {
                None => Whereabouts::Answers,
                Some(_) if slot.is_on_its_way() => Whereabouts::OnItsWay,
                Some(trouble) => Whereabouts::InTrouble(trouble),
            };
        }
        match self.find_elsewhere(name) {
            None => Whereabouts::Nowhere,
            Some(lost) if lost.host.is_none() => {
                Whereabouts::InTrouble(format!("{}, which runs {name}, is not up", lost.node))
            }
            Some(other) if other.model.on_its_way => Whereabouts::OnItsWay,
            Some(other) => match other.model.trouble {
                None => Whereabouts::Answers,
                Some(trouble) => Whereabouts::InTrouble(trouble),
            },
        }
    }

    /// Sees to it that a model answers, if that may be.
    pub(super) async fn want(self: &Arc<Self>, name: &str) -> Outcome {
        let may_wait = self.shelf.is_some();
        match self.whereabouts(name) {
            Whereabouts::Answers => return Ok(()),
            Whereabouts::InTrouble(reason) => return Err(BackendError::Unavailable(reason)),
            Whereabouts::OnItsWay if !may_wait => {
                let reason = format!("{name} is being loaded");
                return Err(BackendError::Unavailable(reason));
            }
            Whereabouts::Nowhere if !may_wait => {
                return Err(BackendError::UnknownModel(name.to_owned()));
            }
            Whereabouts::OnItsWay | Whereabouts::Nowhere => {}
        }
        let Some(mut outcome) = self.bring_once(name) else {
            return Err(BackendError::UnknownModel(name.to_owned()));
        };
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(outcome)) => outcome.clone(),
            _ => Err(BackendError::Internal(format!(
                "{name} could not be loaded; the log of this node says why"
            ))),
        }
    }

    /// The one load of a model for all who ask, which goes on when nobody waits any more.
    fn bring_once(self: &Arc<Self>, name: &str) -> Option<watch::Receiver<Option<Outcome>>> {
        let mut under_way = self.shelf.as_ref()?.lock();
        if let Some(outcome) = under_way.get(name) {
            return Some(outcome.clone());
        }
        let (sender, outcome) = watch::channel(None);
        under_way.insert(name.to_owned(), outcome.clone());
        let (shared, name) = (Arc::clone(self), name.to_owned());
        tokio::task::spawn_blocking(move || {
            let Some(folder) = &shared.shelf else { return };
            let brought = shared.bring(folder, &name);
            if let Err(error) = &brought {
                tracing::info!(model = %name, %error, "not loaded for a request");
            }
            folder.lock().remove(&name);
            // Whoever asked may be gone.
            let _ = sender.send(Some(brought));
        });
        Some(outcome)
    }

    /// Waits for a model, or loads it where nobody else does.
    fn bring(self: &Arc<Self>, folder: &Shelf, name: &str) -> Outcome {
        loop {
            match self.whereabouts(name) {
                Whereabouts::Answers => return Ok(()),
                Whereabouts::InTrouble(reason) => return Err(BackendError::Unavailable(reason)),
                Whereabouts::OnItsWay => thread::sleep(LOOK),
                Whereabouts::Nowhere => {
                    let Some(path) = folder.find(name) else {
                        return Err(BackendError::UnknownModel(name.to_owned()));
                    };
                    let _turn = folder.turn.lock().unwrap_or_else(PoisonError::into_inner);
                    // While others had their turn, another node may have begun.
                    if matches!(self.whereabouts(name), Whereabouts::Nowhere) {
                        self.load_from(&path, name)?;
                    }
                }
            }
        }
    }

    /// Loads a file, unless another node is about to.
    fn load_from(self: &Arc<Self>, path: &Path, name: &str) -> Outcome {
        let broken = |error: anyhow::Error| {
            let reason = without_folder(&format!("{error:#}"), path);
            BackendError::Unavailable(format!("{name} could not be loaded: {reason}"))
        };
        let order = LoadOrder {
            model: ModelRef::Path(path.to_owned()),
            header: None,
            on: Vec::new(),
            context: None,
            decoding: Decoding::default(),
            threads: None,
            // llama.cpp's RPC is for those who ask for it: of some models that only it runs nobody
            // can say whether they fit.
            engine: Some(Engine::Stages),
            given: Vec::new(),
            stages: Vec::new(),
        };
        let source = model::open(path).map_err(broken)?;
        let placed = self.place(&order, &source).map_err(broken)?;
        let refused = match (placed.refusal, placed.question) {
            (Some(refusal), _) => Some(refusal),
            (None, Some(question)) => Some(format!(
                "{question}; `brigade load` asks whether it shall be loaded all the same"
            )),
            (None, None) => None,
        };
        if let Some(verdict) = refused {
            let model = name.to_owned();
            return Err(BackendError::DoesNotFit { model, verdict });
        }
        let slot = self
            .install(order, &source, placed.stages)
            .map_err(broken)?;
        if self.is_left_to_another(name) {
            self.drop_slot(&slot);
            return Ok(());
        }
        tracing::info!(model = %name, "loaded because a request names it");
        self.run(&slot, |_| {}).map_err(broken)?;
        Ok(())
    }

    /// Whether another node has the same model, or is about to and comes first. They have heard of
    /// this one's by then.
    fn is_left_to_another(&self, name: &str) -> bool {
        // This one is the first of them.
        let hosts = self.daemon.hosts();
        let [own, _, ..] = &hosts[..] else {
            return false;
        };
        thread::sleep(HEARD);
        let comes_first =
            |host: &Host, model: &Announced| !model.on_its_way || host.key.id() < own.key.id();
        self.elsewhere().iter().any(|other| {
            let host = other.host.as_ref();
            other.model.name == name && host.is_some_and(|host| comes_first(host, &other.model))
        })
    }
}
