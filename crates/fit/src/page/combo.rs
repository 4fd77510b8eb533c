//! What runs on a combo: the page that a reader cites.

mod around;
pub(super) mod layout;
mod opportunities;
mod picks;
pub(super) use picks::is_quick;
pub(super) mod tables;

use serde::Serialize;

use super::Page;
use super::doc::Doc;
use super::formats;
use super::measured::{Measured, MeasuredRow};
use super::parts::{self, Counts, Head, RuntimeRow};
use crate::FitError;
use crate::catalog::Catalog;
use crate::catalog::failures::Failure;
use crate::cluster::Cluster;
use crate::evidence::Estimate;
use crate::memory::NodeLedger;
use crate::model::Format;
use crate::speed::Speed;
use crate::verdict::{Alternative, Ask, Tier, Verdict};

/// What runs on a combo.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComboPage {
    /// Machines and memory.
    #[serde(flatten)]
    pub head: Head,
    /// What the combo is for; empty for machines that are no combo of the catalog.
    pub role: String,
    /// How it is cabled; empty likewise.
    pub topology: String,
    /// The models, the largest first within a tier.
    pub models: Vec<ModelRow>,
    /// How many are in each tier.
    pub counts: Counts,
    /// One model in full.
    pub worked: Option<Worked>,
    /// What was measured on such machines.
    pub measured: Vec<MeasuredRow>,
    /// Models that show what splitting costs or gains.
    pub splits: Vec<SplitCase>,
    /// Runtimes, and what they do here.
    pub runtimes: Vec<RuntimeRow>,
    /// Failures that these machines can meet.
    pub failures: Vec<Failure>,
    /// What is worth measuring.
    pub opportunities: Vec<Opportunity>,
    /// Where the facts come from.
    pub sources: Vec<String>,
    /// What to know about formats; empty where all are the one that Brigade runs.
    pub format_note: String,
    /// Whether every machine is one of the catalog, so that its id can be typed.
    #[serde(skip)]
    pub of_catalog: bool,
}

/// A model's verdict, in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelRow {
    /// The model's id.
    pub id: String,
    /// The model's name.
    pub name: String,
    /// The quantization.
    pub quant: String,
    /// Bytes of its tensors.
    pub weights_bytes: u64,
    /// The tier.
    pub tier: Tier,
    /// Working set ÷ effective memory on the binding node.
    pub utilization: Option<f64>,
    /// The node with the least headroom.
    pub binding_node: Option<String>,
    /// The largest context that fits, however the model is divided.
    pub max_context: Option<u32>,
    /// The same divided as here.
    pub plan_max_context: Option<u32>,
    /// Nodes that hold layers.
    pub nodes_used: usize,
    /// One stream.
    pub decode_tok_s: Option<Estimate>,
    /// Why it is so.
    pub reasons: Vec<String>,
    /// Where a model that is not practical here is comfortable: the smallest such combo, by id
    /// and name.
    pub larger: Option<(String, String)>,
}

/// One model in full: what each node holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Worked {
    /// The model's id.
    pub id: String,
    /// The model's name.
    pub name: String,
    /// The quantization.
    pub quant: String,
    /// Bytes of its tensors.
    pub weights_bytes: u64,
    /// The format of the quantization, where one is known.
    pub format: Option<Format>,
    /// The tier.
    pub tier: Tier,
    /// What each node holds.
    pub ledger: Vec<NodeLedger>,
}

/// Ways to run one model, and what they show.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitCase {
    /// The model's id.
    pub id: String,
    /// The model's name with its quantization.
    pub name: String,
    /// The ways.
    pub alternatives: Vec<Alternative>,
}

/// A measurement that nobody has made, and what it would tell.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Opportunity {
    /// What to measure.
    pub measure: String,
    /// What is expected until then.
    pub expected: String,
    /// What it would tell.
    pub tells: String,
}

impl ComboPage {
    /// The page of a cluster: every model of the catalog, assessed.
    pub fn new(
        catalog: &Catalog,
        cluster: &Cluster,
        ask: &Ask,
        speed: &dyn Speed,
    ) -> Result<Self, FitError> {
        let verdicts = assess_all(catalog, cluster, ask, speed)?;
        let measured = Measured::new(catalog);
        Self::of(catalog, cluster, ask, speed, &verdicts, &measured)
    }

