//! The speed model in words: what the formulas are, what every symbol means, and what was fitted.

use super::Method;
use crate::evidence::Evidence;
use crate::page::doc::{Block, Cell, Row, Section, Table};
use crate::page::format::{count, short, thousands};
use crate::placement::{HOP_SOFTWARE_MS, PROMPT};
use crate::speed::fitted::{Fit, cache_sd, near, unseen};
use crate::speed::interval::Class;
use crate::speed::prefill::MICRO_BATCH;
use crate::speed::{NORMAL_80, Rate};

fn pairs<const N: usize>(pairs: [(&str, &str); N]) -> Block {
    Block::Pairs {
        pairs: pairs.map(|(a, b)| (a.to_owned(), b.to_owned())).into(),
    }
}

/// Decode: the equation of `speed/decode.rs`, then how stages and streams come together.
pub(super) fn decode(page: &Method) -> Section {
    let fit = &page.fitted.decode;
    let blocks = vec![
        Block::text("The time of one token is a sum: what is read, what is computed, what is launched and what is handed on. The stages of a pipeline add up, and so do the hops between them. Bytes and operations are divided by what the data sheet says the chip reads and computes a second."),
        Block::Code {
            text: format!(
                "t(stage) = D ÷ (e · B)              dense weights that are read\n         + m · X ÷ (e · B)          weights that a mixture of experts touches\n         + r · S                    weights that a GPU cannot hold\n         + c · 2 · A ÷ F32          arithmetic on unpacked weights\n         + k · K ÷ B                the KV cache, at its mean depth\n         + (o + om + oh) · L        launches of layers\n         + h · H                    handovers within a host\n         + f + v · V ÷ 100,000      once a token, on the last stage\nt(hop)   = latency + 4 · hidden ÷ bandwidth + {HOP_SOFTWARE_MS} ms\ndecode   = 1 ÷ (Σ t(stage) + Σ t(hop))"
            ),
        },
        pairs([
            ("D, X", "bytes of weights that the token touches: D of a dense model, and of the head of any; X of all else in a mixture of experts, which is the distinct experts that the step's tokens choose, and what is shared"),
            ("S", "bytes of weights that overflow a GPU into host memory. A planned split names each memory, so that S is 0 there and the layers in RAM are read at the RAM's own bandwidth; a measured row does not say where its weights lie"),
            ("A", "parameters that the token is multiplied with"),
            ("K", "bytes of keys and values, and of recurrent state, that are read"),
            ("L, H, V", "layers; handovers between memories of one host; tokens of the vocabulary"),
            ("B, F32", "from the data sheet: memory bandwidth, and 32-bit shader throughput (assumed from the bandwidth where none is stated)"),
            ("e", "fitted, the efficiency: a product over hardware family, quantization and program"),
            ("m", "fitted: experts"),
            ("r", "fitted: host memory, in seconds for 10⁹ bytes"),
            ("c", "fitted: arithmetic"),
            ("k", "fitted: cache, or cache without flash attention for programs of 2024"),
            ("o, om, oh", "fitted, in ms: layer (times the effect of its backend); layer with experts; linear-attention layer"),
            ("h, f, v", "fitted, in ms: handover; token; vocabulary"),
        ]),
        Block::text("With the arithmetic as a term of its own, the efficiency of the bandwidth differs little between families; one constant for all of it is wrong by a factor of two."),
        Block::text("Several streams. A step of n tokens reads the weights once and the cache n times; it takes the shorter of n times the arithmetic above and the matrix arithmetic of prefill. The streams go through the stages in groups, and the best number of groups is taken:"),
        Block::Code {
            text: "together = max over g of  n ÷ max(Σ t(stage) + Σ t(hop), g · slowest t(stage))     steps of n ÷ g tokens".into(),
        },
        Block::heading("Fitted factors of decode"),
        Block::text(fitted_to(fit, "token")),
        Block::Table(factors(fit, "Fitted factors of decode")),
    ];
    Section::new("decode", "Decode", blocks)
}

