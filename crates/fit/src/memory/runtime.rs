//! What a runtime takes besides its buffers: `catalog/overheads.toml`.

use std::sync::LazyLock;

use serde::Deserialize;
use toml::Spanned;

use crate::catalog::read::{Entry, File};
use crate::error::FitError;
use crate::evidence::Evidence;
use crate::machine::{Pool, PoolKind};

const TEXT: &str = include_str!("../../../../catalog/overheads.toml");

/// What is taken in a family that the file does not name: what most take that it names.
const OTHER_BYTES: u64 = 512 << 20;

static OVERHEADS: LazyLock<Vec<Overhead>> = LazyLock::new(|| read(TEXT).unwrap_or_default());

/// An entry of `overheads.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Overhead {
    id: String,
    families: Vec<String>,
    mib: u32,
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
}

/// What the runtime takes in this pool besides its buffers, in bytes.
pub fn runtime_bytes(pool: &Pool) -> u64 {
    runtime_overhead(pool).map_or(OTHER_BYTES, Overhead::bytes)
}

/// The catalog's entry for this pool, if its family has one.
pub fn runtime_overhead(pool: &Pool) -> Option<&'static Overhead> {
    let family = match pool.kind {
        PoolKind::Ram => "cpu",
        PoolKind::Unified | PoolKind::Vram => &pool.family,
    };
    OVERHEADS
        .iter()
        .find(|overhead| overhead.families.iter().any(|name| name == family))
}

fn read(text: &str) -> Result<Vec<Overhead>, FitError> {
    let file = File::new("overheads.toml", text);
    let table: Table = file.parse()?;
    let rows = file.rows(table.overhead)?;
    Ok(rows.into_iter().map(|row| row.value).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_of_the_catalog_has_an_overhead() {
        let overheads = read(TEXT).unwrap();
        assert_eq!(overheads.len(), OVERHEADS.len());
        let hardware = include_str!("../../../../catalog/hardware.toml");
        let families = hardware
            .lines()
            .filter_map(|line| line.strip_prefix("family = "));
        for family in families.map(|name| name.trim_matches('"')) {
            let known = |overhead: &Overhead| overhead.families.iter().any(|name| name == family);
            assert!(overheads.iter().any(known), "{family}");
        }
        for overhead in overheads {
            assert!((16..=1024).contains(&overhead.mib), "{overhead:?}");
            assert!(!overhead.source.is_empty(), "{overhead:?}");
        }
    }
}
