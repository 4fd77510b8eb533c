//! The daemon: a node that trusts others, is trusted by them, and knows which of them are there.
//!
//! Every node keeps a connection to every other one, at each of its addresses, which it has opened
//! itself: a pulse goes out and one comes back. What a node sees of another rests on its own connection alone; what they
//! all see travels in the pulses, so that every node can show the same view. A connection that
//! closes is noticed at once, one that falls silent within [`SILENCE`].
//!
//! Threads block: one accepts, one keeps each peer, one serves each connection.

mod api;
mod delivering;
mod dialer;
mod gauge;
mod invites;
mod join;
mod links;
mod listener;
mod memory;
mod message;
mod nearby;
mod path;
mod probe;
mod roaming;
mod shared;
mod stages;
mod state;
mod tunnel;
mod view;

use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use brigade_gguf::Source;
use brigade_wire::NodeKey;
use brigade_wire::members::is_name;
use brigade_wire::token::Token;
use ring::rand::{SecureRandom, SystemRandom};

use crate::NodeError;
use crate::cache::{Cache, Pin};
use crate::delivery::{Delivery, Offer};
use crate::home::Home;
use crate::interfaces::{self, interfaces};
use crate::link::Link;
use crate::listen::{Listen, Ports};
use crate::worker::Job;
use message::Opening;
use shared::Shared;
use state::State;

pub use links::LinkView;
pub use memory::{Amount, Claim, Held};
pub use message::{Measured, NodeFacts, Refusal};
pub use nearby::NearbyNode;
pub(crate) use tunnel::Tunnel;
pub use view::{NodeState, NodeView};

/// Between two pulses.
const PULSE: Duration = Duration::from_millis(250);

/// A peer that has not answered a pulse for so long is gone: with the time between pulses under
/// the two seconds within which that must be noticed.
const SILENCE: Duration = Duration::from_millis(1200);

/// How long connecting to a node may take.
const CONNECT: Duration = Duration::from_secs(3);

/// The most addresses in a token, which people handle as one line.
const TOKEN_ADDRESSES: usize = 8;

/// How a daemon is started.
#[derive(Debug)]
pub struct DaemonConfig {
    /// The state folder.
    pub home: Home,
    /// What people call this node.
    pub name: String,
    /// Build of llama.cpp.
    pub build: String,
    /// Where stage files are kept.
    pub cache: Cache,
    /// What asks hubs and other servers for models.
    pub hub: brigade_hub::Client,
    /// Where nodes connect to: at one address, or at the unspecified one for all of this machine.
    /// Bound already, so that a port that is taken is found out first.
    pub listener: TcpListener,
    /// The ports of stages; without them any that the system gives.
    pub stage_ports: Option<Ports>,
    /// Whether it announces itself on the local networks and listens for others.
    pub discovery: Discovery,
}

/// Whether nodes of the local networks find each other by multicast DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discovery {
    /// They do, where the node listens beyond loopback.
    On,
    /// Only addresses that are known are tried.
    Off,
}

/// A running daemon; dropping it ends its part in the cluster.
pub struct Daemon {
    shared: Arc<Shared>,
    /// The announcing of this node.
    mdns: Option<mdns_sd::ServiceDaemon>,
}

/// A node to run a stage on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// Who it is.
    pub key: NodeKey,
}

impl Daemon {
    /// Starts to listen and to look after the cluster of the state folder; a new folder is a
    /// cluster of one.
    pub fn start(config: DaemonConfig) -> Result<Self, NodeError> {
        let listen = config
            .listener
            .local_addr()
            .map_err(|error| NodeError::Daemon(format!("cannot listen: {error}")))?;
        if !is_name(&config.name) {
            return Err(NodeError::Daemon(Refusal::BadName.to_string()));
        }
        let own = config.home.identity().public();
        let interfaces = interfaces().map_err(|error| {
            NodeError::Daemon(format!("this machine's interfaces cannot be read: {error}"))
        })?;
        let addresses = interfaces::told(&interfaces, listen);
        let mut members = config.home.members()?;
        if members.get(own).is_none() {
            members.admit(own, &config.name, &addresses);
        }
        members.renew(own, &config.name, &addresses);
        config.home.keep_members(&members)?;
        let mut boot = [0; 8];
        SystemRandom::new()
            .fill(&mut boot)
            .map_err(|_| NodeError::Daemon("the operating system has no randomness".to_owned()))?;
        let shared = Arc::new(Shared {
            home: config.home,
            name: config.name,
            build: config.build,
            cache: config.cache.folder.clone(),
            delivery: Delivery::new(config.hub, config.cache),
            listen,
            stage_ports: config.stage_ports,
            boot: u64::from_le_bytes(boot),
            start: Instant::now(),
            state: Mutex::new(State::new(members, interfaces, u64::from_le_bytes(boot))),
            changed: Condvar::new(),
            bursting: Arc::default(),
            stopping: AtomicBool::new(false),
            api: OnceLock::new(),
        });
        let accepting = Arc::clone(&shared);
        let listener = config.listener;
        thread::spawn(move || listener::run(&accepting, &listener));
        if listen.ip().is_unspecified() {
            let roaming = Arc::clone(&shared);
            thread::spawn(move || roaming::run(&roaming));
        }
        shared.keep_dialing();
        let mdns = (config.discovery == Discovery::On && !listen.ip().is_loopback())
            .then(|| nearby::start(&shared))
            .transpose()
            // Addresses that are known still work.
            .inspect_err(|error| tracing::warn!(%error, "nodes nearby cannot be looked for"))
            .unwrap_or_default();
        Ok(Self { shared, mdns })
    }

