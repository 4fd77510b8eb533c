//! One model on one cluster, with everything that decides.

mod speed;

use serde::Serialize;

pub use speed::ContextRow;

use super::Page;
use super::doc::{Block, Doc, Figure, Section};
use super::format::{brief, count, gb, gib, percent, sentence, thousands, tokens};
use super::formats;
use super::ledger;
use super::measured::{self, Measured, MeasuredRow};
use super::parts::{self, Counts, Head};
use super::thresholds;
use super::words;
use crate::FitError;
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::evidence::Evidence;
use crate::model::{Exactness, Format, Model};
use crate::placement::PROMPT;
use crate::speed::Speed;
use crate::verdict::{Ask, Detail, Split, Verdict, assess};

/// One model on one cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerdictPage {
    /// Machines and memory.
    #[serde(flatten)]
    pub head: Head,
    /// The one verdict, with the ledger of each node.
    pub models: Vec<Verdict>,
    /// Its tier, counted.
    pub counts: Counts,
    /// Speeds over contexts that fit.
    pub by_context: Vec<ContextRow>,
    /// What was measured of the model on such chips.
    pub measured: Vec<MeasuredRow>,
    /// Where the facts of the model come from, a sentence each.
    pub sources: Vec<String>,
    /// The format of the quantization, where one is known.
    pub format: Option<Format>,
    /// What to know about the format; empty where it is the one that Brigade runs.
    pub format_note: String,
}

impl VerdictPage {
    /// The page of a model, which need not be of the catalog.
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
        let by_context = speed::by_context(model, cluster, &ask, &verdict, speed)?;
        Ok(Self {
            head: Head::new(catalog, cluster, &ask),
            measured: Measured::new(catalog).rows(cluster, Some(&model.id)),
            counts: Counts::of(std::iter::once(verdict.tier)),
            sources: sources(model, &verdict.quant),
            format: formats::of(model, &verdict.quant),
            format_note: formats::note(catalog, model, &verdict.quant, verdict.nodes_used())
                .unwrap_or_default(),
            models: vec![verdict],
            by_context,
        })
    }
}

/// Where a model's facts come from.
pub(super) fn sources(model: &Model, quant: &str) -> Vec<String> {
    let mut sources = vec![format!(
        "Facts of {}: {} ({}).",
        model.name, model.source, model.date
    )];
    sources.extend(model.note.as_deref().map(sentence));
    if let Some(quant) = model.quants.iter().find(|own| own.name == quant) {
        sources.push(format!(
            "Bytes of {}: {}; {}.",
            quant.name,
            exactness(quant.exactness),
            quant.source
        ));
    }
    sources
}

pub(super) fn exactness(exactness: Exactness) -> &'static str {
    match exactness {
        Exactness::Tensors => "exact, from each tensor",
        Exactness::Total => "the published file's sum, shared out by the quantization's mix",
        Exactness::Computed => "computed from the quantization's mix of tensor types",
    }
}

impl Page for VerdictPage {
    fn doc(&self) -> Doc {
        let mut doc = Doc {
            kind: "Verdict",
            title: format!("Does it run on {}?", self.head.name),
            answer: Vec::new(),
            figures: Vec::new(),
            sections: Vec::new(),
        };
        let Some(verdict) = self.models.first() else {
            return doc;
        };
        doc.title = format!("Does {} run on {}?", verdict.name, self.head.name);
        doc.answer = answer(verdict, &self.format_note);
        doc.figures = figures(verdict);
        doc.sections.push(why(verdict));
        doc.sections.extend(holds(verdict, self.format));
        doc.sections
            .extend(speed::section(verdict, &self.by_context));
        doc.sections.extend(measured::section(
            &self.measured,
            "this model on such chips",
        ));
        doc.sections.extend(ways(verdict, self.head.nodes.len()));
        let mut memory = parts::node_blocks(&self.head.nodes);
        memory.extend(super::combo::layout::budget(&self.head));
        doc.sections
            .push(Section::new("memory", "Effective memory", memory));
        doc.sections.push(known(self, verdict));
        doc
    }
}

/// The verdict in two sentences, and what to know about the format.
pub(super) fn answer(verdict: &Verdict, format_note: &str) -> Vec<String> {
    let mut answer = vec![words::verdict(verdict)];
    let mut more = words::rates(verdict);
    if let Some(context) = verdict.max_context.filter(|context| *context > 0) {
        let here = verdict.plan_max_context.unwrap_or(0);
        more.push(if here < context {
            format!(
                "the largest context that fits is {} this way, {} divided otherwise",
                tokens(here),
                tokens(context)
            )
        } else {
            format!("the largest context that fits is {}", tokens(context))
        });
    }
    if !more.is_empty() {
        answer.push(sentence(&more.join("; ")));
    }
    answer.extend(quicker(verdict));
    if !format_note.is_empty() {
        answer.push(format_note.to_owned());
    }
    answer
}

/// How much quicker another way must be to be told first.
const MUCH: f64 = 1.3;

/// A way on no more nodes that is much quicker, where what is shown has more room.
fn quicker(verdict: &Verdict) -> Option<String> {
    let now = verdict.decode_tok_s?.mid;
    let mut ways = verdict.alternatives.iter();
    let way = ways.find(|way| {
        way.fits
            && way.split == Split::OneNode
            && way.decode_tok_s.is_some_and(|rate| rate.mid > now * MUCH)
    })?;
    Some(format!(
        "Quicker with less room: {}, at {} of effective memory, decodes {} (--objective one-stream).",
        way.name,
        way.utilization.map(percent).unwrap_or_default(),
        words::rate(&way.decode_tok_s?)
    ))
}

