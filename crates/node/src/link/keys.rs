//! Ed25519 key pairs.

use std::fmt;

use brigade_wire::{NodeId, NodeKey};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde::{Deserialize, Serialize};

/// An Ed25519 key pair.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u8>", into = "Vec<u8>")]
pub struct KeyPair {
    pkcs8: Vec<u8>,
    public: NodeKey,
}

/// The bytes hold no key pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Ed25519 key in PKCS#8")]
pub struct BadKey;

impl KeyPair {
    /// Makes a new one from the operating system's randomness.
    ///
    /// # Panics
    ///
    /// If the operating system has no randomness, without which nothing here would be safe.
    pub fn generate() -> Self {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .expect("the operating system gives random bytes");
        Self::from_pkcs8(pkcs8.as_ref()).expect("a key just made can be read")
    }

    /// Reads one from PKCS#8 (version 2, as [`pkcs8`](Self::pkcs8) gives it).
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, BadKey> {
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8).map_err(|_| BadKey)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| BadKey)?;
        Ok(Self {
            pkcs8: pkcs8.to_vec(),
            public: NodeKey(public),
        })
    }

    /// The secret, to be kept.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half.
    pub fn public(&self) -> NodeKey {
        self.public
    }

    /// The secret of one pair with the public key of another, as an impostor would have it.
    #[cfg(test)]
    pub(crate) fn forged(secret: &Self, public: NodeKey) -> Self {
        Self {
            pkcs8: secret.pkcs8.clone(),
            public,
        }
    }

    /// The public half's short id.
    pub fn id(&self) -> NodeId {
        self.public.id()
    }
}

impl fmt::Debug for KeyPair {
    /// Without the secret.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyPair({})", self.id())
    }
}

impl TryFrom<Vec<u8>> for KeyPair {
    type Error = BadKey;

    fn try_from(pkcs8: Vec<u8>) -> Result<Self, BadKey> {
        Self::from_pkcs8(&pkcs8)
    }
}

impl From<KeyPair> for Vec<u8> {
    fn from(pair: KeyPair) -> Self {
        pair.pkcs8
    }
}
