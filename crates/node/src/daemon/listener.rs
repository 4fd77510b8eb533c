//! Connections from other nodes, members and strangers.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::Duration;

use brigade_wire::frame::{read_preamble, receive_value, send_value, write_preamble};
use brigade_wire::members::{are_addresses, is_name};
use brigade_wire::token::{Proof, Side, TokenId};
use brigade_wire::{FrameError, NodeKey};

use super::message::{
    Answer, Greeting, MEMBER_LIMIT, Opening, PeerMessage, Refusal, STRANGER_LIMIT,
};
use super::shared::clock_ms;
use super::state::State;
use super::{PULSE, SILENCE, Shared, api, delivering, probe, stages, tunnel};
use crate::link::{Expected, Link, Peer};

/// Until it has said who it is and what it wants, a connection has this time.
const STRANGER: Duration = Duration::from_secs(2);

/// Connections that have not said so yet, at once.
const STRANGERS: usize = 64;

/// One of the places for those who have not said yet; given back when dropped.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(places: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(places));
        (places.fetch_add(1, Ordering::Relaxed) < STRANGERS).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts until the daemon stops.
pub(super) fn run(shared: &Arc<Shared>, listener: &TcpListener) {
    let places = Arc::new(AtomicUsize::new(0));
    while let Some(accepted) = (!shared.stops()).then(|| listener.accept()) {
        let (socket, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Too many open files, or a connection that is gone already: neither lasts.
                tracing::debug!(%error, "cannot accept");
                thread::sleep(Duration::from_millis(10));
                continue;
            }
        };
        let Some(place) = Place::take(&places) else {
            continue;
        };
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let served = meet(&shared, socket).and_then(|(link, peer, opening)| {
                serve(&shared, link, &peer, from, opening, place)
            });
            if let Err(error) = served {
                tracing::debug!(%from, %error, "a connection ended");
            }
        });
    }
}

/// Learns who connects and what it wants.
fn meet(shared: &Shared, socket: TcpStream) -> Result<(Link, Peer, Opening), FrameError> {
    // Whoever holds a key may ask to join; what it may do otherwise is judged by its key.
    let (mut link, peer) = Link::accept(socket, shared.own(), Expected::AnyKey, STRANGER)?;
    link.socket().set_read_timeout(Some(STRANGER))?;
    link.socket().set_write_timeout(Some(STRANGER))?;
    write_preamble(&mut link)?;
    read_preamble(&mut link).inspect_err(|error| {
        // Whoever joins tries all ways and takes the first: the others just end.
        if matches!(error, FrameError::Foreign | FrameError::Version { .. }) {
            tracing::warn!(node = %peer.key.id(), %error, "refused");
        }
    })?;
    let opening = receive_value(&mut link, STRANGER_LIMIT)?;
    Ok((link, peer, opening))
}

fn serve(
    shared: &Arc<Shared>,
    mut link: Link,
    peer: &Peer,
    from: SocketAddr,
    opening: Opening,
    place: Place,
) -> Result<(), FrameError> {
    let refuse = |link: &mut Link, name: &str, refusal: Refusal| {
        tracing::warn!(node = name, id = %peer.key.id(), %from, reason = %refusal, "refused");
        send_value(link, &Answer::Refused(refusal))
    };
    match opening {
        Opening::Join {
            token,
            proof,
            greeting,
        } => match admit(shared, peer, token, proof, &greeting, from) {
            Ok(answer) => {
                tracing::info!(node = greeting.name, id = %peer.key.id(), "joined");
                send_value(&mut link, &answer)
            }
            Err(refusal) => refuse(&mut link, &greeting.name, refusal),
        },
        Opening::Peer(greeting) => match enter(shared, peer.key, &greeting, from) {
            Ok(answer) => {
                drop(place);
                let result = send_value(&mut link, &answer)
                    .and_then(|()| answer_pulses(shared, &mut link, peer.key));
                shared.lock().peer(peer.key).leave();
                result
            }
            Err(refusal) => refuse(&mut link, &greeting.name, refusal),
        },
        Opening::Pieces(key) => match trusted(shared, peer.key) {
            Ok(()) => {
                drop(place);
                delivering::serve(shared, link, peer.key, &key)
            }
            Err(refusal) => refuse(&mut link, "?", refusal),
        },
        // A coordinator asks its own daemon like any other.
        Opening::Run(job, claim) => match trusted(shared, peer.key) {
            Ok(()) => {
                drop(place);
                stages::serve(shared, link, peer.key, job, &claim)
            }
            Err(refusal) => refuse(&mut link, "?", refusal),
        },
        Opening::Filled(model) => match trusted(shared, peer.key) {
            Ok(()) => {
                stages::filled(shared, peer.key, &model);
                send_value(&mut link, &Answer::Granted)
            }
            Err(refusal) => refuse(&mut link, "?", refusal),
        },
        Opening::Api => match trusted(shared, peer.key) {
            Ok(()) => {
                drop(place);
                api::serve(shared, link, peer.key)
            }
            Err(refusal) => refuse(&mut link, "?", refusal),
        },
        Opening::Tunnel(port) => match trusted(shared, peer.key) {
            Ok(()) => {
                drop(place);
                tunnel::serve(shared, link, peer.key, port)
            }
            Err(refusal) => refuse(&mut link, "?", refusal),
        },
    }
}