    /// The page of a cluster whose verdicts are known, in the catalog's order of models.
    pub(crate) fn of(
        catalog: &Catalog,
        cluster: &Cluster,
        ask: &Ask,
        speed: &dyn Speed,
        verdicts: &[Verdict],
        measured: &Measured,
    ) -> Result<Self, FitError> {
        let combo = catalog.combo(&cluster.id);
        let facts = picks::Picks {
            catalog,
            cluster,
            ask,
            speed,
            verdicts,
        };
        let worked = facts.worked();
        let splits = facts.splits(worked)?;
        let mut models: Vec<ModelRow> = verdicts.iter().map(ModelRow::from).collect();
        for row in models
            .iter_mut()
            .filter(|row| row.tier == Tier::NotPractical)
        {
            row.larger = facts.larger(&row.id, row.weights_bytes)?;
        }
        sort(&mut models);
        Ok(Self {
            head: Head::new(catalog, cluster, ask),
            measured: measured.rows(cluster, None),
            role: combo.map(|combo| combo.role.clone()).unwrap_or_default(),
            topology: combo
                .map(|combo| combo.topology.clone())
                .unwrap_or_default(),
            counts: Counts::of(verdicts.iter().map(|verdict| verdict.tier)),
            models,
            worked: worked.map(|verdict| {
                let model = catalog.models.iter().find(|model| model.id == verdict.id);
                Worked {
                    format: model.and_then(|model| formats::of(model, &verdict.quant)),
                    ..Worked::from(verdict)
                }
            }),
            format_note: formats::notes(catalog, verdicts, cluster.nodes.len()).unwrap_or_default(),
            opportunities: opportunities::find(&facts, &splits)?,
            splits,
            runtimes: parts::runtime_rows(catalog, cluster),
            failures: catalog.failures_for(cluster).into_iter().cloned().collect(),
            of_catalog: cluster.nodes.iter().all(|node| {
                let mut sold = catalog.machines.iter();
                sold.any(|sold| sold.machine.id == node.machine.id)
            }),
            sources: combo.map(|combo| combo.sources.clone()).unwrap_or_default(),
        })
    }
}

/// Every model of the catalog on a cluster. A quantization that is asked for by name leaves out
/// the models that have none of it.
pub(crate) fn assess_all(
    catalog: &Catalog,
    cluster: &Cluster,
    ask: &Ask,
    speed: &dyn Speed,
) -> Result<Vec<Verdict>, FitError> {
    let asked = catalog.models.iter().filter(|model| {
        let has = |name: &String| model.quants.iter().any(|quant| quant.name == *name);
        ask.quant.as_ref().is_none_or(has)
    });
    asked
        .map(|model| crate::verdict::assess(model, cluster, ask, speed))
        .collect()
}

impl From<&Verdict> for ModelRow {
    fn from(verdict: &Verdict) -> Self {
        Self {
            id: verdict.id.clone(),
            name: verdict.name.clone(),
            quant: verdict.quant.clone(),
            weights_bytes: verdict.weights_bytes,
            tier: verdict.tier,
            utilization: verdict.utilization,
            binding_node: verdict.binding_node.clone(),
            max_context: verdict.max_context,
            plan_max_context: verdict.plan_max_context,
            nodes_used: verdict.nodes_used(),
            decode_tok_s: verdict.decode_tok_s,
            reasons: verdict.reasons.clone(),
            larger: None,
        }
    }
}

impl ModelRow {
    /// The context of its speed: what was asked for, or the model's own where that is smaller.
    pub(super) fn context(&self, asked: u32) -> u32 {
        self.max_context.map_or(asked, |most| asked.min(most))
    }
}

impl From<&Verdict> for Worked {
    fn from(verdict: &Verdict) -> Self {
        Self {
            id: verdict.id.clone(),
            name: verdict.name.clone(),
            quant: verdict.quant.clone(),
            weights_bytes: verdict.weights_bytes,
            format: None,
            tier: verdict.tier,
            ledger: verdict.ledger.clone(),
        }
    }
}

impl Page for ComboPage {
    fn doc(&self) -> Doc {
        layout::doc(self)
    }
}

/// The tiers in order, the largest weights first.
pub(super) fn sort(rows: &mut [ModelRow]) {
    rows.sort_by(|a, b| {
        let key = |row: &ModelRow| (row.tier, std::cmp::Reverse(row.weights_bytes));
        key(a).cmp(&key(b)).then_with(|| a.id.cmp(&b.id))
    });
}
