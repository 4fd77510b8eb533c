//! When several machines are worth it, and which links matter: computed from the catalog.

mod layout;

use serde::Serialize;

use super::combo::ComboPage;
use super::everywhere::{Place, PlaceKind};
use super::link::hop_ms;
use super::model::ModelPage;
use super::parts::Stamp;
use crate::FitError;
use crate::catalog::Catalog;
use crate::catalog::links::LinkKind;
use crate::cluster::{Cluster, Link, Links, Node};
use crate::evidence::Evidence;
use crate::machine::{Machine, PoolKind};
use crate::model::{Format, Model};
use crate::placement::HOP_SOFTWARE_MS;
use crate::program::Program;
use crate::speed::Speed;
use crate::verdict::{Ask, Detail, Split, assess};

/// When several machines are worth it, and which links matter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Guide {
    /// The machine that all link rows are about.
    pub machine: String,
    /// What a hop costs, by link and model, the cheapest first.
    pub hops: Vec<HopRow>,
    /// Each model with the smallest machine and combo that run it comfortably.
    pub smallest: Vec<SmallestRow>,
    /// Combos on which fewer nodes are faster, with a model that fits one.
    pub fewer: Vec<FewerRow>,
    /// Version and date.
    pub catalog: Stamp,
}

/// What pipelines over a link make of a model that fits one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HopRow {
    /// The link's id.
    pub link: String,
    /// The link's name.
    pub name: String,
    /// One way over TCP, in milliseconds.
    pub latency_ms: f64,
    /// Over TCP, in 10⁹ bytes a second.
    pub bandwidth_gb_s: f64,
    /// The model's name.
    pub model: String,
    /// How the link's figures are known.
    pub evidence: Evidence,
    /// What one hop costs a token of it, in milliseconds.
    pub hop_ms: f64,
    /// Tokens a second on one node, and in pipelines over 2 and 4.
    pub tok_s: (f64, Option<f64>, Option<f64>),
}

/// A model with the smallest places that run it comfortably.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SmallestRow {
    /// The model's id.
    pub id: String,
    /// The model's name.
    pub name: String,
    /// Bytes of its weights.
    pub weights_bytes: u64,
    /// The machine.
    pub machine: Option<Place>,
    /// The combo of several machines.
    pub combo: Option<Place>,
}

/// A combo on which one node is faster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FewerRow {
    /// The combo's id.
    pub combo: String,
    /// The combo's name.
    pub name: String,
    /// The model with its quantization.
    pub model: String,
    /// Tokens a second on one node.
    pub one_tok_s: f64,
    /// In the longest pipeline.
    pub all_tok_s: f64,
    /// Which pipeline that is.
    pub way: String,
}

impl Guide {
    /// The guide from pages that are made.
    pub(crate) fn new(
        catalog: &Catalog,
        combos: &[ComboPage],
        models: &[ModelPage],
        ask: &Ask,
        speed: &dyn Speed,
    ) -> Result<Self, FitError> {
        let machine = catalog
            .machines
            .iter()
            .map(|sold| &sold.machine)
            .filter(|machine| matches!(&machine.pools[..], [one] if one.kind == PoolKind::Unified))
            .max_by_key(|machine| machine.memory_bytes());
        let mut hops = Vec::new();
        if let Some(machine) = machine {
            for model in references(catalog) {
                hops.extend(hop_rows(catalog, machine, model, ask, speed)?);
            }
        }
        Ok(Self {
            machine: machine
                .map(|machine| machine.name.clone())
                .unwrap_or_default(),
            hops,
            smallest: smallest(catalog, models),
            fewer: combos.iter().filter_map(fewer).collect(),
            catalog: Stamp::of(catalog),
        })
    }
}

