//! The catalog: facts of machines, links, models and programs, and what was measured, each with
//! its source.
//!
//! The files of `catalog/` are embedded; a folder of files with the same names may replace entries
//! by their ids and add new ones. Every value is checked when it is read: an error names the file,
//! the line and the field.

pub mod combos;
pub mod evidence;
pub mod failures;
pub mod hardware;
pub mod links;
pub mod measurements;
mod models;
pub mod named;
pub mod notes;
mod ports;
pub(crate) mod read;
pub mod runtimes;

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::{Cluster, Link};
use crate::error::FitError;
use crate::machine::limit::{LimitRule, limit};
use crate::machine::{Pool, PoolKind};
use crate::memory::{self, Overhead};
use crate::model::Model;
use crate::model::mix::{self, Mix};
use crate::nearest::nearest;
use crate::speed::fitted::{self, Fitted};

use combos::{Combo, ComboLine};
use evidence::SourceKind;
use failures::Failure;
use hardware::{Device, Hardware, SoldMachine};
use links::{CatalogLink, LinkKind};
use measurements::{Measurement, Refusal};
use named::NamedModel;
use notes::MissNote;
use read::{File, Row, merge};
use runtimes::{Runtime, RuntimeFit};

/// The embedded files that this reader knows, by name.
const FILES: [(&str, &str); 14] = [
    (
        "backtest.toml",
        include_str!("../../../catalog/backtest.toml"),
    ),
    ("combos.toml", include_str!("../../../catalog/combos.toml")),
    (
        "evidence.toml",
        include_str!("../../../catalog/evidence.toml"),
    ),
    (
        "failures.toml",
        include_str!("../../../catalog/failures.toml"),
    ),
    (
        "hardware.toml",
        include_str!("../../../catalog/hardware.toml"),
    ),
    ("links.toml", include_str!("../../../catalog/links.toml")),
    (
        "measurements-refused.toml",
        include_str!("../../../catalog/measurements-refused.toml"),
    ),
    (
        "measurements.csv",
        include_str!("../../../catalog/measurements.csv"),
    ),
    ("models.toml", include_str!("../../../catalog/models.toml")),
    ("names.toml", include_str!("../../../catalog/names.toml")),
    (
        "overheads.toml",
        include_str!("../../../catalog/overheads.toml"),
    ),
    (
        "quantizations.toml",
        include_str!("../../../catalog/quantizations.toml"),
    ),
    (
        "runtimes.toml",
        include_str!("../../../catalog/runtimes.toml"),
    ),
    ("speed.toml", include_str!("../../../catalog/speed.toml")),
];

/// All facts.
#[derive(Debug, Clone, PartialEq)]
pub struct Catalog {
    /// Chips, GPUs and CPUs.
    pub devices: Vec<Device>,
    /// Machines that are sold, one for each memory size.
    pub machines: Vec<SoldMachine>,
    /// What is usable of a memory.
    pub limits: Vec<LimitRule>,
    /// What a runtime takes besides its buffers.
    pub overheads: Vec<Overhead>,
    /// Kinds of links.
    pub links: Vec<CatalogLink>,
    /// Named sets of machines.
    pub combos: Vec<Combo>,
    /// Models.
    pub models: Vec<Model>,
    /// Quantizations, by the types of their tensors.
    pub mixes: Vec<Mix>,
    /// Programs that run models.
    pub runtimes: Vec<Runtime>,
    /// What goes wrong.
    pub failures: Vec<Failure>,
    /// Kinds of source, and what each is worth.
    pub sources: Vec<SourceKind>,
    /// What was measured, without what is refused.
    pub measurements: Vec<Measurement>,
    /// Measured rows that cannot be right, which inform nothing.
    pub wrong: Vec<Measurement>,
    /// Why they cannot.
    pub refused: Vec<Refusal>,
    /// Models that are known by name and speed only.
    pub named: Vec<NamedModel>,
    /// Why some predictions miss.
    pub misses: Vec<MissNote>,
    /// Parameters of the speed model, fitted to the measurements.
    pub fitted: Fitted,
}

