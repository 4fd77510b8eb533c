//! What people type for a model.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{OllamaModel, url};

/// A model by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ModelRef {
    /// A file, or the first of several.
    Path(PathBuf),
    /// `hf:owner/repo[:QUANT][@revision]`: in a repository of a hub.
    Hub(HubRef),
    /// A file on any web server, or one of several parts.
    Url(String),
    /// `ollama:name[:tag]`: what Ollama has on this machine.
    Ollama(OllamaModel),
}

/// A model of a hub's repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HubRef {
    /// `owner/name`.
    pub repo: String,
    /// A quantization such as `Q4_K_M`, or the name of a file that ends in `.gguf`.
    pub quantization: Option<String>,
    /// A branch, a tag or a commit; without it `main`.
    pub revision: Option<String>,
}

/// Why a text that begins with `hf:` or `ollama:` names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct ParseRefError {
    text: String,
    expected: &'static str,
}

impl FromStr for ModelRef {
    type Err = ParseRefError;

    fn from_str(text: &str) -> Result<Self, ParseRefError> {
        if url::is_url(text) {
            return Ok(Self::Url(text.to_owned()));
        }
        if let Some(name) = text.strip_prefix("ollama:") {
            let found = ollama(name).ok_or_else(|| ParseRefError {
                text: text.to_owned(),
                expected: "ollama:name or ollama:name:tag",
            });
            return found.map(Self::Ollama);
        }
        let Some(rest) = text.strip_prefix("hf:") else {
            return Ok(Self::Path(text.into()));
        };
        let wrong = || ParseRefError {
            text: text.to_owned(),
            expected: "hf:owner/repo, hf:owner/repo:QUANT or hf:owner/repo:QUANT@revision",
        };
        let (rest, revision) = match rest.split_once('@') {
            Some((rest, revision)) => (rest, Some(revision)),
            None => (rest, None),
        };
        let (repo, quantization) = match rest.split_once(':') {
            Some((repo, quantization)) => (repo, Some(quantization)),
            None => (rest, None),
        };
        let (owner, name) = repo.split_once('/').ok_or_else(wrong)?;
        let is_path = |text: &str| text.split('/').all(is_name);
        let optional = [quantization, revision].into_iter().flatten().all(is_path);
        if !is_name(owner) || !is_name(name) || !optional {
            return Err(wrong());
        }
        Ok(Self::Hub(HubRef {
            repo: repo.to_owned(),
            quantization: quantization.map(str::to_owned),
            revision: revision.map(str::to_owned),
        }))
    }
}

/// What stands after `ollama:`.
fn ollama(text: &str) -> Option<OllamaModel> {
    let (name, tag) = match text.split_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (text, None),
    };
    let parts = name.split('/');
    let known = (1..=3).contains(&parts.clone().count()) && parts.chain(tag).all(is_name);
    known.then(|| OllamaModel {
        name: name.to_owned(),
        tag: tag.map(str::to_owned),
    })
}

/// Whether this can be a part of a path without leading elsewhere.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |character: char| {
        !character.is_control() && !character.is_whitespace() && !"/\\:@?#%".contains(character)
    };
    !matches!(text, "" | "." | "..") && text.chars().all(plain)
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Hub(hub) => write!(f, "{hub}"),
            Self::Url(address) => f.write_str(&url::shown(address)),
            Self::Ollama(model) => write!(f, "{model}"),
        }
    }
}

impl fmt::Display for HubRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.repo)?;
        if let Some(quantization) = &self.quantization {
            write!(f, ":{quantization}")?;
        }
        if let Some(revision) = &self.revision {
            write!(f, "@{revision}")?;
        }
        Ok(())
    }
}

/// The quantization that a file's name says, such as `Q4_K_M` or `UD-IQ2_XXS`, in upper case.
pub fn quantization_in(file_name: &str) -> Option<String> {
    let stem = file_name.strip_suffix(".gguf").unwrap_or(file_name);
    let words: Vec<&str> = stem.split(['-', '.']).collect();
    let at = words.iter().rposition(|word| is_quantization(word))?;
    let word = words[at].to_ascii_uppercase();
    // What Unsloth calls its dynamic ones.
    let dynamic = at > 0 && words[at - 1].eq_ignore_ascii_case("UD");
    Some(if dynamic { format!("UD-{word}") } else { word })
}

