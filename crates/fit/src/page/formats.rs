//! Which format a quantization is in, and what that means to those who run it.

use super::format::{and, count, thousands};
use crate::catalog::Catalog;
use crate::model::{Format, Model};
use crate::program::Program;
use crate::verdict::Verdict;

/// A format's name for people.
pub(super) fn name(format: Format) -> &'static str {
    match format {
        Format::Gguf => "GGUF",
        Format::Mlx => "MLX",
        Format::Safetensors => "safetensors",
    }
}

/// The format of a model's quantization.
pub(super) fn of(model: &Model, quant: &str) -> Option<Format> {
    let mut quants = model.quants.iter();
    quants
        .find(|own| own.name == quant)
        .map(|quant| quant.format)
}

/// What to know about a quantization's format and about who runs it over this many nodes.
pub(super) fn note(catalog: &Catalog, model: &Model, quant: &str, nodes: usize) -> Option<String> {
    let format = of(model, quant)?;
    let mut said = Vec::new();
    if format != Format::Gguf {
        let own = model.production_quant(Some(Format::Gguf)).is_some();
        said.push(format!("{quant} is {}", foreign(catalog, format, own)));
    }
    if nodes > 1 && Program::of_pipeline(model, Format::Gguf) != Program::Brigade {
        said.push(format!(
            "Over several nodes Brigade runs its GGUF by llama.cpp RPC: of architectures it cuts {} into stages so far.",
            staged()
        ));
    }
    (!said.is_empty()).then(|| said.join(" "))
}

/// Architectures that Brigade cuts into stages.
fn staged() -> String {
    let names = brigade_gguf::Architecture::supported().map(str::to_owned);
    and(&names.collect::<Vec<_>>())
}

/// The same of a page of many models: how many are in such a format.
pub(super) fn notes(catalog: &Catalog, verdicts: &[Verdict], nodes: usize) -> Option<String> {
    let known = |verdict: &Verdict| {
        let model = catalog.models.iter().find(|model| model.id == verdict.id)?;
        Some((model, of(model, &verdict.quant)?))
    };
    let known: Vec<(&Model, Format)> = verdicts.iter().filter_map(known).collect();
    let parts = [Format::Mlx, Format::Safetensors].map(|format| {
        let of_it = known.iter().filter(|(_, own)| *own == format);
        let models: Vec<&Model> = of_it.map(|(model, _)| *model).collect();
        let own = |model: &&Model| model.production_quant(Some(Format::Gguf)).is_some();
        (!models.is_empty()).then(|| {
            format!(
                "{} of the {} are in {}",
                thousands(models.len() as i64),
                count(verdicts.len(), "model"),
                foreign(catalog, format, models.iter().any(own))
            )
        })
    });
    let mut parts: Vec<String> = parts.into_iter().flatten().collect();
    if nodes > 1 {
        parts.push(format!(
            "Over several nodes Brigade cuts {} into stages so far, and runs others by llama.cpp RPC.",
            staged()
        ));
    }
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// `MLX, for exo and mlx-lm; Brigade runs GGUF: add --format gguf.`
fn foreign(catalog: &Catalog, format: Format, own: bool) -> String {
    let made_for = catalog
        .runtimes
        .iter()
        .filter(|runtime| runtime.formats.first() == Some(&format))
        .map(|runtime| runtime.name.trim_end_matches(" distributed").to_owned());
    let made_for: Vec<String> = made_for.collect();
    let made_for = match &made_for[..] {
        [] => String::new(),
        some => format!(", for {}", and(some)),
    };
    let own = if own {
        ": add --format gguf"
    } else {
        ", and the catalog has none of it"
    };
    format!("{}{made_for}; Brigade runs GGUF{own}.", name(format))
}
