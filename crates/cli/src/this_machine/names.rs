//! From a driver's name of a processor to the catalog's.

use std::collections::BTreeSet;

/// A processor of the catalog.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    /// Its id.
    pub(super) id: &'a str,
    /// Its name, such as `NVIDIA RTX 4060 Ti 16 GB`.
    pub(super) name: &'a str,
    /// Its own memory, in bytes.
    pub(super) memory_bytes: Option<u64>,
}

/// Words that make another product of the same number.
const VARIANTS: [&str; 16] = [
    "ti",
    "super",
    "laptop",
    "mobile",
    "max",
    "pro",
    "ultra",
    "xt",
    "xtx",
    "gre",
    "ada",
    "blackwell",
    "pcie",
    "sxm",
    "nvl",
    "d",
];

/// Words that tell nothing apart.
const NOISE: [&str; 11] = [
    "nvidia", "geforce", "amd", "radeon", "intel", "apple", "tesla", "instinct", "graphics", "gpu",
    "gb",
];

/// The id of the processor that a driver calls `name`: every word of its own name stands there,
/// no word is left that would make it another product, and the memory is of the same size,
/// where the driver tells one. Of several, the one with the most words.
pub(super) fn find<'a>(
    name: &str,
    memory_bytes: Option<u64>,
    known: impl Iterator<Item = Known<'a>>,
) -> Option<&'a str> {
    let wanted = words(name);
    known
        .filter(|known| same_size(memory_bytes, known.memory_bytes))
        .filter_map(|known| {
            let words = words(known.name);
            let another = wanted
                .difference(&words)
                .any(|word| VARIANTS.contains(&word.as_str()));
            let found = !words.is_empty() && words.is_subset(&wanted) && !another;
            found.then_some((words.len(), known.id))
        })
        .max_by_key(|(count, _)| *count)
        .map(|(_, id)| id)
}

/// Within a tenth: drivers leave out what they keep for themselves.
fn same_size(one: Option<u64>, other: Option<u64>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.abs_diff(other) <= one.max(other) / 10,
        (None, _) | (_, None) => true,
    }
}

/// The words that tell products apart: without makers, what stands in brackets, and the size of
/// the memory.
fn words(name: &str) -> BTreeSet<String> {
    let mut depth = 0;
    let name: String = name
        .chars()
        .filter(|character| {
            depth += i32::from(*character == '(') - i32::from(*character == ')');
            depth <= 0
        })
        .flat_map(char::to_lowercase)
        .collect();
    let all: Vec<&str> = name
        .split(|character: char| !character.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .collect();
    let mut words = BTreeSet::new();
    for (index, word) in all.iter().enumerate() {
        let size = all.get(index + 1) == Some(&"gb")
            || word
                .strip_suffix("gb")
                .is_some_and(|digits| digits.parse::<u32>().is_ok());
        if size || NOISE.contains(word) {
            continue;
        }
        words.insert(match *word {
            // The form factor, however its generation is written; of an H100, only the SXM
            // card has HBM3, and its driver's name says nothing else.
            "sxm2" | "sxm3" | "sxm4" | "sxm5" | "hbm3" => "sxm".to_owned(),
            word => word.to_owned(),
        });
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn found(name: &str, gib: Option<u64>) -> Option<&'static str> {
        let known = [
            ("rtx-4060-ti-16gb", "NVIDIA RTX 4060 Ti 16 GB", Some(16)),
            ("rtx-4060-ti-8gb", "NVIDIA RTX 4060 Ti 8 GB", Some(8)),
            ("rtx-4070", "NVIDIA RTX 4070", Some(12)),
            ("rtx-4070-ti", "NVIDIA RTX 4070 Ti", Some(12)),
            ("rtx-4070-ti-super", "NVIDIA RTX 4070 Ti SUPER", Some(16)),
            ("rtx-3090", "NVIDIA RTX 3090", Some(24)),
            ("a100-pcie-80gb", "NVIDIA A100 PCIe 80 GB", Some(80)),
            ("a100-sxm-80gb", "NVIDIA A100 SXM 80 GB", Some(80)),
            ("a100-40gb", "NVIDIA A100 40 GB", Some(40)),
            ("h100-pcie", "NVIDIA H100 PCIe 80 GB", Some(80)),
            ("h100-sxm", "NVIDIA H100 SXM 80 GB", Some(80)),
            ("gb10", "NVIDIA GB10 (Grace Blackwell)", None),
            ("m4-pro-16", "Apple M4 Pro, 16-core GPU", None),
            ("m4-pro-20", "Apple M4 Pro, 20-core GPU", None),
            ("m4-10", "Apple M4, 10-core GPU", None),
            ("rx-7900-xtx", "AMD Radeon RX 7900 XTX", Some(24)),
            ("arc-140v", "Intel Core Ultra 7 258V (Arc 140V)", None),
        ];
        let known = known.into_iter().map(|(id, name, gib)| Known {
            id,
            name,
            memory_bytes: gib.map(|gib: u64| gib * GIB),
        });
        find(name, gib.map(|gib| gib * GIB), known)
    }

    #[test]
    fn drivers_names() {
        let cases = [
            ("NVIDIA GeForce RTX 3090", Some(24), Some("rtx-3090")),
            ("NVIDIA GeForce RTX 3090 Ti", Some(24), None),
            (
                "NVIDIA GeForce RTX 4070 Ti SUPER",
                Some(16),
                Some("rtx-4070-ti-super"),
            ),
            ("NVIDIA GeForce RTX 4070 Ti", Some(12), Some("rtx-4070-ti")),
            ("NVIDIA GeForce RTX 4070 Laptop GPU", Some(8), None),
            (
                "NVIDIA GeForce RTX 4060 Ti",
                Some(16),
                Some("rtx-4060-ti-16gb"),
            ),
            (
                "NVIDIA GeForce RTX 4060 Ti",
                Some(8),
                Some("rtx-4060-ti-8gb"),
            ),
            ("NVIDIA A100-SXM4-80GB", Some(80), Some("a100-sxm-80gb")),
            ("NVIDIA A100 80GB PCIe", Some(80), Some("a100-pcie-80gb")),
            ("NVIDIA H100 80GB HBM3", Some(80), Some("h100-sxm")),
            ("NVIDIA H100 PCIe", Some(80), Some("h100-pcie")),
            ("NVIDIA H100 NVL", Some(94), None),
            ("NVIDIA GB10", None, Some("gb10")),
            ("Apple M4 Pro 20 core", None, Some("m4-pro-20")),
            ("Apple M4 10 core", None, Some("m4-10")),
            ("Apple M4 Max 40 core", None, None),
            ("AMD Radeon RX 7900 XTX", Some(24), Some("rx-7900-xtx")),
            ("Intel(R) Core(TM) Ultra 7 258V", None, Some("arc-140v")),
            ("", None, None),
        ];
        for (name, gib, id) in cases {
            assert_eq!(found(name, gib), id, "{name}, {gib:?} GiB");
        }
    }
}
