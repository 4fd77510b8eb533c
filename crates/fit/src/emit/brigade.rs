//! The commands that run a plan with Brigade itself.

use std::fmt::Write;

use super::{Nodes, Run, is_plain, one_line, quoted};
use crate::machine::PoolKind;
use crate::memory::KvType;
use crate::model::Format;
use crate::program::Program;

pub(super) fn commands(run: &Run) -> Result<String, String> {
    possible(run)?;
    let nodes: Vec<_> = run
        .plan
        .stages
        .iter()
        .map(|stage| &run.cluster.nodes[stage.node])
        .collect();
    let [first, others @ ..] = &nodes[..] else {
        return Err("the plan is empty".into());
    };
    let mut text = String::new();
    let mut say = |line: &str| {
        text.push_str(&one_line(line));
        text.push('\n');
    };
    if run.nodes == Nodes::ToStart {
        for (index, node) in nodes.iter().enumerate() {
            let until = if index == 0 { ", until Ctrl-C" } else { "" };
            say(&format!(
                "# on {} ({}){until}",
                node.name, node.machine.name
            ));
            let join = if index == 0 { "" } else { " --join <token>" };
            say(&match others {
                [] => "brigade up".to_owned(),
                _ => format!("brigade up --name {}{join}", word(&node.name)),
            });
            if index == 0 && !others.is_empty() {
                say(&format!(
                    "# on {} too, once for each of the others: a token lets one node in",
                    node.name
                ));
                say("brigade invite");
            }
        }
        say(&format!("# then on {}", first.name));
    }
    let model = model(run);
    if model.is_none() {
        say(&format!(
            "# <owner/repo> has GGUF files of {}; a file's path will do as well",
            run.model.name
        ));
    }
    let mut load = format!(
        "brigade load {}",
        model.unwrap_or_else(|| format!("hf:<owner/repo>:{}", run.quant.name))
    );
    if run.nodes == Nodes::Up || !others.is_empty() {
        let names: Vec<String> = nodes.iter().map(|node| word(&node.name)).collect();
        let _ = write!(load, " --on {}", names.join(","));
    }
    let _ = write!(
        load,
        " --ctx {} --streams {}",
        run.load.context,
        run.load.sequences.max(1)
    );
    let staged = Program::of_pipeline(run.model, Format::Gguf) == Program::Brigade;
    if staged && !others.is_empty() {
        say(
            "# --on divides the layers by the memory that is free then; --plan FILE, in its place,",
        );
        say("# keeps to those of `brigade plan --json`");
    }
    if !staged {
        say(&format!(
            "# stages do not support the architecture {} yet",
            run.model.architecture
        ));
        load.push_str(" --engine llama-rpc");
    }
    say(&load);
    Ok(text)
}

/// Why it cannot run the plan, if it cannot.
fn possible(run: &Run) -> Result<(), String> {
    if run.quant.format != Format::Gguf {
        let own = run.model.production_quant(Some(Format::Gguf));
        let choose = own.map_or_else(
            || "the catalog has none of this model".to_owned(),
            |own| format!("choose --quant {}", own.name),
        );
        return Err(format!(
            "it reads GGUF, and {} is not; {choose}",
            run.quant.name
        ));
    }
    if run.load.kv_type != KvType::F16 {
        return Err(format!(
            "it keeps keys and values in 16 bits; ask without --kv-type {}",
            run.load.kv_type.name()
        ));
    }
    for stage in &run.plan.stages {
        let node = &run.cluster.nodes[stage.node];
        let pools = &node.machine.pools;
        let gpus = pools.iter().any(|pool| pool.kind != PoolKind::Ram);
        let mut parts = stage.packing.parts.iter();
        let ram = parts.any(|part| pools[part.pool].kind == PoolKind::Ram);
        if stage.packing.experts_in_ram > 0 || (ram && gpus) {
            return Err(format!(
                "on {} weights lie in system memory beside a GPU, and a stage lies on its node's GPUs \
                 whole; a smaller --quant may, or --emit llama-server runs it",
                node.name
            ));
        }
    }
    Ok(())
}

/// What the weights are called, where that is known.
fn model(run: &Run) -> Option<String> {
    let name = run.named?;
    // The facts of a model are no weights.
    let end = name.len().saturating_sub(".json".len());
    let facts = name
        .get(end..)
        .is_some_and(|end| end.eq_ignore_ascii_case(".json"));
    (!facts).then(|| word(name))
}

/// A name as one word of a shell.
fn word(name: &str) -> String {
    let plain = is_plain(&name.replace([':', '@'], "-"));
    if plain { name.to_owned() } else { quoted(name) }
}
