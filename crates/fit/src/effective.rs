//! What is wise to plan with: the limit less what a cluster itself costs.
//!
//! A node alone gives up its daemon only. In a cluster of two or more nodes every pool gives up
//! 12.5 % of its limit: the parts that are known by name and, for the rest, a last item called
//! *unmeasured cluster cost*. Published figures are 10–15 %; a measurement on these machines
//! takes the item's place.

use serde::Serialize;

use crate::cluster::Cluster;
use crate::machine::{Machine, Pool, PoolKind};
use crate::memory::Item;

/// What a cluster costs of the limit until it is measured; published: 10–15 %.
pub const CLUSTER_SHARE: f64 = 0.125;

/// What is set aside for the daemon of a node: a budget, not a measurement.
pub const DAEMON_BYTES: u64 = 64 << 20;

/// What is set aside for frames under way: 2 directions of 2 micro-batches of 512 hidden states
/// of 16,384 32-bit numbers, wider than any model of the catalog.
pub const TRANSPORT_BYTES: u64 = 4 * 512 * 16_384 * 4;

/// A pool's limit and what remains of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Effective {
    /// What the OS or driver lets a model use at most.
    pub limit_bytes: u64,
    /// What is wise to plan with.
    pub effective_bytes: u64,
    /// What was taken off; adds up to `limit_bytes - effective_bytes`.
    pub items: Vec<Item>,
}

/// The effective memory of one pool of a machine in a cluster of `nodes`.
///
/// The daemon and the transport live in the machine's own memory, not in a GPU's. `measured` is
/// the share of the limit that a cluster of these machines was measured to cost, in all.
pub fn of_pool(pool: &Pool, nodes: usize, measured: Option<f64>) -> Effective {
    let limit = pool.limit_bytes;
    let mut left = limit;
    let mut items = Vec::new();
    let mut take = |item: &str, bytes: u64| {
        let bytes = bytes.min(left);
        if bytes > 0 {
            left -= bytes;
            items.push(Item {
                item: item.to_owned(),
                bytes,
            });
        }
    };
    if pool.kind != PoolKind::Vram {
        take("daemon", DAEMON_BYTES);
        if nodes > 1 {
            take("transport buffers", TRANSPORT_BYTES);
        }
    }
    if nodes > 1 {
        let (name, share) = match measured {
            Some(share) => ("measured cluster cost", share.clamp(0.0, 1.0)),
            None => ("unmeasured cluster cost", CLUSTER_SHARE),
        };
        let whole = (limit as f64 * share).round() as u64;
        let named = match pool.kind {
            PoolKind::Vram => 0,
            PoolKind::Unified | PoolKind::Ram => DAEMON_BYTES + TRANSPORT_BYTES,
        };
        take(name, whole.saturating_sub(named));
    }
    Effective {
        limit_bytes: limit,
        effective_bytes: left,
        items,
    }
}

/// The effective memory of each pool of a machine, in its order.
pub fn of_machine(machine: &Machine, nodes: usize, measured: Option<f64>) -> Vec<Effective> {
    machine
        .pools
        .iter()
        .map(|pool| of_pool(pool, nodes, measured))
        .collect()
}

/// The effective memory of a whole cluster, for display: pools do not add up for a layer.
pub fn of_cluster(cluster: &Cluster, measured: Option<f64>) -> Effective {
    let mut sum = Effective {
        limit_bytes: 0,
        effective_bytes: 0,
        items: Vec::new(),
    };
    for node in &cluster.nodes {
        for pool in of_machine(&node.machine, cluster.nodes.len(), measured) {
            sum.limit_bytes += pool.limit_bytes;
            sum.effective_bytes += pool.effective_bytes;
            for item in pool.items {
                match sum.items.iter_mut().find(|known| known.item == item.item) {
                    Some(known) => known.bytes += item.bytes,
                    None => sum.items.push(item),
                }
            }
        }
    }
    // What is unknown stands last.
    sum.items
        .sort_by_key(|item| item.item.ends_with("cluster cost"));
    sum
}

#[cfg(test)]
mod tests;
