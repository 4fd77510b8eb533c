//! The daemon: a node that trusts others, is trusted by them, and knows which of them are there.
//!
//! Every node keeps a connection to every other one, which it has opened itself: a pulse goes out
//! and one comes back. What a node sees of another rests on its own connection alone; what they
//! all see travels in the pulses, so that every node can show the same view. A connection that
//! closes is noticed at once, one that falls silent within [`SILENCE`].
//!
//! Threads block: one accepts, one keeps each peer, one serves each connection.

mod dialer;
mod invites;
mod listener;
mod message;
mod stages;
mod state;
mod tunnel;
mod view;

use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use brigade_wire::members::{Member, is_name};
use brigade_wire::token::{Side, Token};
use brigade_wire::{FrameError, NodeKey};
use ring::rand::{SecureRandom, SystemRandom};

use crate::home::Home;
use crate::link::Link;
use crate::worker::Job;
use crate::{KeyPair, NodeError};
use message::{Answer, Greeting, Opening};
use state::State;

pub use message::Refusal;
pub(crate) use tunnel::Tunnel;
pub use view::{NodeState, NodeView};

/// Between two pulses.
const PULSE: Duration = Duration::from_millis(250);

/// A peer that has not answered a pulse for so long is gone: with the time between pulses under
/// the two seconds within which that must be noticed.
const SILENCE: Duration = Duration::from_millis(1200);

/// How long connecting to a node may take.
const CONNECT: Duration = Duration::from_secs(3);

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
    pub cache: PathBuf,
    /// Where nodes connect to. Bound already, so that a port that is taken is found out first.
    pub listener: TcpListener,
}

/// A running daemon; dropping it ends its part in the cluster.
#[derive(Debug)]
pub struct Daemon {
    shared: Arc<Shared>,
}

/// A node to run a stage on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    pub(crate) key: NodeKey,
    pub(crate) address: SocketAddr,
}

#[derive(Debug)]
struct Shared {
    home: Home,
    name: String,
    build: String,
    cache: PathBuf,
    address: SocketAddr,
    /// Drawn at this start.
    boot: u64,
    start: Instant,
    state: Mutex<State>,
    /// Something in the state has changed that a waiting dialer may care for.
    changed: Condvar,
    stopping: AtomicBool,
}

