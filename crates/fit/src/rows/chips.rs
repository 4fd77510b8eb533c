//! Machines as people write them: which chip a row is about.

use crate::catalog::hardware::Device;
use crate::speed::classes::Family;

/// A chip that a row names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Chip {
    /// The chip, whatever its memory and cores: the unit that is held out.
    pub(crate) group: String,
    /// The device of the catalog, if it is one.
    pub(crate) device: Option<String>,
    pub(crate) family: Family,
    pub(crate) bandwidth_gb_s: Option<f64>,
    pub(crate) fp16_tflops: Option<f64>,
    pub(crate) fp32_tflops: Option<f64>,
    /// Memory of one GPU, in GiB.
    pub(crate) memory_gib: Option<f64>,
}

/// Words of makers and lines, which people leave out.
const BRANDS: [&str; 12] = [
    "rtx", "gtx", "rx", "radeon", "geforce", "nvidia", "instinct", "tesla", "quadro", "arc", "amd",
    "intel",
];

/// A device's name as words, and how a row must have them.
#[derive(Debug, Clone)]
struct Name {
    words: Vec<String>,
    device: usize,
}

/// Finds chips in texts.
#[derive(Debug, Clone)]
pub(crate) struct Chips<'a> {
    devices: &'a [Device],
    names: Vec<Name>,
}

/// A name found in a text.
struct Hit<'a> {
    device: &'a Device,
    start: usize,
    end: usize,
    /// Whether a brand stands before it.
    branded: bool,
}

impl<'a> Chips<'a> {
    pub(crate) fn new(devices: &'a [Device]) -> Self {
        let mut names = Vec::new();
        for (index, device) in devices.iter().enumerate() {
            if device.family == "apple" || device.id == "cpu" {
                continue;
            }
            let own = std::iter::once(&device.id).chain(&device.aliases);
            for name in own {
                let mut words = words(name);
                while words
                    .first()
                    .is_some_and(|word| BRANDS.contains(&word.as_str()))
                {
                    words.remove(0);
                }
                if !words.is_empty() {
                    names.push(Name {
                        words: words.clone(),
                        device: index,
                    });
                }
                // The size of the memory may be left out.
                if words.len() > 1 && words.last().is_some_and(|word| is_size(word)) {
                    words.pop();
                    names.push(Name {
                        words,
                        device: index,
                    });
                }
            }
        }
        Self { devices, names }
    }

    /// The chip that a row's machine is about; `cpu` where the program ran on the CPU. An error
    /// says what is missing.
    pub(crate) fn find(
        &self,
        machine: &str,
        cpu: bool,
        bandwidth: Option<f64>,
    ) -> Result<Chip, String> {
        let words = words(machine);
        if let Some(chip) = self.apple(&words)? {
            return Ok(chip);
        }
        let mut hits = self.hits(&words, false);
        if cpu
            || (hits.is_empty()
                && !words
                    .iter()
                    .any(|word| BRANDS[..10].contains(&word.as_str())))
        {
            hits = self.hits(&words, true);
        }
        let longest = hits
            .iter()
            .map(|hit| (hit.branded, hit.end - hit.start))
            .max();
        let best = hits
            .iter()
            .find(|hit| Some((hit.branded, hit.end - hit.start)) == longest);
        let Some(best) = best else {
            return unknown(&words, cpu, bandwidth);
        };
        let group = |device: &Device| without_size(&device.id);
        let other = hits.iter().find(|hit| {
            hit.branded
                && best.branded
                && (hit.start >= best.end || hit.end <= best.start)
                && group(hit.device) != group(best.device)
        });
        if let Some(other) = other {
            return Err(format!(
                "machine: names two chips, {} and {}",
                best.device.name, other.device.name
            ));
        }
        Ok(of_device(best.device, group(best.device)))
    }

