//! What the threads of a daemon share: who it is, what it knows, and how it asks others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use brigade_wire::members::Member;
use brigade_wire::{FrameError, NodeKey};

use super::api::Door;
use super::message::{self, Answer, Greeting, Opening};
use super::state::State;
use super::{CONNECT, Host, dialer};
use crate::delivery::Delivery;
use crate::home::Home;
use crate::interfaces;
use crate::link::Link;
use crate::listen::{Listen, Ports};
use crate::{KeyPair, NodeError};

/// What this machine's clock shows, in milliseconds since 1970.
pub(super) fn clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// What all threads of a daemon share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) home: Home,
    pub(super) name: String,
    pub(super) build: String,
    pub(super) delivery: Delivery,
    pub(super) cache: PathBuf,
    /// Where it listens; the port is a real one.
    pub(super) listen: SocketAddr,
    pub(super) stage_ports: Option<Ports>,
    /// Drawn at this start.
    pub(super) boot: u64,
    pub(super) start: Instant,
    pub(super) state: Mutex<State>,
    /// Something in the state has changed that a waiting dialer may care for.
    pub(super) changed: Condvar,
    /// This node takes part in a burst.
    pub(super) bursting: Arc<AtomicBool>,
    pub(super) stopping: AtomicBool,
    /// Who takes the connections of other nodes' gateways.
    pub(super) api: OnceLock<Door>,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn own(&self) -> &KeyPair {
        self.home.identity()
    }

    /// Since the start.
    pub(super) fn now(&self) -> Duration {
        self.start.elapsed()
    }

    pub(super) fn stops(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn greeting(&self) -> Greeting {
        Greeting {
            build: self.build.clone(),
            boot: self.boot,
            name: self.name.clone(),
            addresses: self.addresses(&self.lock()),
        }
    }

    /// What this node tells the others of where it is.
    pub(super) fn addresses(&self, state: &State) -> Vec<SocketAddr> {
        interfaces::told(&state.interfaces, self.listen)
    }

    /// Where this node finds itself.
    pub(super) fn reach(&self) -> SocketAddr {
        let ip = match self.listen.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            _ => return self.listen,
        };
        SocketAddr::new(ip, self.listen.port())
    }

    /// Where one node finds another one.
    pub(super) fn route(&self, from: NodeKey, to: NodeKey) -> Option<SocketAddr> {
        let own = self.own().public();
        if from == own && to == own {
            return Some(self.reach());
        }
        self.lock().route(own, from, to)
    }

    /// Where the ends of a chain listen on this machine.
    pub(super) fn chain_listen(&self) -> Listen {
        Listen {
            ip: self.listen.ip(),
            ports: self.stage_ports,
        }
    }

    /// Asks a node for something that lasts as long as the link does, which ends with the node.
    pub(super) fn ask(&self, host: &Host, opening: &Opening) -> Result<Link, NodeError> {
        let failed = |error| NodeError::Peer {
            node: host.name.clone(),
            error,
        };
        let at = self
            .route(self.own().public(), host.key)
            .ok_or_else(|| NodeError::Daemon(format!("there is no link to {}", host.name)))?;
        let (mut link, _) = Link::connect(at, self.own(), host.key, CONNECT)
            .map_err(|error| failed(error.into()))?;
        // In a statement of its own, so that the lock is not held while the node answers.
        let bound = self.lock().peer(host.key).bind(link.socket());
        self.changed.notify_all();
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
    pub(super) fn keep(&self, state: &State) -> Result<(), NodeError> {
        self.home.keep_members(&state.members)
    }

    /// Takes over a peer's table.
    pub(super) fn learn(self: &Arc<Self>, members: &[Member], from: NodeKey) {
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

    /// Sees to it that each way to each member but this one has a dialer.
    pub(super) fn keep_dialing(self: &Arc<Self>) {
        let own = self.own().public();
        for (key, way) in self.lock().without_dialer(own) {
            let shared = Arc::clone(self);
            thread::spawn(move || dialer::run(&shared, key, way));
        }
    }
}
