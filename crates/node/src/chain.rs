//! The coordinator's two ends of a chain of stages.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use brigade_wire::frame::{FrameReader, FrameWriter, read_preamble, write_preamble};
use brigade_wire::{FrameError, FrameLimits, Hello, Message, StageParams};

use crate::NodeError;
use crate::stage_process::{HANDSHAKE_TIMEOUT, connect, prepare};

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
    /// The stages' addresses, in order of layers.
    pub(crate) stages: Vec<SocketAddr>,
}

/// Steps go into the sender, results come out of the receiver.
#[derive(Debug)]
pub(crate) struct Chain {
    /// To the first stage.
    pub(crate) sender: FrameWriter<TcpStream>,
    /// From the last stage.
    pub(crate) receiver: FrameReader<io::BufReader<TcpStream>>,
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
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0)).map_err(io_fail)?;
    let session = RandomState::new().hash_one(std::process::id());
    let mut route = spec.stages[1..].to_vec();
    route.push(listener.local_addr().map_err(io_fail)?);
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
        let back = scope.spawn(|| accept_return(&listener, session, &stop));
        let forward = greet(first, hello);
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
        forward.try_clone().map_err(io_fail)?,
        back.try_clone().map_err(io_fail)?,
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
fn greet(first: SocketAddr, hello: Hello) -> Result<TcpStream, NodeError> {
    let say = |error: FrameError| {
        NodeError::Chain(format!("cannot build the chain through {first}: {error}"))
    };
    let stream = connect(first).map_err(say)?;
    // Every stage may take the handshake's time for the one behind it.
    let timeout = HANDSHAKE_TIMEOUT * (hello.route.len() as u32 + 1);
    stream
        .set_read_timeout(Some(timeout))
        .map_err(|error| say(error.into()))?;
    write_preamble(&mut &stream).map_err(say)?;
    FrameWriter::new(&stream)
        .send(&Message::Hello(hello), &[])
        .map_err(say)?;
    match FrameReader::new(&stream).receive().map_err(say)? {
        Message::Accepted => {}
        Message::Failed(failure) => return Err(NodeError::Chain(failure.to_string())),
        _ => {
            return Err(NodeError::Chain(format!(
                "{first} did not answer the hello"
            )));
        }
    }
    stream
        .set_read_timeout(None)
        .map_err(|error| say(error.into()))?;
    Ok(stream)
}

/// Takes the last stage's connection; others that happen to connect are sent away.
fn accept_return(
    listener: &TcpListener,
    session: u64,
    stop: &AtomicBool,
) -> Result<TcpStream, FrameError> {
    listener.set_nonblocking(true)?;
    let deadline = Instant::now() + HANDSHAKE_TIMEOUT;
    while !stop.load(Ordering::Relaxed) && Instant::now() < deadline {
        let stream = match listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        if welcome(&stream, session).is_ok() {
            return Ok(stream);
        }
    }
    Err(io::Error::from(io::ErrorKind::TimedOut).into())
}

fn welcome(stream: &TcpStream, session: u64) -> Result<(), FrameError> {
    stream.set_nonblocking(false)?;
    prepare(stream)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    read_preamble(&mut &*stream)?;
    match FrameReader::new(stream).receive()? {
        Message::Return(theirs) if theirs == session => {}
        _ => return Err(FrameError::Foreign),
    }
    FrameWriter::new(stream).send(&Message::Accepted, &[])?;
    stream.set_read_timeout(None)?;
    Ok(())
}
