//! What a runtime takes besides its buffers: `catalog/overheads.toml`.

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::catalog::hardware::{FAMILIES, sourced};
use crate::catalog::read::{Entry, File, Row};
use crate::error::FitError;
use crate::evidence::Evidence;
use crate::machine::PoolKind;
use crate::nearest::nearest;

/// What is taken in a family that no entry names, in bytes: what most take that are named.
const OTHER_BYTES: u64 = 512 << 20;

/// An entry of `overheads.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overhead {
    /// Its id.
    pub id: String,
    /// Hardware families that it is for.
    pub families: Vec<String>,
    /// What is taken in each pool, in MiB.
    pub mib: u32,
    /// How it is known.
    pub evidence: Evidence,
    /// Where it comes from.
    pub source: String,
    /// When it was read or measured.
    pub date: String,
    /// What else is known of it.
    pub note: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    #[serde(default)]
    overhead: Vec<Spanned<Overhead>>,
}

impl Entry for Overhead {
    fn id(&self) -> &str {
        &self.id
    }
}

impl Overhead {
    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.mib) << 20
    }

    /// What is wrong with it, if anything: the field and the reason.
    fn fault(&self) -> Option<(&'static str, String)> {
        let mut families = self.families.iter();
        if let Some(unknown) = families.find(|name| !FAMILIES.contains(&name.as_str())) {
            let near = match nearest(unknown, FAMILIES.into_iter()).as_slice() {
                [] => FAMILIES.join(", "),
                near => near.join(", "),
            };
            return Some(("families", format!("no such family '{unknown}'; {near}")));
        }
        if self.families.is_empty() {
            return Some(("families", "names no family".to_owned()));
        }
        if !(1..=65_536).contains(&self.mib) {
            return Some(("mib", "not plausible".to_owned()));
        }
        sourced(&self.source, &self.date)
    }
}

/// What the runtime takes in a pool of this kind and family besides its buffers, in bytes.
///
/// The last entry that names the family decides, so that one of a folder wins over those before it
/// also under an id of its own.
pub fn runtime_bytes(overheads: &[Overhead], kind: PoolKind, family: &str) -> u64 {
    let family = match kind {
        PoolKind::Ram => "cpu",
        PoolKind::Unified | PoolKind::Vram => family,
    };
    let named = |overhead: &&Overhead| overhead.families.iter().any(|name| name == family);
    let found = overheads.iter().rfind(named);
    found.map_or(OTHER_BYTES, Overhead::bytes)
}

/// Reads the file.
pub(crate) fn read(file: File<'_>) -> Result<Vec<Row<Overhead>>, FitError> {
    let table: Table = file.parse()?;
    for entry in &table.overhead {
        if let Some((field, reason)) = entry.get_ref().fault() {
            return Err(file.fault(&entry.span(), field, reason));
        }
    }
    file.rows(table.overhead)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overhead(id: &str, families: &[&str], mib: u32) -> Overhead {
        Overhead {
            id: id.into(),
            families: families.iter().map(|name| (*name).to_owned()).collect(),
            mib,
            evidence: Evidence::Measured,
            source: "a test".into(),
            date: "2026-11".into(),
            note: None,
        }
    }

    #[test]
    fn the_last_entry_of_a_family_decides_and_ram_is_the_cpus() {
        let overheads = [
            overhead("a", &["cpu"], 64),
            overhead("b", &["apple", "amd-apu"], 500),
            overhead("c", &["apple"], 700),
        ];
        let mib = |kind, family: &str| runtime_bytes(&overheads, kind, family) >> 20;
        assert_eq!(mib(PoolKind::Unified, "apple"), 700);
        assert_eq!(mib(PoolKind::Unified, "amd-apu"), 500);
        assert_eq!(mib(PoolKind::Ram, "apple"), 64);
        assert_eq!(mib(PoolKind::Vram, "a new kind"), OTHER_BYTES >> 20);
    }
}
