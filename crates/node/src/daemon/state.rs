//! What a daemon knows, under one lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use brigade_wire::NodeKey;
use brigade_wire::members::Members;
use brigade_wire::presence::{Presence, Sight};

use super::gauge::Gauge;
use super::invites::Invites;
use super::memory::Ledger;
use super::message::{LinkFact, NodeFacts, Pulse};
use super::nearby::Nearby;
use super::path::{self, Fault, Path, Trip};
use crate::interfaces::{self, Interface};

/// The most ways in which one peer is tried.
const WAYS_LIMIT: usize = 48;

#[derive(Debug)]
pub(super) struct State {
    pub(super) members: Members,
    pub(super) invites: Invites,
    /// Of this machine.
    pub(super) interfaces: Vec<Interface>,
    /// Who announces itself.
    pub(super) nearby: Nearby,
    /// What this node says of its machine.
    pub(super) about: String,
    /// What it says of the models that it coordinates.
    pub(super) models: String,
    pub(super) memory: Ledger,
    /// Counts what it has said.
    facts: u64,
    peers: HashMap<NodeKey, Peer>,
}

/// Another node, beyond what the table says.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) presence: Presence,
    /// Its last pulse; empty while there is no link.
    pub(super) pulse: Pulse,
    /// The ways to it.
    pub(super) paths: BTreeMap<SocketAddr, Path>,
    /// The best of those that stand.
    pub(super) in_use: Option<SocketAddr>,
    /// What it said of its machine, and which state of things that is.
    pub(super) facts: Option<(u64, NodeFacts)>,
    /// How far its clock was ahead of this machine's when it last answered.
    pub(super) clock_ahead_ms: Option<i64>,
    /// Its own connections to this node: which start of it opened them, and how many.
    inbound: Option<(u64, u32)>,
    /// Connections whose stages end when this node is lost.
    bound: Vec<TcpStream>,
    /// Ports of RPC servers that run here for it.
    pub(super) servers: Vec<u16>,
}

impl State {
    /// `facts` is where the count of what it says of its machine begins.
    pub(super) fn new(members: Members, interfaces: Vec<Interface>, facts: u64) -> Self {
        Self {
            members,
            invites: Invites::default(),
            interfaces,
            nearby: Nearby::default(),
            about: String::new(),
            models: String::new(),
            memory: Ledger::default(),
            facts,
            peers: HashMap::new(),
        }
    }

    pub(super) fn peer(&mut self, key: NodeKey) -> &mut Peer {
        self.peers.entry(key).or_default()
    }

    pub(super) fn peek(&self, key: NodeKey) -> Option<&Peer> {
        self.peers.get(&key)
    }

    pub(super) fn is_up(&self, key: NodeKey, now: Duration) -> bool {
        self.peek(key)
            .is_some_and(|peer| peer.presence.sight(now) == Sight::Up)
    }

    /// Whether a stage runs here or for this node elsewhere, or shall.
    pub(super) fn is_busy(&self) -> bool {
        self.peers.values().any(Peer::is_bound) || !self.memory.is_free()
    }

    /// What it says of its machine has changed.
    pub(super) fn news(&mut self) {
        self.facts = self.facts.wrapping_add(1);
    }

    /// What it says of its machine, and which state of things that is.
    pub(super) fn own_facts(&self) -> (u64, NodeFacts) {
        let facts = NodeFacts {
            about: self.about.clone(),
            held: self.memory.held(),
            models: self.models.clone(),
        };
        (self.facts, facts)
    }

    /// What goes out with the next pulse, while the clock shows `clock_ms`.
    pub(super) fn pulse(&self, now: Duration, clock_ms: u64) -> Pulse {
        let present = self.members.present().map(|member| member.key);
        let sees: Vec<_> = present.filter(|&key| self.is_up(key, now)).collect();
        let said = |&key: &NodeKey| Some((key, self.peek(key)?.pulse.sees.clone()));
        Pulse {
            digest: self.members.digest(),
            facts: self.facts,
            heard: sees.iter().filter_map(said).collect(),
            links: sees.iter().filter_map(|&key| self.link(key, now)).collect(),
            busy: self.is_busy(),
            clock_ms,
            sees,
        }
    }

    /// The way to a peer that is in use.
    fn link(&self, to: NodeKey, now: Duration) -> Option<LinkFact> {
        let peer = self.peek(to)?;
        let (address, path) = (peer.in_use?, peer.path()?);
        Some(LinkFact {
            to,
            address,
            kind: self.interface(path).and_then(Interface::kind),
            measured: path.facts(now),
        })
    }

    /// The interface over which a connection stands, or stood.
    pub(super) fn interface(&self, path: &Path) -> Option<&Interface> {
        interfaces::with_ip(&self.interfaces, path.local?)
    }

    /// The address at which one node finds another: as this one sees it, or as the other says.
    pub(super) fn route(&self, own: NodeKey, from: NodeKey, to: NodeKey) -> Option<SocketAddr> {
        if from == own {
            return self.peek(to)?.in_use;
        }
        let links = &self.peek(from)?.pulse.links;
        let link = links.iter().find(|link| link.to == to)?;
        Some(link.address)
    }

    /// What another node says that it sees, from itself or from one that hears it; none while
    /// nobody does.
    pub(super) fn report(&self, of: NodeKey, now: Duration) -> Option<&[NodeKey]> {
        let direct = self.peek(of).filter(|_| self.is_up(of, now));
        if let Some(peer) = direct {
            return Some(&peer.pulse.sees);
        }
        let near = self.peers.iter().filter(|(key, _)| self.is_up(**key, now));
        let mut heard = near.flat_map(|(_, peer)| &peer.pulse.heard);
        let (_, sees) = heard.find(|(key, _)| *key == of)?;
        Some(sees)
    }

