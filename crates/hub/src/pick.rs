//! Which files of a repository are the model that is meant.

use std::path::Path;

use brigade_gguf::split_prefix;

use crate::repo::Listed;
use crate::{HubError, HubRef, quantization_in};

/// A model in a repository: one file, or all parts of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// The path of its first file, without `-00001-of-0000N` and the ending.
    pub(crate) name: String,
    /// Its files, in order.
    pub(crate) paths: Vec<String>,
    /// Parts, if its name counts them.
    count: Option<u32>,
    /// Bytes of all of them, as far as the hub says.
    pub(crate) bytes: u64,
}

impl Candidate {
    /// What tells it from others: its quantization, or else its file.
    fn label(&self) -> String {
        quantization_in(&self.name).unwrap_or_else(|| self.paths[0].clone())
    }

    fn shown(&self) -> String {
        let label = self.label();
        match self.bytes {
            0 => label,
            bytes if bytes >= 1_000_000_000 => format!("{label} ({:.1} GB)", bytes as f64 / 1e9),
            bytes => format!("{label} ({:.1} MB)", bytes as f64 / 1e6),
        }
    }

    fn is(&self, asked: &str) -> bool {
        let named = |path: &String| path == asked || path.rsplit('/').next() == Some(asked);
        self.label().eq_ignore_ascii_case(asked) || self.paths.iter().any(named)
    }
}

/// Finds the one model of a repository that a reference means.
pub(crate) fn pick(hub: &HubRef, files: &[Listed]) -> Result<Candidate, HubError> {
    let all = candidates(files);
    let named = |asked: &str| -> Vec<_> { all.iter().filter(|one| one.is(asked)).collect() };
    let matching = match hub.quantization.as_deref() {
        None => all.iter().collect(),
        Some(asked) => match named(asked) {
            // `Q4_K_XL` may only be there as `UD-Q4_K_XL`.
            none if none.is_empty() => named(&format!("UD-{asked}")),
            found => found,
        },
    };
    match matching[..] {
        _ if all.is_empty() => Err(HubError::NoGguf {
            repo: hub.repo.clone(),
        }),
        [one] => complete(hub, one).map(|()| one.clone()),
        [] => Err(HubError::NoQuantization {
            repo: hub.repo.clone(),
            asked: hub.quantization.clone().unwrap_or_default(),
            there: all.iter().map(Candidate::shown).collect(),
        }),
        [first, ..] => {
            // Files of one quantization are told apart by their names.
            let twins = |one: &Candidate| {
                let label = one.label();
                all.iter().filter(|other| other.label() == label).count() > 1
            };
            let typed = |one: &Candidate| {
                if twins(one) {
                    one.paths[0].clone()
                } else {
                    one.label()
                }
            };
            let shown = |one: &&Candidate| {
                if twins(one) {
                    one.paths[0].clone()
                } else {
                    one.shown()
                }
            };
            let example = HubRef {
                quantization: Some(typed(first)),
                ..hub.clone()
            };
            Err(HubError::Ambiguous {
                reference: hub.to_string(),
                there: matching.iter().map(shown).collect(),
                example: example.to_string(),
            })
        }
    }
}

/// The models among a repository's files that are complete, each with what tells it from the others.
pub(crate) fn labelled(files: &[Listed]) -> Vec<(String, Candidate)> {
    let mut all = candidates(files);
    all.retain(|one| missing_part(one).is_none());
    let label = |one: &Candidate| {
        let label = one.label();
        let twins = all.iter().filter(|other| other.label() == label).count();
        if twins > 1 {
            one.paths[0].clone()
        } else {
            label
        }
    };
    let labels: Vec<_> = all.iter().map(label).collect();
    labels.into_iter().zip(all).collect()
}

/// The models of a repository. What only belongs to one, such as what sees for it, is none.
fn candidates(files: &[Listed]) -> Vec<Candidate> {
    let is_model = |file: &&Listed| {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        Path::new(name).extension().is_some_and(|end| end == "gguf")
            && !name.contains("mmproj")
            && !name.contains("imatrix")
    };
    let mut files: Vec<&Listed> = files.iter().filter(is_model).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut found: Vec<Candidate> = Vec::new();
    for file in files {
        let (name, count) = model_of(&file.path);
        let bytes = file.size.unwrap_or(0);
        let before = found
            .iter_mut()
            .find(|one| count.is_some() && one.count == count && one.name == name);
        if let Some(one) = before {
            one.paths.push(file.path.clone());
            one.bytes += bytes;
        } else {
            found.push(Candidate {
                name,
                paths: vec![file.path.clone()],
                count,
                bytes,
            });
        }
    }
    found
}