impl Daemon {
    /// Starts to listen and to look after the cluster of the state folder; a new folder is a
    /// cluster of one.
    pub fn start(config: DaemonConfig) -> Result<Self, NodeError> {
        let address = config
            .listener
            .local_addr()
            .map_err(|error| NodeError::Daemon(format!("cannot listen: {error}")))?;
        if address.ip().is_unspecified() {
            return Err(NodeError::Daemon(
                "--listen needs the address at which other nodes reach this machine".to_owned(),
            ));
        }
        if !is_name(&config.name) {
            return Err(NodeError::Daemon(Refusal::BadName.to_string()));
        }
        let own = config.home.identity().public();
        let mut members = config.home.members()?;
        if members.get(own).is_none() {
            members.admit(own, &config.name, address);
        }
        members.renew(own, &config.name, address);
        config.home.keep_members(&members)?;
        let mut boot = [0; 8];
        SystemRandom::new()
            .fill(&mut boot)
            .map_err(|_| NodeError::Daemon("the operating system has no randomness".to_owned()))?;
        let shared = Arc::new(Shared {
            home: config.home,
            name: config.name,
            build: config.build,
            cache: config.cache,
            address,
            boot: u64::from_le_bytes(boot),
            start: Instant::now(),
            state: Mutex::new(State::new(members)),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        let listener = config.listener;
        thread::spawn(move || listener::run(&accepting, &listener));
        shared.keep_dialing();
        Ok(Self { shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Makes a token that lets one node in, once, within `life`.
    pub fn invite(&self, life: Duration) -> Token {
        let expires = self.shared.now() + life;
        Token {
            inviter: self.shared.own().public(),
            addresses: vec![self.shared.address],
            secret: self.shared.lock().invites.make(expires),
        }
    }

    /// Joins the cluster that a token invites to; returns the inviter's name.
    pub fn join(&self, token: &Token) -> Result<String, NodeError> {
        let shared = &self.shared;
        let own = shared.own().public();
        if token.inviter == own {
            return Err(NodeError::Daemon(
                "this token is this node's own: paste it on another one".to_owned(),
            ));
        }
        {
            let state = shared.lock();
            let others = state.members.present().filter(|member| member.key != own);
            let names: Vec<_> = others.map(|member| member.name.clone()).collect();
            // A node that was forgotten may come back to the cluster that it remembers.
            if !names.is_empty() && state.members.get(token.inviter).is_none() {
                return Err(NodeError::Daemon(format!(
                    "this node belongs to a cluster already, with {}: `brigade forget` them \
                     here first",
                    names.join(", ")
                )));
            }
        }
        let mut failure = None;
        for &address in &token.addresses {
            match self.join_at(token, address) {
                Err(error @ NodeError::Peer { .. }) => failure = Some(error),
                result => return result,
            }
        }
        Err(failure.unwrap_or_else(|| NodeError::Daemon("the token has no address".to_owned())))
    }

    fn join_at(&self, token: &Token, address: SocketAddr) -> Result<String, NodeError> {
        let shared = &self.shared;
        let own = shared.own().public();
        let failed = |error| NodeError::Peer {
            node: format!("the inviting node at {address}"),
            error,
        };
        let (mut link, peer) = Link::connect(address, shared.own(), token.inviter, CONNECT)
            .map_err(|error| failed(error.into()))?;
        link.socket()
            .set_read_timeout(Some(CONNECT))
            .map_err(|error| failed(error.into()))?;
        let proof = |side| token.secret.proof(side, &peer.binding, own, token.inviter);
        let opening = Opening::Join {
            token: token.secret.id(),
            proof: proof(Side::Joiner),
            greeting: shared.greeting(),
        };
        match message::open(&mut link, &opening).map_err(failed)? {
            Answer::Joined {
                proof: theirs,
                name,
                members,
            } if theirs == proof(Side::Inviter) => {
                let mut state = shared.lock();
                // What this node knew before was of another cluster, or is out of date.
                state.members = members.into();
                state.members.renew(own, &shared.name, shared.address);
                shared.keep(&state)?;
                drop(state);
                shared.keep_dialing();
                Ok(name)
            }
            Answer::Refused(refusal) => Err(NodeError::PeerRefuses {
                node: format!("the inviting node at {address}"),
                refusal,
            }),
            _ => Err(failed(FrameError::Foreign)),
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
                address: member.address,
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

    /// Asks a node to run something; its reports come over the link, which ends with the node.
    pub(crate) fn run_on(&self, host: &Host, job: Job) -> Result<Link, NodeError> {
        self.shared.ask(host, &Opening::Run(job))
    }

    /// Whether this is the daemon's own node.
    pub(crate) fn is_own(&self, host: &Host) -> bool {
        host.key == self.shared.own().public()
    }

    /// Ends its part in the cluster; dropping it does the same.
    pub fn stop(&self) {
        let shared = &self.shared;
        shared.stopping.store(true, Ordering::Relaxed);
        shared.lock().cut_all();
        shared.changed.notify_all();
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&shared.address, PULSE);
    }

    /// The address of this machine that the cluster's nodes reach.
    pub(crate) fn ip(&self) -> IpAddr {
        self.shared.address.ip()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn own(&self) -> &KeyPair {
        self.home.identity()
    }

    /// Since the start.
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn stops(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    fn greeting(&self) -> Greeting {
        Greeting {
            build: self.build.clone(),
            boot: self.boot,
            name: self.name.clone(),
            address: self.address,
        }
    }

    /// Asks a node for something that lasts as long as the link does, which ends with the node.
    fn ask(&self, host: &Host, opening: &Opening) -> Result<Link, NodeError> {
        let failed = |error| NodeError::Peer {
            node: host.name.clone(),
            error,
        };
        let (mut link, _) = Link::connect(host.address, self.own(), host.key, CONNECT)
            .map_err(|error| failed(error.into()))?;
        // In a statement of its own, so that the lock is not held while the node answers.
        let bound = self.lock().peer(host.key).bind(link.socket());
        let asked = bound
            .and_then(|()| link.socket().set_read_timeout(Some(CONNECT)))
            .map_err(FrameError::from)
            .and_then(|()| message::open(&mut link, opening));
        let refusal = match asked {
            Ok(Answer::Granted) => {
                let waiting = link.socket().set_read_timeout(None);
                return waiting.map(|()| link).map_err(|error| failed(error.into()));
            }
            Ok(Answer::Refused(refusal)) => NodeError::PeerRefuses {
                node: host.name.clone(),
                refusal,
            },
            Ok(_) => failed(FrameError::Foreign),
            Err(error) => failed(error),
        };
        // What is bound stays open otherwise.
        let _ = link.socket().shutdown(Shutdown::Both);
        Err(refusal)
    }

    /// Writes the table of the state; with its lock held, so that tables are written in order.
    fn keep(&self, state: &State) -> Result<(), NodeError> {
        self.home.keep_members(&state.members)
    }

    /// Takes over a peer's table.
    fn learn(self: &Arc<Self>, members: &[Member], from: NodeKey) {
        let mut state = self.lock();
        if state.members.merge(members, Some(from)) {
            state.cut_forgotten();
            if let Err(error) = self.keep(&state) {
                tracing::error!(%error, "the table of members cannot be written");
            }
            drop(state);
            self.keep_dialing();
            self.changed.notify_all();
        }
    }

    /// Sees to it that each member but this one has a dialer.
    fn keep_dialing(self: &Arc<Self>) {
        let own = self.own().public();
        for key in self.lock().without_dialer(own) {
            let shared = Arc::clone(self);
            thread::spawn(move || dialer::run(&shared, key));
        }
    }
}

#[cfg(test)]
mod tests;
