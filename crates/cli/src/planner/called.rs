//! Names of models that are other models' too: of the same shape, trained further.

use brigade_fit::model::Model;

/// Words that make no other model: kinds of checkpoints, units, makers' prefixes.
const PLAIN: [&str; 15] = [
    "meta", "thudm", "instruct", "it", "chat", "hf", "base", "dense", "a", "b", "e", "m", "t", "v",
    "x",
];

/// Whether a name by which a model was found is another model's, and no spelling of its own.
pub(super) fn another(model: &Model, name: &str) -> bool {
    let own = [Some(&model.id), Some(&model.name), model.repo.as_ref()];
    let own: Vec<String> = own
        .into_iter()
        .flatten()
        .flat_map(|own| words(own))
        .collect();
    let strange = |word: &String| !own.contains(word) && !PLAIN.contains(&word.as_str());
    words(name).iter().any(strange)
}

/// Whether two names are the same but for how they are spelled.
pub(super) fn is(one: &str, other: &str) -> bool {
    let plain = |name: &str| -> String {
        let letters = name.chars().filter(|c| c.is_alphanumeric());
        letters.flat_map(char::to_lowercase).collect()
    };
    plain(one) == plain(other)
}

/// The words of a name, without numbers: sizes and versions are written in many ways.
fn words(name: &str) -> Vec<String> {
    let words = name.split(|c: char| !c.is_alphabetic());
    let words = words.filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use brigade_fit::catalog::Catalog;

    use super::another;

    #[test]
    fn other_models_of_the_same_shape() {
        let catalog = Catalog::embedded().unwrap();
        let is = |name: &str| another(catalog.model(name).unwrap(), name);
        for name in [
            "deepseek-r1-distill-llama-70b",
            "Hermes-3-Llama-3.1-8B",
            "qwen2.5-coder:32b",
            "Nemotron-70B",
            "Qwen3-30B-A3B-Thinking-2507",
        ] {
            assert!(is(name), "{name}");
        }
        for name in [
            "llama-3.3-70b",
            "llama3.3",
            "LLAMA3.3:70B",
            "Llama-3.3-70B-Instruct",
            "meta-llama/Llama-3.3-70B-Instruct",
            "Meta-Llama-3.1-8B-Instruct",
            "gemma3:27b",
            "gemma-3-27b-it",
            "gpt-oss:120b",
            "kimi-k2:1t",
            "deepseek-r1:671b",
            "Qwen3-235B-A22B-Instruct-2507",
            "mixtral:8x7b",
            "phi4",
        ] {
            assert!(!is(name), "{name}");
        }
    }

    /// Ids, names and repositories are the models' own.
    #[test]
    fn nobody_is_called_another_by_its_own_name() {
        for model in Catalog::embedded().unwrap().models {
            for own in [Some(&model.id), model.repo.as_ref()].into_iter().flatten() {
                assert!(!another(&model, own), "{own}");
            }
        }
    }
}
