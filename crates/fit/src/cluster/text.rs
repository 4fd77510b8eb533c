//! Machines as text: `4x mac-mini-m4-pro-64gb, link=tb5`.
//!
//! Terms are joined by `+`, options follow after commas or blanks. `4x MACHINE` is four nodes;
//! `2x GPU` is one host with two GPUs, as are `2 GPU`, `two GPU` and `GPU x2`;
//! `rtx-3090 + rtx-3090` is two hosts. Options: `link=ID` between all
//! nodes; `ram=64gb` and `cpu=ID` for hosts of GPUs, whose RAM is otherwise unknown and left out;
//! `wired=MIB` as `iogpu.wired_limit_mb` on Macs. A combo's id may stand for the terms.

mod counts;
mod options;
mod wiring;
mod words;

use crate::catalog::combos::{Combo, ComboLine};
use crate::catalog::folded;
use crate::catalog::hardware::{Device, SoldMachine};
use crate::catalog::read::Row;
use crate::catalog::{Catalog, read::Entry};
use crate::cluster::{Cluster, Links, Node};
use crate::error::FitError;
use crate::machine::Machine;
use crate::nearest::nearest;

use counts::counted;
use options::Options;
use wiring::Ports;

/// Nodes of a cluster, and GPUs of a host, at most.
const MOST: usize = 64;

/// Bytes of a text that is worth reading.
const LONGEST: usize = 4096;

/// Names that are suggested for one that nobody has, at most.
const MOST_ALIKE: usize = 4;

