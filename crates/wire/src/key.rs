//! Who a node is: its public key, and the short id that people see.

use std::fmt;
use std::str::FromStr;

use data_encoding::{BASE32_NOPAD, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An Ed25519 public key. Whoever proves that it holds the private half is this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeKey(pub [u8; 32]);

impl NodeKey {
    /// The id that people see; trust never rests on it, always on the whole key.
    pub fn id(&self) -> NodeId {
        let hash = blake3::derive_key("brigade 2026 node id", &self.0);
        let mut id = [0; 10];
        id.copy_from_slice(&hash[..10]);
        NodeId(id)
    }
}

/// 64 hexadecimal digits where people may read it, 32 bytes elsewhere.
impl Serialize for NodeKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&HEXLOWER.encode(&self.0))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for NodeKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return <[u8; 32]>::deserialize(deserializer).map(Self);
        }
        let text = String::deserialize(deserializer)?;
        let bytes = HEXLOWER.decode(text.as_bytes()).ok();
        let key = bytes.and_then(|bytes| bytes.try_into().ok());
        key.map(Self)
            .ok_or_else(|| de::Error::custom("a key is 64 hexadecimal digits"))
    }
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NodeKey({})", self.id())
    }
}

/// The first 80 bits of a hash of a node's public key, shown as 16 letters and digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId([u8; 10]);

impl fmt::Display for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&BASE32_NOPAD.encode(&self.0).to_lowercase())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// The text is no node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a node id is 16 letters and digits")]
pub struct BadNodeId;

impl FromStr for NodeId {
    type Err = BadNodeId;

    fn from_str(text: &str) -> Result<Self, BadNodeId> {
        let bytes = BASE32_NOPAD.decode(text.to_uppercase().as_bytes());
        let bytes = bytes.map_err(|_| BadNodeId)?;
        Ok(Self(bytes.try_into().map_err(|_| BadNodeId)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_short_and_reads_back() {
        let id = NodeKey([7; 32]).id();
        let text = id.to_string();
        assert_eq!(text.len(), 16);
        assert_eq!(text.parse(), Ok(id));
        assert_ne!(id, NodeKey([8; 32]).id());
        assert_eq!("node-1".parse::<NodeId>(), Err(BadNodeId));
        assert_eq!("".parse::<NodeId>(), Err(BadNodeId));
    }
}
