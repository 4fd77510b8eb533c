//! A stage behind sockets: the loop of `brigade stage`.
//!
//! One thread reads a step from the stage before, computes it and writes it to the stage after:
//! no queue and no hand-over between threads stands between two hops. A stage serves one chain
//! at a time; when the chain breaks, it forgets everything and waits for the next one.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use brigade_engine::sampling::SequenceSamplers;
use brigade_engine::{Input, Stage, StageError, apply_changes};
use brigade_wire::frame::{FrameReader, FrameWriter, read_preamble, write_preamble};
use brigade_wire::{FrameError, FrameLimits, Hello, Message, StageParams, Token, WireError};

use crate::link::{Guard, HANDSHAKE_TIMEOUT, Link};

/// How long whoever connects may take to say hello; nobody else is served meanwhile.
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);

/// What a stage compares with the [`Hello`] of a chain.
#[derive(Debug, Clone)]
pub struct StageIdentity {
    /// Build of llama.cpp.
    pub build: String,
    /// The model's name.
    pub model: String,
    /// What it was loaded with.
    pub params: StageParams,
    /// What its connections are guarded by; without it they are not encrypted.
    pub guard: Option<Guard>,
}

/// Serves chains, one after the other, until the process ends or the listener fails.
pub fn serve(
    listener: &TcpListener,
    identity: &StageIdentity,
    stage: &mut impl Stage,
) -> io::Error {
    loop {
        let upstream = match listener.accept() {
            Ok((upstream, _)) => upstream,
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
            Err(error) => return error,
        };
        if let Err(error) = serve_chain(upstream, identity, stage) {
            tracing::debug!(%error, "the chain ended");
        }
        stage.clear();
    }
}

/// Why a chain ended.
#[derive(Debug, thiserror::Error)]
enum ChainError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error(transparent)]
    Stage(#[from] StageError),
    #[error(transparent)]
    Peer(WireError),
    #[error("{0}")]
    Refused(String),
}

fn serve_chain(
    upstream: TcpStream,
    identity: &StageIdentity,
    stage: &mut impl Stage,
) -> Result<(), ChainError> {
    let upstream = Link::from_hop(upstream, identity.guard.as_ref(), HELLO_TIMEOUT)
        .map_err(FrameError::from)?;
    let mut input = FrameReader::new(io::BufReader::with_capacity(256 * 1024, upstream));
    socket(&mut input)
        .set_read_timeout(Some(HELLO_TIMEOUT))
        .map_err(FrameError::from)?;
    let (hello, mut output) = match accept(&mut input, identity, stage) {
        Ok(accepted) => accepted,
        Err((index, error)) => {
            let failure = match error {
                ChainError::Peer(failure) => failure,
                error => WireError {
                    stage: index,
                    reason: error.to_string(),
                },
            };
            let _ = answer(&mut input, &Message::Failed(failure.clone()));
            return Err(ChainError::Peer(failure));
        }
    };
    answer(&mut input, &Message::Accepted)?;
    socket(&mut input)
        .set_read_timeout(None)
        .map_err(FrameError::from)?;
    let rows = if hello.stage == 0 {
        0
    } else {
        hello.hidden_size
    };
    input.set_limits(FrameLimits::for_rows(hello.params.batch_tokens, rows));

    let ended = run(&mut input, &mut output, &hello, stage);
    if let Err(error) = &ended {
        // Downstream is the way to the coordinator; upstream learns by the closed connection.
        let failure = match error {
            ChainError::Peer(failure) => failure.clone(),
            error => WireError {
                stage: hello.stage,
                reason: error.to_string(),
            },
        };
        let _ = output.send(&Message::Failed(failure), &[]);
    }
    let _ = socket(&mut input).shutdown(Shutdown::Both);
    ended
}

type Source = FrameReader<io::BufReader<Link>>;
type Output = FrameWriter<Link>;

fn socket(input: &mut Source) -> &TcpStream {
    input.stream_mut().get_ref().socket()
}

/// Sends a message against the stream, which happens once in a chain's life.
fn answer(input: &mut Source, message: &Message) -> Result<(), FrameError> {
    FrameWriter::new(input.stream_mut().get_mut()).send(message, &[])
}

/// Reads the hello, checks it, and builds the rest of the chain. An error comes with the index
/// that the coordinator knows this stage by.
fn accept(
    input: &mut Source,
    identity: &StageIdentity,
    stage: &impl Stage,
) -> Result<(Hello, Output), (u32, ChainError)> {
    let hello = read_hello(input).map_err(|error| (0, error))?;
    let index = hello.stage;
    check(&hello, identity, stage)
        .and_then(|()| connect_next(&hello, identity))
        .map(|output| (hello, output))
        .map_err(|error| (index, error))
}

