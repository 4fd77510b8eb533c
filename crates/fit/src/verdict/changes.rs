//! What would change a verdict, found by assessing again.

use super::reasons::{gb, gib, percent, rate, tokens};
use super::{Ask, Detail, Tier, Verdict, assess};
use crate::FitError;
use crate::cluster::{Cluster, Link, Links, Node};
use crate::machine::PoolKind;
use crate::memory::KvType;
use crate::model::{Model, Quantization};
use crate::speed::Speed;

/// What a raised limit leaves to macOS.
const MACOS_BYTES: u64 = 8 << 30;

/// Fills in the changes, the most telling first.
pub(super) fn fill(
    verdict: &mut Verdict,
    model: &Model,
    quant: &Quantization,
    cluster: &Cluster,
    ask: &Ask,
    speed: &dyn Speed,
) -> Result<(), FitError> {
    let now = Now {
        verdict,
        model,
        quant,
        cluster,
        ask: Ask {
            detail: Detail::Brief,
            quant: Some(quant.name.clone()),
            ..ask.clone()
        },
        speed,
    };
    let mut changes = Vec::new();
    if now.verdict.tier != Tier::Comfortable {
        changes.extend(now.smaller_quantization()?);
        changes.extend(now.shorter_context()?);
    }
    changes.extend(now.smaller_cache()?);
    if now.verdict.tier != Tier::Comfortable {
        changes.extend(now.raised_limit()?);
        changes.extend(now.one_more()?);
    }
    changes.extend(now.one_fewer()?);
    changes.extend(now.faster_link()?);
    verdict.changes = changes;
    Ok(())
}

struct Now<'a> {
    verdict: &'a Verdict,
    model: &'a Model,
    quant: &'a Quantization,
    cluster: &'a Cluster,
    ask: Ask,
    speed: &'a dyn Speed,
}

