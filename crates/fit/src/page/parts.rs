//! What several pages say.

use serde::Serialize;

use super::doc::{Block, Cell, Row, Table, Target};
use super::format::{and, gib, sentence, short, times};
use super::link;
use crate::catalog::Catalog;
use crate::catalog::runtimes::RuntimeFit;
use crate::cluster::{Cluster, Link, Links};
use crate::effective;
use crate::evidence::Evidence;
use crate::machine::PoolKind;
use crate::memory::Item;
use crate::verdict::{Alternative, Ask, Tier};

/// What a page of `brigade.fit/1` starts with.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Head {
    /// `brigade.fit/1`.
    pub schema: &'static str,
    /// The combo's id, or the text that it was read from.
    pub combo: String,
    /// Its name for people.
    pub name: String,
    /// All memory of all nodes.
    pub total_bytes: u64,
    /// What the nodes let a model use at most.
    pub limit_bytes: u64,
    /// What is wise to plan with.
    pub effective_bytes: u64,
    /// What lies between the limit and effective memory: the items add up to the difference.
    pub effective_ledger: Vec<Item>,
    /// Tokens of context that were asked for.
    pub context: u32,
    /// The nodes.
    pub nodes: Vec<NodeRow>,
    /// The links between them.
    pub links: Vec<LinkRow>,
    /// Version and date.
    pub catalog: Stamp,
}

/// Which program and catalog a page is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stamp {
    /// Version of the program.
    pub version: &'static str,
    /// Date of the catalog's newest entry.
    pub date: String,
}

/// A node as a page shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeRow {
    /// Its name within the cluster.
    pub node: String,
    /// Its machine's id.
    pub machine: String,
    /// Its machine's name.
    pub machine_name: String,
    /// Its memories.
    pub pools: Vec<PoolRow>,
}

/// A memory as a page shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PoolRow {
    /// What kind of memory it is.
    pub kind: PoolKind,
    /// The processor's name.
    pub device_name: String,
    /// All of it.
    pub memory_bytes: u64,
    /// What a model may use at most.
    pub limit_bytes: u64,
    /// Why.
    pub limit_reason: String,
    /// What is wise to plan with.
    pub effective_bytes: u64,
    /// Bandwidth of the memory, in 10⁹ bytes a second.
    pub bandwidth_gb_s: Option<f64>,
    /// What to know about the processor's figures, such as what contradicts them.
    pub note: Option<String>,
}

/// A kind of link of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkRow {
    /// The link.
    #[serde(flatten)]
    pub link: Link,
    /// How its figures are known.
    pub evidence: Option<Evidence>,
    /// What a reader should know.
    pub note: String,
    /// Pairs of nodes that it joins.
    pub pairs: usize,
    /// How it compares with other links of the catalog, a sentence each.
    pub facts: Vec<String>,
}

/// Models by tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Counts {
    /// See [`Tier::Comfortable`].
    pub comfortable: usize,
    /// See [`Tier::Borderline`].
    pub borderline: usize,
    /// See [`Tier::NotPractical`].
    pub not_practical: usize,
    /// See [`Tier::Unknown`].
    pub unknown: usize,
}

/// A runtime as a page shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuntimeRow {
    /// Whether it can use these machines, and how.
    #[serde(flatten)]
    pub here: RuntimeFit,
    /// Which files it reads.
    pub formats: String,
    /// Over which links.
    pub links: String,
}

impl Head {
    /// The head of a page about a cluster.
    pub(super) fn new(catalog: &Catalog, cluster: &Cluster, ask: &Ask) -> Self {
        let whole = effective::of_cluster(cluster, ask.measured);
        let count = cluster.nodes.len();
        let nodes = cluster.nodes.iter().map(|node| {
            let effective = effective::of_machine(&node.machine, count, ask.measured);
            let pools = node.machine.pools.iter().zip(effective);
            NodeRow {
                node: node.name.clone(),
                machine: node.machine.id.clone(),
                machine_name: node.machine.name.clone(),
                pools: pools
                    .map(|(pool, effective)| PoolRow {
                        kind: pool.kind,
                        device_name: pool.device_name.clone(),
                        memory_bytes: pool.memory_bytes,
                        limit_bytes: pool.limit_bytes,
                        limit_reason: pool.limit_reason.clone(),
                        effective_bytes: effective.effective_bytes,
                        bandwidth_gb_s: pool.bandwidth_gb_s,
                        note: pool.note.clone(),
                    })
                    .collect(),
            }
        });
        let links = links_of(cluster).into_iter().map(|(link, pairs)| {
            let known = catalog.link(&link.id).ok();
            LinkRow {
                facts: link::facts(catalog, &link, count),
                evidence: known.map(|known| known.evidence),
                note: known
                    .and_then(|known| known.note.clone())
                    .unwrap_or_default(),
                link,
                pairs,
            }
        });
        Self {
            schema: "brigade.fit/1",
            combo: cluster.id.clone(),
            name: times(&cluster.name),
            total_bytes: cluster.total_bytes(),
            limit_bytes: whole.limit_bytes,
            effective_bytes: whole.effective_bytes,
            effective_ledger: whole.items,
            context: ask.context,
            nodes: nodes.collect(),
            links: links.collect(),
            catalog: Stamp::of(catalog),
        }
    }
}

