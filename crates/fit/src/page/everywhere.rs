//! Every combo and machine of the catalog that runs a model.

use serde::Serialize;

use super::Page;
use super::doc::{Block, Cell, Doc, Figure, Row, Section, Table, Target};
use super::format::{count, gb, gib, thousands, times};
use super::parts::{Counts, Stamp, alone, rate_words};
use crate::FitError;
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::evidence::Estimate;
use crate::model::Model;
use crate::speed::Speed;
use crate::verdict::{Ask, Tier, Verdict, assess};

/// Every place that runs a model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EverywherePage {
    /// `brigade.everywhere/1`.
    pub schema: &'static str,
    /// The model's id.
    pub id: String,
    /// The model's name.
    pub name: String,
    /// The quantization that decides.
    pub quant: String,
    /// Bytes of its tensors.
    pub weights_bytes: u64,
    /// Tokens of context.
    pub context: u32,
    /// Where it runs, smallest memory first.
    pub places: Vec<Place>,
    /// All places of the catalog, by tier.
    pub counts: Counts,
    /// Version and date.
    pub catalog: Stamp,
}

/// A combo or a machine with what a model does there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Place {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whether it is one machine or a combo of the catalog.
    pub kind: PlaceKind,
    /// All its memory.
    pub memory_bytes: u64,
    /// The tier.
    pub tier: Tier,
    /// Working set ÷ effective memory on the binding node.
    pub utilization: Option<f64>,
    /// The largest context that fits.
    pub max_context: Option<u32>,
    /// One stream.
    pub decode_tok_s: Option<Estimate>,
}

/// What a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlaceKind {
    /// One machine that is sold.
    Machine,
    /// A combo of the catalog.
    Combo,
}

impl EverywherePage {
    /// The page of a model, which need not be of the catalog.
    pub fn new(
        catalog: &Catalog,
        model: &Model,
        ask: &Ask,
        speed: &dyn Speed,
    ) -> Result<Self, FitError> {
        let verdicts: Result<Vec<_>, FitError> = places(catalog)
            .into_iter()
            .map(|(kind, cluster)| {
                let verdict = assess(model, &cluster, ask, speed)?;
                Ok(Place::new(kind, &cluster, &verdict))
            })
            .collect();
        Ok(Self::of(catalog, model, ask, verdicts?))
    }

    /// The page of a model whose places are known.
    pub(crate) fn of(catalog: &Catalog, model: &Model, ask: &Ask, mut places: Vec<Place>) -> Self {
        let counts = Counts::of(places.iter().map(|place| place.tier));
        places.retain(|place| matches!(place.tier, Tier::Comfortable | Tier::Borderline));
        places.sort_by(|a, b| {
            a.memory_bytes
                .cmp(&b.memory_bytes)
                .then(a.tier.cmp(&b.tier))
                .then_with(|| a.id.cmp(&b.id))
        });
        let own = |name: &String| model.quants.iter().find(|quant| quant.name == *name);
        let quant = match &ask.quant {
            Some(name) => own(name),
            None => model.production_quant(ask.format),
        };
        Self {
            schema: "brigade.everywhere/1",
            id: model.id.clone(),
            name: model.name.clone(),
            quant: quant.map(|quant| quant.name.clone()).unwrap_or_default(),
            weights_bytes: quant.map_or(0, |quant| quant.weights.total()),
            context: match model.max_context {
                0 => ask.context,
                own => ask.context.min(own),
            },
            places,
            counts,
            catalog: Stamp::of(catalog),
        }
    }

    /// The places of a kind where it is comfortable, smallest memory first.
    pub(super) fn comfortable(&self, kind: PlaceKind) -> impl Iterator<Item = &Place> {
        let places = self.places.iter();
        places.filter(move |place| place.kind == kind && place.tier == Tier::Comfortable)
    }

    /// The smallest place of a kind where it is comfortable.
    pub(super) fn smallest(&self, kind: PlaceKind) -> Option<&Place> {
        self.comfortable(kind).next()
    }
}

