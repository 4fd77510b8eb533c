//! The models of a page, tier by tier.

use super::ModelRow;
use crate::page::doc::{Block, Cell, Row, Section, Table, Target};
use crate::page::format::{gb, sentence, thousands};
use crate::page::thresholds;
use crate::page::words;
use crate::verdict::{NO_LONG_CONTEXT, Tier};

/// The models, a section for each tier that has some.
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
                    blocks.push(Block::Table(fitting(&part, name)));
                }
            }
        }
        Tier::Borderline => blocks.push(Block::Table(fitting(&rows, "With little headroom"))),
        Tier::NotPractical => blocks.push(Block::Table(too_large(&rows))),
        Tier::Unknown => blocks.push(Block::Table(unknown(&rows))),
    }
    let title = format!("{title} ({})", rows.len());
    Some(Section::new(id, title, blocks))
}

fn fitting(rows: &[&ModelRow], caption: &str) -> Table {
    // Where all models are on one node, how many there are says nothing.
    let several = rows.iter().any(|row| row.nodes_used > 1);
    let mut titles = vec!["Model", "Quant", ">Weights", "Use"];
    titles.extend(several.then_some(">Nodes"));
    titles.extend(["Decode, tok/s", ">Max context"]);
    let rows = rows.iter().map(|row| {
        let mut cells = vec![
            Cell::model(&row.name, &row.id),
            Cell::text(row.quant.clone()),
            Cell::text(gb(row.weights_bytes)),
            Cell::share(row.utilization),
        ];
        cells.extend(several.then(|| Cell::text(row.nodes_used.to_string())));
        cells.push(Cell::rate(row.decode_tok_s));
        cells.push(Cell::text(tokens(row.plan_max_context)));
        Row::new(cells).note(advice(row))
    });
    Table::new(
        format!("{caption}: what models take and how fast they are"),
        &titles,
    )
    .rows(rows)
}

/// What to do about a borderline row, in few words; the columns say the rest.
fn advice(row: &ModelRow) -> String {
    let used = row.utilization.unwrap_or(0.0);
    match row.tier {
        Tier::Borderline if used > 1.0 => {
            format!("Cap the context at {} tokens.", tokens(row.max_context))
        }
        Tier::Borderline if used > NO_LONG_CONTEXT => {
            "Little of effective memory is left; the limit itself holds up to the max context."
                .into()
        }
        Tier::Borderline => "Verify the KV cache at the context that you need.".into(),
        _ => String::new(),
    }
}

fn too_large(rows: &[&ModelRow]) -> Table {
    let titles = ["Model", "Quant", ">Weights", "Use", "Comfortable on"];
    let rows = rows.iter().map(|row| {
        Row::new(vec![
            Cell::model(&row.name, &row.id),
            Cell::text(row.quant.clone()),
            Cell::text(gb(row.weights_bytes)),
            Cell::share(row.utilization),
            match &row.larger {
                Some((id, name)) => Cell::Link {
                    text: name.clone(),
                    to: Target::Combo(id.clone()),
                },
                None => Cell::text("–"),
            },
        ])
        // The share says why, where there is one.
        .note(match row.utilization {
            Some(_) => String::new(),
            None => row
                .reasons
                .first()
                .map(|why| sentence(why))
                .unwrap_or_default(),
        })
    });
    Table::new("Models that do not fit, and where they would", &titles).rows(rows)
}

fn unknown(rows: &[&ModelRow]) -> Table {
    let rows = rows.iter().map(|row| {
        let why = row.reasons.first().map_or("", String::as_str);
        let why = words::unknown(&row.name, why);
        Row::new(vec![
            Cell::model(&row.name, &row.id),
            Cell::text(sentence(&why).trim_end_matches('.')),
        ])
    });
    Table::new("Models of which a fact is missing", &["Model", "Missing"]).rows(rows)
}

fn tokens(context: Option<u32>) -> String {
    context.map_or_else(|| "–".into(), |tokens| thousands(i64::from(tokens)))
}
