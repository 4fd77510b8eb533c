//! llama.cpp's RPC inside encrypted links.
//!
//! Its servers and its client know neither keys nor encryption, so both talk to loopback only: the
//! client to a port of its coordinator, and what it says there goes over a link to the server's
//! node, which passes it on to the server. Each connection has a link of its own and, at either
//! end, a thread that carries whatever comes from one side to the other.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use brigade_wire::frame::send_value;
use brigade_wire::{FrameError, NodeKey};

use super::message::{Answer, Opening, Refusal};
use super::{CONNECT, Daemon, Host, Shared};
use crate::NodeError;
use crate::link::Link;

/// What is carried at a time; a record of TLS holds 16 KiB.
const PIECE_BYTES: usize = 128 * 1024;

/// A port of this machine's loopback that leads to an RPC server of a node; closed when dropped.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(crate) address: SocketAddr,
    closed: Arc<AtomicBool>,
}

impl Daemon {
    /// Leads to the server at this port of the node's loopback, which this node has asked for.
    pub(crate) fn tunnel(&self, host: &Host, port: u16) -> Result<Tunnel, NodeError> {
        let failed = |error: io::Error| NodeError::Peer {
            node: host.name.clone(),
            error: error.into(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let closed = Arc::new(AtomicBool::new(false));
        let (shared, host, over) = (Arc::clone(&self.shared), host.clone(), Arc::clone(&closed));
        thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                let client = match listener.accept() {
                    Ok((client, _)) if !over.load(Ordering::Relaxed) => client,
                    Ok(_) => return,
                    Err(error) => {
                        // Too many open files, or a client that is gone already: neither lasts.
                        tracing::debug!(%error, "cannot accept");
                        thread::sleep(Duration::from_millis(10));
                        continue;
                    }
                };
                let (shared, host) = (Arc::clone(&shared), host.clone());
                thread::spawn(move || {
                    let carried = shared.ask(&host, &Opening::Tunnel(port)).map(|link| {
                        client.set_nodelay(true)?;
                        carry(link, &client)
                    });
                    match carried {
                        Ok(Ok(())) => {}
                        Ok(Err(error)) => {
                            tracing::debug!(node = host.name, %error, "a tunnel broke");
                        }
                        Err(error) => tracing::warn!(%error, "no tunnel"),
                    }
                });
            }
        });
        Ok(Tunnel { address, closed })
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, CONNECT);
    }
}

/// The server's node: passes on what the coordinator's client says.
pub(super) fn serve(
    shared: &Shared,
    mut link: Link,
    coordinator: NodeKey,
    port: u16,
) -> Result<(), FrameError> {
    if !shared.lock().peer(coordinator).servers.contains(&port) {
        return send_value(&mut link, &Answer::Refused(Refusal::NoServer));
    }
    let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    shared.lock().peer(coordinator).bind(link.socket())?;
    link.socket().set_read_timeout(None)?;
    link.socket().set_write_timeout(None)?;
    server.set_nodelay(true)?;
    send_value(&mut link, &Answer::Granted)?;
    Ok(carry(link, &server)?)
}

/// Carries bytes both ways until one side has ended, then ends the other. What is carried is
/// question and answer, so one thread is enough for both directions.
#[cfg(unix)]
pub(super) fn carry<S: AsFd>(mut link: Link, socket: &S) -> io::Result<()>
where
    for<'a> &'a S: Read + Write,
{
    let mut piece = vec![0; PIECE_BYTES];
    let mut near = socket;
    let mut run = || {
        loop {
            let (from_link, from_socket) = wait(&mut link, socket)?;
            if from_link {
                match link.read(&mut piece)? {
                    0 => return Ok(()),
                    count => near.write_all(&piece[..count])?,
                }
            }
            if from_socket {
                match near.read(&mut piece)? {
                    0 => return Ok(()),
                    count => link.write_all(&piece[..count])?,
                }
            }
        }
    };
    let result = run();
    // What is bound stays open otherwise. One that is closed already is what is wanted.
    let _ = link.socket().shutdown(Shutdown::Both);
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
    result
}

/// Waits until there is something to read from the link, from the socket, or from both.
#[cfg(unix)]
fn wait(link: &mut Link, socket: &impl AsFd) -> io::Result<(bool, bool)> {
    use rustix::event::{PollFd, PollFlags, poll};
    // What has been decrypted already, or read with what came before it, wakes nobody.
    if link.holds_input() {
        return Ok((true, false));
    }
    let mut both = [
        PollFd::new(link.socket(), PollFlags::IN),
        PollFd::new(socket, PollFlags::IN),
    ];
    loop {
        match poll(&mut both, None) {
            Ok(_) => break,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let [link, socket] = both.map(|fd| !fd.revents().is_empty());
    Ok((link, socket))
}

#[cfg(not(unix))]
pub(super) fn carry<S>(_link: Link, _socket: &S) -> io::Result<()> {
    Err(io::Error::other("carrying between machines needs Unix"))
}
