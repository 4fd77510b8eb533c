//! A socket address as one machine uses it, for `#[serde(with = "…")]`.
//!
//! serde's own form leaves out the scope of a link-local IPv6 address: the interface behind which
//! it lies. Who tells a machine where to connect has to name that too.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Writes IP address, port and scope.
pub fn serialize<S: Serializer>(address: &SocketAddr, to: S) -> Result<S::Ok, S::Error> {
    let scope = match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    };
    (address.ip(), address.port(), scope).serialize(to)
}

/// Reads what [`serialize`] has written; no IPv4 address has a scope.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    let (ip, port, scope) = <(IpAddr, u16, u32)>::deserialize(from)?;
    let mut address = SocketAddr::new(ip, port);
    match &mut address {
        SocketAddr::V4(_) if scope == 0 => {}
        SocketAddr::V4(_) => return Err(de::Error::custom("an IPv4 address with a scope")),
        SocketAddr::V6(address) => address.set_scope_id(scope),
    }
    Ok(address)
}
