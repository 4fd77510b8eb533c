//! The guide as blocks.

use super::{Guide, HopRow};
use crate::page::Page;
use crate::page::doc::{Block, Cell, Doc, Figure, Row, Section, Table, Target};
use crate::page::everywhere::Place;
use crate::page::format::{and, brief, count, gb, percent, sentence, short};
use crate::page::thresholds;

impl Page for Guide {
    fn doc(&self) -> Doc {
        let mut sections = vec![worth(self)];
        if !self.hops.is_empty() {
            sections.push(links(self));
        }
        if !self.fewer.is_empty() {
            sections.push(fewer_section(self));
        }
        sections.push(sizes(self));
        sections.push(Section::new(
            "cite",
            "To cite",
            vec![Block::text(thresholds::cite(
                "When several machines are worth it",
                &self.catalog,
            ))],
        ));
        Doc {
            kind: "Guide",
            title: "When are several machines worth it, and which links matter?".into(),
            answer: self.answer(),
            figures: self.figures(),
            sections,
        }
    }
}

impl Guide {
    fn answer(&self) -> Vec<String> {
        let mut answer = vec![
            "Take several machines for memory, or for many users; not to make one answer faster. If one machine that you can get holds the model, the fastest such machine wins.".into(),
        ];
        answer.extend(self.spread());
        answer
    }

    /// What the best and the worst link leave of the speed.
    fn spread(&self) -> Option<String> {
        let first = self.hops.first()?;
        let rows: Vec<&HopRow> = self
            .hops
            .iter()
            .filter(|row| row.model == first.model)
            .collect();
        let left = |row: &HopRow| Some(row.tok_s.2? / row.tok_s.0);
        let (best, worst) = (rows.first()?, rows.last()?);
        Some(format!(
            "Four nodes in a pipeline keep {} of one node's speed over {} and {} over {}, for {}: the latency of a link decides, its bandwidth hardly.",
            percent(left(best)?),
            best.name,
            percent(left(worst)?),
            worst.name,
            first.model
        ))
    }

    fn figures(&self) -> Vec<Figure> {
        let one = self
            .smallest
            .iter()
            .filter(|row| row.machine.is_some())
            .count();
        let only = self
            .smallest
            .iter()
            .filter(|row| row.machine.is_none() && row.combo.is_some());
        let none = self
            .smallest
            .iter()
            .filter(|row| row.machine.is_none() && row.combo.is_none());
        vec![
            Figure::new(
                "One machine is enough",
                count(one, "model"),
                "comfortable on some machine of the catalog",
            ),
            Figure::new(
                "Several are needed",
                count(only.count(), "model"),
                "comfortable on a combo only",
            ),
            Figure::new(
                "Nothing is enough",
                count(none.count(), "model"),
                "comfortable nowhere in the catalog",
            ),
        ]
    }
}

fn worth(guide: &Guide) -> Section {
    let mut items: Vec<String> = Vec::new();
    let only: Vec<String> = guide
        .smallest
        .iter()
        .filter(|row| row.machine.is_none() && row.combo.is_some())
        .map(|row| row.name.clone())
        .collect();
    if !only.is_empty() {
        items.push(format!(
            "Models that only a combo of the catalog runs comfortably: {}.",
            and(&only)
        ));
    }
    let saves = guide
        .smallest
        .iter()
        .filter(|row| match (&row.machine, &row.combo) {
            (Some(machine), Some(combo)) => combo.memory_bytes < machine.memory_bytes,
            _ => false,
        });
    let saves: Vec<String> = saves.map(|row| row.name.clone()).collect();
    if !saves.is_empty() {
        items.push(format!(
            "Models for which the smallest comfortable combo has less memory than the smallest comfortable machine: {}.",
            and(&saves)
        ));
    }
    let mut blocks = thresholds::splits(2);
    if !items.is_empty() {
        blocks.push(Block::heading("From the catalog"));
        blocks.push(Block::List { items });
    }
    Section::new("worth", "When it is worth it", blocks)
}