/// Whether a word is a name of llama.cpp's file types: letters of a kind, a number of bits, more.
fn is_quantization(word: &str) -> bool {
    let word = word.to_ascii_uppercase();
    let kinds = ["MXFP", "NVFP", "BF", "FP", "IQ", "TQ", "F", "Q"];
    kinds.iter().any(|kind| {
        let Some(rest) = word.strip_prefix(kind) else {
            return false;
        };
        let mut pieces = rest.split('_');
        let bits = pieces.next().unwrap_or_default();
        let counted = matches!(bits.len(), 1 | 2) && bits.bytes().all(|byte| byte.is_ascii_digit());
        let told = |piece: &str| {
            matches!(piece.len(), 1..=3) && piece.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        let floats = matches!(*kind, "F" | "BF" | "FP");
        counted && (!floats || rest == "16" || rest == "32") && pieces.all(told)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let hub = |repo: &str, quantization: Option<&str>, revision: Option<&str>| {
            ModelRef::Hub(HubRef {
                repo: repo.to_owned(),
                quantization: quantization.map(str::to_owned),
                revision: revision.map(str::to_owned),
            })
        };
        let ollama = |name: &str, tag: Option<&str>| {
            ModelRef::Ollama(OllamaModel {
                name: name.to_owned(),
                tag: tag.map(str::to_owned),
            })
        };
        for (text, expected) in [
            ("hf:o/r", hub("o/r", None, None)),
            ("hf:o/r:Q4_K_M", hub("o/r", Some("Q4_K_M"), None)),
            ("hf:o/r@refs/pr/1", hub("o/r", None, Some("refs/pr/1"))),
            (
                "hf:o/r.x:a/b.gguf@v1",
                hub("o/r.x", Some("a/b.gguf"), Some("v1")),
            ),
            (
                "https://h/m.gguf",
                ModelRef::Url("https://h/m.gguf".to_owned()),
            ),
            (
                "models/hf:x.gguf",
                ModelRef::Path("models/hf:x.gguf".into()),
            ),
            ("m.gguf", ModelRef::Path("m.gguf".into())),
            ("ollama:llama3.2", ollama("llama3.2", None)),
            ("ollama:hf.co/o/r:Q4_0", ollama("hf.co/o/r", Some("Q4_0"))),
        ] {
            let read: ModelRef = text.parse().unwrap();
            assert_eq!(read, expected);
            assert_eq!(read.to_string(), text);
        }
        for text in [
            "hf:",
            "hf:o",
            "hf:/r",
            "hf:o/",
            "hf:o/r:",
            "hf:o/r@",
            "hf:o/r/s",
            "hf:../r",
            "hf:o/..",
            "hf:o/r:../x",
            "hf:o/r@a/../b",
            "hf:o/r:a b",
            "hf:o/r?x",
            "hf:o/r\u{1b}",
        ] {
            let error = text.parse::<ModelRef>().unwrap_err().to_string();
            assert!(error.contains("is not hf:owner/repo"), "{text}: {error}");
        }
        for text in [
            "ollama:",
            "ollama:a:",
            "ollama:a:b:c",
            "ollama:../a",
            "ollama:a/b/c/d",
            "ollama:a b",
        ] {
            let error = text.parse::<ModelRef>().unwrap_err().to_string();
            assert!(error.contains("is not ollama:name"), "{text}: {error}");
        }
    }

    #[test]
    fn quantizations_in_names() {
        for (name, expected) in [
            ("SmolLM2-135M-Instruct.Q4_1.gguf", Some("Q4_1")),
            ("gemma-3-270m-q4_k_m.gguf", Some("Q4_K_M")),
            ("Qwen3-8B-UD-Q4_K_XL.gguf", Some("UD-Q4_K_XL")),
            ("m-IQ2_XXS-00001-of-00003.gguf", Some("IQ2_XXS")),
            ("gpt-oss-20b-mxfp4.gguf", Some("MXFP4")),
            ("m-BF16.gguf", Some("BF16")),
            ("m.f16.gguf", Some("F16")),
            ("Qwen3-8B.gguf", None),
            ("model-F1.gguf", None),
            ("mistral-7b.gguf", None),
        ] {
            assert_eq!(quantization_in(name).as_deref(), expected, "{name}");
        }
    }
}
