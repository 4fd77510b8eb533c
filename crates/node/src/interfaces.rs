//! This machine's network interfaces: which of their addresses are told to other nodes, and over
//! which of them an address of another node is tried.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use brigade_wire::members::ADDRESSES_LIMIT;
use serde::{Deserialize, Serialize};

/// How the names of those begin that lead to containers and virtual machines of this machine, or
/// are Apple's own links between devices: no node elsewhere is reached by them.
const INWARD: [&str; 12] = [
    "docker", "br-", "virbr", "veth", "vmnet", "vboxnet", "cni", "flannel", "awdl", "llw", "anpi",
    "ap1",
];

/// How the names of VPNs begin.
const TUNNELS: [&str; 6] = ["utun", "tun", "tap", "wg", "tailscale", "zt"];

/// An address of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Interface {
    /// The system's name of it.
    pub(crate) name: String,
    /// The system's number of it: the scope of link-local addresses.
    pub(crate) index: u32,
    /// The address.
    pub(crate) ip: IpAddr,
}

/// What kind of network an interface leads to, as far as the system says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LinkKind {
    /// This machine.
    Loopback,
    /// IP over Thunderbolt.
    Thunderbolt,
    /// Ethernet, a virtual one too.
    Ethernet,
    /// Wi-Fi.
    Wifi,
    /// A VPN.
    Tunnel,
}

/// All addresses of all interfaces, whether a cable is plugged in or not.
pub(crate) fn interfaces() -> io::Result<Vec<Interface>> {
    let mut all: Vec<_> = if_addrs::get_if_addrs()?
        .into_iter()
        .map(|interface| Interface {
            ip: interface.ip(),
            index: interface.index.unwrap_or(0),
            name: interface.name,
        })
        .collect();
    // The same list every time, as long as nothing has changed.
    all.sort_by(|a, b| (a.index, &a.name, a.ip).cmp(&(b.index, &b.name, b.ip)));
    Ok(all)
}

/// What a node that listens at `listen` tells the others, the likeliest first: that address, or
/// where it is the unspecified one, those of all interfaces that may lead to another machine. A
/// machine that has none is reached from itself only.
pub(crate) fn told(interfaces: &[Interface], listen: SocketAddr) -> Vec<SocketAddr> {
    let port = listen.port();
    if !listen.ip().is_unspecified() {
        return vec![SocketAddr::new(listen.ip(), port)];
    }
    let mut ips: Vec<_> = interfaces
        .iter()
        .filter(|interface| !INWARD.iter().any(|name| interface.name.starts_with(name)))
        .map(|interface| interface.ip)
        // `[::]` takes connections to IPv4 addresses as well.
        .filter(|ip| listen.is_ipv6() || ip.is_ipv4())
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified() && !ip.is_multicast())
        .collect();
    ips.sort_by_key(|ip| (is_link_local(*ip), ip.is_ipv6()));
    ips.dedup();
    ips.truncate(ADDRESSES_LIMIT);
    if ips.is_empty() {
        ips.push(Ipv4Addr::LOCALHOST.into());
    }
    ips.into_iter()
        .map(|ip| SocketAddr::new(ip, port))
        .collect()
}

/// The ways in which an address that another node has told is tried from here. A link-local one
/// of IPv6 may lie behind any interface that has such addresses itself.
pub(crate) fn ways(interfaces: &[Interface], address: SocketAddr) -> Vec<SocketAddr> {
    let SocketAddr::V6(known) = address else {
        return vec![address];
    };
    if known.scope_id() != 0 || !known.ip().is_unicast_link_local() {
        return vec![address];
    }
    let link_local = |interface: &&Interface| interface.ip.is_ipv6() && is_link_local(interface.ip);
    let mut scopes: Vec<_> = interfaces
        .iter()
        .filter(link_local)
        .map(|interface| interface.index)
        .collect();
    scopes.dedup();
    let behind = |scope| {
        let mut way = known;
        way.set_scope_id(scope);
        way.into()
    };
    scopes.into_iter().map(behind).collect()
}

