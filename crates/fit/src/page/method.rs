//! How all of it is computed: equations, thresholds, evidence, and how wrong it is.

mod speed;

use serde::Serialize;

use super::backtest::{self, BacktestPage};
use super::doc::{Block, Cell, Doc, Figure, Row, Section, Table};
use super::format::{count, gib, short, thousands};
use super::formats;
use super::parts::Stamp;
use super::{Page, thresholds};
use crate::catalog::Catalog;
use crate::effective::{CLUSTER_SHARE, DAEMON_BYTES, TRANSPORT_BYTES};
use crate::evidence::Evidence;
use crate::model::Format;
use crate::placement::{COMFORTABLE, HOP_SOFTWARE_MS};
use crate::speed::fitted::Fitted;
use crate::verdict::{LEAST_CONTEXT, MICRO_BATCH, NO_LONG_CONTEXT, USUAL_CONTEXT};

/// How all of it is computed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Method {
    /// Shares and sizes that decide, by name.
    pub constants: Vec<(&'static str, f64)>,
    /// Tiers of evidence with their weights, best first.
    pub evidence: Vec<(Evidence, f64)>,
    /// Quantizations with the bits a weight that they come to.
    pub quantizations: Vec<Bits>,
    /// What OS and drivers let a model use.
    pub limits: Vec<Limit>,
    /// Entries of the catalog, by kind.
    pub entries: Vec<(&'static str, usize)>,
    /// Factors of the speed model, and widths of intervals.
    pub fitted: Fitted,
    /// How wrong predictions are, where it was tested.
    pub backtest: Option<BacktestPage>,
    /// Version and date.
    pub catalog: Stamp,
}

/// A quantization over all models of the catalog that have it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bits {
    /// Its name.
    pub name: String,
    /// Its format.
    pub format: Format,
    /// Models that have it.
    pub models: usize,
    /// Fewest and most bits a weight, over all tensors.
    pub bits_per_weight: (f64, f64),
    /// Where its rules come from.
    pub source: String,
}

/// What is usable of a kind of memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Limit {
    /// Hardware family, with the device and size that it is for.
    pub of: String,
    /// What of the memory is usable, or is kept.
    pub usable: String,
    /// Why.
    pub reason: String,
    /// How it is known.
    pub evidence: Evidence,
    /// Where it comes from.
    pub source: String,
}

impl Method {
    /// The method with its figures.
    pub fn new(catalog: &Catalog, backtest: Option<BacktestPage>) -> Self {
        let tiers = [
            Evidence::Measured,
            Evidence::MeasuredNear,
            Evidence::Community,
            Evidence::Extrapolated,
            Evidence::Estimated,
        ];
        Self {
            constants: vec![
                ("comfortable_share", COMFORTABLE),
                ("no_long_context_share", NO_LONG_CONTEXT),
                ("cluster_share", CLUSTER_SHARE),
                ("least_context_tokens", f64::from(LEAST_CONTEXT)),
                ("usual_context_tokens", f64::from(USUAL_CONTEXT)),
                ("micro_batch_tokens", f64::from(MICRO_BATCH)),
                ("daemon_bytes", DAEMON_BYTES as f64),
                ("transport_bytes", TRANSPORT_BYTES as f64),
                ("hop_software_ms", HOP_SOFTWARE_MS),
            ],
            evidence: tiers
                .into_iter()
                .map(|tier| (tier, tier.weight()))
                .collect(),
            quantizations: bits(catalog),
            limits: limits(catalog),
            entries: vec![
                ("machines", catalog.machines.len()),
                ("processors", catalog.devices.len()),
                ("links", catalog.links.len()),
                ("combos", catalog.combos.len()),
                ("models", catalog.models.len()),
                ("measurements", catalog.measurements.len()),
                ("measurements refused as impossible", catalog.refused.len()),
            ],
            fitted: catalog.fitted.clone(),
            backtest,
            catalog: Stamp::of(catalog),
        }
    }
}

fn bits(catalog: &Catalog) -> Vec<Bits> {
    let mut all: Vec<Bits> = catalog
        .mixes
        .iter()
        .filter_map(|mix| {
            let quants = catalog.models.iter().flat_map(|model| &model.quants);
            let own = quants.filter(|quant| quant.name == mix.name && quant.format == mix.format);
            let values: Vec<f64> = own.map(|quant| quant.bits_per_weight).collect();
            let fewest = values.iter().copied().reduce(f64::min)?;
            let most = values.iter().copied().reduce(f64::max)?;
            Some(Bits {
                name: mix.name.clone(),
                format: mix.format,
                models: values.len(),
                bits_per_weight: (fewest, most),
                source: mix.source.clone(),
            })
        })
        .collect();
    all.sort_by(|a, b| a.bits_per_weight.0.total_cmp(&b.bits_per_weight.0));
    all
}

