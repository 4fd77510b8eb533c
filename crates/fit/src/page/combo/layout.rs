//! A combo's page as blocks.

use crate::catalog::failures::Failure;
use crate::page::combo::{ComboPage, ModelRow};
use crate::page::doc::{Block, Cell, Doc, Figure, Row, Section, Table, Target};
use crate::page::format::{count, gb, gib, percent, sentence, short, thousands};
use crate::page::parts::{self, Head, RuntimeRow};
use crate::page::thresholds;
use crate::verdict::Tier;

/// Reasons of a row that are worth a line.
const REASONS: usize = 1;

pub(super) fn doc(page: &ComboPage) -> Doc {
    let mut sections = vec![summary(page), topology(page), memory(page)];
    for (tier, id, title) in [
        (
            Tier::Comfortable,
            "comfortable",
            "Models that fit comfortably",
        ),
        (Tier::Borderline, "borderline", "Borderline models"),
        (Tier::NotPractical, "not-practical", "Not practical"),
        (Tier::Unknown, "unknown", "Unknown"),
    ] {
        sections.extend(models(&page.models, tier, id, title));
    }
    sections.extend(splits(page));
    sections.extend(runtimes(&page.runtimes));
    sections.extend(failures(&page.failures));
    sections.extend(opportunities(page));
    sections.push(deeper(page));
    Doc {
        kind: "Combo",
        title: format!("What runs on {}?", page.head.name),
        answer: answer(page),
        figures: figures(&page.head),
        sections,
    }
}

/// The models, a section for each tier.
pub(in crate::page) fn tiers(rows: &[ModelRow]) -> Vec<Section> {
    [
        (
            Tier::Comfortable,
            "comfortable",
            "Models that fit comfortably",
        ),
        (Tier::Borderline, "borderline", "Borderline models"),
        (Tier::NotPractical, "not-practical", "Not practical"),
        (Tier::Unknown, "unknown", "Unknown"),
    ]
    .into_iter()
    .filter_map(|(tier, id, title)| models(rows, tier, id, title))
    .collect()
}

fn answer(page: &ComboPage) -> Vec<String> {
    let head = &page.head;
    let mut answer = vec![format!(
        "Of {}: {}. Plan with {} of its {}.",
        count(page.counts.total(), "model"),
        page.counts.words(),
        gib(head.effective_bytes),
        gib(head.total_bytes),
    )];
    if let Some(worked) = &page.worked {
        let row = page.models.iter().find(|row| row.id == worked.id);
        let rate = row
            .and_then(|row| row.decode_tok_s)
            .map(|rate| format!(", {}", parts::rate_words(&rate)))
            .unwrap_or_default();
        let each = parts::spread(&worked.ledger).map_or_else(String::new, |(least, most)| {
            format!(" {} a node", range(least, most))
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
            format!("over {}", parts::nodes_words(head.nodes.len())),
        ),
        Figure::new(
            "Limit",
            gib(head.limit_bytes),
            format!(
                "{} of it: what OS and driver let a model use",
                share(head.limit_bytes)
            ),
        ),
        Figure::new(
            "Effective",
            gib(head.effective_bytes),
            format!(
                "{} of it: what is wise to plan with",
                share(head.effective_bytes)
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
        "Each model stands at its smallest production quantization (at least 4 bits a weight), one sequence, {} tokens of context or the model's own if that is smaller, keys and values in 16 bits.",
        thousands(i64::from(page.head.context))
    )));
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
    blocks.push(Block::Table(parts::node_table(&head.nodes)));
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
        blocks.push(Block::Memory(parts::memory_bars(title, &worked.ledger)));
        blocks.push(Block::Table(parts::ledger_table(&worked.ledger)));
    }
    Section::new("memory", "Where the memory goes", blocks)
}