/// The interface with this address.
pub(crate) fn with_ip(interfaces: &[Interface], ip: IpAddr) -> Option<&Interface> {
    let ip = ip.to_canonical();
    interfaces.iter().find(|interface| interface.ip == ip)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

impl Interface {
    /// What kind of network it leads to. macOS does not say which of its `en…` is Wi-Fi.
    pub(crate) fn kind(&self) -> Option<LinkKind> {
        let name = self.name.as_str();
        if self.ip.is_loopback() {
            return Some(LinkKind::Loopback);
        }
        if name.starts_with("thunderbolt") || (cfg!(target_os = "macos") && name == "bridge0") {
            return Some(LinkKind::Thunderbolt);
        }
        if TUNNELS.iter().any(|tunnel| name.starts_with(tunnel)) {
            return Some(LinkKind::Tunnel);
        }
        if cfg!(target_os = "linux") {
            let facts = std::path::Path::new("/sys/class/net").join(name);
            if facts.join("wireless").exists() || facts.join("phy80211").exists() {
                return Some(LinkKind::Wifi);
            }
            // ARPHRD_ETHER of the kernel's if_arp.h.
            let kind = std::fs::read_to_string(facts.join("type")).unwrap_or_default();
            return (kind.trim() == "1").then_some(LinkKind::Ethernet);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, index: u32, ip: &str) -> Interface {
        Interface {
            name: name.to_owned(),
            index,
            ip: ip.parse().unwrap(),
        }
    }

    fn machine() -> Vec<Interface> {
        vec![
            interface("lo0", 1, "127.0.0.1"),
            interface("lo0", 1, "::1"),
            interface("bridge0", 2, "169.254.7.7"),
            interface("bridge0", 2, "fe80::2"),
            interface("en0", 3, "fd00::3"),
            interface("en0", 3, "192.168.1.3"),
            interface("en0", 3, "fe80::3"),
            interface("docker0", 4, "172.17.0.1"),
            interface("utun3", 5, "100.64.0.5"),
        ]
    }

    fn told_at(listen: &str) -> Vec<String> {
        let told = told(&machine(), listen.parse().unwrap());
        told.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_may_lead_to_another_machine_is_told_the_likeliest_first() {
        assert_eq!(
            told_at("[::]:88"),
            [
                "192.168.1.3:88",
                "100.64.0.5:88",
                "[fd00::3]:88",
                "169.254.7.7:88",
                "[fe80::2]:88",
                "[fe80::3]:88"
            ]
        );
        assert_eq!(
            told_at("0.0.0.0:88"),
            ["192.168.1.3:88", "100.64.0.5:88", "169.254.7.7:88"]
        );
        assert_eq!(told_at("192.168.1.3:88"), ["192.168.1.3:88"]);
        let alone = told(&machine()[..2], "[::]:88".parse().unwrap());
        assert_eq!(alone, ["127.0.0.1:88".parse().unwrap()]);
        let many: Vec<_> = (0..40)
            .map(|n| interface("en0", n, &format!("10.0.0.{n}")))
            .collect();
        assert_eq!(
            told(&many, "[::]:88".parse().unwrap()).len(),
            ADDRESSES_LIMIT
        );
    }

    #[test]
    fn a_link_local_address_is_tried_over_every_interface_that_has_one() {
        let tried = |address: &str| -> Vec<_> {
            let ways = ways(&machine(), address.parse().unwrap());
            ways.iter().map(ToString::to_string).collect()
        };
        assert_eq!(tried("[fe80::9]:88"), ["[fe80::9%2]:88", "[fe80::9%3]:88"]);
        assert_eq!(tried("[fe80::9%7]:88"), ["[fe80::9%7]:88"]);
        assert_eq!(tried("[fd00::9]:88"), ["[fd00::9]:88"]);
        assert_eq!(tried("169.254.1.1:88"), ["169.254.1.1:88"]);
    }

    #[test]
    fn this_machine_has_a_loopback() {
        let all = interfaces().unwrap();
        let found = with_ip(&all, "::ffff:127.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(found.kind(), Some(LinkKind::Loopback));
        assert!(found.index > 0);
    }
}
