//! Nodes of the local networks, by multicast DNS: every node announces its id, name and addresses
//! on each of its interfaces and listens for others.
//!
//! Whatever is announced may be a lie, so it is a hint and nothing more: where to try a member, or
//! a token's node, whose key is then proved as at any other address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::thread;

use brigade_wire::NodeId;
use brigade_wire::members::{ADDRESSES_LIMIT, is_name};
use mdns_sd::{IfKind, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use serde::{Deserialize, Serialize};

use super::{Daemon, Shared};

/// The service's name in DNS-SD (RFC 6763).
const SERVICE: &str = "_brigade._tcp.local.";

/// No more nodes are remembered.
const LIMIT: usize = 256;

/// How often the library looks for new addresses of this machine, in seconds.
const LOOK_S: u32 = 2;

/// What a node announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    name: String,
    addresses: Vec<SocketAddr>,
}

/// A node that announces itself and belongs to another cluster, or to none. Nothing of it is proved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NearbyNode {
    /// Its id, as it says.
    pub id: String,
    /// What people call it, as it says.
    pub name: String,
    /// Where it listens, as it says.
    pub addresses: Vec<SocketAddr>,
}

/// The nodes that announce themselves.
#[derive(Debug, Default)]
pub(super) struct Nearby(BTreeMap<String, Announced>);

impl Nearby {
    /// Where a node says that it is.
    pub(super) fn addresses(&self, id: NodeId) -> &[SocketAddr] {
        let announced = self.0.get(&id.to_string());
        announced.map_or(&[], |announced| &announced.addresses)
    }

    /// Takes an announcement in. Returns whether it says anything new.
    fn put(&mut self, id: &str, announced: Announced) -> bool {
        if NodeId::from_str(id).is_err() || !is_name(&announced.name) {
            return false;
        }
        if self.0.len() >= LIMIT && !self.0.contains_key(id) {
            return false;
        }
        let before = self.0.insert(id.to_owned(), announced);
        before.as_ref() != self.0.get(id)
    }
}

/// Announces this node and listens for others, until the library's daemon is shut down.
pub(super) fn start(shared: &Arc<Shared>) -> Result<ServiceDaemon, mdns_sd::Error> {
    let mdns = ServiceDaemon::new()?;
    mdns.disable_interface([IfKind::LoopbackV4, IfKind::LoopbackV6].to_vec())?;
    mdns.set_ip_check_interval(LOOK_S)?;
    let listen = shared.listen;
    let id = shared.own().id().to_string();
    let host = format!("brigade-{id}.local.");
    let properties = [("name", shared.name.as_str())];
    let info = |ips: &[std::net::IpAddr]| {
        ServiceInfo::new(SERVICE, &id, &host, ips, listen.port(), &properties[..])
    };
    let info = if listen.ip().is_unspecified() {
        info(&[])?.enable_addr_auto()
    } else {
        mdns.disable_interface(IfKind::All)?;
        mdns.enable_interface(IfKind::Addr(listen.ip()))?;
        info(&[listen.ip()])?
    };
    let events = mdns.browse(SERVICE)?;
    mdns.register(info)?;
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        while let Ok(event) = events.recv() {
            hear(&shared, &event);
        }
    });
    Ok(mdns)
}

fn hear(shared: &Arc<Shared>, event: &ServiceEvent) {
    let news = match event {
        ServiceEvent::ServiceResolved(service) => {
            let Some(id) = id(&service.fullname) else {
                return;
            };
            shared.lock().nearby.put(id, announced(service))
        }
        ServiceEvent::ServiceRemoved(_, fullname) => {
            id(fullname).is_some_and(|id| shared.lock().nearby.0.remove(id).is_some())
        }
        _ => false,
    };
    if news {
        shared.keep_dialing();
        shared.changed.notify_all();
    }
}

/// The id in a service's full name.
fn id(fullname: &str) -> Option<&str> {
    fullname.strip_suffix(SERVICE)?.strip_suffix('.')
}

fn announced(service: &ResolvedService) -> Announced {
    let mut addresses: Vec<_> = service
        .addresses
        .iter()
        .filter(|ip| !ip.is_loopback())
        .map(|ip| {
            let mut address = SocketAddr::new(ip.to_ip_addr(), service.port);
            if let (SocketAddr::V6(address), ScopedIp::V6(scoped)) = (&mut address, ip)
                && scoped.addr().is_unicast_link_local()
            {
                address.set_scope_id(scoped.scope_id().index);
            }
            address
        })
        .collect();
    addresses.sort_unstable();
    addresses.truncate(ADDRESSES_LIMIT);
    Announced {
        name: service
            .get_property_val_str("name")
            .unwrap_or("?")
            .to_owned(),
        addresses,
    }
}

impl Daemon {
    /// Nodes that announce themselves and are no members, by name. They may be anything.
    pub fn nearby(&self) -> Vec<NearbyNode> {
        let state = self.shared.lock();
        let member = |id: &str| {
            let mut present = state.members.present();
            present.any(|member| member.key.id().to_string() == id)
        };
        let strangers = state.nearby.0.iter().filter(|(id, _)| !member(id));
        let mut nearby: Vec<_> = strangers
            .map(|(id, announced)| NearbyNode {
                id: id.clone(),
                name: announced.name.clone(),
                addresses: announced.addresses.clone(),
            })
            .collect();
        nearby.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        nearby
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, port: u16) -> Announced {
        Announced {
            name: name.to_owned(),
            addresses: vec![([10, 0, 0, 1], port).into()],
        }
    }

    #[test]
    fn announcements_are_hints_within_limits() {
        let mut nearby = Nearby::default();
        let id = crate::KeyPair::generate().id();
        let text = id.to_string();
        assert!(nearby.addresses(id).is_empty());
        assert!(nearby.put(&text, said("n", 1)) && !nearby.put(&text, said("n", 1)));
        assert!(nearby.put(&text, said("n", 2)));
        assert_eq!(nearby.addresses(id), [([10, 0, 0, 1], 2).into()]);
        assert!(!nearby.put("no id", said("n", 1)));
        assert!(!nearby.put(&text, said("\u{1b}[2J", 1)));
        for _ in 0..2 * LIMIT {
            nearby.put(&crate::KeyPair::generate().id().to_string(), said("n", 1));
        }
        assert_eq!(nearby.0.len(), LIMIT);
        assert!(nearby.put(&text, said("n", 3)), "who is known is heard");
    }

    #[test]
    fn the_id_is_read_off_the_service() {
        assert_eq!(id("abc._brigade._tcp.local."), Some("abc"));
        assert_eq!(id("abc._other._tcp.local."), None);
    }
}
