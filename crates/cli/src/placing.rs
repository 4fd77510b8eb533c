//! Where a model goes in the cluster as it is: the daemon's facts for the planner, and its answer.

use std::ops::Range;
use std::path::PathBuf;

use anyhow::{Context, bail};
use brigade_fit::catalog::Catalog;
use brigade_fit::cluster::{Cluster, Link, Links, Node};
use brigade_fit::model::Model;
use brigade_fit::page::PlanPage;
use brigade_fit::placement::HOP_SOFTWARE_MS;
use brigade_fit::verdict::{self, Ask, Detail, Given, Tier, Verdict};
use brigade_node::{Amount, Host, LinkView, NodeState, NodeView};
use serde::{Deserialize, Serialize};

use crate::about::About;
use crate::model::Engine;
use crate::planner;

/// What TCP achieves between nodes until it is measured, in 10⁹ bytes a second: 1 Gbit Ethernet.
const ASSUMED_GB_S: f64 = 0.117;

/// A stage of a plan and what it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlacedStage {
    /// The node's id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) node: String,
    /// First layer, and the one after the last.
    pub(crate) layers: (u32, u32),
    /// Memory that it takes there.
    pub(crate) needs: Vec<Amount>,
}

/// What the planner says of a model on the cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Placed {
    /// The stages in order; empty where nothing fits.
    pub(crate) stages: Vec<PlacedStage>,
    /// For people.
    pub(crate) text: String,
    /// Where the header of a model on servers was put; it stays this version.
    pub(crate) header: Option<PathBuf>,
    /// The page, `brigade.plan/1`.
    pub(crate) page: serde_json::Value,
    /// Why it needs somebody's word.
    pub(crate) question: Option<String>,
    /// Why it cannot be.
    pub(crate) refusal: Option<String>,
}

/// Which nodes get stages.
#[derive(Debug, Clone)]
pub(crate) enum Choice {
    /// Those that the planner takes.
    Planner,
    /// All of these ids, in this order.
    All(Vec<String>),
    /// These ids, with these layers.
    Given(Vec<(String, Range<u32>)>),
}

/// The nodes that are up and have said what they are, the asked one first, as the planner sees
/// them: without what is taken of their memory. With their ids.
pub(crate) fn cluster(
    nodes: &[NodeView],
    measured: &[LinkView],
    catalog: &Catalog,
    threads: Option<u32>,
) -> (Cluster, Vec<String>) {
    let mut known: Vec<(&NodeView, About)> = nodes
        .iter()
        .filter(|node| node.is_self || node.state == NodeState::Up)
        .filter_map(|node| {
            let about = serde_json::from_str(&node.facts.as_ref()?.about).ok()?;
            Some((node, about))
        })
        .collect();
    known.sort_by_key(|(node, _)| !node.is_self);
    let links = links(&known, measured);
    let ids = known.iter().map(|(node, _)| node.id.clone()).collect();
    let nodes = known.iter().map(|(node, about)| {
        let mut machine = about.machine(catalog, threads);
        let names = machine.pool_names();
        let held = node.facts.iter().flat_map(|facts| &facts.held);
        for held in held {
            let pools = names.iter().zip(&mut machine.pools);
            for (_, pool) in pools.filter(|(name, _)| **name == held.amount.pool) {
                pool.limit_bytes = pool.limit_bytes.saturating_sub(held.amount.bytes);
                pool.limit_reason = format!("{}; {} is taken", pool.limit_reason, held.model);
            }
        }
        Node {
            name: node.name.clone(),
            machine,
        }
    });
    let cluster = Cluster {
        id: "cluster".to_owned(),
        name: "this cluster".to_owned(),
        nodes: nodes.collect(),
        links,
    };
    (cluster, ids)
}