fn limits(catalog: &Catalog) -> Vec<Limit> {
    let of = |family: &str, device: Option<&str>, size: Option<f64>| {
        let device = device.map_or_else(String::new, |device| format!(", {device}"));
        let size = size.map_or_else(String::new, |size| format!(", {size} GiB"));
        format!("{family}{device}{size}")
    };
    let rules = catalog.limits.iter();
    rules
        .map(|rule| Limit {
            of: of(&rule.family, rule.device.as_deref(), rule.memory_gib),
            usable: rule.usable(),
            reason: rule.reason.clone(),
            evidence: rule.evidence,
            source: rule.source.clone(),
        })
        .collect()
}

impl Page for Method {
    fn doc(&self) -> Doc {
        let mut sections = vec![
            ledger(),
            effective(),
            tiers(),
            speed::decode(self),
            speed::prefill(self),
            speed::evidence(self),
            speed::intervals(self),
        ];
        sections.extend(self.backtest.as_ref().map(tested));
        sections.push(sizes(self));
        sections.push(limit_section(self));
        sections.push(cite(self));
        let mut answer = vec![
            "A model runs where its working set stays within what is wise to plan with, node by node; every number says how it is known.".to_owned(),
        ];
        answer.extend(
            self.backtest
                .as_ref()
                .map(|page| backtest::answer(page).join(" ")),
        );
        Doc {
            kind: "Method",
            title: "How is all of it computed, and how wrong is it?".into(),
            answer,
            figures: figures(self),
            sections,
        }
    }
}

/// How wrong it is, and on how many rows; the catalog's size where that was not tested.
fn figures(page: &Method) -> Vec<Figure> {
    let Some(test) = &page.backtest else {
        let entries = page.entries.iter();
        return entries
            .map(|(name, entries)| Figure::new(*name, thousands(*entries as i64), "in the catalog"))
            .collect();
    };
    backtest::figures(test)
}

fn ledger() -> Section {
    let pairs = [
        (
            "weights",
            "the sum of a stage's tensors. The last stage has the head: twice where llama.cpp lays it out anew for the CPU, or where a GPU shares the memory with it; the embedding lies in system memory where a model is whole, and in a file beside Brigade's first stage. Other programs have the embedding on the first stage",
        ),
        (
            "KV cache",
            "for each layer by its attention: grouped-query 2 · kv_heads · head_dim; sliding window the same, bounded by the window; latent kv_lora_rank + rope dims (and the indexer's key); times context, sequences and the bytes of the type",
        ),
        (
            "recurrent state",
            "linear attention and state-space layers: constant for each sequence, in 32 bits",
        ),
        (
            "compute buffers",
            "what llama.cpp reserves for a micro-batch: the largest set of activations of one layer that live at once, in 32-bit floats, and the logits of one token of each sequence on the last stage; within 2 % or 16 MiB of what it really allocates",
        ),
        (
            "runtime",
            "what the runtime itself takes of a memory, by backend, as observed",
        ),
    ];
    let pairs = pairs.map(|(name, what)| (name.to_owned(), what.to_owned()));
    let blocks = vec![
        Block::text("The working set of a node is the sum of its items. The binding node is the one with the least headroom. A machine may have several memories (each GPU's, and RAM): they are never summed, as a layer lies in one of them."),
        Block::Pairs { pairs: pairs.into() },
        Block::Code {
            text: "working set = weights + KV cache + state + compute buffers + runtime\nutilization = working set ÷ effective memory, on the binding node".into(),
        },
    ];
    Section::new("ledger", "The memory ledger", blocks)
}

fn effective() -> Section {
    let blocks = vec![
        Block::text(
            "The limit is what the OS or driver lets a model use at most: on Apple machines the Metal working-set limit, by size as observed; a discrete GPU's own memory less what the driver keeps; else what the OS leaves free. Effective memory is the limit less what a cluster itself costs.",
        ),
        Block::Code {
            text: format!(
                "effective (one node)      = limit − daemon ({})\neffective (several nodes) = limit · (1 − {})\n    of which: daemon {}, transport buffers {}, the rest unmeasured cluster cost",
                gib(DAEMON_BYTES),
                CLUSTER_SHARE,
                gib(DAEMON_BYTES),
                gib(TRANSPORT_BYTES)
            ),
        },
        Block::text(
            "Published figures for the cluster's own cost are 10–15 %. The part that nobody has measured is named so; a measurement on the machines in question takes its place. Nothing of the working set is in it.",
        ),
    ];
    Section::new("effective", "Limit and effective memory", blocks)
}

