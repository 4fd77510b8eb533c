//! Joining the cluster of a node that has given a token.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use brigade_wire::token::{Side, Token};
use brigade_wire::{FrameError, NodeKey};

use super::message::{self, Answer, Opening};
use super::{CONNECT, Daemon, PULSE};
use crate::NodeError;
use crate::interfaces;
use crate::link::{Link, Peer};

/// How long a node is looked for that is at none of its token's addresses.
const SEARCH: Duration = Duration::from_secs(5);

/// What came of trying a way.
type Find = (SocketAddr, io::Result<(Link, Peer)>);

impl Daemon {
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
        let (link, peer, way) = self.find(token)?;
        self.join_over(token, link, &peer, way)
    }

    /// Connects to the inviting node at whichever of its addresses answers first: the token's, and
    /// those that it announces, for a while also where none is known yet.
    fn find(&self, token: &Token) -> Result<(Link, Peer, SocketAddr), NodeError> {
        let search = if self.mdns.is_some() {
            SEARCH
        } else {
            Duration::ZERO
        };
        let until = Instant::now() + search;
        let (found, finds) = mpsc::channel();
        let mut tried = BTreeSet::new();
        let mut failures = Vec::new();
        while Instant::now() < until || failures.len() < tried.len() || tried.is_empty() {
            for way in self.ways_to(token) {
                if tried.insert(way) {
                    self.try_way(token.inviter, way, found.clone());
                }
            }
            match finds.recv_timeout(PULSE) {
                Ok((way, Ok((link, peer)))) => return Ok((link, peer, way)),
                Ok((way, Err(error))) => failures.push(format!("at {way}: {error}")),
                Err(_) if tried.is_empty() && Instant::now() >= until => break,
                Err(_) => {}
            }
        }
        failures.sort_unstable();
        Err(NodeError::Daemon(format!(
            "the inviting node is not reached, {}",
            failures.join(", ")
        )))
    }

    fn ways_to(&self, token: &Token) -> Vec<SocketAddr> {
        let state = self.shared.lock();
        let nearby = state.nearby.addresses(token.inviter.id());
        let known = token.addresses.iter().chain(nearby);
        known
            .flat_map(|&address| interfaces::ways(&state.interfaces, address))
            .collect()
    }

    fn try_way(&self, inviter: NodeKey, way: SocketAddr, found: mpsc::Sender<Find>) {
        let shared = Arc::clone(&self.shared);
        thread::spawn(move || {
            let result = Link::connect(way, shared.own(), inviter, CONNECT);
            // Nobody waits for the second that is found.
            let _ = found.send((way, result));
        });
    }

    fn join_over(
        &self,
        token: &Token,
        mut link: Link,
        peer: &Peer,
        way: SocketAddr,
    ) -> Result<String, NodeError> {
        let shared = &self.shared;
        let own = shared.own().public();
        let failed = |error| NodeError::Peer {
            node: format!("the inviting node at {way}"),
            error,
        };
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
                let addresses = shared.addresses(&state);
                state.members.renew(own, &shared.name, &addresses);
                shared.keep(&state)?;
                drop(state);
                shared.keep_dialing();
                Ok(name)
            }
            Answer::Refused(refusal) => Err(NodeError::PeerRefuses {
                node: format!("the inviting node at {way}"),
                refusal,
            }),
            _ => Err(failed(FrameError::Foreign)),
        }
    }
}