impl Head {
    /// What to plan with, of how much: memories of GPUs and RAM apart, as no layer lies in both.
    pub(super) fn plan_with(&self) -> String {
        let [gpus, ram] = self.apart();
        if gpus.0 > 0 && ram.0 > 0 {
            format!(
                "Plan with {} in GPUs and {} of RAM, of its {} and {}",
                gib(gpus.0),
                gib(ram.0),
                gib(gpus.1),
                gib(ram.1)
            )
        } else {
            format!(
                "Plan with {} of its {}",
                gib(self.effective_bytes),
                gib(self.total_bytes)
            )
        }
    }

    /// What is effective and all, in GPUs or for all processors, and in system memory beside GPUs.
    fn apart(&self) -> [(u64, u64); 2] {
        let mut sums = [(0, 0); 2];
        for node in &self.nodes {
            let beside = node.pools.len() > 1;
            for pool in &node.pools {
                let sum = &mut sums[usize::from(beside && pool.kind == PoolKind::Ram)];
                sum.0 += pool.effective_bytes;
                sum.1 += pool.memory_bytes;
            }
        }
        sums
    }

    /// What a sum over pools leaves out; empty where there is one kind.
    pub(super) fn pools_note(&self) -> String {
        let [gpus, ram] = self.apart();
        if ram.1 > 0 {
            format!(
                "{} in GPUs, {} of RAM; a layer lies in one of them",
                gib(gpus.1),
                gib(ram.1)
            )
        } else {
            String::new()
        }
    }
}

impl Stamp {
    /// This program and this catalog.
    pub(super) fn of(catalog: &Catalog) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            date: catalog.date(),
        }
    }
}

impl Counts {
    /// Counts tiers.
    pub fn of(tiers: impl Iterator<Item = Tier>) -> Self {
        let mut counts = Self::default();
        for tier in tiers {
            match tier {
                Tier::Comfortable => counts.comfortable += 1,
                Tier::Borderline => counts.borderline += 1,
                Tier::NotPractical => counts.not_practical += 1,
                Tier::Unknown => counts.unknown += 1,
            }
        }
        counts
    }

    /// All of them.
    pub fn total(self) -> usize {
        self.comfortable + self.borderline + self.not_practical + self.unknown
    }

    /// `24 comfortable, 6 borderline, 8 not practical`, with the unknown where there are any.
    pub(super) fn words(self) -> String {
        let mut parts = vec![
            format!("{} comfortable", self.comfortable),
            format!("{} borderline", self.borderline),
            format!("{} not practical", self.not_practical),
        ];
        if self.unknown > 0 {
            parts.push(format!("{} unknown", self.unknown));
        }
        and(&parts)
    }
}

/// The nodes' memories as a table; nodes that are alike share a row.
fn node_table(nodes: &[NodeRow]) -> Table {
    let titles = [
        "Nodes",
        "Machine",
        "Memory of",
        ">Memory",
        ">Limit",
        ">Effective",
        ">Bandwidth",
    ];
    let mut table = Table::new("The nodes and their memory", &titles);
    for alike in nodes.chunk_by(|a, b| a.machine == b.machine && a.pools == b.pools) {
        let (Some(first), Some(last)) = (alike.first(), alike.last()) else {
            continue;
        };
        let names = if alike.len() == 1 {
            first.node.clone()
        } else {
            format!("{} to {}", first.node, last.node)
        };
        for (index, pool) in first.pools.iter().enumerate() {
            let (names, machine) = if index == 0 {
                let to = Target::Machine(first.machine.clone());
                let text = first.machine_name.clone();
                (names.clone(), Cell::Link { text, to })
            } else {
                (String::new(), Cell::text(""))
            };
            let bandwidth = pool
                .bandwidth_gb_s
                .map_or_else(|| "–".into(), |rate| format!("{} GB/s", short(rate)));
            let cells = vec![
                Cell::text(names),
                machine,
                Cell::text(pool.device_name.clone()),
                Cell::text(gib(pool.memory_bytes)),
                Cell::text(gib(pool.limit_bytes)),
                Cell::text(gib(pool.effective_bytes)),
                Cell::text(bandwidth),
            ];
            table.rows.push(Row::new(cells));
        }
    }
    table
}

