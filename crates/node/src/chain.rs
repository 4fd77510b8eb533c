//! The coordinator's two ends of a chain of stages.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use brigade_wire::frame::{FrameReader, FrameWriter, read_preamble, write_preamble};
use brigade_wire::{FrameError, FrameLimits, Hello, Hop, Message, StageParams};

use crate::NodeError;
use crate::link::{Guard, HANDSHAKE_TIMEOUT, Link};
use crate::listen::Listen;

/// How long whoever connects to the coordinator may take to say that it is the last stage.
const RETURN_TIMEOUT: Duration = Duration::from_secs(2);

/// What the coordinator asks of every stage, and where they are.
#[derive(Debug, Clone)]
pub(crate) struct ChainSpec {
    /// Build of llama.cpp that all stages must run.
    pub(crate) build: String,
    /// The model's name.
    pub(crate) model: String,
    /// Width of a hidden state, in floats.
    pub(crate) hidden_size: u32,
    /// Tokens in the vocabulary.
    pub(crate) vocabulary: u32,
    /// What all stages agree on.
    pub(crate) params: StageParams,
    /// Where the stages are, in order of layers.
    pub(crate) stages: Vec<Hop>,
    /// Where this side waits for the last stage.
    pub(crate) listen: Listen,
    /// The address at which the last stage finds this side; the port is not known yet.
    pub(crate) back: SocketAddr,
    /// What guards this side's ends; `upstream` is the last stage.
    pub(crate) guard: Option<Guard>,
}

/// Steps go into the sender, results come out of the receiver.
#[derive(Debug)]
pub(crate) struct Chain {
    /// To the first stage.
    pub(crate) sender: FrameWriter<Link>,
    /// From the last stage.
    pub(crate) receiver: FrameReader<io::BufReader<Link>>,
    /// To end the chain from another thread: shut both streams down.
    pub(crate) streams: [TcpStream; 2],
}

/// Connects to the first stage, which connects to the next one, and so on to the last, which
/// connects back.
pub(crate) fn open(spec: &ChainSpec) -> Result<Chain, NodeError> {
    let fail = |error: FrameError| NodeError::Chain(format!("cannot build the chain: {error}"));
    let io_fail = |error: io::Error| fail(FrameError::from(error));
    let &first = spec
        .stages
        .first()
        .ok_or_else(|| NodeError::Chain("a chain needs at least one stage".to_owned()))?;
    let listener = spec.listen.bind().map_err(io_fail)?;
    let session = RandomState::new().hash_one(std::process::id());
    let mut route = spec.stages[1..].to_vec();
    let mut back = spec.back;
    back.set_port(listener.local_addr().map_err(io_fail)?.port());
    route.push(Hop {
        address: back,
        key: spec.guard.as_ref().map(|guard| guard.own.public()),
    });
    let hello = Hello {
        build: spec.build.clone(),
        model: spec.model.clone(),
        hidden_size: spec.hidden_size,
        params: spec.params.clone(),
        stage: 0,
        route,
        session,
    };

    let stop = AtomicBool::new(false);
    let (forward, back) = thread::scope(|scope| {
        let back = scope.spawn(|| accept_return(&listener, spec.guard.as_ref(), session, &stop));
        let forward = greet(first, spec.guard.as_ref(), hello);
        if forward.is_err() {
            stop.store(true, Ordering::Relaxed);
        }
        let back = back
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the accepting thread panicked").into()));
        (forward, back)
    });
    let forward = forward?;
    let back = back.map_err(fail)?;

    let streams = [
        forward.socket().try_clone().map_err(io_fail)?,
        back.socket().try_clone().map_err(io_fail)?,
    ];
    let mut receiver = FrameReader::new(io::BufReader::with_capacity(64 * 1024, back));
    receiver.set_limits(FrameLimits::for_rows(
        spec.params.sequences.max(spec.params.batch_tokens),
        spec.vocabulary,
    ));
    Ok(Chain {
        sender: FrameWriter::new(forward),
        receiver,
        streams,
    })
}

/// Says hello to the first stage and waits until it says that the whole chain stands.
fn greet(first: Hop, guard: Option<&Guard>, hello: Hello) -> Result<Link, NodeError> {
    let address = first.address;
    let say = |error: FrameError| {
        NodeError::Chain(format!("cannot build the chain through {address}: {error}"))
    };
    let mut link =
        Link::to_hop(&first, guard.map(|guard| &guard.own)).map_err(|error| say(error.into()))?;
    // Every stage may take the handshake's time for the one behind it.
    let timeout = HANDSHAKE_TIMEOUT * (hello.route.len() as u32 + 1);
    link.socket()
        .set_read_timeout(Some(timeout))
        .map_err(|error| say(error.into()))?;
    write_preamble(&mut link).map_err(say)?;
    FrameWriter::new(&mut link)
        .send(&Message::Hello(hello), &[])
        .map_err(say)?;
    match FrameReader::new(&mut link).receive().map_err(say)? {
        Message::Accepted => {}
        Message::Failed(failure) => return Err(NodeError::Chain(failure.to_string())),
        _ => {
            return Err(NodeError::Chain(format!(
                "{address} did not answer the hello"
            )));
        }
    }
    link.socket()
        .set_read_timeout(None)
        .map_err(|error| say(error.into()))?;
    Ok(link)
}

/// Takes the last stage's connection; others that happen to connect are sent away.
fn accept_return(
    listener: &TcpListener,
    guard: Option<&Guard>,
    session: u64,
    stop: &AtomicBool,
) -> Result<Link, FrameError> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
        let socket = match listener.accept() {
            Ok((socket, _)) => socket,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if let Ok(link) = welcome(socket, guard, session) {
            return Ok(link);
        }
    }
    Err(io::Error::from(io::ErrorKind::TimedOut).into())
}

fn welcome(socket: TcpStream, guard: Option<&Guard>, session: u64) -> Result<Link, FrameError> {
    let mut link = Link::from_hop(socket, guard, RETURN_TIMEOUT)?;
    link.socket().set_read_timeout(Some(RETURN_TIMEOUT))?;
    read_preamble(&mut link)?;
    match FrameReader::new(&mut link).receive()? {
        Message::Return(theirs) if theirs == session => {}
        _ => return Err(FrameError::Foreign),
    }
    FrameWriter::new(&mut link).send(&Message::Accepted, &[])?;
    link.socket().set_read_timeout(None)?;
    Ok(link)
}