impl Now<'_> {
    fn with(&self, cluster: &Cluster, ask: &Ask) -> Result<Verdict, FitError> {
        assess(self.model, cluster, ask, self.speed)
    }

    fn better(&self, other: &Verdict) -> bool {
        other.tier < self.verdict.tier
    }

    fn smaller_quantization(&self) -> Result<Option<String>, FitError> {
        let mut smaller: Vec<&Quantization> = self
            .model
            .quants
            .iter()
            .filter(|other| other.format == self.quant.format)
            .filter(|other| other.weights.total() < self.quant.weights.total())
            .collect();
        smaller.sort_by_key(|quant| u64::MAX - quant.weights.total());
        for quant in smaller {
            let ask = Ask {
                quant: Some(quant.name.clone()),
                ..self.ask.clone()
            };
            let other = self.with(self.cluster, &ask)?;
            if self.better(&other) {
                let below = if quant.bits_per_weight < 4.0 {
                    ", below 4 bits a weight"
                } else {
                    ""
                };
                return Ok(Some(format!(
                    "At {} ({}{below}) it is {}.",
                    quant.name,
                    gb(quant.weights.total()),
                    at(&other)
                )));
            }
        }
        Ok(None)
    }

    fn smaller_cache(&self) -> Result<Option<String>, FitError> {
        for kv_type in [KvType::Q8_0, KvType::Q4_0] {
            if kv_type.bits() >= self.ask.kv_type.bits() {
                continue;
            }
            let ask = Ask {
                kv_type,
                ..self.ask.clone()
            };
            let other = self.with(self.cluster, &ask)?;
            let (was, is) = (self.verdict.max_context, other.max_context);
            if self.better(&other) {
                return Ok(Some(format!(
                    "With a {} KV cache it is {}.",
                    kv_type.name(),
                    at(&other)
                )));
            }
            if let (Some(was), Some(is)) = (was, is)
                && is > was
            {
                return Ok(Some(format!(
                    "With a {} KV cache the largest context is {} instead of {}.",
                    kv_type.name(),
                    tokens(is),
                    tokens(was)
                )));
            }
        }
        Ok(None)
    }

    /// The longest of some usual contexts that is a better fit.
    fn shorter_context(&self) -> Result<Option<String>, FitError> {
        let mut context = self.verdict.load.context.next_power_of_two() / 2;
        while context >= 1024 {
            let ask = Ask {
                context,
                ..self.ask.clone()
            };
            let other = self.with(self.cluster, &ask)?;
            if self.better(&other) {
                return Ok(Some(format!(
                    "With {} of context it is {}.",
                    tokens(context),
                    at(&other)
                )));
            }
            context /= 2;
        }
        Ok(None)
    }

    fn raised_limit(&self) -> Result<Option<String>, FitError> {
        let mut cluster = self.cluster.clone();
        let mut raised = None;
        for node in &mut cluster.nodes {
            for pool in &mut node.machine.pools {
                let limit = pool.memory_bytes.saturating_sub(MACOS_BYTES);
                if pool.kind == PoolKind::Unified
                    && pool.family.starts_with("apple")
                    && limit > pool.limit_bytes
                {
                    pool.limit_bytes = limit;
                    raised = Some(limit);
                }
            }
        }
        let Some(limit) = raised else { return Ok(None) };
        let other = self.with(&cluster, &self.ask)?;
        Ok(self.better(&other).then(|| {
            format!(
                "With iogpu.wired_limit_mb={} on each Mac (all but {}) it is {}.",
                limit >> 20,
                gib(MACOS_BYTES),
                at(&other)
            )
        }))
    }

    fn one_more(&self) -> Result<Option<String>, FitError> {
        let mut cluster = self.cluster.clone();
        let Some(last) = cluster.nodes.last().cloned() else {
            return Ok(None);
        };
        let count = cluster.nodes.len();
        if let [host] = &mut cluster.nodes[..]
            && let Some(gpu) = host
                .machine
                .pools
                .iter()
                .rposition(|pool| pool.kind == PoolKind::Vram)
        {
            // Another GPU goes where the first one is.
            let pool = host.machine.pools[gpu].clone();
            let name = pool.device_name.clone();
            host.machine.pools.insert(gpu + 1, pool);
            let other = self.with(&cluster, &self.ask)?;
            return Ok(self
                .better(&other)
                .then(|| format!("With one more {name} in it, it is {}.", at(&other))));
        }
        let name = last.machine.name.clone();
        cluster.nodes.push(Node {
            name: format!("node-{}", count + 1),
            ..last
        });
        match &mut cluster.links {
            Links::Uniform(_) => {}
            // Only memory is asked about here, which no link decides.
            Links::Unnamed if count == 1 => cluster.links = Links::Uniform(any_link()),
            // The new one stands where the last one does, and beside it.
            Links::Pairs(pairs) => {
                let beside = pairs.iter().flatten().flatten().next().cloned();
                let Some(mut row) = pairs.last().cloned() else {
                    return Ok(None);
                };
                if let Some(own) = row.last_mut() {
                    own.clone_from(&beside);
                }
                row.push(None);
                for (index, pair) in pairs.iter_mut().enumerate() {
                    pair.push(if index + 1 == count {
                        beside.clone()
                    } else {
                        row[index].clone()
                    });
                }
                pairs.push(row);
            }
            Links::Unnamed => return Ok(None),
        }
        let other = self.with(&cluster, &self.ask)?;
        Ok(self
            .better(&other)
            .then(|| format!("With one more {name} it is {}.", at(&other))))
    }

    /// What still runs without the node that would be missed most.
    fn one_fewer(&self) -> Result<Option<String>, FitError> {
        let count = self.cluster.nodes.len();
        if count < 2 || self.verdict.tier > Tier::Borderline {
            return Ok(None);
        }
        let mut worst: Option<(usize, Verdict)> = None;
        for node in 0..count {
            let alike = |other: &Node| other.machine == self.cluster.nodes[node].machine;
            let uniform = matches!(self.cluster.links, Links::Uniform(_));
            if uniform && self.cluster.nodes[..node].iter().any(alike) {
                continue;
            }
            let other = self.with(&without(self.cluster, node), &self.ask)?;
            let rank = |verdict: &Verdict| (verdict.tier, verdict.utilization.unwrap_or(f64::MAX));
            if worst
                .as_ref()
                .is_none_or(|(_, known)| rank(&other) > rank(known))
            {
                worst = Some((node, other));
            }
        }
        Ok(worst.map(|(node, other)| {
            let name = &self.cluster.nodes[node].name;
            match other.tier {
                Tier::Comfortable | Tier::Borderline => {
                    format!("Without {name} it still runs: {}.", at(&other))
                }
                Tier::NotPractical => format!("Without {name} it no longer fits."),
                Tier::Unknown => format!(
                    "Without {name}: {}",
                    other.reasons.last().cloned().unwrap_or_default()
                ),
            }
        }))
    }

    fn faster_link(&self) -> Result<Option<String>, FitError> {
        let several = self.verdict.nodes_used() > 1;
        let Some(decode) = self.verdict.decode_tok_s.filter(|_| several) else {
            return Ok(None);
        };
        let mut best: Option<(&Link, f64)> = None;
        for link in &self.ask.links {
            let mut cluster = self.cluster.clone();
            cluster.links = Links::Uniform(link.clone());
            let other = self.with(&cluster, &self.ask)?;
            let rate = other.decode_tok_s.map_or(0.0, |estimate| estimate.mid);
            if rate > best.map_or(decode.mid * 1.03, |best| best.1) {
                best = Some((link, rate));
            }
        }
        Ok(best.map(|(link, faster)| {
            format!(
                "Over {} it decodes {} instead of {}.",
                link.name,
                rate(faster),
                rate(decode.mid)
            )
        }))
    }
}

fn at(verdict: &Verdict) -> String {
    let share = verdict.utilization.map(percent).unwrap_or_default();
    format!("{}, at {share} of effective memory", verdict.tier.name())
}

/// A cluster without one of its nodes.
pub(crate) fn without(cluster: &Cluster, node: usize) -> Cluster {
    let mut rest = cluster.clone();
    rest.nodes.remove(node);
    if let Links::Pairs(pairs) = &mut rest.links {
        pairs.remove(node);
        for row in pairs {
            row.remove(node);
        }
    }
    rest
}

/// A link for questions of memory only.
fn any_link() -> Link {
    Link {
        id: String::new(),
        name: String::new(),
        latency_ms: 0.0,
        bandwidth_gb_s: 1.0,
        rdma: None,
        source: String::new(),
    }
}
