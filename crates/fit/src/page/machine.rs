//! A machine: its memory, and what runs on it alone.

use serde::Serialize;

use super::Page;
use super::combo::{ModelRow, is_quick, layout, sort, tables};
use super::doc::{Block, Cell, Doc, Section, Table, Target};
use super::format::{gb, percent, sentence};
use super::formats;
use super::measured::{self, Measured, MeasuredRow};
use super::parts::{self, Counts, Head};
use super::thresholds;
use super::words;
use crate::catalog::Catalog;
use crate::catalog::hardware::SoldMachine;
use crate::cluster::Cluster;
use crate::verdict::{Ask, Tier, Verdict};

/// A machine and what runs on it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MachinePage {
    /// The machine's memory.
    #[serde(flatten)]
    pub head: Head,
    /// The models.
    pub models: Vec<ModelRow>,
    /// How many are in each tier.
    pub counts: Counts,
    /// What was measured on its chips.
    pub measured: Vec<MeasuredRow>,
    /// Combos of the catalog that it is part of: id and name.
    pub combos: Vec<(String, String)>,
    /// Links that it has ports for.
    pub ports: Vec<String>,
    /// Where the facts come from, with the date.
    pub source: String,
    /// What a reader should know; may be empty.
    pub note: String,
    /// What to know about formats; empty where all are the one that Brigade runs.
    pub format_note: String,
}

impl MachinePage {
    /// The page of a machine whose verdicts are known.
    pub(crate) fn new(
        catalog: &Catalog,
        sold: &SoldMachine,
        ask: &Ask,
        verdicts: &[Verdict],
        measured: &Measured,
    ) -> Self {
        let cluster = Cluster::alone(sold.machine.clone());
        let mut models: Vec<ModelRow> = verdicts.iter().map(ModelRow::from).collect();
        sort(&mut models);
        let uses = |combo: &&crate::catalog::combos::Combo| {
            let mut nodes = combo.cluster.nodes.iter();
            nodes.any(|node| node.machine.id == sold.machine.id)
        };
        Self {
            head: Head::new(catalog, &cluster, ask),
            measured: measured.rows(&cluster, None),
            counts: Counts::of(verdicts.iter().map(|verdict| verdict.tier)),
            models,
            combos: catalog
                .combos
                .iter()
                .filter(uses)
                .map(|combo| (combo.cluster.id.clone(), combo.cluster.name.clone()))
                .collect(),
            ports: sold
                .links
                .iter()
                .filter_map(|id| Some(catalog.link(id).ok()?.link.name.clone()))
                .collect(),
            source: format!("{} ({})", sold.source, sold.date),
            note: sold.note.clone().unwrap_or_default(),
            format_note: formats::notes(catalog, verdicts, 1).unwrap_or_default(),
        }
    }
}

impl Page for MachinePage {
    fn doc(&self) -> Doc {
        let head = &self.head;
        let mut memory = parts::node_blocks(&head.nodes);
        memory.extend(layout::budget(head));
        let mut pairs = vec![("links".to_owned(), self.ports.join(", "))];
        if !self.note.is_empty() {
            pairs.push(("note".into(), sentence(&self.note)));
        }
        pairs.push(("source".into(), self.source.clone()));
        memory.push(Block::Pairs { pairs });
        let mut sections = vec![Section::new("memory", "Memory", memory)];
        sections.extend(tiers(&self.models));
        sections.extend(measured::section(&self.measured, "this machine's chips"));
        if !self.combos.is_empty() {
            let mut table = Table::new("Combos of the catalog with this machine", &["Combo"]);
            for (id, name) in &self.combos {
                table.push(vec![Cell::Link {
                    text: name.clone(),
                    to: Target::Combo(id.clone()),
                }]);
            }
            sections.push(Section::new(
                "combos",
                "With others",
                vec![Block::Table(table)],
            ));
        }
        let title = format!("What runs on {}", head.name);
        sections.push(Section::new(
            "cite",
            "To cite",
            vec![Block::text(thresholds::cite(&title, &head.catalog))],
        ));
        Doc {
            kind: "Machine",
            title: format!("{title}?"),
            answer: answer(self),
            figures: layout::figures(head),
            sections,
        }
    }
}

fn answer(page: &MachinePage) -> Vec<String> {
    let mut answer = vec![format!(
        "Of {} models: {}. {}.",
        page.counts.total(),
        page.counts.words(),
        page.head.plan_with(),
    )];
    let largest = page
        .models
        .iter()
        .filter(|row| row.tier == Tier::Comfortable)
        .max_by_key(|row| (is_quick(row.decode_tok_s), row.weights_bytes));
    if let Some(row) = largest {
        let rate = row.decode_tok_s.as_ref();
        let context = row.context(page.head.context);
        let rate = rate.map_or_else(String::new, |rate| {
            format!(", {}", words::rate_at(rate, context))
        });
        answer.push(format!(
            "The largest that is comfortable and quick is {} at {} ({}), {} of effective memory{rate}.",
            row.name,
            row.quant,
            gb(row.weights_bytes),
            row.utilization.map(percent).unwrap_or_default(),
        ));
    }
    if !page.format_note.is_empty() {
        answer.push(page.format_note.clone());
    }
    answer
}

/// The tiers; what does not fit is a matter of size, so its names suffice.
fn tiers(rows: &[ModelRow]) -> Vec<Section> {
    let fitting: Vec<ModelRow> = rows
        .iter()
        .filter(|row| matches!(row.tier, Tier::Comfortable | Tier::Borderline))
        .cloned()
        .collect();
    let mut sections = tables::tiers(&fitting);
    for (tier, id, title) in [
        (Tier::NotPractical, "not-practical", "Not practical"),
        (Tier::Unknown, "unknown", "Unknown"),
    ] {
        let names: Vec<String> = rows
            .iter()
            .filter(|row| row.tier == tier)
            .map(|row| match (tier, row.weights_bytes) {
                (Tier::NotPractical, 1..) => format!("{} ({})", row.name, gb(row.weights_bytes)),
                _ => row.name.clone(),
            })
            .collect();
        if !names.is_empty() {
            sections.push(Section::new(
                id,
                format!("{title} ({})", names.len()),
                vec![
                    Block::text(thresholds::meaning(tier)),
                    Block::text(format!("{}.", names.join("; "))),
                ],
            ));
        }
    }
    sections
}