/// The table with what to know about the processors, each once.
pub(super) fn node_blocks(nodes: &[NodeRow]) -> Vec<Block> {
    let mut remarks: Vec<String> = Vec::new();
    for pool in nodes.iter().flat_map(|node| &node.pools) {
        if let Some(note) = &pool.note {
            let said = format!("{}: {}", pool.device_name, sentence(note));
            if !remarks.contains(&said) {
                remarks.push(said);
            }
        }
    }
    let list = (!remarks.is_empty()).then_some(Block::List { items: remarks });
    std::iter::once(Block::Table(node_table(nodes)))
        .chain(list)
        .collect()
}

/// Why the limits are what they are, each reason once.
pub(super) fn limit_reasons(nodes: &[NodeRow]) -> Vec<String> {
    let mut reasons: Vec<String> = Vec::new();
    for pool in nodes.iter().flat_map(|node| &node.pools) {
        let reason = limit_words(&pool.limit_reason);
        if !reason.is_empty() && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    reasons
}

/// A limit's reason, its share with what it is a share of.
fn limit_words(reason: &str) -> String {
    let of = if reason.contains("free now") {
        "of what is free"
    } else {
        "of all memory"
    };
    reason.replacen(" % (", &format!(" % {of} ("), 1)
}

/// Ways to run a model side by side.
pub(super) fn alternatives_table(name: &str, alternatives: &[Alternative]) -> Table {
    let titles = ["Split", "Runtimes", "Fits", "Use", "Decode, tok/s"];
    let mut said: Vec<&str> = Vec::new();
    let rows = alternatives.iter().map(|way| {
        // What holds for several ways is said at the first of them.
        let note = if said.contains(&way.note.as_str()) {
            ""
        } else {
            said.push(&way.note);
            &way.note
        };
        Row::new(vec![
            Cell::text(sentence(&way.name).trim_end_matches('.')),
            Cell::text(if way.runtimes.is_empty() {
                "–".to_owned()
            } else {
                way.runtimes.join(", ")
            }),
            Cell::text(if way.fits { "yes" } else { "no" }),
            Cell::share(way.utilization),
            Cell::rate(way.decode_tok_s),
        ])
        .note(note)
    });
    Table::new(format!("Ways to run {name}"), &titles).rows(rows)
}

/// The kinds of link of a cluster, with how many pairs each joins.
pub(super) fn links_of(cluster: &Cluster) -> Vec<(Link, usize)> {
    let nodes = cluster.nodes.len();
    let mut kinds: Vec<(Link, usize)> = Vec::new();
    match &cluster.links {
        Links::Uniform(link) if nodes > 1 => kinds.push((link.clone(), nodes * (nodes - 1) / 2)),
        Links::Unnamed | Links::Uniform(_) => {}
        Links::Pairs(_) => {
            for from in 0..nodes {
                for to in from + 1..nodes {
                    let Some(link) = cluster.link(from, to) else {
                        continue;
                    };
                    match kinds.iter_mut().find(|(kind, _)| kind == link) {
                        Some((_, pairs)) => *pairs += 1,
                        None => kinds.push((link.clone(), 1)),
                    }
                }
            }
        }
    }
    kinds
}

/// The runtimes of the catalog and what they do on a cluster: first those that can.
pub(super) fn runtime_rows(catalog: &Catalog, cluster: &Cluster) -> Vec<RuntimeRow> {
    let mut rows: Vec<RuntimeRow> = catalog
        .runtimes_for(cluster)
        .into_iter()
        .map(|here| {
            let runtime = catalog
                .runtimes
                .iter()
                .find(|runtime| runtime.id == here.id);
            let formats = runtime.map_or_else(String::new, |runtime| {
                let names = runtime
                    .formats
                    .iter()
                    .map(|format| super::formats::name(*format));
                let names = names.collect::<Vec<_>>().join(", ");
                runtime.formats_note.clone().unwrap_or(names)
            });
            RuntimeRow {
                formats,
                links: runtime.map_or_else(String::new, |runtime| runtime.links.clone()),
                here,
            }
        })
        .collect();
    rows.sort_by_key(|row| !row.here.can);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_says_of_what_it_is_one() {
        let rule = "the OS keeps the larger of 2 GiB and 10 %: 90 % (a rule)";
        let all = "the OS keeps the larger of 2 GiB and 10 %: 90 % of all memory (a rule)";
        assert_eq!(limit_words(rule), all);
        let free = limit_words(&format!("22.4 GB are free now; {rule}"));
        assert!(free.ends_with(": 90 % of what is free (a rule)"), "{free}");
    }
}