fn tiers() -> Section {
    let blocks = vec![
        Block::Pairs {
            pairs: thresholds::tiers(),
        },
        Block::text(thresholds::meaning(crate::verdict::Tier::Borderline)),
        Block::text(format!(
            "Unless asked otherwise: one sequence, {} tokens of context (or the model's own, if smaller), keys and values in 16 bits, a micro-batch of {} tokens, and the smallest production quantization, which is the smallest that people serve the model with at 4 bits a weight or more.",
            thousands(i64::from(USUAL_CONTEXT)),
            MICRO_BATCH
        )),
    ];
    Section::new("tiers", "Fit tiers", blocks)
}

fn tested(page: &BacktestPage) -> Section {
    let mut blocks = vec![
        Block::text(
            "Each row is predicted by a fit that has not seen its chip, and so is its interval: no row informs its own prediction, nor does another one of the same chip. An error is |predicted − measured| ÷ measured. Rows count of those that state the rate; the others are refused, each with the fact that is missing.",
        ),
        Block::Table(backtest::accuracy(page)),
    ];
    blocks.extend(backtest::uneven(page));
    blocks.extend(backtest::groups(page));
    if !page.worst.is_empty() {
        blocks.push(Block::heading("Worst misses"));
        blocks.push(Block::Table(backtest::worst(page)));
    }
    if !page.refused.is_empty() {
        blocks.push(Block::heading(format!(
            "Refused: {}",
            count(page.refused.len(), "row")
        )));
        blocks.push(Block::Table(backtest::refused_by_fact(page)));
        blocks.push(Block::text("To repeat it, and to see each refused row:"));
        blocks.push(Block::Code {
            text: "brigade backtest catalog/measurements.csv".into(),
        });
    }
    Section::new("backtest", "How wrong it is", blocks)
}

fn sizes(page: &Method) -> Section {
    let rows = page.quantizations.iter().map(|bits| {
        let (fewest, most) = bits.bits_per_weight;
        let range = if (most - fewest).abs() < 0.005 {
            short(most)
        } else {
            format!("{}–{}", short(fewest), short(most))
        };
        Row::new(vec![
            Cell::text(bits.name.clone()),
            Cell::text(formats::name(bits.format)),
            Cell::text(range),
            Cell::text(thousands(bits.models as i64)),
        ])
    });
    let titles = ["Quant", "Format", ">Bits a weight", ">Models"];
    let table = Table::new("Quantizations and their bits a weight", &titles).rows(rows);
    Section::new(
        "quantizations",
        "Quantizations",
        vec![
            Block::text(
                "A quantization is a mix: attention, experts, embedding and head have types of their own, some by layer. Bits a weight therefore depend on the model; these are the fewest and the most over the catalog.",
            ),
            Block::Table(table),
        ],
    )
}

fn limit_section(page: &Method) -> Section {
    let rows = page.limits.iter().map(|limit| {
        Row::new(vec![
            Cell::text(limit.of.clone()),
            Cell::text(limit.usable.clone()),
            Cell::text(limit.reason.clone()),
            Cell::text(limit.evidence.name()),
        ])
        .note(limit.source.clone())
    });
    let table = Table::new(
        "What OS and drivers let a model use",
        &["Memory", "Usable", "Why", "Known"],
    )
    .rows(rows);
    Section::new("limits", "Limits", vec![Block::Table(table)])
}

fn cite(page: &Method) -> Section {
    let constants = page.constants.iter();
    let pairs = constants.map(|(name, value)| {
        let text = match name.rsplit_once('_') {
            Some((_, "share")) => format!("{} %", (value * 1000.0).round() / 10.0),
            Some((_, "bytes")) => gib(*value as u64),
            _ => short(*value),
        };
        (name.replace('_', " "), text)
    });
    let entries = page.entries.iter();
    let entries = entries.map(|(name, entries)| ((*name).to_owned(), thousands(*entries as i64)));
    let Stamp { version, date } = &page.catalog;
    let year = date.split('-').next().unwrap_or_default();
    let blocks = vec![
        Block::text(format!(
            "Brigade {version}, \"How is all of it computed, and how wrong is it?\", catalog of {date}."
        )),
        Block::Code {
            text: format!(
                "@misc{{brigade-method,\n  title = {{Brigade {version}: how is all of it computed, and how wrong is it?}},\n  year  = {{{year}}},\n  note  = {{catalog of {date}; written by brigade site}},\n}}"
            ),
        },
        Block::text(
            "A page of a combo, machine or model cites itself: its last section has the sentence. A number belongs to a model, quantization, machines and links, split, runtime, context, batch and type of the cache; cite them with it.",
        ),
        Block::heading("Constants of this version"),
        Block::Pairs {
            pairs: pairs.collect(),
        },
        Block::heading("What this catalog has"),
        Block::Pairs {
            pairs: entries.collect(),
        },
    ];
    Section::new("cite", "To cite", blocks)
}