/// Lets a node in that knows a token's secret.
fn admit(
    shared: &Arc<Shared>,
    peer: &Peer,
    token: TokenId,
    proof: Proof,
    greeting: &Greeting,
    from: SocketAddr,
) -> Result<Answer, Refusal> {
    let own = shared.own().public();
    let mut state = shared.lock();
    let now = shared.now();
    let secret = state
        .invites
        .check(token, proof, &peer.binding, peer.key, own, now)?;
    same_build(shared, greeting)?;
    if !is_name(&greeting.name) {
        return Err(Refusal::BadName);
    }
    if !are_addresses(&greeting.addresses) {
        return Err(Refusal::BadAddresses);
    }
    if state.peer(peer.key).rival(greeting.boot) {
        return Err(duplicate(&state, peer.key, from));
    }
    state.invites.spend(secret);
    state
        .members
        .admit(peer.key, &greeting.name, &greeting.addresses);
    if let Err(error) = shared.keep(&state) {
        tracing::error!(%error, "the table of members cannot be written");
    }
    let answer = Answer::Joined {
        proof: secret.proof(Side::Inviter, &peer.binding, peer.key, own),
        name: shared.name.clone(),
        members: state.members.entries(),
    };
    drop(state);
    shared.keep_dialing();
    Ok(answer)
}

/// Lets a member in, unless there are two of it.
fn enter(
    shared: &Shared,
    key: NodeKey,
    greeting: &Greeting,
    from: SocketAddr,
) -> Result<Answer, Refusal> {
    if key == shared.own().public() {
        return Err(Refusal::Duplicate(shared.reach()));
    }
    await_news(shared, key);
    trusted(shared, key)?;
    same_build(shared, greeting)?;
    let mut state = shared.lock();
    if state.peer(key).rival(greeting.boot) {
        return Err(duplicate(&state, key, from));
    }
    state.peer(key).enter(greeting.boot);
    drop(state);
    // Its dialer need not wait for its next attempt.
    shared.changed.notify_all();
    Ok(Answer::Peer(shared.greeting()))
}

/// Says where the node is that has the same identity as another one.
fn duplicate(state: &State, key: NodeKey, second: SocketAddr) -> Refusal {
    let in_use = state.peek(key).and_then(|peer| peer.in_use);
    let told = || Some(*state.members.get(key)?.addresses.first()?);
    Refusal::Duplicate(in_use.or_else(told).unwrap_or(second))
}

/// A node that has just joined may be here before the news of it.
fn await_news(shared: &Shared, key: NodeKey) {
    let unknown = |state: &mut State| state.members.get(key).is_none();
    let waited = shared
        .changed
        .wait_timeout_while(shared.lock(), PULSE * 2, unknown);
    drop(waited.unwrap_or_else(PoisonError::into_inner));
}

fn trusted(shared: &Shared, key: NodeKey) -> Result<(), Refusal> {
    match shared.lock().members.get(key) {
        Some(member) if member.forgotten => Err(Refusal::Forgotten),
        Some(_) => Ok(()),
        None => Err(Refusal::UnknownKey),
    }
}

fn same_build(shared: &Shared, greeting: &Greeting) -> Result<(), Refusal> {
    if greeting.build == shared.build {
        return Ok(());
    }
    Err(Refusal::Build {
        here: shared.build.clone(),
        there: greeting.build.clone(),
    })
}

/// Answers a member's pulses until it is gone, or a member no more.
fn answer_pulses(shared: &Arc<Shared>, link: &mut Link, key: NodeKey) -> Result<(), FrameError> {
    // Longer than a live peer is ever silent, and short enough that one which has crashed and
    // started again is not held for its own double.
    link.socket().set_read_timeout(Some(SILENCE))?;
    loop {
        let message: PeerMessage = receive_value(link, MEMBER_LIMIT)?;
        if shared.stops() {
            return Ok(());
        }
        if let Err(refusal) = trusted(shared, key) {
            return send_value(link, &PeerMessage::Refused(refusal));
        }
        let answer = match message {
            PeerMessage::Pulse(_) => {
                PeerMessage::Pulse(shared.lock().pulse(shared.now(), clock_ms()))
            }
            PeerMessage::Table(table) => {
                shared.learn(&table, key);
                PeerMessage::Table(shared.lock().members.entries())
            }
            PeerMessage::Burst(bytes) => {
                probe::take(shared, link, bytes)?;
                continue;
            }
            PeerMessage::Go | PeerMessage::Later | PeerMessage::Arrived => {
                return Err(FrameError::Foreign);
            }
            PeerMessage::AskFacts => {
                let (count, facts) = shared.lock().own_facts();
                PeerMessage::Facts(count, Box::new(facts))
            }
            PeerMessage::Facts(..) | PeerMessage::Refused(_) => return Ok(()),
        };
        send_value(link, &answer)?;
    }
}