    /// The ways in which a peer may be reached.
    fn ways(&self, key: NodeKey) -> BTreeSet<SocketAddr> {
        let member = self.members.get(key).filter(|member| !member.forgotten);
        let told = member.into_iter().flat_map(|member| {
            let nearby = self.nearby.addresses(key.id());
            member.addresses.iter().chain(nearby)
        });
        told.flat_map(|&address| interfaces::ways(&self.interfaces, address))
            .take(WAYS_LIMIT)
            .collect()
    }

    /// Whether a peer is to be dialed in this way.
    pub(super) fn wants(&self, key: NodeKey, way: SocketAddr) -> bool {
        self.ways(key).contains(&way)
    }

    /// Ways that nobody dials, which are from now on dialed by the caller.
    pub(super) fn without_dialer(&mut self, own: NodeKey) -> Vec<(NodeKey, SocketAddr)> {
        let others = self.members.present().map(|member| member.key);
        let others: Vec<_> = others.filter(|&key| key != own).collect();
        let mut fresh = Vec::new();
        for key in others {
            for way in self.ways(key) {
                let path = self.peer(key).paths.entry(way).or_default();
                if !std::mem::replace(&mut path.dialed, true) {
                    fresh.push((key, way));
                }
            }
        }
        fresh
    }

    /// Ends what is bound to nodes that are members no more.
    pub(super) fn cut_forgotten(&mut self) {
        for (key, peer) in &mut self.peers {
            if self
                .members
                .get(*key)
                .is_some_and(|member| member.forgotten)
            {
                peer.cut();
            }
        }
    }

    pub(super) fn cut_all(&mut self) {
        for peer in self.peers.values_mut() {
            peer.cut();
        }
    }
}

impl Peer {
    /// A pulse went there and back in one of the ways. Returns whether that is news.
    pub(super) fn answered(
        &mut self,
        (way, local): (SocketAddr, Option<IpAddr>),
        pulse: Pulse,
        trip: Trip,
        now: Duration,
    ) -> bool {
        self.presence.found(now);
        self.clock_ahead_ms = Some(trip.clock_ahead_ms(pulse.clock_ms));
        self.pulse = pulse;
        let path = self.paths.entry(way).or_default();
        let news = !path.stands();
        path.measured(trip.took);
        path.local = local;
        self.choose();
        news
    }

    /// No connection stands in this way any more. Returns whether the peer is lost by that.
    pub(super) fn broke(&mut self, way: SocketAddr, fault: Fault, now: Duration) -> bool {
        if let Some(path) = self.paths.get_mut(&way) {
            path.broken(fault);
        }
        self.choose();
        self.in_use.is_none() && self.lose(now)
    }

    /// This way is not tried any more.
    pub(super) fn give_up(&mut self, way: SocketAddr, now: Duration) {
        self.paths.remove(&way);
        self.choose();
        if self.in_use.is_none() {
            self.lose(now);
        }
    }

    fn lose(&mut self, now: Duration) -> bool {
        self.pulse = Pulse::default();
        self.cut();
        self.presence.lost(now)
    }

    fn choose(&mut self) {
        let paths = self.paths.iter().map(|(&way, path)| (way, path));
        self.in_use = path::best(paths, self.in_use);
    }

    /// The way in use.
    pub(super) fn path(&self) -> Option<&Path> {
        self.paths.get(&self.in_use?)
    }

    /// Why it cannot be reached: what it said itself before what the network did.
    pub(super) fn trouble(&self) -> Option<&str> {
        let faults = self.paths.values().filter_map(|path| path.trouble.as_ref());
        // The first of those that say equally much, so that the sentence stays the same.
        let best = faults.reduce(|a, b| if b.by_peer && !a.by_peer { b } else { a })?;
        Some(&best.reason)
    }

    /// A connection that shall end when this node is lost.
    pub(super) fn bind(&mut self, socket: &TcpStream) -> io::Result<()> {
        // Those that have ended need not be kept.
        self.bound.retain(|socket| socket.peer_addr().is_ok());
        self.bound.push(socket.try_clone()?);
        Ok(())
    }

    fn is_bound(&self) -> bool {
        self.bound.iter().any(|socket| socket.peer_addr().is_ok())
    }

    /// Changes what is known of a way's bandwidth.
    pub(super) fn timed(&mut self, way: SocketAddr, change: impl FnOnce(&mut Gauge)) {
        if let Some(path) = self.paths.get_mut(&way) {
            change(&mut path.gauge);
        }
        self.choose();
    }

    /// Ends what is bound to it.
    pub(super) fn cut(&mut self) {
        for socket in self.bound.drain(..) {
            // One that is closed already is what is wanted.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// A connection of the node's start `boot` comes in, which has no [`rival`](Self::rival).
    pub(super) fn enter(&mut self, boot: u64) {
        let (_, count) = self.inbound.get_or_insert((boot, 0));
        *count += 1;
    }

    /// Whether another start of the node than `boot` is connected: a second node with its key.
    pub(super) fn rival(&self, boot: u64) -> bool {
        self.inbound.is_some_and(|(known, _)| known != boot)
    }

    /// A connection that has entered is gone.
    pub(super) fn leave(&mut self) {
        if let Some((_, count)) = &mut self.inbound {
            *count -= 1;
            if *count == 0 {
                self.inbound = None;
            }
        }
    }
}
