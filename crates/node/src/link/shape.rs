//! Links that pretend to be slower than they are, so that one machine can stand for several.
//!
//! The two ends of a connection do it between them, below TLS: no root, no thread and no hop more.
//! The sender puts before each piece of what it writes the time at which a link of this kind would
//! deliver it; the receiver, whose thread would wait for it anyway, sleeps until then. Pieces that
//! are under way lie in the kernel's buffers, so transmission, propagation and computing overlap
//! as they do on a cable. Each connection has the whole bandwidth for itself.

mod text;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

pub use text::BadShape;

/// Where a process of a lab finds how its nodes are wired.
const VARIABLE: &str = "BRIGADE_LAB_LINKS";

/// The most bytes that arrive at one time: a record of TLS fits.
const PIECE_BYTES: usize = 20 * 1024;

/// Before each piece: when it arrives, in nanoseconds of [`now`], and its bytes.
const HEAD_BYTES: usize = 12;

/// A sleep may be late by so much, so the rest of the time is spent looking at the clock.
const SPIN: Duration = Duration::from_micros(40);

/// How a link behaves, the same in both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LinkShape {
    /// The way there and back, without what encryption and the processes at the ends take.
    pub rtt: Duration,
    /// In bits a second, where it is limited.
    pub bandwidth_bit_s: Option<f64>,
    /// Each way takes up to so much more or less than half the round trip, evenly distributed. What
    /// was sent first arrives first all the same.
    pub jitter: Duration,
}

/// How the nodes of a lab are connected, as one of them is told. Nodes count from 1.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Wiring {
    /// The node.
    pub own: u32,
    /// How many there are.
    pub nodes: u32,
    /// What chance in the links begins with.
    pub seed: u64,
    /// Between all of them, where nothing else is said.
    pub usual: Option<LinkShape>,
    /// Between two nodes; of several, the last counts.
    pub pairs: Vec<((u32, u32), LinkShape)>,
}

impl Wiring {
    /// The link between two nodes; none within one node, or where nothing is pretended.
    pub fn between(&self, a: u32, b: u32) -> Option<LinkShape> {
        let mut named = self.pairs.iter().rev();
        let named = named.find(|(pair, _)| *pair == (a, b) || *pair == (b, a));
        let shape = named.map_or(self.usual, |(_, shape)| Some(*shape));
        shape.filter(|_| a != b)
    }

    /// The environment variable that tells a process of this node, and its children.
    pub fn variable(&self) -> (&'static str, String) {
        let text = serde_json::to_string(self).unwrap_or_default();
        (VARIABLE, text)
    }

    /// What this process was told.
    fn told() -> io::Result<Option<&'static Self>> {
        static TOLD: OnceLock<Result<Option<Wiring>, String>> = OnceLock::new();
        let read = || match std::env::var(VARIABLE) {
            Ok(text) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| format!("{VARIABLE} cannot be read: {error}")),
            Err(_) => Ok(None),
        };
        match TOLD.get_or_init(read) {
            Ok(wiring) => Ok(wiring.as_ref()),
            Err(reason) => Err(io::Error::other(reason.as_str())),
        }
    }
}

/// A socket, with the link that it pretends to have.
#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    shaping: Option<Shaping>,
}

impl Wire {
    /// In a lab whose links are shaped, both ends say first which nodes they are.
    pub(super) fn open(socket: TcpStream, deadline: Instant) -> io::Result<Self> {
        match Wiring::told()? {
            Some(wiring) => Self::between(socket, wiring, deadline),
            None => Ok(Self {
                socket,
                shaping: None,
            }),
        }
    }

    fn between(socket: TcpStream, wiring: &Wiring, deadline: Instant) -> io::Result<Self> {
        let left = deadline.saturating_duration_since(Instant::now());
        socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut peer = [0; 4];
        (&socket).write_all(&wiring.own.to_le_bytes())?;
        (&socket).read_exact(&mut peer)?;
        socket.set_read_timeout(None)?;
        let peer = u32::from_le_bytes(peer);
        if !(1..=wiring.nodes).contains(&peer) {
            return Err(io::Error::other("the peer is no node of this lab"));
        }
        let shape = wiring.between(wiring.own, peer);
        let chance = wiring.seed ^ (u64::from(wiring.own) << 32) ^ u64::from(peer);
        Ok(Self {
            socket,
            shaping: shape.map(|shape| Shaping::new(shape, chance)),
        })
    }

