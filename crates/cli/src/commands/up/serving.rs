//! The models that a daemon serves.

mod cluster;
mod declared;
mod models;
mod place;
mod slot;
mod wanted;

use std::net::{SocketAddr, TcpListener};
use std::path::{MAIN_SEPARATOR, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::bail;
use brigade_api::Settings;
use brigade_fit::catalog::Catalog;
use brigade_gguf::Source;
use brigade_hub::ModelRef;
use brigade_node::{Daemon, Pin};
use tokio::sync::mpsc;

use crate::control::{LoadOrder, Running};
use crate::model;
use crate::output::Told;
use crate::placing::{Placed, PlacedStage};
use crate::server::Server;
use cluster::Announced;
use declared::{Declared, Store};
use models::Models;
use slot::Slot;
pub(super) use wanted::Shelf;

/// How the API is served, whatever the models.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) listener: TcpListener,
    pub(super) settings: Settings,
    /// Another chat template than the models' own.
    pub(super) template: Option<String>,
    /// What a request may name that is not loaded.
    pub(super) shelf: Option<Shelf>,
}

/// What the API serves.
#[derive(Debug)]
pub(super) struct Serving {
    shared: Arc<Shared>,
    server: Mutex<Option<Server>>,
}

/// What loading a model needs.
#[derive(Debug)]
struct Shared {
    daemon: Arc<Daemon>,
    catalog: Arc<Catalog>,
    api: SocketAddr,
    /// Another chat template than the models' own.
    template: Option<String>,
    shelf: Option<Shelf>,
    store: Store,
    slots: Mutex<Vec<Arc<Slot>>>,
}

impl Serving {
    /// Serves, and brings back what was declared before.
    pub(super) fn start(
        daemon: Arc<Daemon>,
        catalog: Arc<Catalog>,
        api: Api,
    ) -> anyhow::Result<Self> {
        let store = Store::open(daemon.home());
        let declared = store.read()?;
        let shared = Arc::new(Shared {
            daemon,
            catalog,
            api: api.listener.local_addr()?,
            template: api.template,
            shelf: api.shelf,
            store,
            slots: Mutex::new(Vec::new()),
        });
        let (send, inside) = mpsc::unbounded_channel();
        let models = Models(Arc::clone(&shared));
        let server = Server::start(api.listener, inside, models, api.settings)?;
        let runtime = server.runtime().clone();
        shared.daemon.open_api(move |socket| {
            let _runtime = runtime.enter();
            match cluster::asynchronous(socket) {
                // A server that has stopped takes no more, and the socket ends.
                Ok(socket) => drop(send.send(socket)),
                Err(error) => tracing::error!(%error, "a gateway's connection"),
            }
        });
        for declared in declared {
            let slot = Slot::new(declared);
            shared.lock().push(Arc::clone(&slot));
            slot.keep(&shared, |_| {});
        }
        shared.pin();
        Ok(Self {
            shared,
            server: Mutex::new(Some(server)),
        })
    }

    /// What the planner says of a model; unless it is a dry run, one that is not loaded here.
    pub(super) fn plan(&self, order: &LoadOrder, dry_run: bool) -> anyhow::Result<Placed> {
        self.shared.plan(order, dry_run)
    }

    /// Starts a model on the cluster and serves it; `progress` gets lines for people.
    pub(super) fn load(
        &self,
        order: LoadOrder,
        progress: impl FnMut(String),
    ) -> anyhow::Result<Running> {
        let shared = &self.shared;
        let source = shared.open(&order)?;
        let stages = if order.stages.is_empty() {
            let placed = shared.place(&order, &source)?;
            if let Some(reason) = placed.refusal {
                bail!("{reason}");
            }
            placed.stages
        } else {
            order.stages.clone()
        };
        let slot = shared.install(order, &source, stages)?;
        shared.run(&slot, progress)
    }

    /// Ends a model, the only one where none is named, and forgets it; returns its name.
    pub(super) fn unload(&self, asked: Option<&str>) -> anyhow::Result<String> {
        let shared = &self.shared;
        let slot = {
            let mut slots = shared.lock();
            let index = match (asked, slots.len()) {
                (None, 1) => Some(0),
                (None, _) => None,
                (Some(asked), _) => slots.iter().position(|slot| slot.name() == asked),
            };
            let Some(index) = index else {
                if let Some(other) = asked.and_then(|asked| shared.find_elsewhere(asked)) {
                    let (model, node) = (other.model.name, other.node);
                    bail!("{model} was loaded by {node}: `brigade unload` it there");
                }
                if slots.is_empty() {
                    bail!("no model is loaded here");
                }
                let names: Vec<_> = slots.iter().map(|slot| slot.name()).collect();
                let names = names.join(", ");
                match asked {
                    Some(asked) => bail!("no model {asked} is loaded here, but {names}"),
                    None => bail!("several models are loaded here, name one: {names}"),
                }
            };
            slots.remove(index)
        };
        shared.announce();
        // Not declared any more, before anything can take long.
        let declared = shared.declare();
        slot.unload(shared);
        declared?;
        Ok(slot.name().to_owned())
    }