/// Prefill and the first token: the equation of `speed/prefill.rs`.
pub(super) fn prefill(page: &Method) -> Section {
    let fit = &page.fitted.prefill;
    let blocks = vec![
        Block::Code {
            text: "t       = (2 · A · mm + a · S) ÷ (e · F16)     arithmetic of a prompt's token\n        + b · W ÷ B ÷ M                       weights, read once a micro-batch\n        + o · L ÷ M                           launches\nprefill = 1 ÷ t · (G · N ÷ (N + G − 1))^p     layers over G GPUs of one host".into(),
        },
        pairs([
            ("A, L, B", "as above: parameters that a token is multiplied with, layers, bandwidth"),
            ("S", "operations of attention, for a token at the prompt's mean depth"),
            ("W", "bytes of all weights that a micro-batch touches"),
            ("F16", "16-bit matrix throughput, from the data sheet. No CPU's prefill is predicted: none is stated for them"),
            ("M, N", "tokens of a micro-batch; micro-batches of the prompt"),
            ("e", "fitted: a product over vendor, hardware family, quantization and program"),
            ("mm, a", "fitted: experts (1 for a dense model); attention, or attention without flash attention"),
            ("b, o, p", "fitted: weights; layer, in ms; overlap of GPUs"),
        ]),
        Block::text(format!(
            "Rows are predicted with micro-batches of {} tokens. In a pipeline over nodes, micro-batches follow each other: the first goes through all stages, and each other one adds the slowest stage's time. The time to the first token is that of a prompt of {} tokens, or of the context where that is shorter.",
            thousands(MICRO_BATCH as i64),
            thousands(i64::from(PROMPT))
        )),
        Block::heading("Fitted factors of prefill"),
        Block::text(fitted_to(fit, "prompt's token")),
        Block::Table(factors(fit, "Fitted factors of prefill")),
    ];
    Section::new("prefill", "Prefill and the first token", blocks)
}

fn fitted_to(fit: &Fit, what: &str) -> String {
    format!(
        "Fitted to {} of {}: the logarithm of the time of a {what} by robust regression, each factor held near its prior. The prior is what is used where nothing is measured; a factor may go from it by the spread, which is one standard deviation, times or divided by. What has no row stays at its prior.",
        count(fit.rows, "measured row"),
        count(fit.chips, "chip")
    )
}

fn factors(fit: &Fit, caption: &str) -> Table {
    let rows = fit.parameter.iter().map(|factor| {
        Row::new(vec![
            Cell::text(factor.name.clone()),
            Cell::text(short(factor.value)),
            Cell::text(short(factor.prior)),
            Cell::text(format!("× {}", short(factor.sd.exp()))),
        ])
    });
    Table::new(caption, &["Factor", ">Fitted", ">Prior", ">Spread"]).rows(rows)
}

/// How wide intervals are, by what a row is like.
pub(super) fn intervals(page: &Method) -> Section {
    let rows = page.fitted.interval.iter().map(|interval| {
        Row::new(vec![
            Cell::text(interval.class.clone()),
            Cell::text(meaning(&interval.class)),
            Cell::text(thousands(interval.rows as i64)),
            Cell::text(format!("× {:.2}", interval.factor)),
        ])
    });
    let titles = ["Class", "What is in it", ">Rows", ">Factor"];
    let table = Table::new("Widths of intervals by class", &titles).rows(rows);
    let blocks = vec![
        Block::text(
            "Nearly all measured rows have a short context, so that the price of reading a long cache is known less well: the longer the context, the wider the interval. The table by depth under 'How wrong it is' has what there is of longer ones.",
        ),
        Block::text(
            "An 80 % interval reaches from the estimate divided by its class's factor to the estimate times it. It was made to hold eight of ten: four of five measurements of the whole class, each predicted by a fit that has not seen its chip, lay that near. That is over all hardware of the class; how many of a single family it held is in the table by hardware under 'How wrong it is', and is uneven. Where measured rows take the formula's place or correct it, the factor is that of 'near', or half of what the rows differ by, if that is more; a pipeline's is no narrower than the formula's.",
        ),
        Block::Table(table),
        Block::Code {
            text: format!(
                "of the formula         w = ln(factor) · max(1, {:.2} ÷ weight of the evidence)\nof rows, or by rows    w = max(ln(factor of 'near'), half of what they differ by) ÷ weight\ndecode's half width      = √(w² + ({:.2} · cache ÷ (cache + weights that a token touches))²)",
                Evidence::Extrapolated.weight(),
                cache_sd() * NORMAL_80
            ),
        },
    ];
    Section::new("intervals", "Intervals", blocks)
}

