//! The connection that a node keeps to another one.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use brigade_wire::frame::{receive_value, send_value};
use brigade_wire::{FrameError, NodeKey};

use super::message::{self, Answer, MEMBER_LIMIT, Opening, PeerMessage, Refusal};
use super::path::{Fault, Trip};
use super::shared::clock_ms;
use super::{CONNECT, PULSE, SILENCE, Shared, probe};
use crate::link::Link;

/// Between two attempts to reach a peer that is not connected.
const RETRY: Duration = Duration::from_millis(500);

/// Between two attempts in one way where another stands.
const RETRY_SPARE: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it refuses this node: {0}")]
    Refused(Refusal),
    #[error("it is not looked for at this address any more")]
    Over,
    #[error("it answered something else than was asked")]
    Confused,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Frame(error.into())
    }
}

/// Keeps a connection to a member in one of the ways to it, for as long as it is one.
pub(super) fn run(shared: &Arc<Shared>, key: NodeKey, way: SocketAddr) {
    let mut said = String::new();
    loop {
        {
            let mut state = shared.lock();
            if shared.stops() || !state.wants(key, way) {
                let now = shared.now();
                state.peer(key).give_up(way, now);
                return;
            }
        }
        let Err(trouble) = stay(shared, key, way);
        let fault = Fault {
            reason: trouble.to_string(),
            by_peer: matches!(trouble, Trouble::Refused(_)),
        };
        let reason = fault.reason.clone();
        let mut state = shared.lock();
        let now = shared.now();
        let peer = state.peer(key);
        let lost = peer.broke(way, fault, now);
        let spare = peer.in_use.is_some();
        if let Some(member) = state.members.get(key).filter(|member| !member.forgotten)
            && !shared.stops()
        {
            let node = &member.name;
            if lost {
                tracing::warn!(node, address = %way, reason, "no link");
            } else if reason != said && !spare {
                tracing::info!(node, address = %way, reason, "no link at this address");
            } else {
                tracing::debug!(node, address = %way, reason, "no link at this address");
            }
        }
        said = reason;
        let pause = if spare { RETRY_SPARE } else { RETRY };
        let waited = shared.changed.wait_timeout(state, pause);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

enum Never {}

/// Connects and exchanges pulses until something goes wrong.
fn stay(shared: &Arc<Shared>, key: NodeKey, way: SocketAddr) -> Result<Never, Trouble> {
    let (mut link, _) = Link::connect(way, shared.own(), key, CONNECT)?;
    link.socket().set_read_timeout(Some(SILENCE))?;
    link.socket().set_write_timeout(Some(SILENCE))?;
    match message::open(&mut link, &Opening::Peer(shared.greeting()))? {
        // The side that is called compares the builds.
        Answer::Peer(_) => {}
        Answer::Refused(refusal) => return Err(Trouble::Refused(refusal)),
        Answer::Joined { .. } | Answer::Granted => return Err(Trouble::Confused),
    }
    let local = link.socket().local_addr().ok().map(|address| address.ip());
    let mut told = None;
    loop {
        let pulse = {
            let state = shared.lock();
            if shared.stops() || !state.wants(key, way) {
                return Err(Trouble::Over);
            }
            state.pulse(shared.now(), clock_ms())
        };
        let digest = pulse.digest;
        let sent = Instant::now();
        send_value(&mut link, &PeerMessage::Pulse(pulse))?;
        let theirs = match receive_value(&mut link, MEMBER_LIMIT)? {
            PeerMessage::Pulse(pulse) => pulse,
            other => return Err(unasked(other)),
        };
        let trip = Trip {
            took: sent.elapsed(),
            clock_ms: clock_ms(),
        };
        let (digests, free) = ((digest, theirs.digest), !theirs.busy);
        let facts = theirs.facts;
        let news = {
            let mut state = shared.lock();
            let now = shared.now();
            let peer = state.peer(key);
            if peer.answered((way, local), theirs, trip, now) {
                let name = state.members.get(key).map(|member| member.name.clone());
                tracing::info!(node = name, address = %way, "linked");
            }
            let known = state.peer(key).facts.as_ref();
            known.is_none_or(|(count, _)| *count != facts)
        };
        if news {
            send_value(&mut link, &PeerMessage::AskFacts)?;
            match receive_value(&mut link, MEMBER_LIMIT)? {
                PeerMessage::Facts(count, facts) => {
                    shared.lock().peer(key).facts = Some((count, *facts));
                    shared.changed.notify_all();
                }
                other => return Err(unasked(other)),
            }
        }
        // Two tables that stay different, whatever they tell each other, are told once.
        if digests.0 != digests.1 && told != Some(digests) {
            let table = shared.lock().members.entries();
            send_value(&mut link, &PeerMessage::Table(table))?;
            match receive_value(&mut link, MEMBER_LIMIT)? {
                PeerMessage::Table(table) => shared.learn(&table, key),
                other => return Err(unasked(other)),
            }
        }
        told = Some(digests);
        if free && let Some(other) = probe::send(shared, &mut link, key, way)? {
            return Err(unasked(other));
        }
        rest(&link)?;
    }
}

/// What an answer means that was not asked for.
fn unasked(message: PeerMessage) -> Trouble {
    match message {
        PeerMessage::Refused(refusal) => Trouble::Refused(refusal),
        _ => Trouble::Confused,
    }
}

/// Waits until the next pulse is due, or the peer is gone.
fn rest(link: &Link) -> Result<(), FrameError> {
    let socket = link.socket();
    socket.set_read_timeout(Some(PULSE))?;
    // Nothing is due from the peer, so what comes is its end: of the connection or of TLS.
    match socket.peek(&mut [0]) {
        Ok(_) => return Err(FrameError::Closed),
        Err(error) if is_time_out(&error) => {}
        Err(error) => return Err(error.into()),
    }
    socket.set_read_timeout(Some(SILENCE))?;
    Ok(())
}

fn is_time_out(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted
    )
}
