//! What a node can hold, and in which of its pools.

use std::ops::Range;

use super::costs::{Costs, Step};
use super::{COMFORTABLE, Packing, Part, Speed};
use crate::FitError;
use crate::effective::{self, Effective};
use crate::machine::{Machine, PoolKind};
use crate::memory::Backend;

/// A node's machine with what it leaves to a model.
#[derive(Clone)]
pub(crate) struct Host<'a> {
    pub(crate) machine: &'a Machine,
    pub(crate) pools: Vec<Effective>,
    runtime: Vec<u64>,
    backends: Vec<Backend>,
    gpus: Vec<usize>,
    ram: Option<usize>,
}

/// Where a node's layers lie.
enum Way {
    /// On GPUs, or in its only memory.
    Gpus,
    /// On GPUs, but for the experts of so many of the first ones.
    ExpertsApart(u32),
    /// So many of the first ones in system memory.
    Split(u32),
}

/// How much of each pool a plan may fill.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Level {
    /// This share of the effective memory. System memory beside a GPU is used only where the
    /// share is that of a comfortable fit or more: what fits the GPUs goes there.
    Effective(f64),
    /// All of the limit.
    Limit,
}

impl<'a> Host<'a> {
    pub(crate) fn new(machine: &'a Machine, nodes: usize, measured: Option<f64>) -> Self {
        let is_ram = |&index: &usize| machine.pools[index].kind == PoolKind::Ram;
        let all = 0..machine.pools.len();
        Self {
            machine,
            pools: effective::of_machine(machine, nodes, measured),
            runtime: machine
                .pools
                .iter()
                .map(|pool| pool.runtime_bytes)
                .collect(),
            backends: all.clone().map(|pool| Backend::of(machine, pool)).collect(),
            gpus: all.clone().filter(|index| !is_ram(index)).collect(),
            ram: all.clone().find(is_ram),
        }
    }

    /// The same with no cluster around it.
    pub(crate) fn alone(&self) -> Self {
        let alone = Self::new(self.machine, 1, None);
        Self {
            ram: self.ram,
            ..alone
        }
    }

    /// Leaves system memory out where there are GPUs; whether that changes anything.
    pub(crate) fn gpus_only(&mut self) -> bool {
        !self.gpus.is_empty() && self.ram.take().is_some()
    }

    /// Whether both are the same to a plan.
    pub(crate) fn alike(&self, other: &Self) -> bool {
        let same = |(a, b): (&crate::machine::Pool, &crate::machine::Pool)| {
            a.kind == b.kind
                && a.device == b.device
                && a.family == b.family
                && a.memory_bytes == b.memory_bytes
                && a.limit_bytes == b.limit_bytes
                && a.runtime_bytes == b.runtime_bytes
                && a.bandwidth_gb_s == b.bandwidth_gb_s
                && a.fp16_tflops == b.fp16_tflops
                && a.fp32_tflops == b.fp32_tflops
                && a.calibration == b.calibration
        };
        let (mine, others) = (&self.machine.pools, &other.machine.pools);
        mine.len() == others.len() && mine.iter().zip(others).all(same)
    }

    fn room(&self, pool: usize, level: Level) -> u64 {
        let of = &self.pools[pool];
        match level {
            Level::Effective(share) => (of.effective_bytes as f64 * share) as u64,
            Level::Limit => of.limit_bytes,
        }
    }

    /// Whether some layers fit.
    pub(crate) fn holds(&self, costs: &Costs, start: u32, end: u32, level: Level) -> bool {
        self.way(costs, start, end, level).is_some()
    }

