//! The connection that a node keeps to another one.

use std::io;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use brigade_wire::frame::{receive_value, send_value};
use brigade_wire::{FrameError, NodeKey};

use super::message::{self, Answer, MEMBER_LIMIT, Opening, PeerMessage, Refusal};
use super::{CONNECT, PULSE, SILENCE, Shared};
use crate::link::Link;

/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(500);

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("it refuses this node: {0}")]
    Refused(Refusal),
    #[error("it is no member any more")]
    Over,
    #[error("it answered something else than was asked")]
    Confused,
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Frame(error.into())
    }
}

/// Keeps a connection to a member for as long as it is one.
pub(super) fn run(shared: &Arc<Shared>, key: NodeKey) {
    let mut said = String::new();
    loop {
        let member = {
            let mut state = shared.lock();
            if shared.stops() || !state.members.trusts(key) {
                let peer = state.peer(key);
                peer.presence.lost(shared.now());
                peer.undial();
                return;
            }
            state.members.get(key).cloned()
        };
        let Some(member) = member else { return };
        let Err(trouble) = stay(shared, key, member.address);
        let trouble = trouble.to_string();
        let mut state = shared.lock();
        let now = shared.now();
        let peer = state.peer(key);
        let stood = peer.presence.lost(now);
        peer.pulse = message::Pulse::default();
        peer.cut();
        peer.trouble = Some(trouble.clone());
        if !shared.stops() && state.members.trusts(key) && (stood || trouble != said) {
            tracing::warn!(node = member.name, address = %member.address, reason = trouble, "no link");
        }
        said = trouble;
        let waited = shared.changed.wait_timeout(state, RETRY);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

enum Never {}

/// Connects and exchanges pulses until something goes wrong.
fn stay(
    shared: &Arc<Shared>,
    key: NodeKey,
    address: std::net::SocketAddr,
) -> Result<Never, Trouble> {
    let (mut link, _) = Link::connect(address, shared.own(), key, CONNECT)?;
    link.socket().set_read_timeout(Some(SILENCE))?;
    link.socket().set_write_timeout(Some(SILENCE))?;
    match message::open(&mut link, &Opening::Peer(shared.greeting()))? {
        // The side that is called compares the builds.
        Answer::Peer(_) => {}
        Answer::Refused(refusal) => return Err(Trouble::Refused(refusal)),
        Answer::Joined { .. } | Answer::Granted => return Err(Trouble::Confused),
    }
    let mut told = None;
    loop {
        let pulse = {
            let state = shared.lock();
            if shared.stops() || !state.members.trusts(key) {
                return Err(Trouble::Over);
            }
            state.pulse(shared.now())
        };
        let digest = pulse.digest;
        let sent = Instant::now();
        send_value(&mut link, &PeerMessage::Pulse(pulse))?;
        let theirs = match receive_value(&mut link, MEMBER_LIMIT)? {
            PeerMessage::Pulse(pulse) => pulse,
            PeerMessage::Refused(refusal) => return Err(Trouble::Refused(refusal)),
            PeerMessage::Table(_) => return Err(Trouble::Confused),
        };
        let digests = (digest, theirs.digest);
        {
            let mut state = shared.lock();
            let now = shared.now();
            let peer = state.peer(key);
            peer.presence.found(now);
            peer.pulse = theirs;
            peer.round_trip = Some(sent.elapsed());
            peer.trouble = None;
            if told.is_none() {
                let name = state.members.get(key).map(|member| member.name.clone());
                tracing::info!(node = name, %address, "linked");
            }
        }
        // Two tables that stay different, whatever they tell each other, are told once.
        if digests.0 != digests.1 && told != Some(digests) {
            let table = shared.lock().members.entries();
            send_value(&mut link, &PeerMessage::Table(table))?;
            match receive_value(&mut link, MEMBER_LIMIT)? {
                PeerMessage::Table(table) => shared.learn(&table, key),
                PeerMessage::Refused(refusal) => return Err(Trouble::Refused(refusal)),
                PeerMessage::Pulse(_) => return Err(Trouble::Confused),
            }
        }
        told = Some(digests);
        rest(&link)?;
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
