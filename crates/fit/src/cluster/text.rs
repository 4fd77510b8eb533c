//! Machines as text: `4x mac-mini-m4-pro-64gb, link=tb5`.
//!
//! Terms are joined by `+`, options follow after commas. `4x MACHINE` is four nodes; `2x GPU` is
//! one host with two GPUs; `rtx-3090 + rtx-3090` is two hosts. Options: `link=ID` between all
//! nodes; `ram=64gb` and `cpu=ID` for hosts of GPUs, whose RAM is otherwise unknown and left out;
//! `wired=MIB` as `iogpu.wired_limit_mb` on Macs. A combo's id may stand for the terms.

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
        let mut parts = text.split(',');
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
        for term in terms.split('+') {
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
            return Err(self.unknown(name, given, &words::best(&fits)));
        };
        let machine = self.machine(only).map(Named::Machine);
        machine
            .or_else(|| self.device(only).map(Named::Gpu))
            .ok_or_else(|| self.unknown(name, given, &[]))
    }

    /// The error for a name that stands for nothing; `alike` have its words.
    fn unknown(&self, name: &str, given: &str, alike: &[&str]) -> FitError {
        let mut chips = self.devices.iter().filter(|device| !device.is_gpu());
        if let Some(chip) = chips.find(|device| folded(&device.id) == given) {
            let with = self.machines.iter().filter(|sold| {
                let mut pools = sold.machine.pools.iter();
                pools.any(|pool| pool.device == chip.id)
            });
            let ids: Vec<&str> = with.map(|sold| sold.machine.id.as_str()).take(3).collect();
            let hint = format!("a chip is no machine; say one with it: {}", ids.join(", "));
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
        FitError::UnknownName {
            kind: "machine",
            name: name.chars().take(80).collect(),
            nearest: names,
        }
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

/// `4x name`, `4 × name` or `name`.
fn counted(term: &str) -> Result<(usize, &str), FitError> {
    let term = term.trim();
    let digits = term.len() - term.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = term.split_at(digits);
    let name = rest.trim_start().strip_prefix(['x', 'X', '×', '*']);
    let (count, name) = match name {
        // 7900 XTX is no count.
        Some(name) if digits > 0 && !is_xt(rest) => {
            let count = number
                .parse()
                .ok()
                .filter(|count| (1..=MOST).contains(count));
            let hint = format!("a count is 1 to {MOST}");
            (count.ok_or_else(|| syntax(number, &hint))?, name.trim())
        }
        _ => (1, term),
    };
    if name.is_empty() {
        let hint = "a machine is expected, such as 4x mac-mini-m4-pro-64gb";
        return Err(syntax(term, hint));
    }
    Ok((count, name))
}

/// Whether `rest` begins with the word XT or XTX, as of a Radeon.
fn is_xt(rest: &str) -> bool {
    let word = rest.trim_start();
    let end = word.find(|c: char| !c.is_alphanumeric());
    let word = word.get(..end.unwrap_or(word.len())).unwrap_or_default();
    word.eq_ignore_ascii_case("xt") || word.eq_ignore_ascii_case("xtx")
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