/// Models that show what a hop costs, of those that Brigade cuts: a dense one of about 70 B, and the
/// mixture of experts with the fewest active parameters of at least 20 B.
fn references(catalog: &Catalog) -> Vec<&Model> {
    let known = || {
        catalog
            .models
            .iter()
            .filter(|model| model.missing.is_empty())
            .filter(|model| Program::of_pipeline(model, Format::Gguf) == Program::Brigade)
    };
    let dense = known()
        .filter(|model| model.experts == 0)
        .min_by_key(|model| {
            (
                model.params.abs_diff(70_000_000_000),
                std::cmp::Reverse(&model.date),
            )
        });
    let sparse = known()
        .filter(|model| model.experts > 0 && model.params > 20_000_000_000)
        .min_by_key(|model| model.active_params);
    dense.into_iter().chain(sparse).collect()
}

fn hop_rows(
    catalog: &Catalog,
    machine: &Machine,
    model: &Model,
    ask: &Ask,
    speed: &dyn Speed,
) -> Result<Vec<HopRow>, FitError> {
    let ask = Ask {
        detail: Detail::Full,
        format: Some(Format::Gguf),
        ..ask.clone()
    };
    let mut rows = Vec::new();
    let between = catalog
        .links
        .iter()
        .filter(|link| !matches!(link.kind, LinkKind::Host | LinkKind::Loopback));
    for link in between {
        let verdict = assess(model, &four(machine, &link.link), &ask, speed)?;
        let rate = |split: Split, name: &str| {
            let mut ways = verdict.alternatives.iter();
            ways.find(|way| way.split == split && way.name.contains(name))
                .and_then(|way| way.decode_tok_s)
                .map(|rate| rate.mid)
        };
        let Some(one) = rate(Split::OneNode, "") else {
            continue;
        };
        rows.push(HopRow {
            link: link.link.id.clone(),
            name: link.link.name.clone(),
            latency_ms: link.link.latency_ms,
            bandwidth_gb_s: link.link.bandwidth_gb_s,
            model: model.name.clone(),
            evidence: link.evidence,
            hop_ms: hop_ms(&link.link, model.hidden) + HOP_SOFTWARE_MS,
            tok_s: (
                one,
                rate(Split::Pipeline, "over 2 nodes"),
                rate(Split::Pipeline, "over 4 nodes"),
            ),
        });
    }
    rows.sort_by(|a, b| {
        a.hop_ms
            .total_cmp(&b.hop_ms)
            .then_with(|| a.link.cmp(&b.link))
    });
    Ok(rows)
}

fn four(machine: &Machine, link: &Link) -> Cluster {
    let mut cluster = Cluster::alone(machine.clone());
    cluster.nodes = (1..=4)
        .map(|number| Node {
            name: format!("node-{number}"),
            machine: machine.clone(),
        })
        .collect();
    cluster.links = Links::Uniform(link.clone());
    cluster
}

fn smallest(catalog: &Catalog, models: &[ModelPage]) -> Vec<SmallestRow> {
    let several = |place: &&Place| {
        let combo = catalog.combo(&place.id);
        combo.is_some_and(|combo| combo.cluster.nodes.len() > 1)
    };
    let mut rows: Vec<SmallestRow> = models
        .iter()
        .map(|page| &page.everywhere)
        .filter(|page| page.weights_bytes > 0)
        .map(|page| SmallestRow {
            id: page.id.clone(),
            name: page.name.clone(),
            weights_bytes: page.weights_bytes,
            machine: page.smallest(PlaceKind::Machine).cloned(),
            combo: page.comfortable(PlaceKind::Combo).find(several).cloned(),
        })
        .collect();
    rows.sort_by(|a, b| (b.weights_bytes, &a.id).cmp(&(a.weights_bytes, &b.id)));
    rows
}

fn fewer(page: &ComboPage) -> Option<FewerRow> {
    let cases = page.splits.iter().filter_map(|case| {
        let (one, all, way) = case.one_and_all()?;
        Some(FewerRow {
            combo: page.head.combo.clone(),
            name: page.head.name.clone(),
            model: case.name.clone(),
            one_tok_s: one,
            all_tok_s: all,
            way: way.to_owned(),
        })
    });
    cases
        .filter(|row| row.one_tok_s > row.all_tok_s)
        .max_by(|a, b| (a.one_tok_s / a.all_tok_s).total_cmp(&(b.one_tok_s / b.all_tok_s)))
}
