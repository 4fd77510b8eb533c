//! What can be wrong with a question or with the catalog.

use thiserror::Error;

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum FitError {
    /// A name that the catalog does not have.
    #[error("no {kind} is called '{name}'{}", did_you_mean(nearest))]
    UnknownName {
        /// What was looked for: `machine`, `model`, `link`, `combo`, `quantization`.
        kind: &'static str,
        /// What was given.
        name: String,
        /// The nearest valid names, best first; may be empty.
        nearest: Vec<String>,
    },
    /// Machines or numbers written in a way that cannot be read.
    #[error("{what}: {hint}")]
    Syntax {
        /// The part that cannot be read, quoted from the input.
        what: String,
        /// What would be read there.
        hint: String,
    },
    /// A catalog entry that cannot be right.
    #[error("{file}:{line}: {field}: {reason}")]
    Catalog {
        /// Name of the file within the catalog's folder.
        file: String,
        /// Line of the entry, from 1.
        line: usize,
        /// The field, such as `memory_gib`.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A fact without which there is no answer.
    #[error("{of} has no known {fact}")]
    Missing {
        /// Whose fact: a model, a machine, a link.
        of: String,
        /// The fact's name.
        fact: String,
    },
    /// The model's own description cannot be used.
    #[error("{of}: {reason}")]
    Model {
        /// The file or model.
        of: String,
        /// What is wrong.
        reason: String,
    },
}

fn did_you_mean(nearest: &[String]) -> String {
    match nearest {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        [most @ .., last] => format!("; did you mean {} or {last}?", most.join(", ")),
    }
}