/// What a class of the fitted intervals has in it.
fn meaning(class: &str) -> &'static str {
    let known = [
        (
            Class::Sized.name(),
            "decode, dense, the size of the file known",
        ),
        (
            Class::Named.name(),
            "decode, dense, the size from its parameters",
        ),
        (Class::Moe.name(), "decode of a mixture of experts"),
        (
            Class::Tight.name(),
            "decode where a GPU's memory is full or flows over",
        ),
        (Class::PrefillApple.name(), "prefill on an Apple chip"),
        (
            Class::PrefillOne.name(),
            "prefill on one processor of any other kind",
        ),
        (
            Class::PrefillSeveral.name(),
            "prefill on several GPUs of a host",
        ),
        (
            near(Rate::Decode),
            "decode, corrected by rows of the same model on the same chip",
        ),
        (near(Rate::Prefill), "prefill, corrected likewise"),
        (
            unseen(Rate::Decode),
            "decode on hardware of which no row was fitted",
        ),
        (unseen(Rate::Prefill), "prefill likewise"),
    ];
    let own = known.into_iter().find(|(name, _)| *name == class);
    own.map_or("", |(_, meaning)| meaning)
}

/// How a number's tier of evidence is decided.
pub(super) fn evidence(page: &Method) -> Section {
    let meaning = |tier: Evidence| match tier {
        Evidence::Measured => {
            "rows of exactly this setting: model, quantization, chips, program, and a context within a quarter. Their mean takes the formula's place"
        }
        Evidence::MeasuredNear => {
            "rows of the same model, or of one with the same layers and widths, on the same chip with the same program, at another quantization or context: how far the formula is off there corrects it here"
        }
        Evidence::Community => {
            "as either of the two above, where the rows were reported by somebody and repeated by nobody"
        }
        Evidence::Extrapolated => {
            "no such row: the formula, fitted to rows of this family of hardware"
        }
        Evidence::Estimated => {
            "the formula where no row of the family was fitted, and any pipeline over nodes, as what a hop costs is computed"
        }
    };
    let rows = page.evidence.iter().map(|(tier, weight)| {
        Row::new(vec![
            Cell::text(tier.name()),
            Cell::text(format!("{weight:.2}")),
            Cell::text(meaning(*tier)),
        ])
    });
    let table = Table::new("Tiers of evidence", &["Evidence", ">Weight", "Given to"]).rows(rows);
    Section::new(
        "evidence",
        "Evidence",
        vec![
            Block::text(
                "Every number carries its tier, the best that applies. A verdict names the rows that it rests on by their ids in measurements.csv. A weight below that of 'extrapolated' widens the interval, by the formula under 'Intervals'.",
            ),
            Block::Table(table),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::meaning;
    use crate::catalog::Catalog;

    #[test]
    fn every_class_of_the_catalog_has_a_meaning() {
        let catalog = Catalog::embedded().expect("the catalog is whole");
        for interval in &catalog.fitted.interval {
            assert_ne!(meaning(&interval.class), "", "{}", interval.class);
        }
    }
}
