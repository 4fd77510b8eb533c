//! A combo's page as blocks.

use super::{around, tables};
use crate::page::combo::ComboPage;
use crate::page::doc::{Block, Cell, Doc, Figure, Section, Table};
use crate::page::format::{count, fine_percent, gb, gib, percent, sentence, short, thousands};
use crate::page::ledger;
use crate::page::measured;
use crate::page::parts::{self, Head};
use crate::page::thresholds;
use crate::page::words;

pub(super) fn doc(page: &ComboPage) -> Doc {
    let mut sections = vec![summary(page), topology(page), memory(page)];
    sections.extend(tables::tiers(&page.models));
    sections.extend(measured::section(&page.measured, "such machines"));
    sections.extend(around::splits(page));
    sections.extend(around::runtimes(&page.runtimes));
    sections.extend(around::failures(&page.failures));
    sections.extend(around::opportunities(page));
    sections.push(around::deeper(page));
    Doc {
        kind: "Combo",
        title: format!("What runs on {}?", page.head.name),
        answer: answer(page),
        figures: figures(&page.head),
        sections,
    }
}

fn answer(page: &ComboPage) -> Vec<String> {
    let head = &page.head;
    let mut answer = vec![format!(
        "Of {}: {}. {}.",
        count(page.counts.total(), "model"),
        page.counts.words(),
        head.plan_with(),
    )];
    if let Some(worked) = &page.worked {
        let row = page.models.iter().find(|row| row.id == worked.id);
        let rate = row
            .and_then(|row| {
                let rate = words::rate_at(&row.decode_tok_s?, row.context(head.context));
                Some(format!(", {rate}"))
            })
            .unwrap_or_default();
        let each = ledger::spread(&worked.ledger).map_or_else(String::new, |(least, most)| {
            let each = if head.nodes.len() > 1 { " a node" } else { "" };
            format!(" {}{each}", range(least, most))
        });
        answer.push(format!(
            "{} at {} ({}) is {}:{each}{rate}.",
            worked.name,
            worked.quant,
            gb(worked.weights_bytes),
            crate::page::format::tier(worked.tier),
        ));
    }
    answer
}

/// `25.3–27.1 GiB`, or one number where both read alike.
fn range(least: u64, most: u64) -> String {
    let (least, most) = (gib(least), gib(most));
    if least == most {
        most
    } else {
        format!("{}–{most}", least.trim_end_matches(" GiB"))
    }
}

/// The numbers of a cluster.
pub(in crate::page) fn figures(head: &Head) -> Vec<Figure> {
    let share = |bytes: u64| percent(bytes as f64 / head.total_bytes.max(1) as f64);
    let mut figures = vec![
        Figure::new(
            "Memory",
            gib(head.total_bytes),
            match (head.pools_note(), head.nodes.len()) {
                (apart, _) if !apart.is_empty() => apart,
                (_, 1) => words::nodes(1),
                (_, several) => format!("over {}", words::nodes(several)),
            },
        ),
        Figure::new(
            "Limit",
            gib(head.limit_bytes),
            format!(
                "{} of all memory: what OS and driver let a model use",
                share(head.limit_bytes)
            ),
        ),
        Figure::new(
            "Effective",
            gib(head.effective_bytes),
            format!(
                "{} of all memory: what is wise to plan with, the limit less {}",
                share(head.effective_bytes),
                if head.nodes.len() == 1 {
                    "Brigade's own"
                } else {
                    "the cluster's own"
                }
            ),
        ),
    ];
    for link in &head.links {
        figures.push(Figure::new(
            "Link",
            link.link.name.clone(),
            format!(
                "{} GB/s and {} ms one way over TCP",
                short(link.link.bandwidth_gb_s),
                short(link.link.latency_ms)
            ),
        ));
    }
    figures
}