/// What a name stands for.
enum Named<'a> {
    /// A machine that is sold.
    Machine(&'a SoldMachine),
    /// A discrete GPU.
    Gpu(&'a Device),
}

impl Catalog {
    /// Reads machines from text: a combo's id, or machines and links as described
    /// [here](crate::cluster::text). A name that nobody has gives the nearest ones.
    pub fn cluster(&self, text: &str) -> Result<Cluster, FitError> {
        let text = text.trim();
        if text.len() > LONGEST {
            return Err(syntax("machines", "the text is longer than any cluster"));
        }
        let mut parts = options::parts(text);
        let terms = parts.next().unwrap_or_default().trim();
        let options = Options::read(self, parts)?;
        // A page writes 4× where the catalog has 4x.
        let plain = |name: &str| folded(&name.replace('×', "x"));
        let combo = plain(terms);
        let combo = self
            .combos
            .iter()
            .find(|own| folded(&own.cluster.id) == combo || plain(&own.cluster.name) == combo);
        match combo {
            Some(combo) if options.is_empty() => Ok(combo.cluster.clone()),
            Some(combo) => self.changed(combo, text, &options),
            None => self.written(terms, text, &options),
        }
    }

    /// A combo with another link or limit.
    fn changed(&self, combo: &Combo, text: &str, options: &Options) -> Result<Cluster, FitError> {
        let mut cluster = combo.cluster.clone();
        text.clone_into(&mut cluster.id);
        for node in &mut cluster.nodes {
            node.machine = options.of_mac(node.machine.clone());
        }
        options.check(&cluster.nodes)?;
        if let Some(link) = options.link {
            let ports: Vec<Ports> = cluster
                .nodes
                .iter()
                .map(|node| Ports::of(self, self.machine(&node.machine.id)))
                .collect();
            cluster.links = wiring::links(link, &ports);
            cluster.name = format!("{}, over {}", combo.cluster.name, link.link.name);
        }
        Ok(cluster)
    }

    /// A cluster as it is written.
    fn written(&self, terms: &str, text: &str, options: &Options) -> Result<Cluster, FitError> {
        let mut nodes = Vec::new();
        let mut ports = Vec::new();
        let mut names = Vec::new();
        for term in counts::terms(terms) {
            let (count, name) = counted(term)?;
            let (machines, own) = match self.named(name)? {
                Named::Machine(sold) => {
                    let machine = options.of_mac(sold.machine.clone());
                    (vec![machine; count], Ports::of(self, Some(sold)))
                }
                Named::Gpu(gpu) => (vec![self.host(gpu, count, options)?], Ports::default()),
            };
            if nodes.len() + machines.len() > MOST {
                return Err(syntax(term, &format!("{MOST} nodes at most")));
            }
            names.push(match (machines.as_slice(), machines.first()) {
                ([_, _, ..], Some(machine)) => format!("{}x {}", machines.len(), machine.name),
                (_, Some(machine)) => machine.name.clone(),
                _ => String::new(),
            });
            for machine in machines {
                let name = format!("node-{}", nodes.len() + 1);
                nodes.push(Node { name, machine });
                ports.push(own.clone());
            }
        }
        options.check(&nodes)?;
        let mut name = names.join(" + ");
        let links = match options.link {
            Some(link) if nodes.len() > 1 => {
                name = format!("{name}, {}", link.link.name);
                wiring::links(link, &ports)
            }
            _ => Links::Unnamed,
        };
        Ok(Cluster {
            id: text.to_owned(),
            name,
            nodes,
            links,
        })
    }

    /// A host with several GPUs of one kind, and its RAM if that is told.
    fn host(&self, gpu: &Device, count: usize, options: &Options) -> Result<Machine, FitError> {
        let unknown = || FitError::Missing {
            of: gpu.name.clone(),
            fact: "memory limit".into(),
        };
        let pool = self.pool(&gpu.id, None).ok_or_else(unknown)?;
        let mut pools = vec![pool; count];
        let mut name = match count {
            1 => gpu.name.clone(),
            _ => format!("{count}x {}", gpu.name),
        };
        if let Some(gib) = options.ram_gib {
            let cpu = options.cpu.unwrap_or("cpu");
            pools.push(self.pool(cpu, Some(gib << 30)).ok_or_else(unknown)?);
            name = format!("{name} with {gib} GB RAM");
        }
        Ok(Machine {
            id: format!("{count}x-{}", gpu.id),
            name,
            pools,
        })
    }

    /// What a name stands for; vendors' names and spelling are forgiven.
    fn named(&self, name: &str) -> Result<Named<'_>, FitError> {
        let mut given = folded(name);
        for vendor in ["apple", "nvidia", "geforce", "amd", "intel", "radeon"] {
            if let Some(rest) = given.strip_prefix(vendor)
                && !rest.is_empty()
                && self.device(name).is_none()
            {
                given = rest.to_owned();
            }
        }
        let alike = |id: &str| {
            let id = folded(id);
            id == given || id.strip_suffix("gb").is_some_and(|id| id == given) || {
                let plain = id
                    .strip_prefix("nvidia")
                    .or_else(|| id.strip_prefix("radeon"));
                plain == Some(given.as_str())
            }
        };
        let exact = self.machines.iter().find(|sold| alike(&sold.machine.id));
        let full = folded(name);
        let gpu = || {
            let mut gpus = self.devices.iter().filter(|device| device.is_gpu());
            gpus.find(|gpu| alike(&gpu.id) || folded(&gpu.name) == full)
        };
        if let Some(found) = exact.map(Named::Machine).or_else(|| gpu().map(Named::Gpu)) {
            return Ok(found);
        }
        let sizes: Vec<&SoldMachine> = self
            .machines
            .iter()
            .filter(|sold| folded(&sold.line) == given)
            .collect();
        match sizes.as_slice() {
            [] => self.by_words(name, &given),
            [one] => Ok(Named::Machine(one)),
            several => {
                let ids: Vec<&str> = several
                    .iter()
                    .map(|sold| sold.machine.id.as_str())
                    .collect();
                let hint = format!("which memory size? {}", ids.join(", "));
                Err(syntax(name, &hint))
            }
        }
    }

    /// The machine or GPU that the words of a name mean, if they mean one.
    fn by_words(&self, name: &str, given: &str) -> Result<Named<'_>, FitError> {
        let machines = self.machines.iter();
        let machines = machines.map(|sold| words::fit(name, &sold.machine.id, None));
        let gpus = self.devices.iter().filter(|device| device.is_gpu());
        let gpus = gpus.map(|gpu| {
            let gib = gpu.memory_gib.map(|gib| gib.round() as u64);
            words::fit(name, &gpu.id, gib)
        });
        let fits: Vec<words::Fit> = machines.chain(gpus).collect();
        let chip = self
            .devices
            .iter()
            .any(|device| folded(&device.id) == given);
        let Some(only) = words::only(&fits).filter(|_| !chip) else {
            let alike = words::best(&fits);
            return Err(self.unknown(name, given, &alike));
        };
        let machine = self.machine(only).map(Named::Machine);
        machine
            .or_else(|| self.device(only).map(Named::Gpu))
            .ok_or_else(|| self.unknown(name, given, &[]))
    }

    /// The error for a name that stands for nothing; `alike` have its words.
    fn unknown(&self, name: &str, given: &str, alike: &[&str]) -> FitError {
        if let Some(chip) = self.chips().find(|chip| is_called(chip, given, name)) {
            let hint = match &self.with(&chip.id)[..] {
                [] if chip.family == "cpu" => format!(
                    "a CPU stands beside GPUs: 2x rtx-3090, ram=64gb, cpu={}",
                    chip.id
                ),
                [] => "a chip is no machine, and the catalog has none with it".to_owned(),
                ids => format!("a chip is no machine; say one with it: {}", ids.join(", ")),
            };
            return syntax(name, &hint);
        }
        let machines = self.machines.iter().map(|sold| sold.machine.id.as_str());
        let gpus = self.devices.iter().filter(|device| device.is_gpu());
        let combos = self.combos.iter().map(|combo| combo.cluster.id.as_str());
        let valid = machines
            .chain(gpus.map(|device| device.id.as_str()))
            .chain(combos);
        let near = nearest(name, valid);
        // A typo's nearest name first, then those with its words: the same chip.
        let mut names: Vec<String> = near.iter().take(1).cloned().collect();
        let alike = alike.iter().take(MOST_ALIKE).map(|id| (*id).to_owned());
        for id in alike.chain(near.into_iter().skip(1)) {
            if names.len() < MOST_ALIKE && !names.contains(&id) {
                names.push(id);
            }
        }
        if names.is_empty() {
            names = self.by_chip(name);
        }
        FitError::UnknownName {
            kind: "machine",
            name: name.chars().take(80).collect(),
            nearest: names,
        }
    }

    /// Chips that are no product of their own.
    fn chips(&self) -> impl Iterator<Item = &Device> {
        self.devices.iter().filter(|device| !device.is_gpu())
    }

    /// Machines with a chip, of each product the one with the most memory.
    fn with(&self, chip: &str) -> Vec<&str> {
        let mut found: Vec<&SoldMachine> = Vec::new();
        for sold in &self.machines {
            let mut pools = sold.machine.pools.iter();
            if !pools.any(|pool| pool.device == chip) {
                continue;
            }
            match found.iter_mut().find(|known| known.line == sold.line) {
                Some(known) if known.machine.memory_bytes() >= sold.machine.memory_bytes() => {}
                Some(known) => *known = sold,
                None => found.push(sold),
            }
        }
        let found = found.into_iter().take(MOST_ALIKE);
        found.map(|sold| sold.machine.id.as_str()).collect()
    }

    /// Machines whose chip's name has the words that are written, or is the nearest to them.
    fn by_chip(&self, name: &str) -> Vec<String> {
        let fits = self.machines.iter().map(|sold| {
            let pools = sold.machine.pools.iter();
            let chips = pools.filter_map(|pool| self.device(&pool.device));
            let own: Vec<&str> = chips.flat_map(called).collect();
            let own = format!("{} {}", sold.machine.id, own.join(" "));
            words::fit_named(name, &sold.machine.id, &own, None)
        });
        let fits: Vec<words::Fit> = fits.collect();
        let mut found = words::best(&fits);
        if found.is_empty() {
            let near = nearest(name, self.chips().flat_map(called));
            let near = near.first();
            let chip = self
                .chips()
                .find(|chip| near.is_some_and(|near| called(chip).any(|own| own == near)));
            found.extend(chip.into_iter().flat_map(|chip| self.with(&chip.id)));
        }
        let found = found.into_iter().take(MOST_ALIKE);
        found.map(str::to_owned).collect()
    }

    /// A combo of the file, its machines looked up.
    pub(crate) fn combo_of(&self, row: &Row<ComboLine>) -> Result<Combo, FitError> {
        let own = &row.value;
        let cluster = self.cluster(&own.machines);
        let mut cluster = cluster.map_err(|error| row.fault("machines", error.to_string()))?;
        own.id().clone_into(&mut cluster.id);
        cluster.name.clone_from(&own.title);
        if !own.pairs.is_empty() {
            let nodes = cluster.nodes.len();
            let mut pairs: Vec<Vec<_>> = (0..nodes)
                .map(|from| {
                    (0..nodes)
                        .map(|to| cluster.link(from, to).cloned())
                        .collect()
                })
                .collect();
            for pair in &own.pairs {
                let link = self.link(&pair.link);
                let link = link.map_err(|error| row.fault("pairs", error.to_string()))?;
                let (Some(a), Some(b)) = (pair.a.checked_sub(1), pair.b.checked_sub(1)) else {
                    return Err(row.fault("pairs", "nodes count from 1"));
                };
                if a >= nodes || b >= nodes || a == b {
                    return Err(row.fault("pairs", format!("no such pair among {nodes} nodes")));
                }
                pairs[a][b] = Some(link.link.clone());
                pairs[b][a] = Some(link.link.clone());
            }
            cluster.links = Links::Pairs(pairs);
        }
        Ok(Combo {
            cluster,
            role: own.role.clone(),
            topology: own.topology.clone(),
            sources: own.sources.clone(),
            date: own.date.clone(),
        })
    }
}

/// The names of a chip.
fn called(chip: &Device) -> impl Iterator<Item = &str> {
    let names = [&chip.id, &chip.name].into_iter().chain(&chip.aliases);
    names.map(String::as_str)
}

/// Whether a chip has this name, as it is written or without its maker.
fn is_called(chip: &Device, given: &str, name: &str) -> bool {
    let name = folded(name);
    called(chip).any(|own| {
        let own = folded(own);
        own == given || own == name
    })
}

/// What cannot be read, quoted but not endlessly, and what would be.
fn syntax(what: &str, hint: &str) -> FitError {
    let what: String = what.trim().chars().take(80).collect();
    FitError::Syntax {
        what: format!("'{what}'"),
        hint: hint.to_owned(),
    }
}

#[cfg(test)]
mod tests;