    fn hits(&self, words: &[String], cpu: bool) -> Vec<Hit<'a>> {
        let mut hits = Vec::new();
        for name in &self.names {
            let device = &self.devices[name.device];
            if (device.family == "cpu") != cpu {
                continue;
            }
            for start in 0..words.len() {
                let end = start + name.words.len();
                if words.get(start..end) != Some(&name.words[..]) {
                    continue;
                }
                let before = |back: usize| {
                    let word = start.checked_sub(back).map(|at| words[at].as_str());
                    word.is_some_and(|word| BRANDS.contains(&word) && word != "intel")
                };
                let branded = before(1) || before(2);
                let bare =
                    name.words.len() == 1 && name.words[0].bytes().all(|b| b.is_ascii_digit());
                // Processors and monitors have numbers as well.
                if branded || !bare {
                    hits.push(Hit {
                        device,
                        start,
                        end,
                        branded,
                    });
                }
            }
        }
        hits.sort_by_key(|hit| (hit.start, std::cmp::Reverse(hit.end)));
        hits
    }

    /// An Apple chip, by its name and cores.
    fn apple(&self, words: &[String]) -> Result<Option<Chip>, String> {
        let mut found: Vec<String> = Vec::new();
        for (at, word) in words.iter().enumerate() {
            let generation = word.strip_prefix('m').filter(|rest| is_number(rest));
            if generation.is_none_or(|rest| rest.len() > 2) {
                continue;
            }
            let kind = words.get(at + 1).map(String::as_str);
            let chip = match kind {
                Some("pro" | "max" | "ultra") => format!("{word}-{}", &words[at + 1]),
                _ => word.clone(),
            };
            if !found.contains(&chip) {
                found.push(chip);
            }
        }
        // A plain "M4" beside "M4 Pro" is its line, not another chip.
        let all = found.clone();
        found.retain(|chip| {
            !all.iter()
                .any(|other| other.starts_with(&format!("{chip}-")))
        });
        let group = match &found[..] {
            [] => return Ok(None),
            [one] => one,
            several => {
                return Err(format!(
                    "machine: names several chips, {}",
                    several.join(" and ")
                ));
            }
        };
        let cores_of = |device: &Device| {
            let rest = device.id.strip_prefix(&format!("{group}-"))?;
            rest.parse::<f64>()
                .ok()
                .filter(|_| device.family == "apple")
        };
        let variants = self
            .devices
            .iter()
            .filter_map(|device| Some((device, cores_of(device)?)));
        let cores = cores(words);
        let nearest = |(_, own): &(&Device, f64)| match cores {
            Some(cores) => (own - cores).abs(),
            None => -own,
        };
        let best = variants.min_by(|a, b| nearest(a).total_cmp(&nearest(b)));
        let Some((device, own)) = best else {
            // A chip that the catalog has not: an Apple chip of the row's bandwidth.
            let family = if group.ends_with("-ultra") {
                Family::AppleUltra
            } else {
                Family::Apple
            };
            return Ok(Some(Chip {
                group: group.clone(),
                device: None,
                family,
                bandwidth_gb_s: None,
                fp16_tflops: None,
                fp32_tflops: None,
                memory_gib: None,
            }));
        };
        let share = cores.unwrap_or(own) / own;
        let mut chip = of_device(device, group.clone());
        chip.fp16_tflops = chip.fp16_tflops.map(|tflops| tflops * share);
        chip.fp32_tflops = chip.fp32_tflops.map(|tflops| tflops * share);
        Ok(Some(chip))
    }
}

/// A chip that the catalog has not, by the row's own bandwidth.
fn unknown(words: &[String], cpu: bool, bandwidth: Option<f64>) -> Result<Chip, String> {
    if bandwidth.is_none() {
        return Err(
            "mem_bandwidth_gbs: the machine is not in the catalog, and the row states none".into(),
        );
    }
    let has = |names: &[&str]| words.iter().any(|word| names.contains(&word.as_str()));
    let family = if cpu {
        Family::Cpu
    } else if has(&["nvidia", "rtx", "gtx", "geforce", "quadro", "tesla"]) {
        Family::Nvidia
    } else if has(&["radeon", "rx", "instinct"]) {
        Family::Amd
    } else if has(&["arc"]) {
        Family::Intel
    } else if has(&["apple", "mac", "macbook", "imac"]) {
        Family::Apple
    } else {
        Family::Other
    };
    Ok(Chip {
        group: format!("? {}", words.join(" ").chars().take(60).collect::<String>()),
        device: None,
        family,
        bandwidth_gb_s: None,
        fp16_tflops: None,
        fp32_tflops: None,
        memory_gib: None,
    })
}

fn of_device(device: &Device, group: String) -> Chip {
    Chip {
        group,
        device: Some(device.id.clone()),
        family: Family::of(&device.family, &device.id),
        bandwidth_gb_s: device.bandwidth_gb_s,
        fp16_tflops: device.fp16_tflops,
        fp32_tflops: device.fp32_tflops,
        memory_gib: device.memory_gib,
    }
}

/// GPU cores, as in "40-core GPU", "48 GPU Core", "80c GPU".
fn cores(words: &[String]) -> Option<f64> {
    let number = |word: &str| {
        word.parse::<f64>()
            .ok()
            .filter(|cores| (4.0..200.0).contains(cores))
    };
    words
        .windows(3)
        .find_map(|three| match [&*three[0], &*three[1], &*three[2]] {
            [cores, "core" | "cores", "gpu"] | [cores, "gpu", "core" | "cores"] => number(cores),
            _ => None,
        })
        .or_else(|| {
            words.windows(2).find_map(|two| match [&*two[0], &*two[1]] {
                [cores, "gpu"] => number(cores.strip_suffix('c')?),
                _ => None,
            })
        })
}

/// An id without the memory size at its end.
pub(crate) fn without_size(id: &str) -> String {
    match id.rsplit_once('-') {
        Some((line, size)) if is_size(size) => line.to_owned(),
        _ => id.to_owned(),
    }
}

/// Whether a word is a size of memory.
fn is_size(word: &str) -> bool {
    word.strip_suffix("gb").is_some_and(is_number)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Small words of letters and digits.
fn words(text: &str) -> Vec<String> {
    let lower = text.to_lowercase();
    lower
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}
