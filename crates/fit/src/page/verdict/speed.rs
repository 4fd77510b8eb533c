//! The speeds of one model: over contexts, prompts and numbers of streams.

use serde::Serialize;

use crate::FitError;
use crate::cluster::Cluster;
use crate::evidence::Estimate;
use crate::model::Model;
use crate::page::doc::{Block, Cell, Chart, Point, Row, Section, Table};
use crate::page::format::{interval, tokens};
use crate::speed::Speed;
use crate::verdict::{Ask, Detail, Verdict, assess};

/// Contexts that the curve shows, where they fit.
const CONTEXTS: [u32; 9] = [
    1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072, 262_144,
];

/// One stream's speeds at a context.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ContextRow {
    /// Tokens in the cache while tokens are generated, or of the prompt.
    pub context: u32,
    /// Nodes that hold layers at this context.
    pub nodes: usize,
    /// Tokens a second.
    pub decode_tok_s: Option<Estimate>,
    /// Tokens a second of a prompt that fills the context.
    pub prefill_tok_s: Option<Estimate>,
    /// Seconds to the first token after such a prompt.
    pub ttft_s: Option<Estimate>,
}

/// Speeds at usual contexts, as far as they fit.
pub(super) fn by_context(
    model: &Model,
    cluster: &Cluster,
    ask: &Ask,
    verdict: &Verdict,
    speed: &dyn Speed,
) -> Result<Vec<ContextRow>, FitError> {
    let most = verdict.max_context.unwrap_or(0);
    let mut by_context = Vec::new();
    for context in CONTEXTS.into_iter().filter(|context| *context <= most) {
        let ask = Ask {
            context,
            prompt: context,
            detail: Detail::Brief,
            ..ask.clone()
        };
        let there = assess(model, cluster, &ask, speed)?;
        by_context.push(ContextRow {
            context,
            nodes: there.nodes_used(),
            decode_tok_s: there.decode_tok_s,
            prefill_tok_s: there.prefill_tok_s,
            ttft_s: there.ttft_s,
        });
    }
    Ok(by_context)
}

/// The section, where a speed is known.
pub(super) fn section(verdict: &Verdict, by_context: &[ContextRow]) -> Option<Section> {
    let rate = verdict.decode_tok_s?;
    let mut blocks = vec![Block::text(format!(
        "One stream decodes {} tok/s at {} of context. The interval was made to hold eight of ten measurements (the method page says how it did, by family of hardware); it is {}.",
        interval(&rate),
        tokens(verdict.load.context),
        rate.evidence.name()
    ))];
    let decode = by_context
        .iter()
        .filter_map(|row| Some((row.context, row.decode_tok_s?)));
    let decode: Vec<(u32, Estimate)> = decode.collect();
    if decode.len() > 1 {
        blocks.push(Block::Chart(Chart {
            caption: "Decode of one stream over context, with its 80 % interval".into(),
            x: "tokens",
            y: "tok/s",
            points: decode
                .iter()
                .map(|(context, rate)| Point {
                    x: f64::from(*context),
                    mid: rate.mid,
                    band: Some((rate.low, rate.high)),
                })
                .collect(),
        }));
    }
    blocks.extend(prompts(by_context));
    let streams = verdict
        .alternatives
        .iter()
        .find(|way| way.streams.len() > 1);
    if let Some(way) = streams {
        blocks.push(Block::Chart(Chart {
            caption: format!(
                "All streams together, by number of streams ({}), with the 80 % interval",
                way.name
            ),
            x: "streams",
            y: "tok/s",
            points: way
                .streams
                .iter()
                .map(|(streams, rate)| Point {
                    x: f64::from(*streams),
                    mid: rate.mid,
                    band: Some((rate.low, rate.high)),
                })
                .collect(),
        }));
    }
    Some(Section::new("speed", "Speed", blocks))
}

/// How long prompts take that fill a context.
fn prompts(by_context: &[ContextRow]) -> Option<Block> {
    // Where a longer context needs more nodes, they read a prompt together.
    let several = by_context
        .windows(2)
        .any(|pair| pair[0].nodes != pair[1].nodes);
    let rows = by_context.iter().filter_map(|row| {
        let (prefill, first) = (row.prefill_tok_s?, row.ttft_s?);
        let mut cells = vec![
            Cell::text(tokens(row.context)),
            Cell::rate(Some(prefill)),
            Cell::text(format!("{} s", interval(&first))),
        ];
        cells.extend(several.then(|| Cell::text(row.nodes.to_string())));
        Some(Row::new(cells))
    });
    let rows: Vec<Row> = rows.collect();
    let mut titles = vec![">A prompt of", "Prefill, tok/s", "First token after"];
    titles.extend(several.then_some(">Nodes"));
    let caption = "Prompts by their length, with the 80 % interval";
    (!rows.is_empty()).then(|| Block::Table(Table::new(caption, &titles).rows(rows)))
}