fn read_hello(input: &mut Source) -> Result<Hello, ChainError> {
    read_preamble(input.stream_mut())?;
    match input.receive()? {
        Message::Hello(hello) => Ok(hello),
        _ => Err(ChainError::Refused(
            "the chain did not begin with a hello".into(),
        )),
    }
}

fn check(hello: &Hello, identity: &StageIdentity, stage: &impl Stage) -> Result<(), ChainError> {
    let refuse = |reason: String| Err(ChainError::Refused(reason));
    if hello.build != identity.build {
        return refuse(format!(
            "this stage runs {}, the coordinator {}: install the same build on both",
            identity.build, hello.build
        ));
    }
    if hello.model != identity.model {
        return refuse(format!(
            "this stage holds {}, the chain is for {}",
            identity.model, hello.model
        ));
    }
    if hello.params != identity.params {
        return refuse(format!(
            "this stage was loaded with {:?}, the chain needs {:?}",
            identity.params, hello.params
        ));
    }
    if hello.hidden_size as usize != stage.hidden_size() {
        return refuse(format!(
            "hidden states are {} wide here, {} in the chain",
            stage.hidden_size(),
            hello.hidden_size
        ));
    }
    match (hello.route.len(), stage.vocabulary()) {
        (0, _) => refuse("the chain has no way back".into()),
        (1, None) => refuse("this stage has no head, it cannot be the last".into()),
        (2.., Some(_)) => refuse("this stage has the head, it must be the last".into()),
        _ => Ok(()),
    }
}

fn connect_next(hello: &Hello, identity: &StageIdentity) -> Result<Output, ChainError> {
    let next = hello.route[0];
    let own = identity.guard.as_ref().map(|guard| &guard.own);
    let mut link = Link::to_hop(&next, own)
        .map_err(FrameError::from)
        .map_err(|error| ChainError::Refused(format!("cannot reach {}: {error}", next.address)))?;
    let next = next.address;
    link.socket()
        .set_read_timeout(Some(HANDSHAKE_TIMEOUT))
        .map_err(FrameError::from)?;
    write_preamble(&mut link)?;
    let greeting = match hello.route.split_first() {
        Some((_, rest)) if !rest.is_empty() => Message::Hello(Hello {
            stage: hello.stage + 1,
            route: rest.to_vec(),
            ..hello.clone()
        }),
        _ => Message::Return(hello.session),
    };
    FrameWriter::new(&mut link).send(&greeting, &[])?;
    let answer = FrameReader::new(&mut link)
        .receive()
        .map_err(|error| ChainError::Refused(format!("{next} does not answer: {error}")))?;
    match answer {
        Message::Accepted => {}
        Message::Failed(failure) => return Err(ChainError::Peer(failure)),
        _ => {
            return Err(ChainError::Refused(format!(
                "{next} did not answer the hello"
            )));
        }
    }
    link.socket()
        .set_read_timeout(None)
        .map_err(FrameError::from)?;
    Ok(FrameWriter::new(link))
}

/// Steps until the coordinator closes the chain.
fn run(
    input: &mut Source,
    output: &mut Output,
    hello: &Hello,
    stage: &mut impl Stage,
) -> Result<(), ChainError> {
    let first = hello.stage == 0;
    let mut samplers = SequenceSamplers::new();
    let mut tokens: Vec<Token> = Vec::new();
    let mut computed: Vec<f32> = Vec::new();
    let mut returned: Vec<f32> = Vec::new();
    loop {
        let mut step = match input.receive() {
            Ok(Message::Step(step)) => step,
            Ok(Message::Failed(failure)) => return Err(ChainError::Peer(failure)),
            Ok(_) => {
                return Err(ChainError::Refused(
                    "something else than a step came".into(),
                ));
            }
            Err(FrameError::Closed) if first => return Ok(()),
            Err(FrameError::Closed) => {
                return Err(ChainError::Refused("the stage before is gone".into()));
            }
            Err(error) => return Err(error.into()),
        };
        let begin = Instant::now();
        let spent_us = || u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX);
        apply_changes(stage, &step)?;
        computed.clear();
        if !step.spans.is_empty() {
            let rows = if first {
                tokens.clear();
                for span in &step.spans {
                    tokens.extend_from_slice(&span.tokens);
                }
                Input::Tokens(&tokens)
            } else {
                Input::Hidden(input.payload())
            };
            stage.forward(&step.spans, rows, &mut computed)?;
        }
        if let Some(vocabulary) = stage.vocabulary() {
            returned.clear();
            let mut result = samplers.answer(
                &step,
                &computed,
                vocabulary,
                stage.grammars(),
                &mut returned,
            )?;
            result.compute_us = std::mem::take(&mut step.compute_us);
            result.compute_us.push(spent_us());
            output.send(&Message::Result(result), &returned)?;
        } else {
            step.compute_us.push(spent_us());
            output.send(&Message::Step(step), &computed)?;
        }
    }
}
