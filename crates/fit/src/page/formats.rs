//! Which format a quantization is in, and what that means to those who run it.

use std::collections::BTreeMap;

use super::format::{and, count, thousands};
use crate::catalog::Catalog;
use crate::model::{Format, Model};
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

/// What to know about a quantization whose format is not the one that Brigade runs.
pub(super) fn note(catalog: &Catalog, model: &Model, quant: &str) -> Option<String> {
    let format = of(model, quant).filter(|format| *format != Format::Gguf)?;
    let own = model.production_quant(Some(Format::Gguf));
    let own = own.map(|own| own.name.as_str());
    Some(format!("{quant} is {}", foreign(catalog, format, own)))
}

/// The same of a page of many models: how many stand in such a format.
pub(super) fn notes(catalog: &Catalog, verdicts: &[Verdict]) -> Option<String> {
    let known = |verdict: &Verdict| {
        let model = catalog.models.iter().find(|model| model.id == verdict.id)?;
        Some((model, of(model, &verdict.quant)?))
    };
    let known: Vec<(&Model, Format)> = verdicts.iter().filter_map(known).collect();
    let parts = [Format::Mlx, Format::Safetensors].map(|format| {
        let of_it: Vec<&Model> = known
            .iter()
            .filter(|(_, own)| *own == format)
            .map(|(model, _)| *model)
            .collect();
        // The quantization that most of them have of Brigade's own format.
        let own = of_it
            .iter()
            .filter_map(|model| model.production_quant(Some(Format::Gguf)))
            .fold(BTreeMap::<&str, usize>::new(), |mut names, quant| {
                *names.entry(&quant.name).or_default() += 1;
                names
            });
        let own = own.into_iter().max_by_key(|(_, models)| *models);
        (!of_it.is_empty()).then(|| {
            format!(
                "{} of the {} stand in {}",
                thousands(of_it.len() as i64),
                count(verdicts.len(), "model"),
                foreign(catalog, format, own.map(|(name, _)| name))
            )
        })
    });
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(" "))
}

/// `MLX, for exo and mlx-lm; Brigade runs GGUF: add --quant Q4_K_M.`
fn foreign(catalog: &Catalog, format: Format, own: Option<&str>) -> String {
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
    let own = own.map_or_else(
        || " and the catalog has none of it".to_owned(),
        |own| format!(": add --quant {own}"),
    );
    format!("{}{made_for}; Brigade runs GGUF{own}.", name(format))
}
