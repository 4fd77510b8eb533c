//! What an OS or driver lets a model use of a memory: rules of the catalog, most exact first.

use serde::{Deserialize, Serialize};

use crate::catalog::read::Entry;
use crate::evidence::Evidence;
use crate::machine::{Machine, PoolKind};

const MIB: f64 = 1_048_576.0;
const GIB: f64 = 1_073_741_824.0;

/// A rule of the catalog for the limit of a kind of memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitRule {
    /// Its id.
    pub id: String,
    /// Hardware family that it is for.
    pub family: String,
    /// The only device that it is for, if it is not for all of the family.
    pub device: Option<String>,
    /// The size that it was observed at, in GiB; without one it is for all sizes.
    pub memory_gib: Option<f64>,
    /// What is usable, in MiB, as observed at `memory_gib`.
    pub usable_mib: Option<f64>,
    /// What is usable, as a share of the whole.
    pub usable_share: Option<f64>,
    /// What the OS keeps at least, in MiB.
    pub reserve_mib: Option<f64>,
    /// What the OS keeps at least, as a share of the whole.
    pub reserve_share: Option<f64>,
    /// Why, in words.
    pub reason: String,
    /// Where it comes from.
    pub source: String,
    /// When it was read or observed.
    pub date: String,
    /// How it is known.
    pub evidence: Evidence,
}

impl LimitRule {
    /// What of a memory is usable by this rule, in words.
    pub fn usable(&self) -> String {
        let percent = |share: f64| format!("{} %", (share * 1000.0).round() / 10.0);
        let usable = [
            self.usable_mib.map(|mib| format!("{mib} MiB")),
            self.usable_share.map(percent),
        ];
        let kept = [
            self.reserve_mib.map(|mib| format!("{mib} MiB")),
            self.reserve_share.map(percent),
        ];
        let words = |parts: [Option<String>; 2]| {
            let parts: Vec<String> = parts.into_iter().flatten().collect();
            parts.join(" or ")
        };
        match (words(usable), words(kept)) {
            (usable, kept) if kept.is_empty() => usable,
            (usable, kept) if usable.is_empty() => format!("all but {kept}"),
            (usable, kept) => format!("{usable}, less {kept}"),
        }
    }
}

/// A limit, with its reason.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limit {
    /// In bytes, at most the memory.
    pub(crate) bytes: u64,
    /// Why, with the source, in one sentence.
    pub(crate) reason: String,
}

impl Entry for LimitRule {
    fn id(&self) -> &str {
        &self.id
    }
}

impl LimitRule {
    /// The bytes that this rule leaves of a memory of its own kind, as a share of the whole.
    fn share_of(&self, memory_gib: f64) -> Option<f64> {
        let observed = self.usable_mib.zip(self.memory_gib);
        let reserve = self.reserve_mib.unwrap_or(0.0) / 1024.0;
        let reserve = reserve.max(memory_gib * self.reserve_share.unwrap_or(0.0));
        let share = match (observed, self.usable_share) {
            (Some((mib, gib)), _) => mib / 1024.0 / gib,
            (None, Some(share)) => share,
            (None, None) if reserve > 0.0 => 1.0 - reserve / memory_gib,
            (None, None) => return None,
        };
        Some(share.clamp(0.0, 1.0))
    }

    /// What is wrong with the rule, if anything: the field and the reason.
    pub(crate) fn fault(&self) -> Option<(&'static str, String)> {
        let bad = [
            ("memory_gib", self.memory_gib, 0.5, 16_384.0),
            ("usable_mib", self.usable_mib, 0.0, 16_777_216.0),
            ("usable_share", self.usable_share, 0.0, 1.0),
            ("reserve_mib", self.reserve_mib, 0.0, 16_777_216.0),
            ("reserve_share", self.reserve_share, 0.0, 1.0),
        ]
        .into_iter()
        .find(|(_, value, low, high)| value.is_some_and(|value| !(*low..=*high).contains(&value)));
        if let Some((field, ..)) = bad {
            return Some((field, "not plausible".into()));
        }
        let share = self.share_of(self.memory_gib.unwrap_or(64.0));
        match share {
            None => Some(("usable_share", "says nothing of how much is usable".into())),
            Some(share) if share < 0.3 => {
                Some(("usable_mib", format!("leaves {:.0} % only", share * 100.0)))
            }
            Some(_) => None,
        }
    }
}

/// The limit of a memory by the rules of the catalog; `None` where no rule is for its family.
///
/// A device's own rule wins over its family's; then the size itself; then the nearest smaller size
/// that was observed (else the smallest), with its share; then a rule for all sizes.
pub(crate) fn limit(
    rules: &[LimitRule],
    family: &str,
    device: &str,
    memory_bytes: u64,
) -> Option<Limit> {
    let gib = memory_bytes as f64 / GIB;
    let of_device = rules
        .iter()
        .filter(|rule| rule.device.as_deref() == Some(device));
    let of_family = rules
        .iter()
        .filter(|rule| rule.device.is_none() && rule.family == family);
    let rule = best(of_device, gib).or_else(|| best(of_family, gib))?;
    let share = rule.share_of(gib)?;
    let exact = rule.memory_gib.is_none_or(|size| same(size, gib));
    let bytes = match rule.usable_mib {
        Some(mib) if exact => mib * MIB,
        _ => memory_bytes as f64 * share,
    };
    let percent = share * 100.0;
    let reason = if exact {
        format!("{}: {percent:.0} % ({})", rule.reason, rule.source)
    } else {
        let size = rule.memory_gib.unwrap_or_default();
        format!(
            "{}; no value was found for {gib:.0} GiB, so it is the share of {size:.0} GiB: \
             {percent:.0} % ({})",
            rule.reason, rule.source
        )
    };
    Some(Limit {
        bytes: (bytes as u64).min(memory_bytes),
        reason,
    })
}

/// The rule for this size: observed at it, else at the nearest smaller one, else for all sizes,
/// else at the smallest.
fn best<'a>(rules: impl Iterator<Item = &'a LimitRule>, gib: f64) -> Option<&'a LimitRule> {
    let rank = |rule: &LimitRule| match rule.memory_gib {
        Some(size) if same(size, gib) => (0, 0.0),
        Some(size) if size < gib => (1, gib - size),
        None => (2, 0.0),
        Some(size) => (3, size),
    };
    rules.min_by(|a, b| {
        let (a, b) = (rank(a), rank(b));
        a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
    })
}

/// Whether two sizes are the same one; a driver's total may miss a few MiB.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() < 0.01 * a.max(b)
}

impl Machine {
    /// The same machine with `iogpu.wired_limit_mb` set, in MiB; only a Mac has it.
    ///
    /// The memory itself bounds it. Returns the machine as it was where no pool is Apple's.
    #[must_use]
    pub fn with_wired_limit(mut self, mib: u64) -> Self {
        for pool in &mut self.pools {
            if pool.kind == PoolKind::Unified && pool.family == "apple" {
                let bytes = mib.saturating_mul(1 << 20);
                pool.limit_bytes = bytes.min(pool.memory_bytes);
                pool.limit_reason = format!("iogpu.wired_limit_mb is set to {mib}");
            }
        }
        self
    }
}