fn summary(page: &ComboPage) -> Section {
    let mut blocks = Vec::new();
    if !page.role.is_empty() {
        blocks.push(Block::text(sentence(&page.role)));
    }
    blocks.push(Block::text(format!(
        "Each model stands at its smallest production quantization (at least 4 bits a weight), one sequence, {} tokens of context or the model's own if that is smaller, keys and values in 16 bits. Speeds are of one stream with that many tokens in context.",
        thousands(i64::from(page.head.context))
    )));
    if !page.format_note.is_empty() {
        blocks.push(Block::text(page.format_note.clone()));
    }
    blocks.push(Block::Pairs {
        pairs: thresholds::tiers(),
    });
    Section::new("summary", "Summary", blocks)
}

fn topology(page: &ComboPage) -> Section {
    let head = &page.head;
    let mut blocks = Vec::new();
    if !page.topology.is_empty() {
        blocks.push(Block::text(sentence(&page.topology)));
    }
    blocks.extend(parts::node_blocks(&head.nodes));
    for row in &head.links {
        let link = &row.link;
        let mut pairs = vec![
            ("joins".to_owned(), count(row.pairs, "pair")),
            (
                "TCP".to_owned(),
                format!(
                    "{} ms one way, {} GB/s",
                    short(link.latency_ms),
                    short(link.bandwidth_gb_s)
                ),
            ),
        ];
        if let Some(rdma) = link.rdma {
            pairs.push((
                "RDMA".to_owned(),
                format!(
                    "{} ms one way, {} GB/s",
                    short(rdma.latency_ms),
                    short(rdma.bandwidth_gb_s)
                ),
            ));
        }
        if let Some(evidence) = row.evidence {
            pairs.push((
                "known by".to_owned(),
                format!("{}: {}", evidence.name(), link.source),
            ));
        } else {
            pairs.push(("source".to_owned(), link.source.clone()));
        }
        if !row.note.is_empty() {
            pairs.push(("note".to_owned(), sentence(&row.note)));
        }
        blocks.push(Block::heading(link.name.clone()));
        blocks.push(Block::Pairs { pairs });
        blocks.push(Block::List {
            items: row.facts.clone(),
        });
    }
    if head.nodes.len() > 1 && head.links.is_empty() {
        blocks.push(Block::text(
            "No link between the nodes is named, so that nothing can be said about a plan over several of them.",
        ));
    }
    Section::new("topology", "Topology", blocks)
}

fn memory(page: &ComboPage) -> Section {
    let mut blocks = budget(&page.head);
    if let Some(worked) = &page.worked {
        let title = format!(
            "{} at {}, {} of weights: {}",
            worked.name,
            worked.quant,
            gb(worked.weights_bytes),
            crate::page::format::tier(worked.tier)
        );
        blocks.push(Block::heading("A worked case"));
        blocks.push(Block::Memory(ledger::bars(title, &worked.ledger)));
        blocks.push(Block::Table(ledger::table(&worked.ledger)));
        blocks.extend(ledger::disk_note(&worked.ledger, worked.format));
    }
    Section::new("memory", "Where the memory goes", blocks)
}

/// From all memory to effective memory, item by item.
pub(in crate::page) fn budget(head: &Head) -> Vec<Block> {
    let kept = head.total_bytes.saturating_sub(head.limit_bytes);
    let mut table = Table::new(
        "From all memory to effective memory",
        &["Item", ">Bytes", ">Of all"],
    );
    let mut line = |name: &str, bytes: u64, sign: &str| {
        table.push(vec![
            Cell::text(name),
            Cell::text(format!("{sign}{}", gib(bytes))),
            Cell::text(fine_percent(bytes as f64 / head.total_bytes.max(1) as f64)),
        ]);
    };
    line("all memory", head.total_bytes, "");
    line("kept by OS and driver", kept, "−");
    line("limit", head.limit_bytes, "");
    for item in &head.effective_ledger {
        line(&item.item, item.bytes, "−");
    }
    line("effective", head.effective_bytes, "");
    let mut blocks = vec![Block::Table(table)];
    blocks.extend(thresholds::cluster_cost(head));
    let reasons = parts::limit_reasons(&head.nodes);
    if !reasons.is_empty() {
        blocks.push(Block::List {
            items: reasons
                .iter()
                .map(|reason| sentence(&format!("the limit: {reason}")))
                .collect(),
        });
    }
    blocks
}