/// The rows of all files, before names are looked up.
struct Rows {
    hardware: Hardware,
    overheads: Vec<Row<Overhead>>,
    links: Vec<Row<CatalogLink>>,
    combos: Vec<Row<ComboLine>>,
    models: Vec<Row<models::Written>>,
    mixes: Vec<Mix>,
    runtimes: Vec<Row<Runtime>>,
    failures: Vec<Row<Failure>>,
    sources: Vec<Row<SourceKind>>,
    refused: Vec<Row<Refusal>>,
    named: Vec<Row<NamedModel>>,
    misses: Vec<Row<MissNote>>,
    fitted: Option<Fitted>,
}

impl Catalog {
    /// The catalog that the program carries. Tests read it, so that no error is left in it.
    pub fn embedded() -> Result<Self, FitError> {
        Self::from_files(&BTreeMap::new())
    }

    /// The embedded catalog with files over it, by name: an entry of theirs replaces the one with
    /// its id, or is added. Names that are no catalog's are refused, if they end like one.
    pub fn from_files(files: &BTreeMap<String, String>) -> Result<Self, FitError> {
        refuse_unknown(files)?;
        let embedded: BTreeMap<&str, &str> = FILES.into();
        let mut rows = Rows::read(|name| embedded.get(name).copied().unwrap_or_default())?;
        let over = |name: &str| files.get(name).map_or("", String::as_str);
        let any = files
            .keys()
            .any(|name| embedded.contains_key(name.as_str()));
        let over = any.then(|| Rows::read(over)).transpose()?;
        let mut sources = rows.sources.clone();
        if let Some(over) = &over {
            merge(&mut sources, over.sources.clone());
        }
        let sources = values(sources);
        let csv = "measurements.csv";
        let text = embedded.get(csv).copied().unwrap_or_default();
        let mut measurements = measurements::read(text, csv, &sources)?;
        if let Some(text) = files.get(csv) {
            for row in measurements::read(text, csv, &sources)? {
                match measurements.iter_mut().find(|old| old.id == row.id) {
                    Some(old) => {
                        if !old.is(&row) {
                            rows.forget(&row.id);
                        }
                        *old = row;
                    }
                    None => measurements.push(row),
                }
            }
        }
        if let Some(over) = over {
            rows.merge(over);
        }
        rows.resolve(sources, measurements)
    }

