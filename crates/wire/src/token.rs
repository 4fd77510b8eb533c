//! The one-time token that lets a node into a cluster, and the proofs that it is known.
//!
//! A token names the inviting node by its whole key, so a joining node talks to nobody else, and
//! holds a secret. Neither side sends the secret: each sends a keyed hash of the binding of its
//! own encrypted connection and of both keys. Whoever relays it to another connection, or shows
//! it under another key, has a proof of something else.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use serde::{Deserialize, Serialize};

use crate::NodeKey;

/// What stands before every token, so that people know what it is.
const PREFIX: &str = "brigade1-";

/// Bytes of the checksum that tells a mistyped token from a wrong one.
const CHECKSUM_BYTES: usize = 4;

/// The most characters of a token.
const LENGTH_LIMIT: usize = 1024;

/// An invitation to one node.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Who invites.
    pub inviter: NodeKey,
    /// Where it can be reached, the best first.
    pub addresses: Vec<SocketAddr>,
    /// What only the inviter and whoever was handed the token know.
    pub secret: TokenSecret,
}

/// A token's secret.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSecret(pub [u8; 16]);

/// Names a token without giving it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TokenId([u8; 8]);

/// Who proves that it knows the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The node that joins.
    Joiner,
    /// The node that has invited.
    Inviter,
}

impl TokenSecret {
    /// The id of the token with this secret.
    pub fn id(&self) -> TokenId {
        let hash = blake3::derive_key("brigade 2026 token id", &self.0);
        let mut id = [0; 8];
        id.copy_from_slice(&hash[..8]);
        TokenId(id)
    }

    /// What `side` sends to show that it knows the secret, over the connection with this binding
    /// between these keys. Comparing two proofs takes the same time wherever they differ.
    pub fn proof(
        &self,
        side: Side,
        binding: &[u8; 32],
        joiner: NodeKey,
        inviter: NodeKey,
    ) -> Proof {
        let context = match side {
            Side::Joiner => "brigade 2026 token proof of the joiner",
            Side::Inviter => "brigade 2026 token proof of the inviter",
        };
        let key = blake3::derive_key(context, &self.0);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(binding).update(&joiner.0).update(&inviter.0);
        Proof(*hasher.finalize().as_bytes())
    }
}

/// A keyed hash that only a holder of the secret can make.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Proof([u8; 32]);

impl PartialEq for Proof {
    fn eq(&self, other: &Self) -> bool {
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for Proof {}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Token")
            .field("inviter", &self.inviter)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for TokenSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "TokenSecret({:?})", self.id())
    }
}

impl fmt::Display for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = postcard::to_stdvec(self).map_err(|_| fmt::Error)?;
        bytes.extend_from_slice(&checksum(&bytes));
        write!(
            out,
            "{PREFIX}{}",
            BASE32_NOPAD.encode(&bytes).to_lowercase()
        )
    }
}

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// It looks like none.
    #[error("a token begins with {PREFIX}; `brigade invite` on a node of the cluster prints one")]
    Foreign,
    /// A character is missing or wrong.
    #[error("the token is damaged: copy the whole of it again")]
    Damaged,
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(BadToken::Foreign)?;
        if body.len() > LENGTH_LIMIT {
            return Err(BadToken::Damaged);
        }
        let bytes = BASE32_NOPAD
            .decode(body.to_uppercase().as_bytes())
            .map_err(|_| BadToken::Damaged)?;
        let (body, sum) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(BadToken::Damaged)?;
        if *sum != checksum(body) {
            return Err(BadToken::Damaged);
        }
        match postcard::take_from_bytes::<Self>(body) {
            Ok((token, [])) if !token.addresses.is_empty() => Ok(token),
            _ => Err(BadToken::Damaged),
        }
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("brigade 2026 token checksum", bytes);
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(&hash[..CHECKSUM_BYTES]);
    sum
}
