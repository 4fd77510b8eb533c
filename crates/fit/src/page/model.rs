//! A model: its facts, its sizes, and where it runs.

use serde::Serialize;

use super::Page;
use super::doc::{Block, Cell, Doc, Figure, Row, Section, Table};
use super::everywhere::{self, EverywherePage};
use super::format::{count, gb, gib, params, sentence, short, thousands};
use super::formats;
use super::thresholds;
use super::verdict::exactness;
use crate::memory::{KvType, Load, kv_bytes, state_bytes};
use crate::model::{Attention, Exactness, Format, Model};
use crate::verdict::MICRO_BATCH;

/// Places that the page lists; what has more memory is counted.
const SHOWN: usize = 48;

/// A model and where it runs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelPage {
    /// Where it runs.
    #[serde(flatten)]
    pub everywhere: EverywherePage,
    /// Parameters.
    pub params: u64,
    /// Parameters that a token touches.
    pub active_params: u64,
    /// Names and values, as people read them.
    pub facts: Vec<(String, String)>,
    /// Its quantizations, smallest first.
    pub quants: Vec<QuantRow>,
    /// KV cache and recurrent state of one sequence in 16 bits, by tokens of context.
    pub cache: Vec<(u32, u64)>,
    /// Facts that decide and are not known.
    pub missing: Vec<String>,
    /// Where the facts come from, with the date.
    pub source: String,
}

/// A quantization in short.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantRow {
    /// Its name.
    pub name: String,
    /// Its format.
    pub format: Format,
    /// Bytes of all tensors.
    pub weights_bytes: u64,
    /// Bits a weight, over all tensors.
    pub bits_per_weight: f64,
    /// Whether people serve the model with it.
    pub production: bool,
    /// How the bytes are known.
    pub exactness: Exactness,
    /// Where they come from.
    pub source: String,
}

impl ModelPage {
    /// The page of a model whose places are known.
    pub fn new(model: &Model, everywhere: EverywherePage) -> Self {
        let mut quants: Vec<QuantRow> = model
            .quants
            .iter()
            .map(|quant| QuantRow {
                name: quant.name.clone(),
                format: quant.format,
                weights_bytes: quant.weights.total(),
                bits_per_weight: quant.bits_per_weight,
                production: model.production.contains(&quant.name),
                exactness: quant.exactness,
                source: quant.source.clone(),
            })
            .collect();
        quants.sort_by(|a, b| (a.weights_bytes, &a.name).cmp(&(b.weights_bytes, &b.name)));
        Self {
            params: model.params,
            active_params: model.active_params,
            facts: facts(model),
            quants,
            cache: cache(model),
            missing: model.missing.clone(),
            source: format!("{} ({})", model.source, model.date),
            everywhere,
        }
    }
}

fn cache(model: &Model) -> Vec<(u32, u64)> {
    [4_096, 8_192, 32_768, 131_072]
        .into_iter()
        .filter(|context| model.max_context == 0 || *context <= model.max_context)
        .map(|context| {
            let load = Load {
                context,
                sequences: 1,
                kv_type: KvType::F16,
                micro_batch: MICRO_BATCH,
            };
            let bytes = kv_bytes(&model.layers, &load) + state_bytes(&model.layers, &load);
            (context, bytes)
        })
        .collect()
}

fn facts(model: &Model) -> Vec<(String, String)> {
    let mut facts = vec![("parameters".to_owned(), params(model.params))];
    if model.experts > 0 {
        facts.push((
            "mixture of experts".into(),
            format!(
                "{} of {} experts a token, {} active parameters",
                model.experts_used,
                model.experts,
                params(model.active_params)
            ),
        ));
    }
    facts.push(("architecture".into(), model.architecture.clone()));
    facts.push((
        "layers".into(),
        format!(
            "{}, hidden width {}",
            model.layers.len(),
            thousands(i64::from(model.hidden))
        ),
    ));
    facts.push(("attention".into(), attention(model)));
    if model.max_context > 0 {
        facts.push((
            "made for".into(),
            format!(
                "{} tokens of context",
                thousands(i64::from(model.max_context))
            ),
        ));
    }
    if let Some(repo) = &model.repo {
        facts.push(("weights".into(), repo.clone()));
    }
    if let Some(note) = &model.note {
        facts.push(("note".into(), sentence(note)));
    }
    facts
}