fn links(guide: &Guide) -> Section {
    let mut blocks = vec![Block::text(format!(
        "Each row is a layer pipeline over 2 and 4 nodes like {}, the largest unified memory of the catalog: a slower machine loses a smaller share. One stream, over TCP, by Brigade's stages; each token crosses every link once, and once more back to the first node. What a link's latency is known from stands beside it: where one is estimated and another was measured, rows that are near each other have no order.",
        guide.machine
    ))];
    let mut models: Vec<&str> = guide.hops.iter().map(|row| row.model.as_str()).collect();
    models.dedup();
    for model in models {
        let titles = [
            "Link",
            ">Latency",
            ">Bandwidth",
            "Known",
            ">A hop",
            ">1 node",
            ">2 nodes",
            ">4 nodes",
            ">Kept at 4",
        ];
        let rows = guide
            .hops
            .iter()
            .filter(|row| row.model == model)
            .map(|row| {
                let rate = |rate: Option<f64>| rate.map_or_else(|| "–".to_owned(), brief);
                Row::new(vec![
                    Cell::text(row.name.clone()),
                    Cell::text(format!("{} ms", short(row.latency_ms))),
                    Cell::text(format!("{} GB/s", short(row.bandwidth_gb_s))),
                    Cell::text(row.evidence.name()),
                    Cell::text(format!("{} ms", short(row.hop_ms))),
                    Cell::text(brief(row.tok_s.0)),
                    Cell::text(rate(row.tok_s.1)),
                    Cell::text(rate(row.tok_s.2)),
                    Cell::text(
                        row.tok_s
                            .2
                            .map_or_else(|| "–".into(), |four| percent(four / row.tok_s.0)),
                    ),
                ])
            });
        blocks.push(Block::heading(format!("{model}, tok/s of one stream")));
        let caption = format!("What links leave of the speed of {model}");
        blocks.push(Block::Table(Table::new(caption, &titles).rows(rows)));
    }
    Section::new("links", "Which links matter", blocks)
}

fn fewer_section(guide: &Guide) -> Section {
    let titles = [
        "Combo",
        "Model",
        ">One node, tok/s",
        ">In a pipeline, tok/s",
        ">Lost",
        "Way",
    ];
    let rows = guide.fewer.iter().map(|row| {
        Row::new(vec![
            Cell::Link {
                text: row.name.clone(),
                to: Target::Combo(row.combo.clone()),
            },
            Cell::text(row.model.clone()),
            Cell::text(brief(row.one_tok_s)),
            Cell::text(brief(row.all_tok_s)),
            Cell::text(percent(1.0 - row.all_tok_s / row.one_tok_s)),
            Cell::text(row.way.clone()),
        ])
    });
    let table = Table::new("Combos on which one node is faster", &titles).rows(rows);
    Section::new(
        "fewer",
        "Where fewer nodes are faster",
        vec![
            Block::text(
                "On each combo, the model that loses most when it is spread although one node holds it.",
            ),
            Block::Table(table),
        ],
    )
}

fn sizes(guide: &Guide) -> Section {
    let titles = [
        "Model",
        ">Weights",
        "Smallest machine",
        ">Memory",
        ">tok/s",
        "Smallest combo of several",
        ">Memory",
        ">tok/s",
    ];
    let rows = guide.smallest.iter().map(|row| {
        let mut cells = vec![
            Cell::model(&row.name, &row.id),
            Cell::text(gb(row.weights_bytes)),
        ];
        for place in [&row.machine, &row.combo] {
            let rate = place.as_ref().and_then(|place| place.decode_tok_s);
            cells.push(place.as_ref().map_or_else(|| Cell::text("–"), Place::cell));
            cells.push(Cell::text(
                place.as_ref().map_or_else(String::new, Place::memory),
            ));
            cells.push(Cell::text(
                rate.map_or_else(String::new, |rate| brief(rate.mid)),
            ));
        }
        Row::new(cells)
    });
    let table = Table::new("Models with the smallest places that run them", &titles).rows(rows);
    let text = sentence(
        "the smallest machine and the smallest combo of several machines that run a model comfortably at its smallest production quantization, by memory",
    );
    Section::new(
        "smallest",
        "Models by the memory they need",
        vec![Block::text(text), Block::Table(table)],
    )
}
