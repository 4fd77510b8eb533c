//! Divides a model's layers over nodes.
//!
//! A plan is an order of nodes and a contiguous layer range for each. Identical nodes are
//! interchangeable where all links are the same, so the search runs over how many of each kind
//! are used: exactly, by dynamic programming, up to [`EXACT_STATES`] such sets, and beyond that
//! by a beam. Memory is a constraint, at a `Level` of use; pools are never summed.

mod costs;
mod cuts;
mod divide;
#[cfg(test)]
pub(crate) mod fixtures;
mod hosts;
mod ledger;
mod reach;
mod stream;
mod time;

use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

use serde::Serialize;

pub use cuts::{Rule, rule};

pub(crate) use costs::Costs;
#[cfg(test)]
pub(crate) use costs::Step;
pub(crate) use hosts::{Host, Level};
pub(crate) use time::{PROMPT, Timing};

use crate::FitError;
use crate::cluster::{Cluster, Link, Links};
use crate::memory::{Backend, Load};
use crate::model::{Model, Quantization};
use crate::speed::Speed;

/// At most this share of effective memory is a comfortable fit.
pub const COMFORTABLE: f64 = 0.85;

/// Sets of nodes up to which the search is exact: 8 nodes that all differ, or many alike.
pub const EXACT_STATES: usize = 512;

/// What a hop of Brigade costs beside the link, in milliseconds: half of what a round trip over
/// loopback takes with this transport when both ends have computed for some milliseconds in between.
pub const HOP_SOFTWARE_MS: f64 = 0.12;

/// What a plan should be best at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// The least time a token of one stream.
    OneStream,
    /// The most tokens a second of many streams: the least time of the slowest stage or hop.
    ManyStreams,
    /// The most room: the least utilization of the fullest node.
    LargestContext,
}

impl Objective {
    /// What it is about, for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OneStream => "one stream",
            Self::ManyStreams => "many streams",
            Self::LargestContext => "the largest context",
        }
    }
}

/// An order of nodes with their layers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// The stages in the order of the layers; the first one's node coordinates.
    pub stages: Vec<PlanStage>,
}

/// One node's part of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanStage {
    /// Index of the node in the cluster.
    pub node: usize,
    /// Its layers, half-open, from 0.
    pub layers: Range<u32>,
    /// Where they lie.
    #[serde(flatten)]
    pub packing: Packing,
}

/// Layers of one node by pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Packing {
    /// System memory has the first layers, the GPUs the others in their order.
    pub parts: Vec<Part>,
    /// So many of the first layers have their routed experts in system memory, the rest of them
    /// on a GPU: llama.cpp's `--n-cpu-moe`.
    pub experts_in_ram: u32,
}

/// Layers in one pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// Index of the pool in the machine.
    pub pool: usize,
    /// Half-open, from 0.
    pub layers: Range<u32>,
}

/// A model under a load on a cluster: what a search needs.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) costs: Costs<'a>,
    pub(crate) hosts: Rc<Vec<Host<'a>>>,
    /// Nodes that are interchangeable.
    classes: Vec<Vec<usize>>,
    /// States that searches have looked at.
    pub(crate) looked_at: Cell<u64>,
}

/// Nodes in order with their layers, before packing.
type Ranges = Vec<(usize, Range<u32>)>;

impl<'a> Field<'a> {
    pub(crate) fn new(
        model: &'a Model,
        quant: &'a Quantization,
        cluster: &'a Cluster,
        load: Load,
        measured: Option<f64>,
    ) -> Result<Self, FitError> {
        let count = cluster.nodes.len();
        let hosts: Vec<Host> = cluster
            .nodes
            .iter()
            .map(|node| Host::new(&node.machine, count, measured))
            .collect();
        Ok(Self {
            cluster,
            costs: Costs::new(model, quant, load)?,
            classes: classes(cluster, &hosts, 0..count),
            hosts: Rc::new(hosts),
            looked_at: Cell::new(0),
        })
    }

    /// The same under another load.
    pub(crate) fn under(&self, load: Load) -> Self {
        Self {
            cluster: self.cluster,
            costs: self.costs.under(load),
            classes: self.classes.clone(),
            hosts: Rc::clone(&self.hosts),
            looked_at: Cell::new(0),
        }
    }

    /// The node that it is about, where it is about one only.
    pub(crate) fn only(&self) -> Option<usize> {
        match &self.classes[..] {
            [class] if class.len() == 1 => class.first().copied(),
            _ => None,
        }
    }