    /// The state folder.
    pub fn home(&self) -> &std::path::Path {
        self.shared.home.folder()
    }

    /// Says what models that shall be loaded need of the cache, from now on, and drops what is above its
    /// limit.
    pub fn pin(&self, pins: Vec<Pin>) {
        self.shared.delivery.pin(pins);
        if let Err(error) = self.cache_rules().make_room(0) {
            tracing::warn!(%error, "the cache has more than it may have");
        }
    }

    /// The cache with its limit.
    pub fn cache_rules(&self) -> Cache {
        self.shared.delivery.cache()
    }

    /// Where stage files are kept.
    pub fn cache(&self) -> &std::path::Path {
        &self.shared.cache
    }

    /// Where it listens: at one address, or at the unspecified one for all of this machine.
    pub fn listens(&self) -> SocketAddr {
        self.shared.listen
    }

    /// The addresses that it tells others, the likeliest to be reached first.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.shared.addresses(&self.shared.lock())
    }

    /// Makes a token that lets one node in, once, within `life`.
    pub fn invite(&self, life: Duration) -> Token {
        let expires = self.shared.now() + life;
        let mut state = self.shared.lock();
        let mut addresses = self.shared.addresses(&state);
        addresses.truncate(TOKEN_ADDRESSES);
        Token {
            inviter: self.shared.own().public(),
            addresses,
            secret: state.invites.make(expires),
        }
    }

    /// Takes a node's membership back; returns its name. All of its connections end.
    pub fn forget(&self, asked: &str) -> Result<String, NodeError> {
        let shared = &self.shared;
        let mut state = shared.lock();
        let member = state.members.find(asked)?;
        let (key, name) = (member.key, member.name.clone());
        if key == shared.own().public() {
            return Err(NodeError::Daemon(format!(
                "'{name}' is this node: forget it on another one"
            )));
        }
        state.members.forget(key);
        state.peer(key).cut();
        shared.keep(&state)?;
        drop(state);
        shared.changed.notify_all();
        Ok(name)
    }

    /// Tells the cluster of this machine: `about` is for whoever plans, and not read here; of the
    /// memory, models may take `limits`.
    pub fn tell(&self, about: String, limits: Vec<Amount>) {
        let mut state = self.shared.lock();
        state.memory.limit(limits);
        if state.about != about {
            state.about = about;
            state.news();
        }
    }

    /// Tells the cluster of the models that this node coordinates, in words for gateways.
    pub fn tell_models(&self, models: String) {
        let mut state = self.shared.lock();
        if state.models != models {
            state.models = models;
            state.news();
        }
    }

    /// What of this machine's memory is taken.
    pub fn held(&self) -> Vec<Held> {
        self.shared.lock().memory.held()
    }

    /// Whether anything runs here or for this node elsewhere, or shall.
    pub fn is_busy(&self) -> bool {
        self.shared.lock().is_busy()
    }

    /// Waits for something that runs here or for this node elsewhere, or shall; returns whether it
    /// came within the time.
    pub fn wait_until_busy(&self, limit: Duration) -> bool {
        let shared = &self.shared;
        let idle = |state: &mut State| !state.is_busy();
        let waited = shared
            .changed
            .wait_timeout_while(shared.lock(), limit, idle);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.is_busy()
    }

    /// Waits until no node says any more that a model which this one had loaded holds memory there:
    /// a plan that is made then counts on all that is free.
    pub fn wait_until_free(&self, model: &str, limit: Duration) {
        let shared = &self.shared;
        let holds = |state: &mut State| {
            let (now, own) = (shared.now(), state.memory.held());
            let is_its = |held: &Held| held.model == model && held.coordinator == shared.name;
            let others = state.members.present().any(|member| {
                let facts = state.peek(member.key).and_then(|peer| peer.facts.as_ref());
                state.is_up(member.key, now)
                    && facts.is_some_and(|(_, facts)| facts.held.iter().any(is_its))
            });
            others || own.iter().any(is_its)
        };
        let waited = shared
            .changed
            .wait_timeout_while(shared.lock(), limit, holds);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// The cluster as this node sees it, by name.
    pub fn nodes(&self) -> Vec<NodeView> {
        let shared = &self.shared;
        view::nodes(&shared.lock(), shared.own().public(), shared.now())
    }

    /// The nodes that a stage can be placed on now, this one first, then by name.
    pub fn hosts(&self) -> Vec<Host> {
        let shared = &self.shared;
        let own = shared.own().public();
        let state = shared.lock();
        let mut hosts: Vec<_> = state
            .members
            .present()
            .filter(|member| member.key == own || state.is_up(member.key, shared.now()))
            .map(|member| Host {
                name: member.name.clone(),
                key: member.key,
            })
            .collect();
        hosts.sort_by(|a, b| (a.key != own, &a.name).cmp(&(b.key != own, &b.name)));
        hosts
    }

    /// One of [`hosts`](Self::hosts), by its name, its id or the beginning of its id.
    pub fn find_host(&self, asked: &str) -> Result<Host, NodeError> {
        let key = self.shared.lock().members.find(asked)?.key;
        let host = self.hosts().into_iter().find(|host| host.key == key);
        host.ok_or_else(|| NodeError::Daemon(format!("{asked} is not up")))
    }

    /// Whether there is such a node, up or not.
    pub fn is_member(&self, asked: &str) -> bool {
        self.shared.lock().members.find(asked).is_ok()
    }

    /// Asks a node to run something that takes this of its memory; its reports come over the link,
    /// which ends with the node.
    pub(crate) fn run_on(&self, host: &Host, job: Job, claim: Claim) -> Result<Link, NodeError> {
        self.shared.ask(host, &Opening::Run(job, claim))
    }

    /// Tells a node that the RPC servers of a model, which run there for this one, have their
    /// weights.
    pub(crate) fn filled(&self, host: &Host, model: &str) -> Result<(), NodeError> {
        let link = self.shared.ask(host, &Opening::Filled(model.to_owned()))?;
        // What is bound stays open otherwise.
        let _ = link.socket().shutdown(Shutdown::Both);
        Ok(())
    }

    /// Whether this is the daemon's own node.
    pub(crate) fn is_own(&self, host: &Host) -> bool {
        host.key == self.shared.own().public()
    }

    /// Finds a model in another program's cache; or else on servers, and keeps its headers: the source
    /// that is given back has no weights then, which the nodes get where they need them.
    pub fn find_model(&self, reference: &brigade_hub::ModelRef) -> Result<Source, NodeError> {
        let delivery = &self.shared.delivery;
        if let Some(source) = delivery.client.caches().find(reference)? {
            return Ok(source);
        }
        delivery.keep(&delivery.client.resolve(reference)?)
    }

    /// What other nodes are told of a model that this one loads.
    pub(crate) fn offer(&self, source: &Source) -> Offer {
        self.shared.delivery.offer(source)
    }

    /// Ends its part in the cluster; dropping it does the same.
    pub fn stop(&self) {
        let shared = &self.shared;
        if let Some(mdns) = &self.mdns
            && let Ok(ended) = mdns.shutdown()
        {
            // Others are told so, if that does not take long.
            let _ = ended.recv_timeout(PULSE);
        }
        shared.stopping.store(true, Ordering::Relaxed);
        shared.lock().cut_all();
        shared.changed.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&shared.reach(), PULSE);
    }

    /// Where one node of the cluster finds another one, at the other one's daemon.
    pub(crate) fn route(&self, from: &Host, to: &Host) -> Result<SocketAddr, NodeError> {
        self.shared
            .route(from.key, to.key)
            .ok_or_else(|| NodeError::Daemon(format!("{} does not reach {}", from.name, to.name)))
    }

    /// This node.
    pub(crate) fn here(&self) -> Host {
        Host {
            name: self.shared.name.clone(),
            key: self.shared.own().public(),
        }
    }

    /// Where the ends of a chain listen on this machine.
    pub(crate) fn chain_listen(&self) -> Listen {
        self.shared.chain_listen()
    }
}

impl fmt::Debug for Daemon {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Daemon")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