/// Links as the daemons measure them, in either direction where one is not known.
fn links(nodes: &[(&NodeView, About)], measured: &[LinkView]) -> Links {
    if nodes.len() < 2 {
        return Links::Unnamed;
    }
    let names: Vec<&str> = nodes.iter().map(|(node, _)| node.name.as_str()).collect();
    let find = |from: &str, to: &str| {
        let mut links = measured.iter();
        links.find(|link| link.in_use && link.from == from && link.to == to)
    };
    let link = |from: usize, to: usize| {
        if from == to {
            return None;
        }
        let (there, back) = (find(names[from], names[to]), find(names[to], names[from]));
        let each = || there.iter().chain(&back);
        let trip = each().find_map(|link| link.measured.round_trip_ms)?;
        let rate = each().find_map(|link| link.measured.bandwidth_gbit_s);
        Some(Link {
            id: "measured".to_owned(),
            name: "the link between them".to_owned(),
            // What a pulse's way costs in software is counted for each hop already.
            latency_ms: (trip / 2.0 - HOP_SOFTWARE_MS).max(0.0),
            bandwidth_gb_s: rate.map_or(ASSUMED_GB_S, |rate| rate / 8.0),
            rdma: None,
            source: "measured by the daemons".to_owned(),
        })
    };
    let row = |from: usize| (0..names.len()).map(|to| link(from, to)).collect();
    Links::Pairs((0..names.len()).map(row).collect())
}

/// Places a model.
pub(crate) fn place(
    catalog: &Catalog,
    model: &Model,
    (cluster, ids): &(Cluster, Vec<String>),
    ask: &Ask,
    choice: &Choice,
    engine: Engine,
) -> anyhow::Result<Placed> {
    let speed = planner::speed(catalog);
    let index = |id: &String| {
        let found = ids.iter().position(|known| known == id);
        found.with_context(|| "a node has not said yet what machine it is: try again".to_owned())
    };
    let given: Option<Given> = match choice {
        Choice::Planner => None,
        Choice::All(nodes) => {
            let order = nodes
                .iter()
                .map(index)
                .collect::<anyhow::Result<Vec<_>>>()?;
            if order.len() > model.layers.len() {
                bail!(
                    "{} has {} layers, fewer than the {} nodes",
                    model.name,
                    model.layers.len(),
                    order.len()
                );
            }
            let Some(given) = verdict::divide(model, cluster, ask, &order)? else {
                // The planner says what would do.
                let mut placed = place(
                    catalog,
                    model,
                    &(cluster.clone(), ids.clone()),
                    ask,
                    &Choice::Planner,
                    engine,
                )?;
                placed.refusal = Some(format!(
                    "{} cannot be divided over all of the nodes that were named: without --on the \
                     planner chooses",
                    model.name
                ));
                return Ok(placed);
            };
            Some(given)
        }
        Choice::Given(stages) => {
            let stages = stages
                .iter()
                .map(|(id, layers)| Ok((index(id)?, layers.clone())));
            Some(stages.collect::<anyhow::Result<_>>()?)
        }
    };
    let page = match &given {
        None => PlanPage::new(catalog, model, cluster, ask, &speed)?,
        Some(given) => {
            let (verdict, plan) = verdict::assess_given(model, cluster, ask, &speed, given)?;
            PlanPage::with(catalog, model, cluster, ask, verdict, plan)
        }
    };
    let stages = page.plan.iter().flat_map(|plan| &plan.stages);
    let stages = stages.map(|stage| {
        let node = cluster
            .nodes
            .get(stage.node)
            .context("a plan without its node")?;
        let ledger = page.verdict.ledger.iter().find(|own| own.node == node.name);
        let needs = ledger.into_iter().flat_map(|own| &own.pools);
        Ok(PlacedStage {
            id: ids[stage.node].clone(),
            node: node.name.clone(),
            layers: (stage.layers.start, stage.layers.end),
            needs: needs
                .map(|pool| Amount {
                    pool: pool.pool.clone(),
                    bytes: pool.working_set_bytes,
                })
                .collect(),
        })
    });
    let stages: Vec<PlacedStage> = stages.collect::<anyhow::Result<_>>()?;
    let verdict = &page.verdict;
    let (question, refusal) = match verdict.tier {
        Tier::Comfortable => (None, None),
        Tier::Borderline => (Some(borderline(verdict)), None),
        Tier::NotPractical | Tier::Unknown => (None, Some(refusal(verdict))),
    };
    let refusal = refusal.or_else(|| stages.is_empty().then(|| self::refusal(verdict)));
    Ok(Placed {
        stages,
        text: summary(&page, given.as_ref(), engine),
        header: None,
        page: serde_json::to_value(&page)?,
        question,
        refusal,
    })
}

