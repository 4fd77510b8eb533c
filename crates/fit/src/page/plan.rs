//! Who computes which layers, how fast, and what else was considered.

use serde::Serialize;

use super::Page;
use super::doc::{Block, Cell, Doc, Row, Section, Table};
use super::format::{gb, gib, sentence, short};
use super::formats;
use super::link::hop_ms;
use super::parts::{Head, Stamp};
use super::{ledger, verdict};
use crate::FitError;
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::model::{Format, Model};
use crate::placement::{HOP_SOFTWARE_MS, Plan};
use crate::program::Program;
use crate::speed::Speed;
use crate::verdict::{Ask, Detail, Verdict, assess, plan};

/// A plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PlanPage {
    /// `brigade.plan/1`.
    pub schema: &'static str,
    /// The cluster's id, or the text that it was read from.
    pub on: String,
    /// Its name.
    pub name: String,
    /// The stages in the order of the layers; empty where nothing fits.
    pub stages: Vec<StageRow>,
    /// The plan itself, where there is one: layers by pool.
    pub plan: Option<Plan>,
    /// The model's verdict under this plan, with ledger, speeds and alternatives.
    pub verdict: Verdict,
    /// Where the facts of the model come from.
    pub sources: Vec<String>,
    /// The format of the quantization, where one is known.
    pub format: Option<Format>,
    /// What to know about the format; empty where it is the one that Brigade runs.
    pub format_note: String,
    /// Version and date.
    pub catalog: Stamp,
}

/// One stage of a plan.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageRow {
    /// The node's name.
    pub node: String,
    /// The machine's name.
    pub machine: String,
    /// First layer, and the one after the last.
    pub layers: (u32, u32),
    /// Layers of it by pool.
    pub pools: Vec<(String, u32)>,
    /// Of its first layers, those whose routed experts lie in system memory.
    pub experts_in_ram: u32,
    /// What it holds.
    pub working_set_bytes: u64,
    /// What it downloads.
    pub disk_bytes: u64,
    /// Milliseconds of one token's hop to the next stage, or back from the last to the first.
    pub hop_ms: Option<f64>,
}

impl PlanPage {
    /// The plan of a model, which need not be of the catalog.
    pub fn new(
        catalog: &Catalog,
        model: &Model,
        cluster: &Cluster,
        ask: &Ask,
        speed: &dyn Speed,
    ) -> Result<Self, FitError> {
        let ask = Ask {
            detail: Detail::Full,
            links: catalog.links_between(cluster),
            ..ask.clone()
        };
        let verdict = assess(model, cluster, &ask, speed)?;
        // What cannot be planned has its reason in the verdict.
        let plan = plan(model, cluster, &ask, speed).unwrap_or_default();
        Ok(Self::with(catalog, model, cluster, &ask, verdict, plan))
    }

    /// The page of a plan that was given, with its verdict.
    pub fn with(
        catalog: &Catalog,
        model: &Model,
        cluster: &Cluster,
        ask: &Ask,
        verdict: Verdict,
        plan: Option<Plan>,
    ) -> Self {
        let head = Head::new(catalog, cluster, ask);
        let software_ms = formats::of(model, &verdict.quant).map_or(HOP_SOFTWARE_MS, |format| {
            catalog.hop_software_ms(Program::of_pipeline(model, format))
        });
        let stages = plan.as_ref().map_or_else(Vec::new, |plan| {
            rows(plan, model, cluster, &verdict, software_ms)
        });
        Self {
            schema: "brigade.plan/1",
            on: head.combo,
            name: head.name,
            stages,
            plan,
            sources: verdict::sources(model, &verdict.quant),
            format: formats::of(model, &verdict.quant),
            format_note: formats::note(catalog, model, &verdict.quant, verdict.nodes_used())
                .unwrap_or_default(),
            verdict,
            catalog: head.catalog,
        }
    }
}

