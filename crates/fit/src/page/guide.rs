//! When several machines are worth it, and which links matter: computed from the catalog.

use serde::Serialize;

use super::Page;
use super::combo::ComboPage;
use super::doc::{Block, Cell, Doc, Figure, Row, Section, Table, Target};
use super::everywhere::{Place, PlaceKind};
use super::format::{and, brief, count, gb, gib, percent, sentence, short};
use super::link::hop_ms;
use super::model::ModelPage;
use super::parts::{Stamp, alone};
use super::thresholds;
use crate::FitError;
use crate::catalog::Catalog;
use crate::catalog::links::LinkKind;
use crate::cluster::{Cluster, Link, Links, Node};
use crate::machine::{Machine, PoolKind};
use crate::model::Model;
use crate::placement::{HOP_SOFTWARE_MS, Speed};
use crate::verdict::{Ask, Detail, Split, assess};

/// When several machines are worth it, and which links matter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Guide {
    /// The machine that all link rows are about.
    pub machine: String,
    /// What a hop costs, by link and model, the cheapest first.
    pub hops: Vec<HopRow>,
    /// Each model with the smallest machine and combo that run it comfortably.
    pub smallest: Vec<SmallestRow>,
    /// Combos on which fewer nodes are faster, with a model that fits one.
    pub fewer: Vec<FewerRow>,
    /// Version and date.
    pub catalog: Stamp,
}

/// What pipelines over a link make of a model that fits one node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HopRow {
    /// The link's id.
    pub link: String,
    /// The link's name.
    pub name: String,
    /// One way over TCP, in milliseconds.
    pub latency_ms: f64,
    /// Over TCP, in 10⁹ bytes a second.
    pub bandwidth_gb_s: f64,
    /// The model's name.
    pub model: String,
    /// What one hop costs a token of it, in milliseconds.
    pub hop_ms: f64,
    /// Tokens a second on one node, and in pipelines over 2 and 4.
    pub tok_s: (f64, Option<f64>, Option<f64>),
}

/// A model with the smallest places that run it comfortably.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SmallestRow {
    /// The model's id.
    pub id: String,
    /// The model's name.
    pub name: String,
    /// Bytes of its weights.
    pub weights_bytes: u64,
    /// The machine.
    pub machine: Option<Place>,
    /// The combo of several machines.
    pub combo: Option<Place>,
}

/// A combo on which one node is faster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FewerRow {
    /// The combo's id.
    pub combo: String,
    /// The combo's name.
    pub name: String,
    /// The model with its quantization.
    pub model: String,
    /// Tokens a second on one node.
    pub one_tok_s: f64,
    /// In the longest pipeline.
    pub all_tok_s: f64,
    /// Which pipeline that is.
    pub way: String,
}

impl Guide {
    /// The guide from pages that are made.
    pub(crate) fn new(
        catalog: &Catalog,
        combos: &[ComboPage],
        models: &[ModelPage],
        ask: &Ask,
        speed: &dyn Speed,
    ) -> Result<Self, FitError> {
        let machine = catalog
            .machines
            .iter()
            .map(|sold| &sold.machine)
            .filter(|machine| matches!(&machine.pools[..], [one] if one.kind == PoolKind::Unified))
            .max_by_key(|machine| machine.memory_bytes());
        let mut hops = Vec::new();
        if let Some(machine) = machine {
            for model in references(catalog) {
                hops.extend(hop_rows(catalog, machine, model, ask, speed)?);
            }
        }
        Ok(Self {
            machine: machine
                .map(|machine| machine.name.clone())
                .unwrap_or_default(),
            hops,
            smallest: smallest(catalog, models),
            fewer: combos.iter().filter_map(fewer).collect(),
            catalog: Stamp::of(catalog),
        })
    }
}

/// Models that show what a hop costs: a dense one of about 70 B, and the mixture of experts with
/// the fewest active parameters of at least 20 B.
fn references(catalog: &Catalog) -> Vec<&Model> {
    let known = || {
        catalog
            .models
            .iter()
            .filter(|model| model.missing.is_empty())
    };
    let dense = known()
        .filter(|model| model.experts == 0)
        .min_by_key(|model| {
            (
                model.params.abs_diff(70_000_000_000),
                std::cmp::Reverse(&model.date),
            )
        });
    let sparse = known()
        .filter(|model| model.experts > 0 && model.params > 20_000_000_000)
        .min_by_key(|model| model.active_params);
    dense.into_iter().chain(sparse).collect()
}

