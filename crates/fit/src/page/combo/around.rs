//! What a combo's page has besides its models: ways to split, runtimes, failures, and what next.

use super::ComboPage;
use crate::catalog::failures::Failure;
use crate::page::doc::{Block, Cell, Row, Section, Table, Target};
use crate::page::format::sentence;
use crate::page::parts::{self, RuntimeRow};
use crate::page::thresholds;
use crate::page::words;

pub(super) fn splits(page: &ComboPage) -> Option<Section> {
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

pub(super) fn runtimes(rows: &[RuntimeRow]) -> Option<Section> {
    if rows.is_empty() {
        return None;
    }
    let titles = ["Runtime", "Here", "Splits", "Formats", "Links"];
    let lines = rows.iter().map(|row| {
        let here = &row.here;
        let splits: Vec<&str> = here
            .splits
            .iter()
            .map(|split| words::split(*split))
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

pub(super) fn failures(rows: &[Failure]) -> Option<Section> {
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

pub(super) fn opportunities(page: &ComboPage) -> Option<Section> {
    if page.opportunities.is_empty() {
        return None;
    }
    let mut blocks = vec![Block::text(
        "Numbers above that are not marked as measured are estimates until somebody measures them. These measurements would tell most:",
    )];
    for (index, it) in page.opportunities.iter().enumerate() {
        blocks.push(Block::heading(format!(
            "{}. {}",
            index + 1,
            capital(&it.measure)
        )));
        blocks.push(Block::Pairs {
            pairs: vec![
                ("expected".into(), sentence(&it.expected)),
                ("it tells".into(), sentence(&it.tells)),
            ],
        });
    }
    Some(Section::new(
        "opportunities",
        "Benchmark opportunities",
        blocks,
    ))
}

/// A heading's first letter made large.
fn capital(text: &str) -> String {
    sentence(text).trim_end_matches('.').to_owned()
}

/// Where to go from here: commands that work as they stand, pages, sources, and how to cite.
pub(super) fn deeper(page: &ComboPage) -> Section {
    let combo = &page.head.combo;
    // What is read from the machine itself has no name that `--on` knows.
    let on = match combo.as_str() {
        THIS_MACHINE => String::new(),
        plain if plain.chars().all(is_plain) => format!(" --on {plain}"),
        text => format!(" --on '{}'", text.replace('\'', "'\\''")),
    };
    let model = page
        .worked
        .as_ref()
        .map(|worked| worked.id.as_str())
        .or_else(|| page.models.first().map(|row| row.id.as_str()));
    let mut commands = Vec::new();
    if let Some(model) = model {
        commands.push(format!(
            "# one model, with the ledger of each node\nbrigade fit {model}{on}\n# a longer context, a smaller cache\nbrigade fit {model}{on} --context 32768 --kv-type q8_0\n# its stages\nbrigade plan {model}{on}\n# every machine and combo that runs it\nbrigade fit {model} --everywhere"
        ));
    }
    if let Some(node) = page.head.nodes.first().filter(|_| page.of_catalog) {
        commands.push(format!(
            "# one such machine alone\nbrigade fit --on {0}\n# a build of your own\nbrigade fit --on '2x {0}, link=10gbe'",
            node.machine
        ));
    }
    commands.push(
        "# how wrong predictions are, on measurements of your own\nbrigade backtest FILE.csv"
            .into(),
    );
    let mut blocks = vec![
        Block::Code {
            text: commands.join("\n"),
        },
        Block::Table(pages(page)),
    ];
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

/// The id of the machine that the program runs on.
const THIS_MACHINE: &str = "this-machine";

/// What a shell takes as it stands.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// Pages of the site beside this one.
fn pages(page: &ComboPage) -> Table {
    let mut rows = vec![
        (
            "Guide".to_owned(),
            Target::Guide,
            "when several machines are worth it, and which links matter",
        ),
        (
            "Method".to_owned(),
            Target::Method,
            "equations, thresholds, evidence, and how wrong it is",
        ),
    ];
    let mut machines: Vec<&str> = Vec::new();
    for node in page.head.nodes.iter().filter(|_| page.of_catalog) {
        if !machines.contains(&node.machine.as_str()) {
            machines.push(&node.machine);
            rows.push((
                node.machine_name.clone(),
                Target::Machine(node.machine.clone()),
                "one such machine alone",
            ));
        }
    }
    let rows = rows
        .into_iter()
        .map(|(text, to, what)| Row::new(vec![Cell::Link { text, to }, Cell::text(what)]));
    Table::new(
        "Pages beside this one",
        &["Page of the site", "What it says"],
    )
    .rows(rows)
}