/// Every machine and combo of the catalog; a combo of one machine is that machine.
pub(crate) fn places(catalog: &Catalog) -> Vec<(PlaceKind, Cluster)> {
    let machines = catalog.machines.iter();
    let machines = machines.map(|sold| (PlaceKind::Machine, alone(&sold.machine)));
    let combos = catalog.combos.iter();
    let combos = combos.map(|combo| (PlaceKind::Combo, combo.cluster.clone()));
    machines.chain(combos).collect()
}

impl Place {
    pub(crate) fn new(kind: PlaceKind, cluster: &Cluster, verdict: &Verdict) -> Self {
        Self {
            id: cluster.id.clone(),
            name: times(&cluster.name),
            kind,
            memory_bytes: cluster.total_bytes(),
            tier: verdict.tier,
            utilization: verdict.utilization,
            max_context: verdict.max_context,
            decode_tok_s: verdict.decode_tok_s,
        }
    }

    pub(super) fn cell(&self) -> Cell {
        Cell::Link {
            text: self.name.clone(),
            to: match self.kind {
                PlaceKind::Machine => Target::Machine(self.id.clone()),
                PlaceKind::Combo => Target::Combo(self.id.clone()),
            },
        }
    }
}

impl Page for EverywherePage {
    fn doc(&self) -> Doc {
        Doc {
            kind: "Everywhere",
            title: format!("What runs {}?", self.name),
            answer: answer(self),
            figures: vec![
                Figure::new("Weights", gb(self.weights_bytes), self.quant.clone()),
                Figure::new(
                    "Context",
                    thousands(i64::from(self.context)),
                    "tokens, one sequence",
                ),
                Figure::new(
                    "Places",
                    thousands(self.counts.total() as i64),
                    self.counts.words(),
                ),
            ],
            sections: vec![Section::new(
                "places",
                "Where it runs, smallest memory first",
                vec![Block::Table(table(self, usize::MAX))],
            )],
        }
    }
}

/// Where it runs, in two sentences.
pub(super) fn answer(page: &EverywherePage) -> Vec<String> {
    let runs = page.counts.comfortable + page.counts.borderline;
    let mut answer = vec![format!(
        "{} at {} ({}) runs on {} of the {} machines and combos of the catalog, on {} of them comfortably.",
        page.name,
        if page.quant.is_empty() {
            "an unknown quantization"
        } else {
            &page.quant
        },
        gb(page.weights_bytes),
        runs,
        page.counts.total(),
        page.counts.comfortable,
    )];
    let smallest = |kind, what: &str| {
        page.smallest(kind).map(|place| {
            let rate = place.decode_tok_s.as_ref();
            let rate = rate.map_or_else(String::new, |rate| format!(", {}", rate_words(rate)));
            format!(
                "the smallest comfortable {what} is {} ({}){rate}",
                place.name,
                gib(place.memory_bytes)
            )
        })
    };
    let parts: Vec<String> = [
        smallest(PlaceKind::Machine, "machine"),
        smallest(PlaceKind::Combo, "combo"),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !parts.is_empty() {
        answer.push(super::format::sentence(&parts.join("; ")));
    }
    answer
}

/// Where it runs: the first `most` places.
pub(super) fn table(page: &EverywherePage, most: usize) -> Table {
    let titles = [
        "Place",
        ">Memory",
        "Tier",
        "Use",
        "Decode, tok/s",
        ">Max context",
    ];
    let rows = page.places.iter().take(most).map(|place| {
        Row::new(vec![
            place.cell(),
            Cell::text(gib(place.memory_bytes)),
            Cell::Tier { tier: place.tier },
            Cell::share(place.utilization),
            Cell::rate(place.decode_tok_s),
            Cell::text(
                place
                    .max_context
                    .map_or_else(|| "–".into(), |tokens| thousands(i64::from(tokens))),
            ),
        ])
    });
    let caption = format!(
        "{} that run {}",
        count(page.places.len(), "place"),
        page.name
    );
    Table::new(caption, &titles).rows(rows)
}