    /// Where all nodes are alike, only so many of them.
    pub(crate) fn if_alike_only(&mut self, nodes: usize) {
        if let [class] = &mut self.classes[..] {
            class.truncate(nodes);
        }
    }

    /// A node alone, with no cluster around it.
    pub(crate) fn alone(&mut self, node: usize) {
        let alone = self.hosts[node].alone();
        Rc::make_mut(&mut self.hosts)[node] = alone;
        self.classes = vec![vec![node]];
    }

    /// The same without system memory beside GPUs, where there is any.
    pub(crate) fn gpus_only(&self) -> Option<Self> {
        let mut other = self.clone();
        let mut changed = false;
        for host in Rc::make_mut(&mut other.hosts) {
            changed |= host.gpus_only();
        }
        changed.then_some(other)
    }

    /// Whether something lies in system memory beside a GPU.
    pub(crate) fn spills(&self, plan: &Plan) -> bool {
        let mut stages = plan.stages.iter();
        stages.any(|stage| self.hosts[stage.node].spills(&stage.packing))
    }

    /// Whether all links are the same, so that the order of nodes matters little.
    fn uniform(&self) -> bool {
        self.nodes() <= 1 || matches!(self.cluster.links, Links::Uniform(_))
    }

    /// Number of nodes that may be used.
    pub(crate) fn nodes(&self) -> usize {
        self.classes.iter().map(Vec::len).sum()
    }

    /// The best plan at a level, with at most so many stages.
    pub(crate) fn place(
        &self,
        objective: Objective,
        level: Level,
        most: usize,
        speed: &dyn Speed,
    ) -> Result<Option<Plan>, FitError> {
        match objective {
            Objective::OneStream => stream::fastest(self, level, most, speed),
            Objective::ManyStreams => stream::steadiest(self, level, most, speed),
            Objective::LargestContext => {
                Ok(self.roomiest(most).map(|(plan, _)| plan).filter(|plan| {
                    let share = match level {
                        Level::Effective(share) => share,
                        Level::Limit => f64::INFINITY,
                    };
                    self.utilization(plan, Level::Effective(1.0)) <= share
                }))
            }
        }
    }

    /// The plan of the least utilization of its fullest pool, fitting or not, and the level that
    /// it takes. `None` where no allowed division connects the nodes.
    pub(crate) fn roomiest(&self, most: usize) -> Option<(Plan, f64)> {
        let try_at = |share: f64| {
            let level = Level::Effective(share);
            let plan = self.pack(&reach::reach(self, level, most, None)?, level)?;
            let takes = self.takes(&plan);
            Some((plan, takes))
        };
        let all: u64 = self
            .hosts
            .iter()
            .flat_map(|host| &host.pools)
            .fold(0, |sum, pool| sum.saturating_add(pool.effective_bytes));
        // Nothing is held in less than all of it takes, each tensor once at most: on a GPU.
        let least = self.costs.stage(0, self.costs.layers, Backend::Gpu) as f64 / all.max(1) as f64;
        let mut share = least * 1.05;
        let first = loop {
            match try_at(share) {
                Some(found) => break found,
                None if share > 1e12 => return None,
                None => share *= 1.5,
            }
        };
        Some(narrow(
            first,
            least.min(share / 1.5),
            |found| found.1,
            try_at,
        ))
    }

    /// Some plan within the limits, with at most so many stages.
    pub(crate) fn within_limits(&self, most: usize) -> Option<Plan> {
        self.pack(&reach::reach(self, Level::Limit, most, None)?, Level::Limit)
    }

    /// The level that a plan takes: the utilization of its fullest pool, and that of a
    /// comfortable fit at least where system memory beside a GPU is used.
    pub(crate) fn takes(&self, plan: &Plan) -> f64 {
        let used = self.utilization(plan, Level::Effective(1.0));
        if self.spills(plan) {
            used.max(COMFORTABLE)
        } else {
            used
        }
    }

    /// Whether all layers can be held at a level.
    pub(crate) fn holds(&self, level: Level) -> bool {
        reach::reach(self, level, usize::MAX, None).is_some()
    }

