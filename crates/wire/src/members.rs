//! Who belongs to a cluster: a table that every node keeps and that any two of them can merge.
//!
//! There is no leader. An entry changes by what is written into it, and merging takes the later
//! of two, so that in whatever order nodes hear of things, they end with the same table.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{NodeId, NodeKey};

/// The most nodes that a table holds, the forgotten ones included.
pub const MEMBERS_LIMIT: usize = 1024;

/// The most addresses of a node.
pub const ADDRESSES_LIMIT: usize = 16;

/// The most bytes of a node's name.
pub const NAME_LIMIT: usize = 64;

/// A node that belongs to the cluster, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who it is.
    pub key: NodeKey,
    /// What people call it.
    pub name: String,
    /// Where it listens, the likeliest to be reached first. A link-local address has no scope here:
    /// that means something on one machine only.
    pub addresses: Vec<SocketAddr>,
    /// Counts its admissions: a node that was forgotten comes back only with a higher one, which
    /// only an invitation gives.
    pub admission: u64,
    /// Whether that admission was taken back. It never becomes false again.
    pub forgotten: bool,
    /// Counts changes of name and addresses, which only the node itself makes.
    pub revision: u64,
}

impl Member {
    /// The later of two entries of one node, part by part.
    fn merge(&mut self, other: &Self) {
        let standing = |member: &Self| (member.admission, member.forgotten);
        (self.admission, self.forgotten) = standing(self).max(standing(other));
        // Name and addresses only decide where a copied identity made one revision twice.
        if other.news() > self.news() {
            self.revision = other.revision;
            self.name.clone_from(&other.name);
            self.addresses.clone_from(&other.addresses);
        }
    }

    fn news(&self) -> (u64, &str, &[SocketAddr]) {
        (self.revision, &self.name, &self.addresses)
    }

    /// Whether it can be shown and kept.
    fn is_sound(&self) -> bool {
        is_name(&self.name) && are_addresses(&self.addresses)
    }
}

/// Whether a node may have this name: 1 to [`NAME_LIMIT`] bytes, no blanks, nothing that a
/// terminal would act on.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_LIMIT
        && name
            .chars()
            .all(|character| !character.is_control() && !character.is_whitespace())
}

/// Whether a node may have these addresses: 1 to [`ADDRESSES_LIMIT`].
pub fn are_addresses(addresses: &[SocketAddr]) -> bool {
    (1..=ADDRESSES_LIMIT).contains(&addresses.len())
}

/// The table.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Member>", into = "Vec<Member>")]
pub struct Members(BTreeMap<NodeKey, Member>);

impl Members {
    /// Takes over what another node knows. Entries that cannot be kept are left out. Returns
    /// whether anything was new.
    ///
    /// `sender` cannot admit itself again: entries of its own with a higher admission are left
    /// out too.
    pub fn merge(&mut self, others: &[Member], sender: Option<NodeKey>) -> bool {
        let before = self.clone();
        for other in others.iter().filter(|other| other.is_sound()) {
            let room = self.0.len() < MEMBERS_LIMIT;
            match self.0.get_mut(&other.key) {
                Some(known) if sender == Some(other.key) && other.admission > known.admission => {}
                Some(known) => known.merge(other),
                None if room => {
                    self.0.insert(other.key, other.clone());
                }
                None => {}
            }
        }
        *self != before
    }

    /// Lets a node in, with a higher admission than it has had, and what it says of itself.
    pub fn admit(&mut self, key: NodeKey, name: &str, addresses: &[SocketAddr]) {
        let known = self.0.get(&key);
        let admission = known.map_or(0, |known| known.admission) + 1;
        let revision = known.map_or(0, |known| known.revision) + 1;
        let member = Member {
            key,
            name: name.to_owned(),
            addresses: addresses.to_vec(),
            admission,
            forgotten: false,
            revision,
        };
        self.0.insert(key, member);
    }

    /// Takes a node's admission back. Returns whether it had one.
    pub fn forget(&mut self, key: NodeKey) -> bool {
        let member = self.0.get_mut(&key).filter(|member| !member.forgotten);
        member.is_some_and(|member| {
            member.forgotten = true;
            true
        })
    }

    /// A node's own news of itself. Returns whether anything changed.
    pub fn renew(&mut self, key: NodeKey, name: &str, addresses: &[SocketAddr]) -> bool {
        match self.0.get_mut(&key) {
            Some(member) if member.name != name || member.addresses != addresses => {
                name.clone_into(&mut member.name);
                member.addresses = addresses.to_vec();
                member.revision += 1;
                true
            }
            _ => false,
        }
    }

    /// The entry of a node, forgotten or not.
    pub fn get(&self, key: NodeKey) -> Option<&Member> {
        self.0.get(&key)
    }

    /// Whether a node belongs to the cluster now.
    pub fn trusts(&self, key: NodeKey) -> bool {
        self.get(key).is_some_and(|member| !member.forgotten)
    }

    /// All that belong to the cluster now, in the order of their keys.
    pub fn present(&self) -> impl Iterator<Item = &Member> {
        self.0.values().filter(|member| !member.forgotten)
    }

    /// All entries, to be sent.
    pub fn entries(&self) -> Vec<Member> {
        self.0.values().cloned().collect()
    }

    /// A member by its name, its id or the beginning of its id.
    pub fn find(&self, asked: &str) -> Result<&Member, FindError> {
        let named: Vec<_> = self
            .present()
            .filter(|member| member.name == asked)
            .collect();
        let found = if named.is_empty() && asked.len() >= 4 {
            let begins = |member: &&Member| member.key.id().to_string().starts_with(asked);
            self.present().filter(begins).collect()
        } else {
            named
        };
        match found[..] {
            [only] => Ok(only),
            [] => Err(FindError::Unknown(asked.to_owned())),
            [first, second, ..] => Err(FindError::Ambiguous {
                asked: asked.to_owned(),
                ids: [first.key.id(), second.key.id()],
            }),
        }
    }

    /// Equal tables have equal digests.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        for member in self.0.values() {
            hasher.update(&member.key.0);
            hasher.update(&member.admission.to_le_bytes());
            hasher.update(&[u8::from(member.forgotten)]);
            hasher.update(&member.revision.to_le_bytes());
            hasher.update(&(member.name.len() as u64).to_le_bytes());
            hasher.update(member.name.as_bytes());
            for address in &member.addresses {
                hasher.update(address.to_string().as_bytes()).update(b" ");
            }
        }
        *hasher.finalize().as_bytes()
    }
}

/// Why a name means no node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindError {
    /// None is called so.
    #[error("no node is called '{0}'; `brigade nodes` lists them")]
    Unknown(String),
    /// Several are.
    #[error("'{asked}' may be {} or {}: name one by its id", ids[0], ids[1])]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// Two that it may be.
        ids: [NodeId; 2],
    },
}

impl From<Vec<Member>> for Members {
    fn from(members: Vec<Member>) -> Self {
        let mut table = Self::default();
        table.merge(&members, None);
        table
    }
}

impl From<Members> for Vec<Member> {
    fn from(members: Members) -> Self {
        members.entries()
    }
}
