//! The models of the whole cluster: what each node says of those that it coordinates, and the way
//! to them.

use std::io;
use std::os::unix::net;

use brigade_api::{BackendError, BoxedStream, Connection, ModelInfo};
use brigade_node::{Host, NodeError};
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;

use super::Shared;
use super::slot::Slot;

/// What a node says of a model that it coordinates.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Announced {
    pub(super) name: String,
    /// Once it was loaded.
    pub(super) info: Option<ModelInfo>,
    /// Why it does not answer now.
    pub(super) trouble: Option<String>,
    /// It is being loaded for the first time.
    #[serde(default)]
    pub(super) on_its_way: bool,
}

impl Announced {
    pub(super) fn of(slot: &Slot) -> Self {
        Self {
            name: slot.name().to_owned(),
            info: slot.serves().map(|serves| serves.info),
            trouble: slot.trouble(),
            on_its_way: slot.is_on_its_way(),
        }
    }
}

/// A model that another node coordinates.
#[derive(Debug, Clone)]
pub(super) struct Elsewhere {
    /// The node.
    pub(super) node: String,
    /// While this node has a link to it.
    pub(super) host: Option<Host>,
    pub(super) model: Announced,
}

impl Shared {
    /// What the other nodes say, or said before they were lost: those first that answer.
    pub(super) fn elsewhere(&self) -> Vec<Elsewhere> {
        let nodes = self.daemon.nodes().into_iter();
        let mut models: Vec<Elsewhere> = nodes
            .filter(|node| !node.is_self)
            .flat_map(|node| {
                let text = node.facts.map(|facts| facts.models).unwrap_or_default();
                let said: Vec<Announced> = serde_json::from_str(&text).unwrap_or_default();
                let host = self.daemon.find_host(&node.id).ok();
                said.into_iter().map(move |model| Elsewhere {
                    node: node.name.clone(),
                    host: host.clone(),
                    model,
                })
            })
            .collect();
        models.sort_by_key(|other| (other.host.is_none(), other.model.trouble.is_some()));
        models
    }

    /// The one of that name that answers, or is likeliest to.
    pub(super) fn find_elsewhere(&self, name: &str) -> Option<Elsewhere> {
        let mut models = self.elsewhere().into_iter();
        models.find(|other| other.model.name == name)
    }

    /// A connection to the node that coordinates a model.
    pub(super) fn connect(&self, name: &str) -> Result<Connection, BackendError> {
        let other = self.find_elsewhere(name);
        let Some((host, node)) = other.and_then(|other| Some((other.host?, other.node))) else {
            return Err(BackendError::UnknownModel(name.to_owned()));
        };
        let stream = self.daemon.reach_api(&host).and_then(|socket| {
            asynchronous(socket).map_err(|error| NodeError::Daemon(error.to_string()))
        });
        match stream {
            Ok(stream) => Ok(Connection { node, stream }),
            Err(error) => Err(BackendError::Unavailable(format!(
                "{node}, which runs {name}, cannot be reached: {error}"
            ))),
        }
    }
}

/// A socket for the runtime within which this is called.
pub(super) fn asynchronous(socket: net::UnixStream) -> io::Result<BoxedStream> {
    socket.set_nonblocking(true)?;
    Ok(Box::new(UnixStream::from_std(socket)?))
}