    /// Names of the files that [`Catalog::from_files`] reads.
    pub fn file_names() -> impl Iterator<Item = &'static str> {
        FILES.iter().map(|(name, _)| *name)
    }

    /// A device by its id.
    pub fn device(&self, id: &str) -> Option<&Device> {
        self.devices.iter().find(|device| device.id == id)
    }

    /// A machine by its id.
    pub fn machine(&self, id: &str) -> Option<&SoldMachine> {
        let mut machines = self.machines.iter();
        machines.find(|machine| machine.machine.id == id)
    }

    /// A combo by its id.
    pub fn combo(&self, id: &str) -> Option<&Combo> {
        self.combos.iter().find(|combo| combo.cluster.id == id)
    }

    /// A model by its id, one of its aliases, or its repository; letters of any size.
    pub fn model(&self, name: &str) -> Result<&Model, FitError> {
        let given = folded(name);
        let is = |other: &str| folded(other) == given;
        let found = self.models.iter().find(|model| {
            is(&model.id)
                || model.repo.as_deref().is_some_and(is)
                || model.aliases.iter().any(|alias| is(alias))
        });
        found.ok_or_else(|| FitError::UnknownName {
            kind: "model",
            name: name.to_owned(),
            nearest: nearest(name, self.models.iter().map(|model| model.id.as_str())),
        })
    }

    /// Why a measured row cannot be right, where that is known; of a row that only has the same id as
    /// one of the catalog's nothing is known.
    pub fn refusal(&self, row: &Measurement) -> Option<&str> {
        self.wrong.iter().find(|own| own.is(row))?;
        let known = self.refused.iter().find(|known| known.id == row.id);
        known.map(|known| known.reason.as_str())
    }

    /// Why the prediction of a measured row of the catalog is far off, where that is known.
    pub fn miss(&self, row: &Measurement) -> Option<&str> {
        self.measurements.iter().find(|own| own.is(row))?;
        let known = self.misses.iter().find(|known| known.id == row.id);
        known.map(|known| known.why.as_str())
    }

    /// A link by its id or one of its other names.
    pub fn link(&self, name: &str) -> Result<&CatalogLink, FitError> {
        let given = folded(name);
        let found = self.links.iter().find(|link| {
            let mut names = link.aliases.iter().chain([&link.link.id]);
            names.any(|other| folded(other) == given)
        });
        found.ok_or_else(|| FitError::UnknownName {
            kind: "link",
            name: name.to_owned(),
            nearest: nearest(
                name,
                self.links
                    .iter()
                    .flat_map(|link| link.aliases.iter().chain([&link.link.id]))
                    .map(String::as_str),
            ),
        })
    }

    /// A device's memory as a pool: its own, or `memory_bytes` of the machine's. `None` for an id
    /// that is no device's, or a chip without a memory.
    pub fn pool(&self, device: &str, memory_bytes: Option<u64>) -> Option<Pool> {
        self.device(device)?
            .pool(memory_bytes, &self.limits, &self.overheads)
    }

    /// What is usable of a memory of this family, in bytes, and why; `device` may be empty.
    pub fn limit(&self, family: &str, device: &str, memory_bytes: u64) -> Option<(u64, String)> {
        let limit = limit(&self.limits, family, device, memory_bytes)?;
        Some((limit.bytes, limit.reason))
    }

    /// What a runtime takes in a pool besides its buffers, in bytes; for pools of no device of the
    /// catalog.
    pub fn runtime_bytes(&self, kind: PoolKind, family: &str) -> u64 {
        memory::runtime_bytes(&self.overheads, kind, family)
    }

    /// What can go wrong with this cluster.
    pub fn failures_for(&self, cluster: &Cluster) -> Vec<&Failure> {
        let kind = |id: &str| self.link_kind(id);
        let failures = self.failures.iter();
        failures
            .filter(|failure| failure.applies_to.hold(cluster, kind))
            .collect()
    }

    /// The programs, and whether each can use all of this cluster.
    pub fn runtimes_for(&self, cluster: &Cluster) -> Vec<RuntimeFit> {
        let runtimes = self.runtimes.iter();
        runtimes.map(|runtime| runtime.on(cluster)).collect()
    }

    /// The day of the newest entry, as `2026-11-24` or `2026-11`.
    pub fn date(&self) -> String {
        let devices = self.devices.iter().map(|device| &device.date);
        let links = self.links.iter().map(|link| &link.date);
        let combos = self.combos.iter().map(|combo| &combo.date);
        let models = self.models.iter().map(|model| &model.date);
        let limits = self.limits.iter().map(|limit| &limit.date);
        let all = devices
            .chain(links)
            .chain(combos)
            .chain(models)
            .chain(limits);
        all.max().cloned().unwrap_or_default()
    }

    fn link_kind(&self, id: &str) -> Option<LinkKind> {
        let mut links = self.links.iter();
        links.find(|link| link.link.id == id).map(|link| link.kind)
    }
}