    pub(super) fn socket(&self) -> &TcpStream {
        &self.socket
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut socket = &self.socket;
        let Some(shaping) = &mut self.shaping else {
            return socket.read(buffer);
        };
        while shaping.arrived == 0 {
            // A time-out may fall between the bytes of a head.
            match socket.read(&mut shaping.head[shaping.head_bytes..])? {
                0 => return Ok(0),
                count => shaping.head_bytes += count,
            }
            if shaping.head_bytes == HEAD_BYTES {
                let (due, bytes) = split(shaping.head);
                sleep_until(due);
                shaping.head_bytes = 0;
                shaping.arrived = bytes;
            }
        }
        let most = buffer.len().min(shaping.arrived);
        let count = socket.read(&mut buffer[..most])?;
        shaping.arrived -= count;
        Ok(count)
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(shaping) = &mut self.shaping else {
            return (&self.socket).write(bytes);
        };
        let bytes = &bytes[..bytes.len().min(PIECE_BYTES)];
        if bytes.is_empty() {
            return Ok(0);
        }
        let due = shaping.send(now(), bytes.len());
        let mut piece = Vec::with_capacity(HEAD_BYTES + bytes.len());
        piece.extend_from_slice(&(due.as_nanos() as u64).to_le_bytes());
        piece.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        piece.extend_from_slice(bytes);
        // A piece that was broken off ends the connection, as every error of a link does.
        (&self.socket).write_all(&piece)?;
        Ok(bytes.len())
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        if self.shaping.is_none() {
            return (&self.socket).write_vectored(parts);
        }
        let first = parts.iter().find(|part| !part.is_empty());
        first.map_or(Ok(0), |part| self.write(part))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn split(head: [u8; HEAD_BYTES]) -> (Duration, usize) {
    let [d0, d1, d2, d3, d4, d5, d6, d7, bytes @ ..] = head;
    let due = u64::from_le_bytes([d0, d1, d2, d3, d4, d5, d6, d7]);
    (
        Duration::from_nanos(due),
        u32::from_le_bytes(bytes) as usize,
    )
}

/// One end's state of a shaped connection.
#[derive(Debug)]
struct Shaping {
    shape: LinkShape,
    /// When the last byte that was sent has left.
    free: Duration,
    /// When it arrives.
    last: Duration,
    chance: u64,
    head: [u8; HEAD_BYTES],
    /// Bytes of it that have been read.
    head_bytes: usize,
    /// Bytes of a piece whose time has come.
    arrived: usize,
}

impl Shaping {
    fn new(shape: LinkShape, seed: u64) -> Self {
        static CONNECTIONS: AtomicU64 = AtomicU64::new(0);
        let connection = CONNECTIONS.fetch_add(1, Ordering::Relaxed);
        Self {
            shape,
            free: Duration::ZERO,
            last: Duration::ZERO,
            chance: seed ^ (connection << 48),
            head: [0; HEAD_BYTES],
            head_bytes: 0,
            arrived: 0,
        }
    }

    /// Sends so many bytes now; returns when they arrive.
    fn send(&mut self, now: Duration, bytes: usize) -> Duration {
        let rate = self.shape.bandwidth_bit_s.unwrap_or(f64::INFINITY);
        let transmission = Duration::from_secs_f64(bytes as f64 * 8.0 / rate);
        self.free = self.free.max(now) + transmission;
        let shift = self.shape.jitter.mul_f64(self.draw() * 2.0);
        let way = (self.shape.rtt / 2 + shift).saturating_sub(self.shape.jitter);
        self.last = self.last.max(self.free + way);
        self.last
    }

    /// The next number of a repeatable sequence, from 0 to 1 (`SplitMix64`, Steele et al. 2014).
    fn draw(&mut self) -> f64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) as f64 / u64::MAX as f64
    }
}

/// The time since a moment that all processes of this machine have in common.
#[cfg(unix)]
fn now() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(not(unix))]
fn now() -> Duration {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
}

/// Waits until [`now`] is `due`, to within some microseconds on a machine that is not busy.
fn sleep_until(due: Duration) {
    loop {
        let left = due.saturating_sub(now());
        if left.is_zero() {
            return;
        }
        match left.checked_sub(SPIN) {
            Some(long) if !long.is_zero() => {
                wake_in_time();
                thread::sleep(long);
            }
            _ => std::hint::spin_loop(),
        }
    }
}

/// Linux lets a thread sleep 50 µs longer than it asked for, unless told otherwise.
fn wake_in_time() {
    #[cfg(target_os = "linux")]
    {
        // Where it is not allowed, sleeps are a little longer.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    }
}

#[cfg(test)]
mod tests;