    pub(crate) fn pack(&self, ranges: &Ranges, level: Level) -> Option<Plan> {
        let stages = ranges.iter().map(|(node, layers)| {
            let packing = self.hosts[*node].pack(&self.costs, layers.start, layers.end, level)?;
            Some(PlanStage {
                node: *node,
                layers: layers.clone(),
                packing,
            })
        });
        Some(Plan {
            stages: stages.collect::<Option<_>>()?,
        })
    }

    /// Working set ÷ effective memory of the plan's fullest pool.
    pub(crate) fn utilization(&self, plan: &Plan, level: Level) -> f64 {
        self.by_node(plan, level)
            .map(|(_, used)| used)
            .fold(0.0, f64::max)
    }

    /// The node with the least headroom.
    pub(crate) fn binding(&self, plan: &Plan) -> Option<usize> {
        self.by_node(plan, Level::Effective(1.0))
            .reduce(|a, b| if b.1 > a.1 { b } else { a })
            .map(|(node, _)| node)
    }

    fn by_node(&self, plan: &Plan, level: Level) -> impl Iterator<Item = (usize, f64)> {
        plan.stages.iter().map(move |stage| {
            let host = &self.hosts[stage.node];
            (
                stage.node,
                host.utilization(&self.costs, &stage.packing, level),
            )
        })
    }

    /// Seconds of a token if the GPUs held all layers of each stage: each in the share that it
    /// has now, or all on the first one.
    pub(crate) fn without_spill_s(&self, plan: &Plan, speed: &dyn Speed) -> Result<f64, FitError> {
        let mut plan = plan.clone();
        for stage in &mut plan.stages {
            let host = &self.hosts[stage.node];
            host.gather(&mut stage.packing, &stage.layers);
        }
        Timing {
            field: self,
            plan: &plan,
            speed,
        }
        .token_s()
    }

    /// Seconds for some bytes to get from one stage to the next, in the program that runs them.
    fn hop_s(&self, link: &Link, bytes: f64, speed: &dyn Speed) -> f64 {
        let software_ms = speed.hop_software_ms(self.costs.program);
        (link.latency_ms + software_ms) / 1e3 + bytes / (link.bandwidth_gb_s * 1e9)
    }

    /// The link between two nodes.
    fn link(&self, from: usize, to: usize) -> Option<&Link> {
        self.cluster.link(from, to)
    }
}

/// The least of what a search finds: `found` is what there is, `value` what is to be least, and
/// `try_at` looks for something of at most a value. Halves what is left until little is, then
/// steps from find to find.
fn narrow<T>(
    mut found: T,
    mut low: f64,
    value: impl Fn(&T) -> f64,
    try_at: impl Fn(f64) -> Option<T>,
) -> T {
    loop {
        let best = value(&found);
        let close = best - low <= 0.01 * best;
        let next = if close {
            best * (1.0 - 1e-9)
        } else {
            f64::midpoint(low, best)
        };
        match try_at(next) {
            // A find that takes no less than before ends it: no step may be without progress.
            Some(other) if value(&other) < best => found = other,
            _ if close => return found,
            _ => low = next,
        }
    }
}

/// Nodes that a plan may exchange: alike, where all links are the same.
fn classes(
    cluster: &Cluster,
    hosts: &[Host],
    nodes: impl Iterator<Item = usize>,
) -> Vec<Vec<usize>> {
    let uniform = matches!(cluster.links, Links::Uniform(_));
    let mut classes: Vec<Vec<usize>> = Vec::new();
    for node in nodes {
        let class = classes
            .iter_mut()
            .find(|class| uniform && hosts[class[0]].alike(&hosts[node]));
        match class {
            Some(class) => class.push(node),
            None => classes.push(vec![node]),
        }
    }
    // Of divisions that are as good, the first one found is taken: whichever way the machines are
    // written, it begins with the quickest.
    let order = |class: &Vec<usize>| {
        let machine = hosts[class[0]].machine;
        let bandwidths = machine.pools.iter().filter_map(|pool| pool.bandwidth_gb_s);
        let memory: Vec<(u64, &str)> = machine
            .pools
            .iter()
            .map(|pool| (pool.limit_bytes, pool.device.as_str()))
            .collect();
        (bandwidths.fold(0.0, f64::max), memory)
    };
    if uniform {
        classes.sort_by(|a, b| {
            let (a, b) = (order(a), order(b));
            b.0.total_cmp(&a.0).then_with(|| b.1.cmp(&a.1))
        });
    }
    classes
}

#[cfg(test)]
mod tests;