    /// Answers a question with the model that is loaded, where there is one only; see
    /// [`Slot::answer`].
    pub(super) fn answer(
        &self,
        question: &str,
        max_tokens: u32,
        show: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<(usize, Told)> {
        let slot = match &self.shared.lock()[..] {
            [slot] => Arc::clone(slot),
            slots => bail!("{} models are loaded here, not one", slots.len()),
        };
        slot.answer(question, max_tokens, show)
    }

    /// The models that are loaded or shall be.
    pub(super) fn running(&self) -> Vec<Running> {
        let slots = self.shared.lock();
        slots
            .iter()
            .map(|slot| slot.running(&self.shared))
            .collect()
    }

    /// Models with a stage on a node, now forgotten, that was called so.
    pub(super) fn left_by(&self, node: &str) -> Vec<String> {
        let slots = self.shared.lock();
        let declared = slots.iter().map(|slot| slot.declared());
        let lack = declared.filter(|declared| {
            let lost = self.shared.lost_for_good(declared);
            lost.into_iter().any(|stage| stage.node == node)
        });
        lack.map(|declared| declared.name).collect()
    }

    /// Models that other nodes coordinate, with the nodes' names.
    pub(super) fn elsewhere(&self) -> Vec<(String, String)> {
        let others = self.shared.elsewhere().into_iter();
        others.map(|other| (other.model.name, other.node)).collect()
    }

    /// Ends everything, to come back at the next start. A model that is being loaded is not waited
    /// for: its processes end with the daemon.
    pub(super) fn stop(&self) {
        // First the models, so that answers in progress end with an error and not in silence.
        for slot in self.shared.lock().drain(..) {
            slot.stop();
        }
        let mut server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = server.take() {
            server.stop();
        }
    }
}

/// What the models that the daemon with this state folder shall load need of a cache.
pub(crate) fn pins(home: &Path, cache: &Path) -> anyhow::Result<Vec<Pin>> {
    let declared = Store::open(home).read()?;
    Ok(declared.iter().flat_map(|one| one.pins(cache)).collect())
}

/// Refuses what is loaded here already.
fn must_be_free(slots: &[Arc<Slot>], name: &str) -> anyhow::Result<()> {
    if slots
        .iter()
        .any(|slot| slot.name() == name && slot.is_in_use())
    {
        bail!("{name} is loaded here: `brigade unload` it first");
    }
    Ok(())
}

/// Where a model was found, or its header put, that was not named by a path.
fn kept(order: &LoadOrder, source: &Source) -> Option<PathBuf> {
    let is_path = matches!(order.model, ModelRef::Path(_));
    (!is_path).then(|| source.path().to_owned())
}

/// A text for clients: where the operator keeps a model is not for everybody.
fn without_folder(text: &str, model: &Path) -> String {
    match model.parent().and_then(Path::to_str) {
        Some(folder) if !folder.is_empty() => {
            text.replace(&format!("{folder}{MAIN_SEPARATOR}"), "")
        }
        _ => text.to_owned(),
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a model one of those that shall be loaded, and tells the cluster.
    fn install(
        &self,
        order: LoadOrder,
        source: &Source,
        stages: Vec<PlacedStage>,
    ) -> anyhow::Result<Arc<Slot>> {
        let name = model::name(source);
        let context = model::context(source, order.context)?;
        order.decoding.check(source)?;
        let slot = Slot::new(Declared {
            name: name.clone(),
            order: LoadOrder {
                context: Some(context),
                header: kept(&order, source),
                stages,
                ..order
            },
        });
        let before = {
            let mut slots = self.lock();
            must_be_free(&slots, &name)?;
            let before = slots.iter().position(|known| known.name() == name);
            let before = before.map(|index| slots.swap_remove(index));
            slots.push(Arc::clone(&slot));
            before
        };
        if let Some(before) = before {
            before.stop();
        }
        self.announce();
        Ok(slot)
    }

    /// Loads what was installed, and writes down that it is to come back.
    fn run(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        progress: impl FnMut(String),
    ) -> anyhow::Result<Running> {
        let result = slot.load(self, progress).and_then(|running| {
            self.declare()?;
            Ok(running)
        });
        if result.is_err() {
            self.drop_slot(slot);
            // What it took the place of is not wanted any more either.
            self.declare()?;
        }
        result
    }

    /// Forgets what was installed and does not run.
    fn drop_slot(&self, slot: &Arc<Slot>) {
        slot.stop();
        self.lock().retain(|known| !Arc::ptr_eq(known, slot));
        self.announce();
    }

    /// A model's header: of the file, of this version if it was found before, else of what another
    /// program has here, or from its server.
    fn open(&self, order: &LoadOrder) -> anyhow::Result<Source> {
        let kept = order.header.as_ref();
        match (&order.model, kept.and_then(|path| model::open(path).ok())) {
            (ModelRef::Path(path), _) => model::open(path),
            (_, Some(kept)) => Ok(kept),
            (remote, None) => Ok(self.daemon.find_model(remote)?),
        }
    }

    /// Stages on nodes that were forgotten.
    fn lost_for_good<'a>(&self, declared: &'a Declared) -> Vec<&'a PlacedStage> {
        let stages = declared.order.stages.iter();
        stages
            .filter(|stage| !self.daemon.is_member(&stage.id))
            .collect()
    }

    /// Tells the cluster which models this node coordinates, and how they are.
    fn announce(&self) {
        // With the lock held, so that what is told last is how things are.
        let slots = self.lock();
        let announced: Vec<_> = slots.iter().map(|slot| Announced::of(slot)).collect();
        match serde_json::to_string(&announced) {
            Ok(text) => self.daemon.tell_models(text),
            Err(error) => tracing::error!(%error, "the models cannot be told"),
        }
    }

    /// Writes down what is to come back.
    fn declare(&self) -> anyhow::Result<()> {
        let written = {
            let slots = self.lock();
            let declared: Vec<_> = slots.iter().map(|slot| slot.declared()).collect();
            self.store.write(&declared)
        };
        self.pin();
        written
    }

    /// Keeps what is to come back in the cache.
    fn pin(&self) {
        let declared: Vec<_> = self.lock().iter().map(|slot| slot.declared()).collect();
        let cache = self.daemon.cache();
        let pins = declared.iter().flat_map(|declared| declared.pins(cache));
        self.daemon.pin(pins.collect());
    }
}
