//! The site's first page: every combo, model and machine.

use serde::Serialize;

use super::Page;
use super::combo::ComboPage;
use super::doc::{Block, Cell, Doc, Figure, Row, Section, Table, Target};
use super::format::{gb, gib, params, thousands};
use super::machine::MachinePage;
use super::model::ModelPage;
use super::parts::{Counts, Stamp};
use crate::catalog::Catalog;

/// What the site has.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Index {
    /// Combos, as they stand in the catalog.
    pub combos: Vec<Entry>,
    /// Machines, smallest memory first.
    pub machines: Vec<Entry>,
    /// Models, largest first.
    pub models: Vec<ModelEntry>,
    /// Version and date.
    pub catalog: Stamp,
}

/// A combo or machine in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// All memory.
    pub total_bytes: u64,
    /// What is wise to plan with.
    pub effective_bytes: u64,
    /// Models by tier.
    pub counts: Counts,
}

/// A model in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelEntry {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Parameters, and those that a token touches.
    pub params: (u64, u64),
    /// The smallest production quantization.
    pub quant: String,
    /// Its bytes.
    pub weights_bytes: u64,
    /// Places by tier.
    pub counts: Counts,
}

impl Index {
    pub(crate) fn new(
        catalog: &Catalog,
        combos: &[ComboPage],
        machines: &[MachinePage],
        models: &[ModelPage],
    ) -> Self {
        let entry = |head: &super::Head, counts: Counts| Entry {
            id: head.combo.clone(),
            name: head.name.clone(),
            total_bytes: head.total_bytes,
            effective_bytes: head.effective_bytes,
            counts,
        };
        let mut machines: Vec<Entry> = machines
            .iter()
            .map(|page| entry(&page.head, page.counts))
            .collect();
        machines.sort_by(|a, b| (a.total_bytes, &a.name).cmp(&(b.total_bytes, &b.name)));
        let mut models: Vec<ModelEntry> = models
            .iter()
            .map(|page| ModelEntry {
                id: page.everywhere.id.clone(),
                name: page.everywhere.name.clone(),
                params: (page.params, page.active_params),
                quant: page.everywhere.quant.clone(),
                weights_bytes: page.everywhere.weights_bytes,
                counts: page.everywhere.counts,
            })
            .collect();
        models.sort_by(|a, b| (b.params.0, &a.name).cmp(&(a.params.0, &b.name)));
        Self {
            combos: combos
                .iter()
                .map(|page| entry(&page.head, page.counts))
                .collect(),
            machines,
            models,
            catalog: Stamp::of(catalog),
        }
    }
}

impl Page for Index {
    fn doc(&self) -> Doc {
        let sections = vec![
            Section::new(
                "combos",
                "Combos",
                vec![Block::Table(entries("Combos", &self.combos, Target::Combo))],
            ),
            Section::new("models", "Models", vec![Block::Table(models(&self.models))]),
            Section::new(
                "machines",
                "Machines",
                vec![Block::Table(entries(
                    "Machines",
                    &self.machines,
                    Target::Machine,
                ))],
            ),
        ];
        let figure = |label: &str, number: usize, note: &str| {
            Figure::new(label, thousands(number as i64), note)
        };
        Doc {
            kind: "Will it run?",
            title: "What runs on which machines, how well, and how do we know?".into(),
            answer: vec![
                "Every model of the catalog on every machine and combo, node by node, with its memory ledger, its speed as an interval, and how each number is known.".into(),
                "Start with your machines or with a model; the guide says when several machines are worth it, the method how all of it is computed and how wrong it is.".into(),
            ],
            figures: vec![
                figure("Combos", self.combos.len(), "named sets of machines and links"),
                figure("Models", self.models.len(), "dense and mixtures of experts"),
                figure("Machines", self.machines.len(), "one for each memory size"),
                Figure::new("Catalog of", self.catalog.date.clone(), format!("Brigade {}", self.catalog.version)),
            ],
            sections,
        }
    }
}

fn entries(what: &str, entries: &[Entry], to: impl Fn(String) -> Target) -> Table {
    let titles = [
        "Name",
        ">Memory",
        ">Effective",
        ">Comfortable",
        ">Borderline",
        ">Not practical",
    ];
    let number = |number: usize| Cell::text(thousands(number as i64));
    let rows = entries.iter().map(|entry| {
        Row::new(vec![
            Cell::Link {
                text: entry.name.clone(),
                to: to(entry.id.clone()),
            },
            Cell::text(gib(entry.total_bytes)),
            Cell::text(gib(entry.effective_bytes)),
            number(entry.counts.comfortable),
            number(entry.counts.borderline),
            number(entry.counts.not_practical),
        ])
    });
    Table::new(format!("{what} and how many models run on them"), &titles).rows(rows)
}

fn models(models: &[ModelEntry]) -> Table {
    let titles = [
        "Name",
        ">Parameters",
        ">Active",
        "Quant",
        ">Size",
        ">Comfortable on",
        ">Borderline on",
    ];
    let rows = models.iter().map(|model| {
        let (all, active) = model.params;
        let known = |text: String| {
            Cell::text(if model.weights_bytes > 0 {
                text
            } else {
                "–".into()
            })
        };
        Row::new(vec![
            Cell::model(&model.name, &model.id),
            Cell::text(params(all)),
            Cell::text(if active < all {
                params(active)
            } else {
                "all".into()
            }),
            known(model.quant.clone()),
            known(gb(model.weights_bytes)),
            Cell::text(thousands(model.counts.comfortable as i64)),
            Cell::text(thousands(model.counts.borderline as i64)),
        ])
    });
    Table::new("Models and how many places run them", &titles).rows(rows)
}
