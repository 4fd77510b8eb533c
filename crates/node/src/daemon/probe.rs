//! Bursts of bytes between two nodes, by which each learns how fast the way to the other is.
//!
//! They go over the connection of the pulses, between two of them, while neither node has a stage
//! or coordinates one, and no node takes part in two at a time.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use brigade_wire::frame::{receive_value, send_value};
use brigade_wire::{FrameError, NodeKey};

use super::Shared;
use super::gauge::LAST_BYTES;
use super::message::{MEMBER_LIMIT, PeerMessage};
use crate::link::Link;

/// Bytes that are written or read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// The right to take part in a burst.
struct Turn(Arc<AtomicBool>);

impl Turn {
    /// Takes it, unless this node is busy.
    fn take(shared: &Shared) -> Option<Self> {
        if shared.lock().is_busy() || shared.bursting.swap(true, Ordering::Relaxed) {
            return None;
        }
        Some(Self(Arc::clone(&shared.bursting)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Sends the burst that is due in this way, if one is and both nodes are free. The answer to the
/// request is what is returned where it is neither yes nor no.
pub(super) fn send(
    shared: &Shared,
    link: &mut Link,
    key: NodeKey,
    way: SocketAddr,
) -> Result<Option<PeerMessage>, FrameError> {
    let due = |shared: &Shared| {
        let state = shared.lock();
        let path = state.peek(key)?.paths.get(&way)?;
        Some((path.burst(shared.now())?, path.round_trip()?))
    };
    let Some((bytes, round_trip)) = due(shared) else {
        return Ok(None);
    };
    let Some(_turn) = Turn::take(shared) else {
        return Ok(None);
    };
    send_value(link, &PeerMessage::Burst(bytes))?;
    match receive_value(link, MEMBER_LIMIT)? {
        PeerMessage::Go => {}
        PeerMessage::Later => return Ok(None),
        other => return Ok(Some(other)),
    }
    let piece = vec![0x5a; PIECE_BYTES];
    let start = Instant::now();
    let mut left = bytes as usize;
    while left > 0 {
        let count = left.min(PIECE_BYTES);
        link.write_all(&piece[..count])?;
        left -= count;
    }
    match receive_value(link, MEMBER_LIMIT)? {
        PeerMessage::Arrived => {}
        other => return Ok(Some(other)),
    }
    let took = start.elapsed();
    let mut state = shared.lock();
    let now = shared.now();
    state
        .peer(key)
        .timed(way, |gauge| gauge.sent(bytes, took, round_trip, now));
    Ok(None)
}

/// Takes a burst of so many bytes, or says that it does not suit.
pub(super) fn take(shared: &Shared, link: &mut Link, bytes: u64) -> Result<(), FrameError> {
    let turn = if bytes <= LAST_BYTES {
        Turn::take(shared)
    } else {
        None
    };
    let Some(_turn) = turn else {
        return send_value(link, &PeerMessage::Later);
    };
    send_value(link, &PeerMessage::Go)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = bytes as usize;
    while left > 0 {
        let count = left.min(PIECE_BYTES);
        match link.read(&mut piece[..count])? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => left -= count,
        }
    }
    send_value(link, &PeerMessage::Arrived)
}
