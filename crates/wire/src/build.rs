//! Comparing builds of llama.cpp by what they say of themselves.

use std::cmp::Ordering;

/// Which of two unequal builds is the older one, by the numbers in their texts, as far as these
/// tell: `Less` if it is `ours`.
pub fn compare_builds(ours: &str, theirs: &str) -> Ordering {
    numbers(ours).cmp(&numbers(theirs))
}

fn numbers(text: &str) -> Vec<u64> {
    text.split(|character: char| !character.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_build_is_known_by_its_numbers() {
        let build = |n: u32| format!("llama.cpp 0.0.{n} ggml 0.9.5 (0.1.161)");
        assert_eq!(compare_builds(&build(999), &build(1000)), Ordering::Less);
        assert_eq!(compare_builds(&build(7), &build(6)), Ordering::Greater);
        assert_eq!(compare_builds("mine", "yours"), Ordering::Equal);
    }
}