/// From all memory to effective memory, item by item.
pub(in crate::page) fn budget(head: &Head) -> Vec<Block> {
    let kept = head.total_bytes.saturating_sub(head.limit_bytes);
    let mut table = Table::new(
        "From all memory to effective memory",
        &["", ">Bytes", "Of all"],
    );
    let mut line = |name: &str, bytes: u64, sign: &str| {
        table.push(vec![
            Cell::text(name),
            Cell::text(format!("{sign}{}", gib(bytes))),
            Cell::text(percent(bytes as f64 / head.total_bytes.max(1) as f64)),
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
            items: reasons.iter().map(|reason| sentence(reason)).collect(),
        });
    }
    blocks
}

fn models(rows: &[ModelRow], tier: Tier, id: &'static str, title: &str) -> Option<Section> {
    let rows: Vec<&ModelRow> = rows.iter().filter(|row| row.tier == tier).collect();
    if rows.is_empty() {
        return None;
    }
    let mut blocks = vec![Block::text(thresholds::meaning(tier))];
    match tier {
        Tier::Comfortable => {
            let (one, several): (Vec<_>, Vec<_>) = rows.iter().partition(|row| row.nodes_used < 2);
            let both = !one.is_empty() && !several.is_empty();
            for (name, part) in [("Over several nodes", several), ("On one node", one)] {
                if both {
                    blocks.push(Block::heading(format!("{name} ({})", part.len())));
                }
                if !part.is_empty() {
                    blocks.push(Block::Table(fitting(&part, tier)));
                }
            }
        }
        Tier::Borderline => blocks.push(Block::Table(fitting(&rows, tier))),
        Tier::NotPractical | Tier::Unknown => blocks.push(Block::Table(other(&rows))),
    }
    let title = format!("{title} ({})", rows.len());
    Some(Section::new(id, title, blocks))
}

fn fitting(rows: &[&ModelRow], tier: Tier) -> Table {
    let titles = [
        "Model",
        "Quant",
        ">Weights",
        "Use",
        ">Nodes",
        "Decode, tok/s",
        ">Max context",
    ];
    let rows = rows.iter().map(|row| {
        let line = Row::new(vec![
            Cell::model(&row.name, &row.id),
            Cell::text(row.quant.clone()),
            Cell::text(gb(row.weights_bytes)),
            Cell::share(row.utilization),
            Cell::text(row.nodes_used.to_string()),
            Cell::rate(row.decode_tok_s),
            Cell::text(tokens(row.max_context)),
        ]);
        match tier {
            Tier::Comfortable => line,
            _ => line.note(first(&row.reasons)),
        }
    });
    Table::new(
        "Models with what they take and how fast they answer",
        &titles,
    )
    .rows(rows)
}

fn other(rows: &[&ModelRow]) -> Table {
    let titles = ["Model", "Quant", ">Weights", "Use", "Comfortable on"];
    let rows = rows.iter().map(|row| {
        let known = row.weights_bytes > 0;
        Row::new(vec![
            Cell::model(&row.name, &row.id),
            Cell::text(row.quant.clone()),
            Cell::text(if known {
                gb(row.weights_bytes)
            } else {
                "–".into()
            }),
            Cell::share(row.utilization),
            match &row.larger {
                Some((id, name)) => Cell::Link {
                    text: name.clone(),
                    to: Target::Combo(id.clone()),
                },
                None => Cell::text("–"),
            },
        ])
        .note(first(&row.reasons))
    });
    Table::new("Models that do not fit, and why", &titles).rows(rows)
}

fn first(reasons: &[String]) -> String {
    let shown = reasons.iter().take(REASONS).map(|reason| sentence(reason));
    shown.collect::<Vec<_>>().join(" ")
}

fn tokens(context: Option<u32>) -> String {
    context.map_or_else(|| "–".into(), |tokens| thousands(i64::from(tokens)))
}

