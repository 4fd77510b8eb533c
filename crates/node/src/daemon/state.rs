//! What a daemon knows, under one lock.

use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use brigade_wire::NodeKey;
use brigade_wire::members::Members;
use brigade_wire::presence::{Presence, Sight};

use super::invites::Invites;
use super::message::Pulse;

#[derive(Debug)]
pub(super) struct State {
    pub(super) members: Members,
    pub(super) invites: Invites,
    peers: HashMap<NodeKey, Peer>,
}

/// Another node, beyond what the table says.
#[derive(Debug, Default)]
pub(super) struct Peer {
    pub(super) presence: Presence,
    /// Its last pulse; empty while there is no link.
    pub(super) pulse: Pulse,
    /// The last pulse's way there and back.
    pub(super) round_trip: Option<Duration>,
    /// Why there is no link.
    pub(super) trouble: Option<String>,
    dialed: bool,
    /// Its own connections to this node: which start of it opened them, and how many.
    inbound: Option<(u64, u32)>,
    /// Connections whose stages end when this node is lost.
    bound: Vec<TcpStream>,
    /// Ports of RPC servers that run here for it.
    pub(super) servers: Vec<u16>,
}

impl State {
    pub(super) fn new(members: Members) -> Self {
        Self {
            members,
            invites: Invites::default(),
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

    /// What goes out with the next pulse.
    pub(super) fn pulse(&self, now: Duration) -> Pulse {
        let present = self.members.present().map(|member| member.key);
        let sees: Vec<_> = present.filter(|&key| self.is_up(key, now)).collect();
        let said = |&key: &NodeKey| Some((key, self.peek(key)?.pulse.sees.clone()));
        Pulse {
            digest: self.members.digest(),
            heard: sees.iter().filter_map(said).collect(),
            sees,
        }
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

    /// Members that nobody dials, who are from now on dialed by the caller.
    pub(super) fn without_dialer(&mut self, own: NodeKey) -> Vec<NodeKey> {
        let others = self.members.present().map(|member| member.key);
        let others: Vec<_> = others.filter(|&key| key != own).collect();
        let fresh = |key: &NodeKey| !std::mem::replace(&mut self.peer(*key).dialed, true);
        others.into_iter().filter(fresh).collect()
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
    /// Its dialer has ended.
    pub(super) fn undial(&mut self) {
        self.dialed = false;
    }

    /// A connection that shall end when this node is lost.
    pub(super) fn bind(&mut self, socket: &TcpStream) -> io::Result<()> {
        // Those that have ended need not be kept.
        self.bound.retain(|socket| socket.peer_addr().is_ok());
        self.bound.push(socket.try_clone()?);
        Ok(())
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
