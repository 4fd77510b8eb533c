//! Names by their words: `4090`, `rtx 3090ti` or `m2 ultra 192gb`, in any order and spelling.

use std::collections::BTreeSet;

/// Words of makers and product lines, which tell nothing apart.
const NOISE: [&str; 17] = [
    "nvidia", "geforce", "amd", "radeon", "intel", "apple", "tesla", "instinct", "rtx", "gtx",
    "rx", "arc", "gpu", "memory", "with", "unified", "graphics",
];

/// Words that make another product: one that was not written is not meant.
const VARIANTS: [&str; 8] = ["ti", "super", "laptop", "mobile", "xt", "xtx", "gre", "ada"];

/// Longer words are nobody's.
const LONGEST: usize = 40;

/// How well a name fits what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fit<'a> {
    /// The name's id.
    pub(super) id: &'a str,
    /// Written words that the name has.
    had: usize,
    /// Written words that it has not.
    strange: usize,
    /// Words of the name that are not written.
    unsaid: usize,
    /// Whether one of those makes another product.
    other: bool,
    /// Whether a word with a digit, as of a chip, is among those that it has.
    chip: bool,
}

impl Fit<'_> {
    /// Whether all that is written stands in the name.
    pub(super) fn is_whole(&self) -> bool {
        self.strange == 0 && self.had > 0 && self.chip
    }
}

/// The one id that the words mean: the only one that they say in full, or else the only one that
/// has them all.
pub(super) fn only<'a>(fits: &[Fit<'a>]) -> Option<&'a str> {
    let whole = || fits.iter().filter(|fit| fit.is_whole());
    let one =
        |mut found: Box<dyn Iterator<Item = &Fit<'a>> + '_>| match (found.next(), found.next()) {
            (Some(fit), None) => Some(*fit),
            _ => None,
        };
    let full = one(Box::new(whole().filter(|fit| fit.unsaid == 0)));
    full.or_else(|| one(Box::new(whole())).filter(|fit| !fit.other))
        .map(|fit| fit.id)
}

/// The ids that have the most of the words, with a chip's number among them, best first.
pub(super) fn best<'a>(fits: &[Fit<'a>]) -> Vec<&'a str> {
    let mut found: Vec<&Fit> = fits.iter().filter(|fit| fit.chip).collect();
    let most = found.iter().map(|fit| fit.had).max().unwrap_or(0);
    found.retain(|fit| fit.had == most);
    found.sort_by_key(|fit| (fit.unsaid, fit.id.len(), fit.id));
    found.into_iter().map(|fit| fit.id).collect()
}

/// How an id fits what is written; `memory_gib` may be written beside it.
pub(super) fn fit<'a>(written: &str, id: &'a str, memory_gib: Option<u64>) -> Fit<'a> {
    fit_named(written, id, id, memory_gib)
}

/// The same of an id with other words than its own.
pub(super) fn fit_named<'a>(
    written: &str,
    id: &'a str,
    named: &str,
    memory_gib: Option<u64>,
) -> Fit<'a> {
    let own: Vec<String> = words(named).collect();
    let size = memory_gib.map(|gib| format!("{gib}gb"));
    let mut said = BTreeSet::new();
    let mut fit = Fit {
        id,
        had: 0,
        strange: 0,
        unsaid: 0,
        other: false,
        chip: false,
    };
    for word in words(written) {
        if NOISE.contains(&word.as_str()) {
            continue;
        }
        let all = own.iter().map(String::as_str).chain(size.as_deref());
        match parts(&word, &all.chain(NOISE).collect::<Vec<_>>()) {
            Some(parts) => {
                fit.had += 1;
                fit.chip |= parts.iter().any(|part| {
                    part.bytes().any(|b| b.is_ascii_digit())
                        && Some(*part) != size.as_deref()
                        && !part.ends_with("gb")
                });
                said.extend(parts.into_iter().map(str::to_owned));
            }
            None => fit.strange += 1,
        }
    }
    for word in own {
        if !said.contains(&word) && !NOISE.contains(&word.as_str()) {
            fit.unsaid += 1;
            fit.other |= VARIANTS.contains(&word.as_str());
        }
    }
    fit
}

/// Small words; a number and its `GB` are one.
fn words(name: &str) -> impl Iterator<Item = String> {
    let lower = name.to_lowercase();
    let mut words: Vec<String> = Vec::new();
    for word in lower.split(|c: char| !c.is_alphanumeric()) {
        let unit = ["gb", "gib", "g"].contains(&word);
        match words.last_mut() {
            Some(last) if unit && last.bytes().all(|b| b.is_ascii_digit()) => last.push_str("gb"),
            _ if word.is_empty() => {}
            _ => words.push(word.to_owned()),
        }
    }
    words.into_iter()
}

/// The words that a word is written together from, such as `3090ti`.
fn parts<'w>(word: &str, words: &[&'w str]) -> Option<Vec<&'w str>> {
    if word.len() > LONGEST {
        return None;
    }
    // For each place, the words that lead there.
    let mut ways: Vec<Option<Vec<&'w str>>> = vec![None; word.len() + 1];
    ways[0] = Some(Vec::new());
    for at in 0..word.len() {
        let (Some(way), Some(rest)) = (ways[at].clone(), word.get(at..)) else {
            continue;
        };
        for next in words.iter().filter(|next| rest.starts_with(**next)) {
            let mut way = way.clone();
            way.push(next);
            ways[at + next.len()].get_or_insert(way);
        }
    }
    ways.pop().flatten()
}