    /// Where some layers lie, if they fit.
    pub(crate) fn pack(
        &self,
        costs: &Costs,
        start: u32,
        end: u32,
        level: Level,
    ) -> Option<Packing> {
        let (experts_in_ram, in_ram) = match self.way(costs, start, end, level)? {
            Way::Gpus => (0, 0),
            Way::ExpertsApart(layers) => (layers, 0),
            Way::Split(layers) => (0, layers),
        };
        let mut parts = Vec::new();
        let own_experts = start + experts_in_ram;
        self.fill_gpus(costs, start + in_ram..end, own_experts, level, |part| {
            parts.push(part);
        });
        if let (Some(pool), true) = (self.ram, in_ram > 0) {
            parts.push(Part {
                pool,
                layers: start..start + in_ram,
            });
        }
        parts.reverse();
        Some(Packing {
            parts,
            experts_in_ram,
        })
    }

    fn way(&self, costs: &Costs, start: u32, end: u32, level: Level) -> Option<Way> {
        if let [_] = self.pools[..] {
            let whole = costs.stage(start, end, self.backends[0]);
            let fits = self.runtime[0].saturating_add(whole) <= self.room(0, level);
            let way = match self.ram {
                Some(_) => Way::Split(end - start),
                None => Way::Gpus,
            };
            return fits.then_some(way);
        }
        let use_ram = self.gpus.is_empty()
            || match level {
                Level::Effective(share) => share >= COMFORTABLE,
                Level::Limit => true,
            };
        let rest = self.fill_gpus(costs, start..end, start, level, |_| {});
        if rest == start {
            return Some(Way::Gpus);
        }
        let ram = self.ram.filter(|_| use_ram)?;
        let room = self.room(ram, level).checked_sub(self.runtime[ram])?;
        self.experts_apart(costs, start, end, level, room)
            .map(Way::ExpertsApart)
            .or_else(|| {
                (costs.stage(start, rest, self.backends[ram]) <= room)
                    .then_some(Way::Split(rest - start))
            })
    }

    /// The GPUs hold all layers, system memory the experts of as few as it takes.
    fn experts_apart(
        &self,
        costs: &Costs,
        start: u32,
        end: u32,
        level: Level,
        room: u64,
    ) -> Option<u32> {
        if self.gpus.is_empty() || costs.experts(start, end) == 0 {
            return None;
        }
        let holds =
            |apart: u32| self.fill_gpus(costs, start..end, start + apart, level, |_| {}) == start;
        // As many as system memory has room for do the most for the GPUs.
        let most = end - start;
        let room_for = most - least(most, |off| costs.experts(start, end - off) <= room)?;
        least(room_for, holds)
    }

    /// Fills the GPUs from the end, the last one first, with layers whose experts lie with them
    /// from layer `own_experts` on; gives where the layers that are left over end.
    fn fill_gpus(
        &self,
        costs: &Costs,
        layers: Range<u32>,
        own_experts: u32,
        level: Level,
        mut each: impl FnMut(Part),
    ) -> u32 {
        let Range { start, end } = layers;
        let mut until = end;
        for &pool in self.gpus.iter().rev() {
            if until == start {
                break;
            }
            let Some(room) = self.room(pool, level).checked_sub(self.runtime[pool]) else {
                continue;
            };
            let fits = |dropped: u32| {
                let from = start + dropped;
                let elsewhere = costs.experts(from.min(own_experts), own_experts.min(until));
                from == until || costs.stage(from, until, self.backends[pool]) - elsewhere <= room
            };
            let from = start + least(until - start, fits).unwrap_or(until - start);
            if from < until {
                each(Part {
                    pool,
                    layers: from..until,
                });
                until = from;
            }
        }
        until
    }