fn rows(
    plan: &Plan,
    model: &Model,
    cluster: &Cluster,
    verdict: &Verdict,
    software_ms: f64,
) -> Vec<StageRow> {
    let count = plan.stages.len();
    let stage = |index: usize| plan.stages.get(index % count.max(1));
    plan.stages
        .iter()
        .enumerate()
        .filter_map(|(index, own)| {
            let node = cluster.nodes.get(own.node)?;
            let ledger = verdict
                .ledger
                .iter()
                .find(|ledger| ledger.node == node.name);
            let pools = own
                .packing
                .parts
                .iter()
                .filter(|part| !part.layers.is_empty());
            let hop = stage(index + 1).and_then(|next| cluster.link(own.node, next.node));
            Some(StageRow {
                node: node.name.clone(),
                machine: node.machine.name.clone(),
                layers: (own.layers.start, own.layers.end),
                pools: pools
                    .filter_map(|part| {
                        let pool = node.machine.pools.get(part.pool)?;
                        Some((
                            pool.device_name.clone(),
                            part.layers.end - part.layers.start,
                        ))
                    })
                    .collect(),
                experts_in_ram: own.packing.experts_in_ram,
                working_set_bytes: ledger.map_or(0, |ledger| {
                    ledger.pools.iter().map(|pool| pool.working_set_bytes).sum()
                }),
                disk_bytes: ledger.map_or(0, |ledger| ledger.disk_bytes),
                hop_ms: hop.map(|link| hop_ms(link, model.hidden) + software_ms),
            })
        })
        .collect()
}

impl Page for PlanPage {
    fn doc(&self) -> Doc {
        let verdict = &self.verdict;
        let mut sections = Vec::new();
        if !self.stages.is_empty() {
            let mut blocks = vec![Block::Table(self.table())];
            blocks.extend(ledger::disk_note(&verdict.ledger, self.format));
            sections.push(Section::new("stages", "Stages", blocks));
        }
        sections.push(Section::new(
            "why",
            "Why",
            vec![Block::List {
                items: verdict
                    .reasons
                    .iter()
                    .map(|reason| sentence(reason))
                    .collect(),
            }],
        ));
        sections.extend(verdict::holds(verdict, None));
        sections.extend(verdict::ways(verdict, 1));
        sections.push(Section::new(
            "known",
            "How it is known",
            vec![Block::List {
                items: self.sources.clone(),
            }],
        ));
        Doc {
            kind: "Plan",
            title: format!("{} on {}", verdict.name, self.name),
            answer: verdict::answer(verdict, &self.format_note),
            figures: verdict::figures(verdict),
            sections,
        }
    }
}

impl PlanPage {
    fn table(&self) -> Table {
        let titles = [
            "Stage",
            "Node",
            "Machine",
            "Layers",
            "In",
            ">Holds",
            ">Disk",
            ">Hop to next",
        ];
        let rows = self.stages.iter().enumerate().map(|(index, stage)| {
            let pools: Vec<String> = stage
                .pools
                .iter()
                .map(|(pool, layers)| format!("{layers} in {pool}"))
                .collect();
            let note = if stage.experts_in_ram > 0 {
                format!(
                    "The routed experts of its first {} layers are in system memory.",
                    stage.experts_in_ram
                )
            } else {
                String::new()
            };
            Row::new(vec![
                Cell::text((index + 1).to_string()),
                Cell::text(stage.node.clone()),
                Cell::text(stage.machine.clone()),
                Cell::text(format!(
                    "{}–{}",
                    stage.layers.0,
                    stage.layers.1.saturating_sub(1)
                )),
                Cell::text(pools.join(", ")),
                Cell::text(gib(stage.working_set_bytes)),
                Cell::text(gb(stage.disk_bytes)),
                Cell::text(
                    stage
                        .hop_ms
                        .map_or_else(|| "–".into(), |ms| format!("{} ms", short(ms))),
                ),
            ])
            .note(note)
        });
        Table::new("The stages in the order of the layers", &titles).rows(rows)
    }
}