/// What a file's name says: its model, and how many parts that has.
fn model_of(path: &str) -> (String, Option<u32>) {
    let stem = path.strip_suffix(".gguf").unwrap_or(path);
    let split = || {
        let count = stem.rsplit_once("-of-")?.1;
        let count: u32 = (count.len() == 5).then(|| count.parse().ok())??;
        let path = Path::new(path);
        let name = path.with_file_name(split_prefix(path, count)?);
        Some((name.to_str()?.to_owned(), Some(count)))
    };
    split().unwrap_or_else(|| (stem.to_owned(), None))
}

fn complete(hub: &HubRef, one: &Candidate) -> Result<(), HubError> {
    match missing_part(one) {
        None => Ok(()),
        Some(number) => Err(HubError::MissingPart {
            repo: hub.repo.clone(),
            name: one.name.clone(),
            number,
            count: one.count.unwrap_or(0),
        }),
    }
}

/// The first part that is not there, from 1.
fn missing_part(one: &Candidate) -> Option<u32> {
    let count = one.count.unwrap_or(0);
    (1..=count).find(|number| {
        let expected = format!("{}-{number:05}-of-{count:05}.gguf", one.name);
        one.paths.get(*number as usize - 1) != Some(&expected)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(paths: &[&str]) -> Vec<Listed> {
        let listed = |path: &&str| Listed {
            path: (*path).to_owned(),
            size: Some(2_000_000_000),
        };
        paths.iter().map(listed).collect()
    }

    fn picked(text: &str, paths: &[&str]) -> Result<Vec<String>, String> {
        let Ok(crate::ModelRef::Hub(hub)) = text.parse() else {
            panic!("{text}");
        };
        pick(&hub, &listed(paths))
            .map(|one| one.paths)
            .map_err(|error| error.to_string())
    }

    const SOME: [&str; 6] = [
        "README.md",
        "m-Q8_0.gguf",
        "m-Q4_K_M.gguf",
        "mmproj-F16.gguf",
        "BF16/m-BF16-00002-of-00002.gguf",
        "BF16/m-BF16-00001-of-00002.gguf",
    ];

    #[test]
    fn the_quantization_that_was_asked_for() {
        let dynamic = ["m-UD-Q4_K_XL.gguf", "m-Q8_0.gguf"];
        for (asked, files, expected) in [
            ("hf:o/r:q4_k_m", &SOME[..], &["m-Q4_K_M.gguf"][..]),
            ("hf:o/r:m-Q8_0.gguf", &SOME, &["m-Q8_0.gguf"]),
            ("hf:o/r:BF16", &SOME, &[SOME[5], SOME[4]]),
            ("hf:o/r", &["a.gguf", "b.txt"], &["a.gguf"]),
            ("hf:o/r:Q4_K_XL", &dynamic, &dynamic[..1]),
        ] {
            assert_eq!(picked(asked, files).unwrap(), expected, "{asked}");
        }
    }

    #[test]
    fn what_is_refused_says_what_there_is() {
        let there = "BF16 (4.0 GB), Q4_K_M (2.0 GB), Q8_0 (2.0 GB)";
        assert_eq!(
            picked("hf:o/r", &SOME).unwrap_err(),
            format!("hf:o/r may mean any of {there}: name one, such as hf:o/r:BF16")
        );
        assert_eq!(
            picked("hf:o/r:Q2_K@v1", &SOME).unwrap_err(),
            format!("hf:o/r has no Q2_K; it has {there}")
        );
        assert_eq!(
            picked("hf:o/r:Q4_0", &["a-Q4_0.gguf", "b-Q4_0.gguf"]).unwrap_err(),
            "hf:o/r:Q4_0 may mean any of a-Q4_0.gguf, b-Q4_0.gguf: name one, such as \
             hf:o/r:a-Q4_0.gguf"
        );
        let none = picked("hf:o/r", &["README.md", "mmproj-F16.gguf"]).unwrap_err();
        assert!(none.starts_with("hf:o/r has no GGUF file"), "{none}");
        let unfinished = ["m-00001-of-00003.gguf", "m-00003-of-00003.gguf"];
        assert_eq!(
            picked("hf:o/r", &unfinished).unwrap_err(),
            "hf:o/r lacks part 2 of 3 of m: the upload may be unfinished"
        );
    }
}
