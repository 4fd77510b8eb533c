//! The commands that run a plan with exo.

use std::fmt::Write;

use super::{Run, is_plain, one_line};
use crate::model::{Format, Model, Quantization};
use crate::page::format::tokens;

pub(super) fn commands(run: &Run) -> Result<String, String> {
    if run.quant.format != Format::Mlx {
        return Err(format!(
            "it reads MLX weights, and {} is not; choose an MLX quantization",
            run.quant.name
        ));
    }
    if let Some(node) = run.cluster.nodes.iter().find(|node| {
        let pools = &node.machine.pools;
        !pools.iter().all(|pool| pool.family.starts_with("apple"))
    }) {
        return Err(format!(
            "it computes on Apple silicon, and {} is none",
            node.machine.name
        ));
    }
    let nodes = run.plan.stages.len();
    let mut text = String::from(
        "# exo has no authentication: only on networks that you trust. It divides the layers itself,\n# by free memory, and downloads the whole model to every node.\n",
    );
    for node in &run.cluster.nodes {
        let _ = writeln!(
            text,
            "# on {} ({}), in exo's folder\nuv run exo",
            one_line(&node.name),
            one_line(&node.machine.name)
        );
    }
    let _ = writeln!(
        text,
        "# then on any of them; the plan is for {} of context, for which exo has no option",
        tokens(run.load.context)
    );
    let model = repository(run.model, run.quant);
    if model.is_none() {
        text.push_str("# <model> is the MLX repository, such as mlx-community/...\n");
    }
    let model = model.unwrap_or_else(|| "<model>".to_owned());
    let _ = writeln!(
        text,
        "curl -X POST http://localhost:52415/place_instance -H 'Content-Type: application/json' \\\n  -d '{{\"model_id\": \"{model}\", \"sharding\": \"Pipeline\", \"instance_meta\": \"MlxRing\", \"min_nodes\": {nodes}}}'"
    );
    Ok(text)
}

/// Where exo's cards of models stand in a source, as `mlx-community--NAME.toml`.
const CARD: &str = "mlx-community--";

/// Words of a repository's name that do not make it another model.
const PLAIN: [&str; 9] = [
    "it", "instruct", "chat", "hf", "mlx", "mxfp4", "q8", "bf16", "fp16",
];

/// The MLX repository that the bytes of the quantization were read of, if it is the model's own:
/// another model of the same shape has the same bytes.
fn repository(model: &Model, quant: &Quantization) -> Option<String> {
    let (_, rest) = quant.source.split_once(CARD)?;
    let name = rest.split_whitespace().next()?.strip_suffix(".toml")?;
    if !is_plain(name) {
        return None;
    }
    let tail = model
        .repo
        .as_deref()
        .and_then(|repo| repo.rsplit('/').next());
    let own = [Some(model.id.as_str()), Some(&model.name), tail];
    let of_model = own.into_iter().flatten().any(|own| {
        let (own, mut words) = (words(own), words(name).into_iter());
        let own = own.iter().filter(|word| !PLAIN.contains(&word.as_str()));
        own.into_iter()
            .all(|word| words.next().as_ref() == Some(word))
            && words.all(|word| word.ends_with("bit") || PLAIN.contains(&word.as_str()))
    });
    of_model.then(|| format!("mlx-community/{name}"))
}

fn words(name: &str) -> Vec<String> {
    let words = name.split(['-', '_', ' ']);
    words.map(str::to_lowercase).collect()
}
