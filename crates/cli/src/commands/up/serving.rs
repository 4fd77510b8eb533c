//! The models that a daemon serves.

mod cluster;
mod declared;
mod models;
mod slot;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_api::Settings;
use brigade_fit::catalog::Catalog;
use brigade_fit::model::Model;
use brigade_gguf::Source;
use brigade_hub::ModelRef;
use brigade_node::{Daemon, Host, NodeState, NodeView};
use tokio::sync::mpsc;

use crate::control::{LoadOrder, Running};
use crate::model::{self, Engine};
use crate::output::Told;
use crate::placing::{self, Choice, Placed};
use crate::server::Server;
use cluster::Announced;
use declared::{Declared, Store};
use models::Models;
use slot::Slot;

/// How the API is served, whatever the models.
#[derive(Debug)]
pub(super) struct Api {
    pub(super) listener: TcpListener,
    pub(super) settings: Settings,
    /// Another chat template than the models' own.
    pub(super) template: Option<String>,
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
        Ok(Self {
            shared,
            server: Mutex::new(Some(server)),
        })
    }

    /// What the planner says of a model.
    pub(super) fn plan(&self, order: &LoadOrder) -> anyhow::Result<Placed> {
        let source = self.shared.open(order)?;
        Ok(Placed {
            header: kept(&source),
            ..self.place(order, &source)?
        })
    }

    fn place(&self, order: &LoadOrder, source: &Source) -> anyhow::Result<Placed> {
        let shared = &self.shared;
        let context = model::context(source, order.context)?;
        let hosts = self.named(order)?;
        let (placement, remark) = model::placement(source, 1, order.engine)?;
        if Engine::of(&placement) == Engine::LlamaRpc {
            return Ok(placing::spread(&hosts, remark));
        }
        let fit = Model::from_gguf(source.model(), &model::name(source))?;
        let quant = fit.quants.first().map(|quant| quant.name.clone());
        let nodes = self.known_nodes();
        let cluster = placing::cluster(
            &nodes,
            &shared.daemon.links(),
            &shared.catalog,
            order.threads,
        );
        if cluster.0.nodes.is_empty() {
            bail!("this node has not seen yet what machine it is: try again in a moment");
        }
        let id = |host: &Host| host.key.id().to_string();
        let choice = if !order.given.is_empty() {
            let given = order
                .given
                .iter()
                .map(|(node, (start, end))| Ok((id(&self.host(node)?), *start..*end)));
            Choice::Given(given.collect::<anyhow::Result<_>>()?)
        } else if order.on.is_empty() {
            Choice::Planner
        } else {
            let mut ids = Vec::new();
            for host in hosts {
                let id = id(&host);
                if ids.contains(&id) {
                    bail!(
                        "{} is named twice: a node has one stage of a model",
                        host.name
                    );
                }
                ids.push(id);
            }
            Choice::All(ids)
        };
        let ask = placing::ask(context, order.decoding.streams, quant);
        placing::place(&shared.catalog, &fit, &cluster, &ask, &choice)
    }

    /// The nodes; those that are up and have not yet said what machine they are get a moment.
    fn known_nodes(&self) -> Vec<NodeView> {
        let until = Instant::now() + INTRODUCTION;
        loop {
            let nodes = self.shared.daemon.nodes();
            let is_unknown = |node: &NodeView| {
                let about = node
                    .facts
                    .as_ref()
                    .is_none_or(|facts| facts.about.is_empty());
                about && (node.is_self || node.state == NodeState::Up)
            };
            if !nodes.iter().any(is_unknown) || Instant::now() > until {
                return nodes;
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The nodes of `--on`, in its order; without it, every node that is up.
    fn named(&self, order: &LoadOrder) -> anyhow::Result<Vec<Host>> {
        match &order.on[..] {
            [] => return Ok(self.shared.daemon.hosts()),
            [(all, None)] if all == ALL => return Ok(self.shared.daemon.hosts()),
            _ => {}
        }
        order.on.iter().map(|(node, _)| self.host(node)).collect()
    }

    fn host(&self, asked: &str) -> anyhow::Result<Host> {
        let daemon = &self.shared.daemon;
        daemon.find_host(asked).with_context(|| {
            let hosts = daemon.hosts();
            let up: Vec<_> = hosts.iter().map(|host| host.name.as_str()).collect();
            format!("up are {}", up.join(", "))
        })
    }

    /// Starts a model on the cluster and serves it; `progress` gets lines for people.
    pub(super) fn load(
        &self,
        order: LoadOrder,
        progress: impl FnMut(String),
    ) -> anyhow::Result<Running> {
        let shared = &self.shared;
        let source = shared.open(&order)?;
        let name = model::name(&source);
        let placed = if order.stages.is_empty() {
            let placed = self.place(&order, &source)?;
            if let Some(reason) = placed.refusal {
                bail!("{reason}");
            }
            placed.stages
        } else {
            order.stages.clone()
        };
        let context = model::context(&source, order.context)?;
        order.decoding.check(&source)?;
        let slot = Slot::new(Declared {
            name: name.clone(),
            order: LoadOrder {
                context: Some(context),
                header: kept(&source),
                stages: placed,
                ..order
            },
        });
        let before = {
            let mut slots = shared.lock();
            let before = slots.iter().position(|known| known.name() == name);
            if let Some(index) = before
                && slots[index].is_in_use()
            {
                bail!("{name} is loaded here: `brigade unload` it first");
            }
            let before = before.map(|index| slots.swap_remove(index));
            slots.push(Arc::clone(&slot));
            before
        };
        if let Some(before) = before {
            before.stop();
        }
        shared.announce();
        let result = slot.load(shared, progress).and_then(|running| {
            shared.declare()?;
            Ok(running)
        });
        if result.is_err() {
            slot.stop();
            shared.lock().retain(|known| !Arc::ptr_eq(known, &slot));
            shared.announce();
            // What it took the place of is not wanted any more either.
            shared.declare()?;
        }
        result
    }

    /// Ends a model, the only one where none is named, and forgets it; returns its name.
    pub(super) fn unload(&self, asked: Option<&str>) -> anyhow::Result<String> {
        let shared = &self.shared;
        let slot = {
            let mut slots = shared.lock();
            let index = match (asked, slots.len()) {
                (_, 0) => bail!("no model is loaded here"),
                (None, 1) => Some(0),
                (None, _) => None,
                (Some(asked), _) => slots.iter().position(|slot| slot.name() == asked),
            };
            let Some(index) = index else {
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

/// How long a node that has just started may take to say what machine it is.
const INTRODUCTION: Duration = Duration::from_secs(20);

/// Stands for all nodes that are up.
const ALL: &str = "all";

/// Where the header of a model on servers was put.
fn kept(source: &Source) -> Option<PathBuf> {
    source.is_hollow().then(|| source.path().to_owned())
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A model's header: of the file, of this version if it was kept, or from its server.
    fn open(&self, order: &LoadOrder) -> anyhow::Result<Source> {
        let kept = order.header.as_ref();
        match (&order.model, kept.and_then(|path| model::open(path).ok())) {
            (ModelRef::Path(path), _) => model::open(path),
            (_, Some(kept)) => Ok(kept),
            (remote, None) => Ok(self.daemon.find_model(remote)?),
        }
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
        let slots = self.lock();
        let declared: Vec<_> = slots.iter().map(|slot| slot.declared()).collect();
        self.store.write(&declared)
    }
}