    /// What each pool of a packing holds: pool, layers, and the bytes of experts that lie apart
    /// from their layers, taken off (GPU) or added (system memory).
    pub(crate) fn used(&self, costs: &Costs, packing: &Packing) -> Vec<(usize, u64)> {
        let start = packing.parts.first().map_or(0, |part| part.layers.start);
        let apart = start + packing.experts_in_ram;
        let mut used: Vec<(usize, u64)> = packing
            .parts
            .iter()
            .map(|part| {
                let Range { start, end } = part.layers;
                let elsewhere =
                    costs.experts(start.min(apart), apart.min(end).max(start.min(apart)));
                let whole = costs.stage(start, end, self.backends[part.pool]);
                let bytes = whole - elsewhere + self.runtime[part.pool];
                (part.pool, bytes)
            })
            .collect();
        if let (Some(ram), true) = (self.ram, packing.experts_in_ram > 0) {
            used.push((ram, costs.experts(start, apart) + self.runtime[ram]));
        }
        used
    }

    /// Working set ÷ effective memory (or ÷ limit) of its fullest pool.
    pub(crate) fn utilization(&self, costs: &Costs, packing: &Packing, level: Level) -> f64 {
        self.used(costs, packing)
            .into_iter()
            .map(|(pool, bytes)| {
                let of = match level {
                    Level::Effective(_) => self.pools[pool].effective_bytes,
                    Level::Limit => self.pools[pool].limit_bytes,
                };
                bytes as f64 / of.max(1) as f64
            })
            .fold(0.0, f64::max)
    }

    /// Seconds of one step of these layers.
    pub(crate) fn step_s(
        &self,
        costs: &Costs,
        packing: &Packing,
        step: Step,
        speed: &dyn Speed,
    ) -> Result<f64, FitError> {
        let start = packing.parts.first().map_or(0, |part| part.layers.start);
        let apart = start + packing.experts_in_ram;
        let runtime = costs.quant.format.runtime();
        let mut seconds = 0.0;
        for (index, part) in packing.parts.iter().enumerate() {
            let pool = &self.machine.pools[part.pool];
            let own = part.layers.start.max(apart).min(part.layers.end)..part.layers.end;
            let mut work = costs.work(part.layers.clone(), own, step);
            work.handovers = u32::from(index > 0);
            seconds += speed.step_s(pool, runtime, &work)?;
        }
        if let (Some(ram), true) = (self.ram, apart > start) {
            let work = costs.expert_work(start..apart, step);
            seconds += speed.step_s(&self.machine.pools[ram], runtime, &work)?;
        }
        Ok(seconds)
    }

    pub(crate) fn runtime_bytes(&self, pool: usize) -> u64 {
        self.runtime[pool]
    }

    /// What computes on a pool.
    pub(crate) fn backend(&self, pool: usize) -> Backend {
        self.backends[pool]
    }

    /// The pool of system memory.
    pub(crate) fn ram(&self) -> Option<usize> {
        self.ram
    }

    /// Takes what lies in system memory to the first GPU, whether it fits or not.
    pub(crate) fn gather(&self, packing: &mut Packing, layers: &Range<u32>) {
        let Some(&gpu) = self.gpus.first() else {
            return;
        };
        packing.experts_in_ram = 0;
        let ram = self.ram;
        packing.parts.retain(|part| Some(part.pool) != ram);
        match packing.parts.first_mut() {
            Some(first) => first.layers.start = layers.start,
            None => packing.parts.push(Part {
                pool: gpu,
                layers: layers.clone(),
            }),
        }
    }

    /// Whether something lies in system memory beside a GPU.
    pub(crate) fn spills(&self, packing: &Packing) -> bool {
        let in_ram = |part: &Part| Some(part.pool) == self.ram;
        !self.gpus.is_empty() && (packing.experts_in_ram > 0 || packing.parts.iter().any(in_ram))
    }
}

/// The least of `0..=most` for which something holds that goes on holding, if any.
pub(crate) fn least(most: u32, holds: impl Fn(u32) -> bool) -> Option<u32> {
    if holds(0) {
        return Some(0);
    }
    if !holds(most) {
        return None;
    }
    let (mut no, mut yes) = (0, most);
    while yes - no > 1 {
        let middle = no + (yes - no) / 2;
        if holds(middle) {
            yes = middle;
        } else {
            no = middle;
        }
    }
    Some(yes)
}
