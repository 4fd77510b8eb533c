//! The ways between the nodes of a cluster, and how fast they are.

use std::net::SocketAddr;

use brigade_wire::NodeKey;
use serde::{Deserialize, Serialize};

use super::message::Measured;
use super::state::State;
use super::{Daemon, Shared};
use crate::interfaces::{Interface, LinkKind};

/// A way from one node to another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LinkView {
    /// The name of the node that connects.
    pub from: String,
    /// The name of the other one.
    pub to: String,
    /// Where that is found.
    pub address: SocketAddr,
    /// The interface of the node that was asked over which the way leads; of others it is not told.
    pub interface: Option<String>,
    /// What kind of network it leads to, as far as that is known.
    pub kind: Option<LinkKind>,
    /// Whether it is the best of those between the two, which chains take.
    pub in_use: bool,
    /// What was measured.
    #[serde(flatten)]
    pub measured: Measured,
    /// Why no connection stands.
    pub trouble: Option<String>,
}

impl Daemon {
    /// The ways between the nodes of the cluster: of this node all that are tried, of the others
    /// those in use, as they say.
    pub fn links(&self) -> Vec<LinkView> {
        let shared = &self.shared;
        let own = shared.own().public();
        let state = shared.lock();
        let others = state.members.present().filter(|member| member.key != own);
        let mut links = Vec::new();
        for member in others {
            links.extend(from_here(&state, shared, member.key, &member.name));
            let Some(peer) = state.peek(member.key) else {
                continue;
            };
            links.extend(peer.pulse.links.iter().filter_map(|link| {
                Some(LinkView {
                    from: member.name.clone(),
                    to: state.members.get(link.to)?.name.clone(),
                    address: link.address,
                    interface: None,
                    kind: link.kind,
                    in_use: true,
                    measured: link.measured,
                    trouble: None,
                })
            }));
        }
        links.sort_by(|a, b| {
            let place = |link: &LinkView| (link.from != shared.name, link.from.clone());
            (place(a), &a.to, !a.in_use, a.address).cmp(&(place(b), &b.to, !b.in_use, b.address))
        });
        links
    }
}

/// All ways from this node to another one.
fn from_here(state: &State, shared: &Shared, to: NodeKey, name: &str) -> Vec<LinkView> {
    let Some(peer) = state.peek(to) else {
        return Vec::new();
    };
    let now = shared.now();
    let view = |(&address, path): (&SocketAddr, &super::path::Path)| {
        let interface = state.interface(path);
        LinkView {
            from: shared.name.clone(),
            to: name.to_owned(),
            address,
            interface: interface.map(|interface| interface.name.clone()),
            kind: interface.and_then(Interface::kind),
            in_use: peer.in_use == Some(address),
            measured: path.facts(now),
            trouble: path.trouble.as_ref().map(|fault| fault.reason.clone()),
        }
    };
    peer.paths.iter().map(view).collect()
}
