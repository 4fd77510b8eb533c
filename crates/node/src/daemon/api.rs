//! Requests of clients, on their way from the node that they talk to, to the one that coordinates
//! the model: HTTP inside encrypted links.
//!
//! Each request has a link of its own, so that its end is everybody's end: a client that goes
//! away, a gateway or a coordinator that dies. At either end a thread carries bytes between the
//! link and a pair of sockets, of which HTTP's side has the other.

use std::fmt;
#[cfg(unix)]
use std::os::unix::net::UnixStream;
#[cfg(unix)]
use std::thread;

use brigade_wire::frame::send_value;
use brigade_wire::{FrameError, NodeKey};

use super::Shared;
#[cfg(unix)]
use super::message::Opening;
use super::message::{Answer, Refusal};
#[cfg(unix)]
use super::tunnel::carry;
#[cfg(unix)]
use super::{Daemon, Host};
#[cfg(unix)]
use crate::NodeError;
use crate::link::Link;

/// Takes connections to the API.
#[cfg(unix)]
pub(super) struct Door(Box<dyn Fn(UnixStream) + Send + Sync>);

/// Takes connections to the API.
#[cfg(not(unix))]
pub(super) struct Door(());

impl fmt::Debug for Door {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Door").finish_non_exhaustive()
    }
}

#[cfg(unix)]
impl Daemon {
    /// Gives the connections that other nodes open to this one's API to `take`, from now on.
    pub fn open_api(&self, take: impl Fn(UnixStream) + Send + Sync + 'static) {
        // It was open already: once is enough.
        let _ = self.shared.api.set(Door(Box::new(take)));
    }

    /// A connection to the API of another node. Blocks until that node has taken it.
    pub fn reach_api(&self, host: &Host) -> Result<UnixStream, NodeError> {
        let failed = |error: std::io::Error| NodeError::Peer {
            node: host.name.clone(),
            error: error.into(),
        };
        let (near, far) = UnixStream::pair().map_err(failed)?;
        let link = self.shared.ask(host, &Opening::Api)?;
        let node = host.name.clone();
        thread::spawn(move || {
            if let Err(error) = carry(link, &far) {
                // A client that is gone ends it like this.
                tracing::debug!(node, %error, "a request's link broke");
            }
        });
        Ok(near)
    }
}

/// The coordinator's side.
#[cfg(unix)]
pub(super) fn serve(shared: &Shared, mut link: Link, gateway: NodeKey) -> Result<(), FrameError> {
    let Some(Door(take)) = shared.api.get() else {
        return send_value(&mut link, &Answer::Refused(Refusal::NoApi));
    };
    let (near, far) = UnixStream::pair()?;
    shared.lock().peer(gateway).bind(link.socket())?;
    link.socket().set_read_timeout(None)?;
    link.socket().set_write_timeout(None)?;
    send_value(&mut link, &Answer::Granted)?;
    take(far);
    Ok(carry(link, &near)?)
}

#[cfg(not(unix))]
pub(super) fn serve(_shared: &Shared, mut link: Link, _gateway: NodeKey) -> Result<(), FrameError> {
    send_value(&mut link, &Answer::Refused(Refusal::NoApi))
}