fn splits(page: &ComboPage) -> Option<Section> {
    if page.splits.is_empty() {
        return None;
    }
    let mut blocks = thresholds::splits(page.head.nodes.len());
    for case in &page.splits {
        blocks.push(Block::heading(case.name.clone()));
        blocks.push(Block::Table(parts::alternatives_table(
            &case.name,
            &case.alternatives,
        )));
    }
    Some(Section::new("splits", "Ways to split", blocks))
}

fn runtimes(rows: &[RuntimeRow]) -> Option<Section> {
    if rows.is_empty() {
        return None;
    }
    let titles = ["Runtime", "Here", "Splits", "Formats", "Links"];
    let lines = rows.iter().map(|row| {
        let here = &row.here;
        let splits: Vec<&str> = here
            .splits
            .iter()
            .map(|split| parts::split_name(*split))
            .collect();
        Row::new(vec![
            Cell::text(here.name.clone()),
            Cell::text(if here.can { "yes" } else { "no" }),
            Cell::text(if here.can {
                splits.join(", ")
            } else {
                here.reason.clone()
            }),
            Cell::text(row.formats.clone()),
            Cell::text(row.links.clone()),
        ])
        .note(cited(&here.note, &here.source))
    });
    let table = Table::new("Runtimes and what they do on these machines", &titles).rows(lines);
    Some(Section::new(
        "runtimes",
        "Runtime matrix",
        vec![Block::Table(table)],
    ))
}

fn failures(rows: &[Failure]) -> Option<Section> {
    if rows.is_empty() {
        return None;
    }
    let titles = ["Where", "What one sees", "Why", "What helps"];
    let lines = rows.iter().map(|row| {
        Row::new(vec![
            Cell::text(row.scope.clone()),
            Cell::text(row.symptom.clone()),
            Cell::text(row.cause.clone()),
            Cell::text(row.remedy.clone()),
        ])
        .note(cited("", &row.source))
    });
    let table = Table::new("Failures that these machines can meet", &titles).rows(lines);
    let blocks = vec![Block::Table(table)];
    Some(Section::new("failures", "Failure modes", blocks))
}

/// A remark and its source in one line.
fn cited(note: &str, source: &str) -> String {
    let source = match source {
        "" => String::new(),
        source => format!("Source: {source}"),
    };
    match note {
        "" => source,
        note => format!("{} {source}", sentence(note)),
    }
}

fn opportunities(page: &ComboPage) -> Option<Section> {
    if page.opportunities.is_empty() {
        return None;
    }
    let mut blocks = vec![Block::text(
        "Numbers above that are not marked as measured are estimates until somebody measures them. These measurements would tell most:",
    )];
    for (index, it) in page.opportunities.iter().enumerate() {
        blocks.push(Block::heading(format!("{}. {}", index + 1, it.measure)));
        blocks.push(Block::Pairs {
            pairs: vec![
                ("expected".into(), it.expected.clone()),
                ("it tells".into(), it.tells.clone()),
            ],
        });
    }
    Some(Section::new(
        "opportunities",
        "Benchmark opportunities",
        blocks,
    ))
}

fn deeper(page: &ComboPage) -> Section {
    let combo = &page.head.combo;
    let quoted = if combo.contains(' ') {
        format!("'{combo}'")
    } else {
        combo.clone()
    };
    let model = page.worked.as_ref().map_or("MODEL", |worked| &worked.id);
    let mut blocks = vec![Block::Code {
        text: format!(
            "# one model, with the ledger of each node\nbrigade fit {model} --on {quoted}\n# its stages, and commands for other engines\nbrigade plan {model} --on {quoted}\n# every machine and combo that runs it\nbrigade fit {model} --everywhere"
        ),
    }];
    if !page.sources.is_empty() {
        blocks.push(Block::heading("Sources"));
        blocks.push(Block::List {
            items: page.sources.clone(),
        });
    }
    blocks.push(Block::heading("To cite"));
    blocks.push(Block::text(thresholds::cite(
        &format!("What runs on {}", page.head.name),
        &page.head.catalog,
    )));
    Section::new("deeper", "Going deeper", blocks)
}