fn borderline(verdict: &Verdict) -> String {
    let node = verdict.binding_node.as_deref().unwrap_or("a node");
    let used = verdict.utilization.unwrap_or(1.0) * 100.0;
    format!(
        "{} is a borderline fit: {node} would use {used:.0} % of the memory that is wise to plan with",
        verdict.name
    )
}

fn refusal(verdict: &Verdict) -> String {
    let mut said = format!("{} does not fit", verdict.name);
    if verdict.tier == Tier::Unknown {
        said = format!("whether {} fits is not known", verdict.name);
    }
    let sentences = verdict.reasons.iter().chain(&verdict.changes);
    let sentences: Vec<_> = sentences
        .take(3)
        .map(|one| one.trim_end_matches('.'))
        .collect();
    if !sentences.is_empty() {
        said = format!("{said}: {}", sentences.join("; "));
    }
    said
}

/// The plan in a few lines: who holds what of how much, how fast, and why so.
fn summary(page: &PlanPage, given: Option<&Given>, engine: Engine) -> String {
    use std::fmt::Write as _;
    let verdict = &page.verdict;
    let gb = |bytes: u64| bytes as f64 / 1e9;
    let mut text = format!(
        "{} ({}) with {} tokens of context for {} sequences\n",
        verdict.name, verdict.quant, verdict.load.context, verdict.load.sequences
    );
    let width = page
        .stages
        .iter()
        .map(|stage| stage.node.len())
        .max()
        .unwrap_or(0);
    for stage in &page.stages {
        let ledger = verdict.ledger.iter().find(|own| own.node == stage.node);
        for pool in ledger.into_iter().flat_map(|own| &own.pools) {
            let _ = writeln!(
                text,
                "  {:<width$}  layers {:>3}..{:<3}  {:>6.2} of {:>6.2} GB {} ({:.0} %)",
                stage.node,
                stage.layers.0,
                stage.layers.1,
                gb(pool.working_set_bytes),
                gb(pool.effective_bytes),
                pool.pool,
                pool.utilization * 100.0
            );
        }
    }
    match &verdict.decode_tok_s {
        // The plan's speed is that of stages.
        _ if engine == Engine::LlamaRpc => text.push_str(
            "  llama-rpc: one node computes at a time; what that makes of the speed is not known\n",
        ),
        Some(decode) => {
            let _ = writeln!(
                text,
                "  {:.1} tokens a second of one answer ({:.1} to {:.1}, {})",
                decode.mid,
                decode.low,
                decode.high,
                decode.evidence.name()
            );
        }
        None => text.push_str(
            "  the speed is not known: `brigade calibrate` on each node measures what it does\n",
        ),
    }
    let why = match (given.is_some(), page.stages.len()) {
        (true, _) => "as it was asked for".to_owned(),
        (false, 1) => format!(
            "{} alone holds it comfortably, which spares every hop; --on NODE,NODE or --on all divides it",
            page.stages[0].node
        ),
        (false, _) => {
            "no node alone holds it comfortably; divided so that the fullest node has the most room"
                .to_owned()
        }
    };
    let _ = writeln!(text, "  {why}");
    text
}

/// What is asked of the planner for a model that is loaded.
pub(crate) fn ask(context: u32, sequences: u32, quant: Option<String>) -> Ask {
    Ask {
        context,
        sequences,
        quant,
        detail: Detail::Full,
        ..Ask::default()
    }
}

/// A model for llama.cpp's RPC of which the planner lacks a fact: its layers are divided evenly, and
/// no memory is reserved.
pub(crate) fn spread(hosts: &[Host], model: &Model, remark: Option<String>) -> Placed {
    let stage = |host: &Host| PlacedStage {
        id: host.key.id().to_string(),
        node: host.name.clone(),
        layers: (0, 0),
        needs: Vec::new(),
    };
    let text = format!(
        "llama-rpc: the layers are divided evenly and no memory is reserved, because it is not known \
         {}",
        model.missing.join(", nor ")
    );
    Placed {
        stages: hosts.iter().map(stage).collect(),
        text: match remark {
            Some(remark) => format!("{remark}\n{text}"),
            None => text,
        },
        header: None,
        page: serde_json::Value::Null,
        question: None,
        refusal: None,
    }
}
