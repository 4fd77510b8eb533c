//! Every combo and machine of the catalog that runs a model.

use serde::Serialize;

use super::Page;
use super::doc::{Block, Cell, Doc, Figure, Row, Section, Table, Target};
use super::format::{and, count, gb, gib, thousands, times};
use super::formats;
use super::parts::{Counts, Stamp};
use super::words;
use crate::FitError;
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::evidence::Estimate;
use crate::machine::Machine;
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
    /// What to know about formats; empty where all are the one that Brigade runs.
    pub format_note: String,
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
    /// What of it is system memory beside GPUs.
    pub ram_bytes: u64,
    /// The quantization there: the smallest production one that its runtimes read, unless one was
    /// asked for.
    pub quant: String,
    /// Bytes of its tensors.
    pub weights_bytes: u64,
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
            .filter(|(kind, cluster)| !twice(catalog, *kind, cluster))
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
            format_note: places
                .iter()
                .find_map(|place| formats::note(catalog, model, &place.quant, 1))
                .unwrap_or_default(),
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

/// Whether a place is a combo of one machine that is a place itself: it counts once.
pub(crate) fn twice(catalog: &Catalog, kind: PlaceKind, cluster: &Cluster) -> bool {
    let sold = |machine: &Machine| {
        let mut machines = catalog.machines.iter();
        machines.any(|sold| sold.machine == *machine)
    };
    kind == PlaceKind::Combo && matches!(&cluster.nodes[..], [one] if sold(&one.machine))
}

/// Every machine and combo of the catalog.
pub(crate) fn places(catalog: &Catalog) -> Vec<(PlaceKind, Cluster)> {
    let machines = catalog.machines.iter();
    let machines = machines.map(|sold| (PlaceKind::Machine, Cluster::alone(sold.machine.clone())));
    let combos = catalog.combos.iter();
    let combos = combos.map(|combo| (PlaceKind::Combo, combo.cluster.clone()));
    machines.chain(combos).collect()
}

impl Place {
    /// Its memory, that of GPUs and the RAM beside them apart.
    pub(super) fn memory(&self) -> String {
        match self.ram_bytes {
            0 => gib(self.memory_bytes),
            ram => format!(
                "{} + {}",
                gib(self.memory_bytes - ram).trim_end_matches(" GiB"),
                gib(ram)
            ),
        }
    }

