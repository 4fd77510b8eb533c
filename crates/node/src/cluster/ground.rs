//! Where the members of a running model are, and how they reach each other.

use std::net::SocketAddr;

use crate::NodeError;
use crate::daemon::{Daemon, Tunnel};
use crate::listen::Listen;
use crate::worker::StageReady;

use super::Seat;

/// Where the ends of a chain find each other: each as the one before sees it.
#[derive(Debug)]
pub(super) struct Route {
    /// The stages.
    pub(super) stages: Vec<SocketAddr>,
    /// Where the coordinator listens.
    pub(super) listen: Listen,
    /// The coordinator, as the last stage sees it; without the port.
    pub(super) back: SocketAddr,
}

/// Where the members of a running model are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ground<'a> {
    /// All of them on this machine.
    Here,
    /// On nodes of a cluster.
    Cluster(&'a Daemon, &'a [Seat]),
}

impl Ground<'_> {
    /// The address by which a member's RPC server is reached from here.
    pub(super) fn lead(
        self,
        member: usize,
        address: SocketAddr,
    ) -> Result<(SocketAddr, Option<Tunnel>), NodeError> {
        match self {
            Self::Cluster(daemon, seats) if !daemon.is_own(&seats[member].host) => {
                let tunnel = daemon.tunnel(&seats[member].host, address.port())?;
                Ok((tunnel.address, Some(tunnel)))
            }
            _ => Ok((address, None)),
        }
    }

    /// Tells the members' nodes that the memory which this model reserved is in use now: an RPC
    /// server gets its weights after it is ready. Without that a node counts them twice.
    pub(super) fn filled(self, model: &str) {
        let Self::Cluster(daemon, seats) = self else {
            return;
        };
        for seat in seats {
            if let Err(error) = daemon.filled(&seat.host, model) {
                tracing::warn!(%error, "a node does not hear that its memory is in use");
            }
        }
    }

    /// Where the chain's ends find each other: in a cluster by the ways that its nodes use between
    /// each other now.
    pub(super) fn route(self, ready: &[StageReady]) -> Result<Route, NodeError> {
        let Self::Cluster(daemon, seats) = self else {
            return Ok(Route::here(ready));
        };
        let here = daemon.here();
        let mut from = &here;
        let mut stages = Vec::new();
        for (seat, ready) in seats.iter().zip(ready) {
            let mut address = daemon.route(from, &seat.host)?;
            address.set_port(ready.address.port());
            stages.push(address);
            from = &seat.host;
        }
        Ok(Route {
            stages,
            listen: daemon.chain_listen(),
            back: daemon.route(from, &here)?,
        })
    }
}

impl Route {
    /// Between processes of this machine.
    pub(super) fn here(ready: &[StageReady]) -> Self {
        let listen = Listen::LOOPBACK;
        Self {
            stages: ready.iter().map(|stage| stage.address).collect(),
            listen,
            back: SocketAddr::new(listen.ip, 0),
        }
    }
}
