//! The nearest names to one that nobody has.

/// How many names are worth showing.
const SHOWN: usize = 3;

/// The names nearest to `name`, best first, at most three; empty where none is near.
///
/// Distance is Damerau–Levenshtein over small letters and digits, so that `M4Pro` finds `m4-pro`;
/// a name that contains all of what was given counts as near as well.
pub fn nearest<'a>(name: &str, valid: impl Iterator<Item = &'a str>) -> Vec<String> {
    let given = folded(name);
    if given.is_empty() {
        return Vec::new();
    }
    let mut found: Vec<(usize, &str)> = valid
        .filter_map(|candidate| {
            let other = folded(candidate);
            let distance = strsim::damerau_levenshtein(&given, &other);
            let contained = given.len() >= 3 && other.contains(&given)
                || given.len() == 2 && other.starts_with(&given);
            let near = distance <= 1 + given.len().min(other.len()) / 4;
            match (contained, near) {
                // Right, but for what is left out: better than any typo.
                (true, _) => Some((usize::from(distance > 0), candidate)),
                (false, true) => Some((distance, candidate)),
                (false, false) => None,
            }
        })
        .collect();
    found.sort_by(|a, b| {
        // Of the quantizations of a size, the one that people mean who say Q4.
        let usual = |name: &str| name.ends_with("_K_M");
        let key =
            |(distance, name): &(usize, &'a str)| (*distance, !usual(name), name.len(), *name);
        key(a).cmp(&key(b))
    });
    found.dedup_by(|a, b| a.1 == b.1);
    let shown = found.into_iter().take(SHOWN);
    shown.map(|(_, candidate)| candidate.to_owned()).collect()
}

/// Letters and digits only, small, cut to a length that no name reaches: the distance is quadratic.
fn folded(name: &str) -> String {
    name.chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|c| c.to_ascii_lowercase())
        .take(64)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    const NAMES: [&str; 5] = [
        "mac-mini-m4-pro-64gb",
        "mac-mini-m4-pro-48gb",
        "rtx-3090",
        "rtx-3090-ti",
        "tb5",
    ];

    #[test]
    fn a_typo_finds_its_name() {
        for (given, first) in [
            ("mac-mni-m4-pro-64gb", "mac-mini-m4-pro-64gb"),
            ("rtx3090", "rtx-3090"),
            ("RTX 3909", "rtx-3090"),
            ("tb-5", "tb5"),
        ] {
            assert_eq!(nearest(given, NAMES.into_iter())[0], first, "{given}");
        }
    }

    #[test]
    fn the_usual_quantization_is_first() {
        let quants = ["Q4_0", "Q4_1", "Q4_K_S", "Q4_K_M", "Q8_0"];
        assert_eq!(nearest("q4", quants.into_iter())[0], "Q4_K_M");
        assert_eq!(nearest("Q8", quants.into_iter())[0], "Q8_0");
    }

    #[test]
    fn what_is_far_from_all_finds_nothing() {
        assert!(nearest("a cray", NAMES.into_iter()).is_empty());
        assert!(nearest("", NAMES.into_iter()).is_empty());
        assert!(nearest("……", NAMES.into_iter()).is_empty());
    }
}
