//! What may follow the machines: `link=tb5, ram=64gb`, with or without the commas.

use super::syntax;
use crate::catalog::Catalog;
use crate::catalog::links::{CatalogLink, LinkKind};
use crate::cluster::Node;
use crate::error::FitError;
use crate::machine::{Machine, PoolKind};
use crate::nearest::nearest;

/// The options' names.
const NAMES: [&str; 4] = ["link", "ram", "cpu", "wired"];

/// What a wired limit has to leave to macOS, in MiB.
const SYSTEM_MIB: u64 = 2048;

/// The options of a cluster as text.
#[derive(Default)]
pub(super) struct Options<'a> {
    /// Between all nodes.
    pub(super) link: Option<&'a CatalogLink>,
    /// RAM of each host of GPUs, in GiB.
    pub(super) ram_gib: Option<u64>,
    /// The CPU of each host of GPUs.
    pub(super) cpu: Option<&'a str>,
    /// `iogpu.wired_limit_mb` of each Mac.
    wired_mib: Option<u64>,
}

/// The machines, then the options, which commas divide, or blanks before a word and its `=`.
pub(super) fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').flat_map(|part| {
        let mut pieces = Vec::new();
        let mut start = 0;
        for (at, _) in part.match_indices('=') {
            let name = part[..at].trim_end();
            let rest = name.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let begins = rest.len() < name.len() && rest.ends_with(char::is_whitespace);
            if begins && rest.len() > start {
                pieces.push(&part[start..rest.len()]);
                start = rest.len();
            }
        }
        pieces.push(&part[start..]);
        pieces
    })
}

impl<'a> Options<'a> {
    pub(super) fn read<'t>(
        catalog: &'a Catalog,
        parts: impl Iterator<Item = &'t str>,
    ) -> Result<Self, FitError> {
        let mut options = Self::default();
        for part in parts.map(str::trim).filter(|part| !part.is_empty()) {
            let hint =
                "an option is link=ID, ram=64gb, cpu=ID or wired=MIB; machines are joined by +";
            let (name, value) = part.split_once('=').ok_or_else(|| syntax(part, hint))?;
            let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
            if value.contains('+') {
                let hint = "options stand after all machines, and are for all of them";
                return Err(syntax(part, hint));
            }
            let again = match name.as_str() {
                "link" => options.link.replace(link(catalog, value)?).is_some(),
                "ram" => options
                    .ram_gib
                    .replace(size(part, value, "gb", 16_384)?)
                    .is_some(),
                "cpu" => options.cpu.replace(cpu(catalog, value)?).is_some(),
                "wired" => options
                    .wired_mib
                    .replace(size(part, value, "mb", 16 << 20)?)
                    .is_some(),
                _ => {
                    let near = nearest(&name, NAMES.into_iter());
                    let hint = near.first().map_or(hint.to_owned(), |near| {
                        format!("did you mean {near}={value}?")
                    });
                    return Err(syntax(part, &hint));
                }
            };
            if again {
                return Err(syntax(part, "the option stands here twice"));
            }
        }
        Ok(options)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.link.is_none()
            && self.ram_gib.is_none()
            && self.cpu.is_none()
            && self.wired_mib.is_none()
    }

    /// A machine with its wired limit; only a Mac has one.
    pub(super) fn of_mac(&self, machine: Machine) -> Machine {
        match self.wired_mib {
            Some(mib) => machine.with_wired_limit(mib),
            None => machine,
        }
    }

    /// Whether every option has something that it speaks of.
    pub(super) fn check(&self, nodes: &[Node]) -> Result<(), FitError> {
        let any = |kind: PoolKind, family: Option<&str>| {
            nodes
                .iter()
                .flat_map(|node| &node.machine.pools)
                .any(|pool| pool.kind == kind && family.is_none_or(|family| pool.family == family))
        };
        let host = any(PoolKind::Vram, None);
        if (self.ram_gib.is_some() || self.cpu.is_some()) && !host {
            return Err(syntax(
                "ram",
                "only a host of GPUs has its RAM stated; a machine has its own",
            ));
        }
        if self.cpu.is_some() && self.ram_gib.is_none() {
            return Err(syntax("cpu", "needs ram=, such as ram=64gb"));
        }
        if self.wired_mib.is_some() && !any(PoolKind::Unified, Some("apple")) {
            return Err(syntax("wired", "only a Mac has a wired limit"));
        }
        if let Some(wired) = self.wired_mib {
            let macs = nodes.iter().flat_map(|node| {
                let pools = node.machine.pools.iter();
                let macs = pools.filter(|pool| pool.family == "apple");
                macs.map(move |pool| (node, (pool.memory_bytes >> 20).saturating_sub(SYSTEM_MIB)))
            });
            if let Some((node, most)) = macs.min_by_key(|(_, most)| *most).filter(|at| wired > at.1)
            {
                let hint = format!(
                    "macOS needs 2 GiB itself: at most wired={most} on {}",
                    node.machine.name
                );
                return Err(syntax(&format!("wired={wired}"), &hint));
            }
        }
        Ok(())
    }
}

fn link<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a CatalogLink, FitError> {
    let link = catalog.link(name)?;
    if link.kind == LinkKind::Host {
        return Err(syntax(name, "joins GPUs of one host, not machines"));
    }
    Ok(link)
}

fn cpu<'a>(catalog: &'a Catalog, name: &str) -> Result<&'a str, FitError> {
    let cpus = || {
        catalog
            .devices
            .iter()
            .filter(|device| device.family == "cpu")
    };
    let lower = name.to_ascii_lowercase();
    let found = cpus().find(|device| device.id == lower);
    found
        .map(|device| device.id.as_str())
        .ok_or_else(|| FitError::UnknownName {
            kind: "CPU",
            name: name.chars().take(80).collect(),
            nearest: nearest(name, cpus().map(|device| device.id.as_str())),
        })
}

/// A whole number, with or without its unit, from 1 to `most`.
fn size(part: &str, value: &str, unit: &str, most: u64) -> Result<u64, FitError> {
    let lower = value.to_ascii_lowercase();
    let number = lower.strip_suffix(unit).unwrap_or(&lower);
    let number = number
        .strip_suffix(&unit.replace('b', "ib"))
        .unwrap_or(number)
        .trim();
    let read = number
        .parse()
        .ok()
        .filter(|number| (1..=most).contains(number));
    read.ok_or_else(|| {
        syntax(
            part,
            &format!("a whole number of {} is expected", unit.to_uppercase()),
        )
    })
}