/// The verdict's numbers.
pub(super) fn figures(verdict: &Verdict) -> Vec<Figure> {
    let mut figures = vec![Figure::new(
        "Tier",
        super::format::tier(verdict.tier),
        verdict.utilization.map_or_else(String::new, |share| {
            let node = verdict
                .binding_node
                .as_deref()
                .unwrap_or("the binding node");
            format!("{} of effective memory on {node}", percent(share))
        }),
    )];
    if verdict.weights_bytes > 0 {
        figures.push(Figure::new(
            "Weights",
            gb(verdict.weights_bytes),
            verdict.quant.clone(),
        ));
    }
    let rates = [
        ("Decode", " tok/s", verdict.decode_tok_s),
        ("Prefill", " tok/s", verdict.prefill_tok_s),
        ("First token", " s", verdict.ttft_s),
    ];
    let prompt = PROMPT.min(verdict.load.context);
    for (label, unit, rate) in rates {
        if let Some(rate) = rate {
            let of = if label == "Decode" {
                format!(", {} in context", tokens(verdict.load.context))
            } else {
                format!(", prompt of {}", thousands(i64::from(prompt)))
            };
            let note = format!(
                "{}–{}{of}, {}",
                brief(rate.low),
                brief(rate.high),
                rate.evidence.name()
            );
            figures.push(Figure::new(
                label,
                format!("{}{unit}", brief(rate.mid)),
                note,
            ));
        }
    }
    if let Some(most) = verdict.max_context {
        let here = verdict.plan_max_context.unwrap_or(0);
        let note = if here < most {
            format!(
                "within the limit, divided as here; {} otherwise",
                thousands(i64::from(most))
            )
        } else {
            "the largest that stays within the limit".to_owned()
        };
        figures.push(Figure::new("Max context", thousands(i64::from(here)), note));
    }
    figures
}

fn why(verdict: &Verdict) -> Section {
    let mut blocks = vec![Block::List {
        items: verdict
            .reasons
            .iter()
            .map(|reason| sentence(reason))
            .collect(),
    }];
    if !verdict.changes.is_empty() {
        blocks.push(Block::heading("What would change it"));
        blocks.push(Block::List {
            items: verdict
                .changes
                .iter()
                .map(|change| sentence(change))
                .collect(),
        });
    }
    blocks.push(Block::heading("Tiers"));
    blocks.push(Block::Pairs {
        pairs: thresholds::tiers(),
    });
    Section::new("why", "Why", blocks)
}

/// What each node holds.
pub(super) fn holds(verdict: &Verdict, format: Option<Format>) -> Option<Section> {
    let nodes = verdict.nodes_used();
    if nodes == 0 {
        return None;
    }
    let caption = match ledger::spread(&verdict.ledger) {
        Some((_, most)) if nodes == 1 => format!("One node holds {}.", gib(most)),
        Some((least, most)) => format!(
            "{} hold {} to {} each.",
            count(nodes, "node"),
            gib(least),
            gib(most)
        ),
        None => String::new(),
    };
    let mut blocks = vec![
        Block::Memory(ledger::bars(caption, &verdict.ledger)),
        Block::Table(ledger::table(&verdict.ledger)),
    ];
    blocks.extend(ledger::disk_note(&verdict.ledger, format));
    Some(Section::new("ledger", "What each node holds", blocks))
}

/// The ways to run it, side by side.
pub(super) fn ways(verdict: &Verdict, nodes: usize) -> Option<Section> {
    if verdict.alternatives.is_empty() {
        return None;
    }
    let mut blocks = vec![Block::Table(parts::alternatives_table(
        &verdict.name,
        &verdict.alternatives,
    ))];
    blocks.extend(thresholds::splits(nodes));
    Some(Section::new("ways", "Ways to run it", blocks))
}

fn known(page: &VerdictPage, verdict: &Verdict) -> Section {
    let mut items = page.sources.clone();
    for row in &page.head.links {
        items.push(format!(
            "{}: {}.",
            row.link.name,
            row.link.source.trim_end_matches('.')
        ));
    }
    if let Some(rate) = verdict.decode_tok_s {
        items.push(evidence_words(rate.evidence));
    }
    let title = format!("{} on {}", verdict.name, page.head.name);
    let blocks = vec![
        Block::List { items },
        Block::heading("To cite"),
        Block::text(thresholds::cite(&title, &page.head.catalog)),
    ];
    Section::new("known", "How it is known", blocks)
}

/// How a rate is known, and what that does to its interval.
fn evidence_words(evidence: Evidence) -> String {
    let what = match evidence {
        Evidence::Measured => {
            "this setting was measured, and the measurements take the formula's place"
        }
        Evidence::MeasuredNear => {
            "this model, or one of the same layers and widths, was measured on the same chip in another setting, which corrects the formula here"
        }
        Evidence::Community => {
            "somebody reported a measurement of it, or of the same model in another setting, and nobody repeated it"
        }
        Evidence::Extrapolated => {
            "the catalog has no measurement of this model on this chip; a formula that was fitted to others of this kind of hardware gives it"
        }
        Evidence::Estimated => {
            "the catalog has no measurement of anything alike; a formula gives it, and its interval is made wider for that"
        }
    };
    format!("The speed is {}: {what}.", evidence.name())
}
