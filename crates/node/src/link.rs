//! A connection for frames: encrypted between machines, plain between processes of one command.
//!
//! Everything here blocks, and one thread uses a link at a time: what flows after the handshake
//! flows one way, or turn by turn.

mod keys;
mod shape;
mod tls;
mod watch;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use brigade_wire::{Hop, NodeKey};
use shape::Wire;

pub use keys::KeyPair;
pub use shape::{BadShape, LinkShape, Wiring};
pub use tls::Encrypted;

/// How long a peer may take to answer during the handshake.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connecting may take where the other side is known to be up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection.
#[derive(Debug)]
pub enum Link {
    /// A bare socket, for loopback.
    Plain(TcpStream),
    /// TLS 1.3; both ends have proved a key.
    Encrypted(Box<Encrypted>),
}

/// Whose connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// The holder of this key only.
    Key(NodeKey),
    /// The holder of any key; the caller judges which.
    AnyKey,
}

impl Link {
    /// Connects to a hop of a chain. `own` is needed where the hop has a key.
    pub(crate) fn to_hop(hop: &Hop, own: Option<&KeyPair>) -> io::Result<Self> {
        match (hop.key, own) {
            (Some(key), Some(own)) => {
                Self::connect(hop.address, own, key, CONNECT_TIMEOUT).map(|(link, _)| link)
            }
            (None, None) => {
                let socket = TcpStream::connect_timeout(&hop.address, CONNECT_TIMEOUT)?;
                socket.set_nodelay(true)?;
                Ok(Self::Plain(socket))
            }
            _ => Err(io::Error::other(
                "one part of the chain is encrypted, another is not",
            )),
        }
    }

    /// Connects to the holder of the key `peer`.
    pub fn connect(
        address: SocketAddr,
        own: &KeyPair,
        peer: NodeKey,
        limit: Duration,
    ) -> io::Result<(Self, Peer)> {
        let socket = TcpStream::connect_timeout(&address, limit)?;
        socket.set_nodelay(true)?;
        watch::notice_silence(&socket)?;
        let deadline = Instant::now() + limit;
        let (encrypted, peer) = tls::connect(Wire::open(socket, deadline)?, own, peer, deadline)?;
        Ok((Self::Encrypted(Box::new(encrypted)), peer))
    }

    /// The accepting end of [`connect`](Self::connect).
    pub fn accept(
        socket: TcpStream,
        own: &KeyPair,
        expected: Expected,
        limit: Duration,
    ) -> io::Result<(Self, Peer)> {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        watch::notice_silence(&socket)?;
        let deadline = Instant::now() + limit;
        let (encrypted, peer) =
            tls::accept(Wire::open(socket, deadline)?, own, expected, deadline)?;
        Ok((Self::Encrypted(Box::new(encrypted)), peer))
    }

    /// The accepting end of a chain's connection: encrypted where there are keys.
    pub(crate) fn from_hop(
        socket: TcpStream,
        guard: Option<&Guard>,
        limit: Duration,
    ) -> io::Result<Self> {
        let Some(guard) = guard else {
            socket.set_nonblocking(false)?;
            socket.set_nodelay(true)?;
            return Ok(Self::Plain(socket));
        };
        let expected = Expected::Key(guard.upstream);
        Self::accept(socket, &guard.own, expected, limit).map(|(link, _)| link)
    }

    /// Whether something was read from the socket that nobody has read from the link.
    pub(crate) fn holds_input(&mut self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Encrypted(encrypted) => encrypted.holds_input(),
        }
    }

    /// The socket below: for its time-outs, and to end the link from another thread.
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Encrypted(encrypted) => encrypted.socket(),
        }
    }
}

/// What an end of a chain's connections proves, and asks of whoever connects.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Guard {
    /// This end's keys, made for one chain.
    pub own: KeyPair,
    /// The key of the end that connects here.
    pub upstream: NodeKey,
}

/// Who is at the other end of an encrypted link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The key that it proved.
    pub key: NodeKey,
    /// A secret that both ends of this connection know and nobody else, for binding other proofs
    /// to it (a TLS exporter's value, RFC 8446 section 7.5).
    pub binding: [u8; 32],
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Encrypted(encrypted) => encrypted.read(buffer),
        }
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Encrypted(encrypted) => encrypted.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush(),
            Self::Encrypted(encrypted) => encrypted.flush(),
        }
    }
}

#[cfg(test)]
mod tests;
