//! What a plan's nodes hold, item by item.

use std::ops::Range;

use super::hosts::Host;
use super::{Field, Plan, PlanStage};
use crate::FitError;
use crate::memory::{self, Item, NodeLedger, PoolLedger};

impl Field<'_> {
    /// What each node of the cluster holds, item by item, in the cluster's order.
    pub(crate) fn ledger(&self, plan: &Plan) -> Result<Vec<NodeLedger>, FitError> {
        let mut ledger = Vec::new();
        for (index, node) in self.cluster.nodes.iter().enumerate() {
            let stage = plan.stages.iter().find(|stage| stage.node == index);
            ledger.push(NodeLedger {
                node: node.name.clone(),
                machine: node.machine.name.clone(),
                layers: stage.map_or(0..0, |stage| stage.layers.clone()),
                pools: stage.map_or(Ok(Vec::new()), |stage| self.pools(stage))?,
                disk_bytes: stage.map_or(0, |stage| {
                    let Range { start, end } = stage.layers;
                    self.costs.quant.weights.stage(start as usize..end as usize)
                }),
            });
        }
        Ok(ledger)
    }

    fn pools(&self, stage: &PlanStage) -> Result<Vec<PoolLedger>, FitError> {
        let host = &self.hosts[stage.node];
        let costs = &self.costs;
        let apart = stage.layers.start + stage.packing.experts_in_ram;
        let mut pools = Vec::new();
        for part in &stage.packing.parts {
            let mut bytes = memory::stage(
                costs.model,
                costs.quant,
                part.layers.clone(),
                &costs.load,
                costs.runner(host.backend(part.pool)),
                host.runtime_bytes(part.pool),
            )?;
            let until = apart.clamp(part.layers.start, part.layers.end);
            bytes.weights -= costs.experts(part.layers.start, until);
            pools.push(pool_ledger(host, part.pool, bytes.items()));
        }
        if let (Some(ram), true) = (host.ram(), stage.packing.experts_in_ram > 0) {
            let item = |item: &str, bytes| Item {
                item: item.into(),
                bytes,
            };
            let items = vec![
                item("experts' weights", costs.experts(stage.layers.start, apart)),
                item("runtime", host.runtime_bytes(ram)),
            ];
            pools.push(pool_ledger(host, ram, items));
        }
        Ok(pools)
    }
}

/// One pool with what it holds.
fn pool_ledger(host: &Host, pool: usize, items: Vec<Item>) -> PoolLedger {
    let (of, room) = (&host.machine.pools[pool], &host.pools[pool]);
    let working_set = items.iter().map(|item| item.bytes).sum::<u64>();
    let name = host.machine.pool_names().swap_remove(pool);
    PoolLedger {
        pool: name,
        memory_bytes: of.memory_bytes,
        limit_bytes: of.limit_bytes,
        effective_bytes: room.effective_bytes,
        working_set_bytes: working_set,
        items,
        utilization: working_set as f64 / room.effective_bytes.max(1) as f64,
    }
}