fn hop_rows(
    catalog: &Catalog,
    machine: &Machine,
    model: &Model,
    ask: &Ask,
    speed: &dyn Speed,
) -> Result<Vec<HopRow>, FitError> {
    let ask = Ask {
        detail: Detail::Full,
        ..ask.clone()
    };
    let mut rows = Vec::new();
    let between = catalog
        .links
        .iter()
        .filter(|link| !matches!(link.kind, LinkKind::Host | LinkKind::Loopback));
    for link in between {
        let verdict = assess(model, &four(machine, &link.link), &ask, speed)?;
        let rate = |split: Split, name: &str| {
            let mut ways = verdict.alternatives.iter();
            ways.find(|way| way.split == split && way.name.contains(name))
                .and_then(|way| way.decode_tok_s)
                .map(|rate| rate.mid)
        };
        let Some(one) = rate(Split::OneNode, "") else {
            continue;
        };
        rows.push(HopRow {
            link: link.link.id.clone(),
            name: link.link.name.clone(),
            latency_ms: link.link.latency_ms,
            bandwidth_gb_s: link.link.bandwidth_gb_s,
            model: model.name.clone(),
            hop_ms: hop_ms(&link.link, model.hidden) + HOP_SOFTWARE_MS,
            tok_s: (
                one,
                rate(Split::Pipeline, "over 2 nodes"),
                rate(Split::Pipeline, "over 4 nodes"),
            ),
        });
    }
    rows.sort_by(|a, b| {
        a.hop_ms
            .total_cmp(&b.hop_ms)
            .then_with(|| a.link.cmp(&b.link))
    });
    Ok(rows)
}

fn four(machine: &Machine, link: &Link) -> Cluster {
    let mut cluster = alone(machine);
    cluster.nodes = (1..=4)
        .map(|number| Node {
            name: format!("node-{number}"),
            machine: machine.clone(),
        })
        .collect();
    cluster.links = Links::Uniform(link.clone());
    cluster
}

fn smallest(catalog: &Catalog, models: &[ModelPage]) -> Vec<SmallestRow> {
    let several = |place: &&Place| {
        let combo = catalog.combo(&place.id);
        combo.is_some_and(|combo| combo.cluster.nodes.len() > 1)
    };
    let mut rows: Vec<SmallestRow> = models
        .iter()
        .map(|page| &page.everywhere)
        .filter(|page| page.weights_bytes > 0)
        .map(|page| SmallestRow {
            id: page.id.clone(),
            name: page.name.clone(),
            weights_bytes: page.weights_bytes,
            machine: page.smallest(PlaceKind::Machine).cloned(),
            combo: page.comfortable(PlaceKind::Combo).find(several).cloned(),
        })
        .collect();
    rows.sort_by(|a, b| (b.weights_bytes, &a.id).cmp(&(a.weights_bytes, &b.id)));
    rows
}

fn fewer(page: &ComboPage) -> Option<FewerRow> {
    let cases = page.splits.iter().filter_map(|case| {
        let (one, all, way) = case.one_and_all()?;
        Some(FewerRow {
            combo: page.head.combo.clone(),
            name: page.head.name.clone(),
            model: case.name.clone(),
            one_tok_s: one,
            all_tok_s: all,
            way: way.to_owned(),
        })
    });
    cases
        .filter(|row| row.one_tok_s > row.all_tok_s)
        .max_by(|a, b| (a.one_tok_s / a.all_tok_s).total_cmp(&(b.one_tok_s / b.all_tok_s)))
}

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
            "Take several machines for memory, or for many users; not to make one answer faster. If one machine that you can get holds the model, it wins.".into(),
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
        "Each row is a layer pipeline over 2 and 4 nodes like {}, the largest unified memory of the catalog: a slower machine loses a smaller share. One stream, over TCP; each token crosses every link once, and once more back to the first node.",
        guide.machine
    ))];
    let mut models: Vec<&str> = guide.hops.iter().map(|row| row.model.as_str()).collect();
    models.dedup();
    for model in models {
        let titles = [
            "Link",
            ">Latency",
            ">Bandwidth",
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
        ">All nodes, tok/s",
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
                place
                    .as_ref()
                    .map_or_else(String::new, |place| gib(place.memory_bytes)),
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