    pub(crate) fn new(kind: PlaceKind, cluster: &Cluster, verdict: &Verdict) -> Self {
        Self {
            id: cluster.id.clone(),
            name: times(&cluster.name),
            kind,
            memory_bytes: cluster.total_bytes(),
            ram_bytes: cluster.ram_beside_gpus(),
            quant: verdict.quant.clone(),
            weights_bytes: verdict.weights_bytes,
            tier: verdict.tier,
            utilization: verdict.utilization,
            max_context: verdict.plan_max_context,
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
                Figure::new(
                    "Weights",
                    gb(self.weights_bytes),
                    if quants(self).len() > 1 {
                        format!("{}, the smallest", self.quant)
                    } else {
                        self.quant.clone()
                    },
                ),
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
    let quants = quants(page);
    let (at, each) = match &quants[..] {
        [] if page.quant.is_empty() => (" at an unknown quantization".to_owned(), String::new()),
        [] => {
            let size = gb(page.weights_bytes);
            (format!(" at {} ({size})", page.quant), String::new())
        }
        [(name, bytes, _)] => (format!(" at {name} ({})", gb(*bytes)), String::new()),
        several => {
            let each = several
                .iter()
                .map(|(name, bytes, places)| format!("{name} ({}) on {places}", gb(*bytes)));
            let each: Vec<String> = each.collect();
            let words = format!(
                " Each place has the smallest production quantization that its runtimes read: {}.",
                and(&each)
            );
            (String::new(), words)
        }
    };
    let mut answer = vec![format!(
        "{}{at} runs on {} of the {} machines and combos of the catalog, on {} of them comfortably.{each}",
        page.name,
        runs,
        page.counts.total(),
        page.counts.comfortable,
    )];
    let smallest = |kind, what: &str| {
        page.smallest(kind).map(|place| {
            let rate = place.decode_tok_s.as_ref();
            let rate = rate.map_or_else(String::new, |rate| {
                format!(", {}", words::rate_at(rate, page.context))
            });
            format!(
                "the smallest comfortable {what} is {} ({}){}{rate}",
                place.name,
                place.memory(),
                if each.is_empty() {
                    String::new()
                } else {
                    format!(", at {}", place.quant)
                }
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
    if !page.format_note.is_empty() {
        answer.push(page.format_note.clone());
    }
    answer
}

/// The quantizations of its places with their bytes and in how many places each is, the most
/// frequent first.
fn quants(page: &EverywherePage) -> Vec<(&str, u64, usize)> {
    let mut quants: Vec<(&str, u64, usize)> = Vec::new();
    for place in &page.places {
        match quants.iter_mut().find(|(name, ..)| *name == place.quant) {
            Some((_, _, places)) => *places += 1,
            None => quants.push((&place.quant, place.weights_bytes, 1)),
        }
    }
    quants.sort_by_key(|(name, _, places)| (std::cmp::Reverse(*places), *name));
    quants
}

/// Where it runs: the first `most` places.
pub(super) fn table(page: &EverywherePage, most: usize) -> Table {
    // What is the same of all places is said once, above: a row has little room.
    let several = quants(page).len() > 1;
    let mixed = page.counts.borderline > 0;
    let mut titles = vec!["Place", ">Memory"];
    titles.extend(several.then_some("Quant"));
    titles.extend(mixed.then_some("Tier"));
    titles.extend(["Use", "Decode, tok/s", ">Max context"]);
    let rows = page.places.iter().take(most).map(|place| {
        let mut cells = vec![place.cell(), Cell::text(place.memory())];
        cells.extend(several.then(|| Cell::text(place.quant.clone())));
        cells.extend(mixed.then_some(Cell::Tier { tier: place.tier }));
        cells.push(Cell::share(place.utilization));
        cells.push(Cell::rate(place.decode_tok_s));
        let most = place.max_context;
        cells.push(Cell::text(
            most.map_or_else(|| "–".into(), |tokens| thousands(i64::from(tokens))),
        ));
        Row::new(cells)
    });
    let caption = format!(
        "{} that run {}",
        count(page.places.len(), "place"),
        page.name
    );
    Table::new(caption, &titles).rows(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::placement::fixtures::Roofline;

    #[test]
    fn each_place_stands_once_with_its_own_quantization() {
        let catalog = Catalog::embedded().expect("the catalog is whole");
        let model = catalog.model("llama-3.3-70b").expect("a model");
        let page = EverywherePage::new(&catalog, model, &Ask::default(), &Roofline);
        let page = page.expect("a page");
        let several = catalog
            .combos
            .iter()
            .filter(|combo| combo.cluster.nodes.len() > 1);
        let places = catalog.machines.len() + several.count();
        assert_eq!(page.counts.total(), places);
        assert!(page.places.iter().all(|place| {
            place.kind == PlaceKind::Machine
                || catalog
                    .combo(&place.id)
                    .is_some_and(|combo| combo.cluster.nodes.len() > 1)
        }));
        let quants = quants(&page);
        let names: Vec<&str> = quants.iter().map(|(name, ..)| *name).collect();
        assert!(names.contains(&"Q4_K_M") && names.contains(&"mlx-4bit"));
        let said = answer(&page).join(" ");
        assert!(
            said.contains(
                "mlx-4bit is MLX, for exo and mlx-lm; Brigade runs GGUF: add --format gguf."
            ),
            "{said}"
        );
        assert!(said.contains("with 8,192 tokens in context ("), "{said}");
        // Asked for by name, it is the same everywhere.
        let ask = Ask {
            quant: Some("Q4_K_M".into()),
            ..Ask::default()
        };
        let page = EverywherePage::new(&catalog, model, &ask, &Roofline).expect("a page");
        assert_eq!(page.format_note, "");
        assert!(answer(&page)[0].contains(" at Q4_K_M ("));
    }
}