impl Rows {
    fn read<'a>(text: impl Fn(&str) -> &'a str) -> Result<Self, FitError> {
        let file = |name: &'static str| File::new(name, text(name));
        let misses = notes::read(file("backtest.toml"))?;
        let fitted = match text("speed.toml") {
            "" => None,
            _ => Some(fitted::read(file("speed.toml"))?),
        };
        let mixes = match text("quantizations.toml") {
            "" => Vec::new(),
            text => mix::parse("quantizations.toml", text)?,
        };
        Ok(Self {
            hardware: hardware::read(file("hardware.toml"))?,
            overheads: memory::runtime::read(file("overheads.toml"))?,
            links: links::read(file("links.toml"))?,
            combos: combos::read(file("combos.toml"))?,
            models: models::read(file("models.toml"))?,
            mixes,
            runtimes: runtimes::read(file("runtimes.toml"))?,
            failures: failures::read(file("failures.toml"))?,
            sources: evidence::read(file("evidence.toml"))?,
            refused: measurements::read_refused(file("measurements-refused.toml"))?,
            named: named::read(file("names.toml"))?,
            misses,
            fitted,
        })
    }

    /// Drops what was said of a measured row that gave its id to another one.
    fn forget(&mut self, id: &str) {
        self.refused.retain(|row| row.value.id != id);
        self.misses.retain(|row| row.value.id != id);
    }

    fn merge(&mut self, over: Self) {
        merge(&mut self.hardware.devices, over.hardware.devices);
        merge(&mut self.hardware.lines, over.hardware.lines);
        merge(&mut self.hardware.limits, over.hardware.limits);
        merge(&mut self.overheads, over.overheads);
        merge(&mut self.links, over.links);
        merge(&mut self.combos, over.combos);
        merge(&mut self.models, over.models);
        merge(&mut self.runtimes, over.runtimes);
        merge(&mut self.failures, over.failures);
        merge(&mut self.sources, over.sources);
        merge(&mut self.refused, over.refused);
        merge(&mut self.named, over.named);
        merge(&mut self.misses, over.misses);
        self.fitted = over.fitted.or(self.fitted.take());
        for mix in over.mixes {
            match self.mixes.iter_mut().find(|old| old.name == mix.name) {
                Some(old) => *old = mix,
                None => self.mixes.push(mix),
            }
        }
    }

    /// Looks up every name that an entry uses.
    fn resolve(
        self,
        sources: Vec<SourceKind>,
        measurements: Vec<Measurement>,
    ) -> Result<Catalog, FitError> {
        let overheads = values(self.overheads.clone());
        let machines = self.hardware.machines(&overheads)?;
        self.check_links(&machines)?;
        let refused = values(self.refused);
        let wrong: BTreeSet<&str> = refused.iter().map(|row| row.id.as_str()).collect();
        let (wrong, measurements) = measurements
            .into_iter()
            .partition(|row| wrong.contains(row.id.as_str()));
        let models = models::models(&self.models, &self.mixes)?;
        let mut catalog = Catalog {
            machines,
            devices: values(self.hardware.devices),
            limits: values(self.hardware.limits),
            overheads,
            links: values(self.links),
            combos: Vec::new(),
            models,
            mixes: self.mixes,
            runtimes: values(self.runtimes),
            failures: values(self.failures),
            sources,
            measurements,
            wrong,
            refused,
            named: values(self.named),
            misses: values(self.misses),
            fitted: self.fitted.unwrap_or_default(),
        };
        let combos: Result<Vec<Combo>, FitError> = self
            .combos
            .iter()
            .map(|row| catalog.combo_of(row))
            .collect();
        catalog.combos = combos?;
        Ok(catalog)
    }

    /// Whether every port of every machine is a link of the catalog.
    fn check_links(&self, machines: &[SoldMachine]) -> Result<(), FitError> {
        let ids: BTreeSet<&str> = self
            .links
            .iter()
            .map(|row| row.value.link.id.as_str())
            .collect();
        for machine in machines {
            let unknown = machine.links.iter().find(|id| !ids.contains(id.as_str()));
            if let Some(id) = unknown {
                let mut lines = self.hardware.lines.iter();
                let row = lines.find(|row| read::Entry::id(&row.value) == machine.line);
                if let Some(row) = row {
                    return Err(row.dangling("links", id, ids.iter().copied()));
                }
            }
        }
        Ok(())
    }
}

impl Cluster {
    /// The links between nodes, each once, in the order of the nodes.
    pub fn distinct_links(&self) -> Vec<&Link> {
        let mut found: Vec<&Link> = Vec::new();
        for from in 0..self.nodes.len() {
            for to in 0..self.nodes.len() {
                if let Some(link) = self.link(from, to)
                    && !found.contains(&link)
                {
                    found.push(link);
                }
            }
        }
        found
    }
}

/// The letters and digits of a name, small: `M4 Pro` and `m4-pro` are the same name.
pub(crate) fn folded(name: &str) -> String {
    let plain = name.chars().filter(|c| c.is_alphanumeric() || *c == '.');
    plain.flat_map(char::to_lowercase).collect()
}

fn values<T>(rows: Vec<Row<T>>) -> Vec<T> {
    rows.into_iter().map(|row| row.value).collect()
}

/// A file that ends like one of the catalog but is none would be overlooked: a typo.
fn refuse_unknown(files: &BTreeMap<String, String>) -> Result<(), FitError> {
    let known = |name: &str| Catalog::file_names().any(|file| file == name);
    let data = |name: &str| {
        let extension = std::path::Path::new(name).extension();
        extension.is_some_and(|end| end == "toml" || end == "csv")
    };
    let unknown = files.keys().find(|name| data(name) && !known(name));
    unknown.map_or(Ok(()), |name| {
        Err(FitError::UnknownName {
            kind: "catalog file",
            name: name.clone(),
            nearest: nearest(name, Catalog::file_names()),
        })
    })
}

#[cfg(test)]
mod tests;