/// Its layers by what they keep.
fn attention(model: &Model) -> String {
    let kinds = [
        (
            "full",
            count_of(model, |kind| matches!(kind, Attention::Full { .. })),
        ),
        (
            "sliding-window",
            count_of(model, |kind| matches!(kind, Attention::Sliding { .. })),
        ),
        (
            "latent",
            count_of(model, |kind| matches!(kind, Attention::Latent { .. })),
        ),
        (
            "recurrent",
            count_of(model, |kind| matches!(kind, Attention::Recurrent { .. })),
        ),
        (
            "without a cache",
            count_of(model, |kind| matches!(kind, Attention::None)),
        ),
    ];
    let parts: Vec<String> = kinds
        .into_iter()
        .filter(|(_, layers)| *layers > 0)
        .map(|(name, layers)| format!("{layers} {name}"))
        .collect();
    format!("{} layers", super::format::and(&parts))
}

fn count_of(model: &Model, is: impl Fn(&Attention) -> bool) -> usize {
    model
        .layers
        .iter()
        .filter(|layer| is(&layer.attention))
        .count()
}

impl Page for ModelPage {
    fn doc(&self) -> Doc {
        let page = &self.everywhere;
        let mut blocks = vec![Block::Pairs {
            pairs: self.facts.clone(),
        }];
        if !self.missing.is_empty() {
            blocks.push(Block::text(format!(
                "Not known, so that no verdict is possible: {}.",
                self.missing.join(", ")
            )));
        }
        blocks.push(Block::text(format!("Source: {}", self.source)));
        let mut sections = vec![
            Section::new("facts", "Facts", blocks),
            Section::new(
                "quantizations",
                "Quantizations",
                vec![Block::Table(self.sizes())],
            ),
        ];
        if self.cache.iter().any(|(_, bytes)| *bytes > 0) {
            let mut table = Table::new("Cache of one sequence in 16 bits", &[">Context", ">Cache"]);
            for (context, bytes) in &self.cache {
                table.push(vec![
                    Cell::text(thousands(i64::from(*context))),
                    Cell::text(gib(*bytes)),
                ]);
            }
            sections.push(Section::new(
                "cache",
                "KV cache of one sequence",
                vec![Block::Table(table)],
            ));
        }
        let blocks = if page.places.is_empty() {
            vec![Block::text("No machine or combo of the catalog runs it.")]
        } else {
            let mut blocks = vec![Block::Table(everywhere::table(page, SHOWN))];
            if let more @ 1.. = page.places.len().saturating_sub(SHOWN) {
                let from = page.places.get(SHOWN).map_or(0, |place| place.memory_bytes);
                blocks.push(Block::text(format!(
                    "And {}, of {} and more.",
                    count(more, "place"),
                    gib(from)
                )));
            }
            blocks
        };
        sections.push(Section::new(
            "places",
            "Where it runs, smallest memory first",
            blocks,
        ));
        sections.push(Section::new(
            "cite",
            "To cite",
            vec![Block::text(thresholds::cite(
                &format!("What runs {}", page.name),
                &page.catalog,
            ))],
        ));
        Doc {
            kind: "Model",
            title: format!("What runs {}?", page.name),
            answer: everywhere::answer(page),
            figures: vec![
                Figure::new(
                    "Parameters",
                    params(self.params),
                    if self.active_params < self.params {
                        format!("{} active", params(self.active_params))
                    } else {
                        "all active".into()
                    },
                ),
                Figure::new(
                    "Smallest production size",
                    gb(page.weights_bytes),
                    page.quant.clone(),
                ),
                Figure::new(
                    "Runs on",
                    count(page.counts.comfortable + page.counts.borderline, "place"),
                    page.counts.words(),
                ),
            ],
            sections,
        }
    }
}

impl ModelPage {
    fn sizes(&self) -> Table {
        let titles = [
            "Quant",
            "Format",
            ">Bits a weight",
            ">Size",
            "In production",
            "Known",
        ];
        let rows = self.quants.iter().map(|quant| {
            Row::new(vec![
                Cell::text(quant.name.clone()),
                Cell::text(formats::name(quant.format)),
                Cell::text(short(quant.bits_per_weight)),
                Cell::text(gb(quant.weights_bytes)),
                Cell::text(if quant.production { "yes" } else { "" }),
                Cell::text(sentence(exactness(quant.exactness)).trim_end_matches('.')),
            ])
        });
        Table::new(format!("Sizes of {}", self.everywhere.name), &titles).rows(rows)
    }
}
