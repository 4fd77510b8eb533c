//! A verdict from facts.

use super::choice::{Choice, Ways};
use super::reasons::Why;
use super::{Ask, Detail, MICRO_BATCH, Tier, Verdict, changes, reasons};
use crate::FitError;
use crate::alternatives;
use crate::cluster::{Cluster, Links};
use crate::evidence::Estimate;
use crate::machine::{Pool, PoolKind};
use crate::memory::Load;
use crate::model::{Format, Model, Quantization};
use crate::placement::{COMFORTABLE, Field, Level, Plan, Timing};
use crate::speed::Setting;
use crate::speed::{Rate, Speed};

/// Puts a model on a cluster into a tier, with reasons.
///
/// # Errors
/// If a quantization is asked for by a name that the model has not. What is not known makes the
/// verdict [`Tier::Unknown`].
pub fn assess(
    model: &Model,
    cluster: &Cluster,
    ask: &Ask,
    speed: &dyn Speed,
) -> Result<Verdict, FitError> {
    let quant = quantization(model, cluster, ask)?;
    let mut verdict = blank(model, quant, ask);
    for fact in &model.missing {
        verdict
            .reasons
            .push(format!("{} has no known {fact}.", model.name));
    }
    let Some(quant) = quant else {
        let known = model.production_quant(ask.format);
        verdict.reasons.push(match known {
            Some(other) => format!(
                "{} is known at {} only, which no runtime of these machines reads.",
                model.name, other.name
            ),
            None => format!(
                "No size of {} is known at 4 bits a weight or more.",
                model.name
            ),
        });
        return Ok(verdict);
    };
    if !verdict.reasons.is_empty() {
        return Ok(verdict);
    }
    if let Err(error) = decide(&mut verdict, model, quant, cluster, ask, speed) {
        verdict.tier = Tier::Unknown;
        verdict
            .reasons
            .push(format!("{}.", reasons::sentence(&error)));
        return Ok(verdict);
    }
    if ask.detail == Detail::Full {
        changes::fill(&mut verdict, model, quant, cluster, ask, speed)?;
        alternatives::fill(&mut verdict, model, quant, cluster, ask, speed)?;
    }
    Ok(verdict)
}

/// The plan that a verdict is about, `None` where nothing is known to fit together.
pub fn plan(
    model: &Model,
    cluster: &Cluster,
    ask: &Ask,
    speed: &dyn Speed,
) -> Result<Option<Plan>, FitError> {
    let Some(quant) = quantization(model, cluster, ask)? else {
        return Ok(None);
    };
    let ways = Ways::new(model, quant, cluster, load(model, ask), ask)?;
    let choice = ways.choose(ask.objective, speed)?;
    Ok(choice
        .filter(|choice| choice.field.utilization(&choice.plan, Level::Limit) <= 1.0)
        .map(|choice| choice.plan))
}

/// The quantization that is asked for, or the smallest production one that the machines read.
pub(crate) fn quantization<'a>(
    model: &'a Model,
    cluster: &Cluster,
    ask: &Ask,
) -> Result<Option<&'a Quantization>, FitError> {
    let Some(name) = &ask.quant else {
        return Ok([Format::Gguf, Format::Mlx, Format::Safetensors]
            .into_iter()
            .filter(|&format| {
                ask.format
                    .map_or_else(|| reads(cluster, format), |own| own == format)
            })
            .filter_map(|format| model.production_quant(Some(format)))
            .min_by_key(|quant| quant.weights.total()));
    };
    let mut of_format = model
        .quants
        .iter()
        .filter(|quant| ask.format.is_none_or(|format| quant.format == format));
    let found = of_format.find(|quant| quant.name.eq_ignore_ascii_case(name));
    found.map(Some).ok_or_else(|| FitError::UnknownName {
        kind: "quantization",
        name: name.clone(),
        nearest: crate::nearest::nearest(name, model.quants.iter().map(|quant| &*quant.name)),
    })
}

/// Whether a runtime for all pools of all nodes reads a format: llama.cpp's runs anywhere, MLX
/// on Apple silicon, vLLM on GPUs of others.
fn reads(cluster: &Cluster, format: Format) -> bool {
    let mut pools = cluster.nodes.iter().flat_map(|node| &node.machine.pools);
    let apple = |pool: &Pool| pool.family.starts_with("apple");
    match format {
        Format::Gguf => true,
        Format::Mlx => pools.all(apple),
        Format::Safetensors => pools.all(|pool| pool.kind != PoolKind::Ram && !apple(pool)),
    }
}

/// What is asked for, the context cut to the model's own.
pub(crate) fn load(model: &Model, ask: &Ask) -> Load {
    Load {
        context: ask.context.clamp(1, model.max_context.max(1)),
        sequences: ask.sequences.max(1),
        kv_type: ask.kv_type,
        micro_batch: MICRO_BATCH,
    }
}

pub(super) fn blank(model: &Model, quant: Option<&Quantization>, ask: &Ask) -> Verdict {
    Verdict {
        id: model.id.clone(),
        name: model.name.clone(),
        quant: quant.map_or(String::new(), |quant| quant.name.clone()),
        weights_bytes: quant.map_or(0, |quant| quant.weights.total()),
        tier: Tier::Unknown,
        utilization: None,
        binding_node: None,
        max_context: None,
        plan_max_context: None,
        load: load(model, ask),
        decode_tok_s: None,
        together_tok_s: None,
        prefill_tok_s: None,
        ttft_s: None,
        reasons: Vec::new(),
        changes: Vec::new(),
        ledger: Vec::new(),
        alternatives: Vec::new(),
    }
}

fn decide(
    verdict: &mut Verdict,
    model: &Model,
    quant: &Quantization,
    cluster: &Cluster,
    ask: &Ask,
    speed: &dyn Speed,
) -> Result<(), FitError> {
    let ways = Ways::new(model, quant, cluster, verdict.load, ask)?;
    let practical = ways.least(model.max_context);
    let Some(choice) = ways.choose(ask.objective, speed)? else {
        return no_plan(verdict, cluster);
    };
    let one = choice.plan.stages.len() == 1;
    verdict.tier = if choice.takes <= COMFORTABLE {
        Tier::Comfortable
    } else if practical {
        Tier::Borderline
    } else if one && cluster.nodes.len() > 1 && cluster.links == Links::Unnamed {
        return no_plan(verdict, cluster);
    } else {
        Tier::NotPractical
    };
    if practical {
        verdict.max_context = ways.largest(model.max_context);
        verdict.plan_max_context = choice.max_context(model.max_context);
    }
    let Choice { field, plan, .. } = &choice;
    verdict.utilization = Some(field.utilization(plan, Level::Effective(1.0)));
    verdict.binding_node = field
        .binding(plan)
        .map(|node| cluster.nodes[node].name.clone());
    verdict.ledger = field.ledger(plan)?;
    let why = match ask.objective {
        Some(objective) => Why::Asked(objective),
        // All GPUs, though one node with its system memory would do.
        None if field.gpus_only().is_none() && ways.has_ram_beside_gpus() => Why::Quicker,
        None => Why::Room,
    };
    reasons::of_memory(verdict, &choice, model, quant, cluster, why);
    if field.utilization(plan, Level::Limit) <= 1.0 {
        speeds(verdict, field, plan, ask.prompt, speed);
        reasons::of_speed(verdict, &choice, speed);
    }
    Ok(())
}

fn no_plan(verdict: &mut Verdict, cluster: &Cluster) -> Result<(), FitError> {
    if let [only] = &cluster.nodes[..] {
        verdict.tier = Tier::NotPractical;
        verdict.reasons.push(format!(
            "{} leaves models {} of its memory, too little for anything.",
            only.machine.name,
            reasons::gib(only.machine.pools.iter().map(|pool| pool.limit_bytes).sum())
        ));
        return Ok(());
    }
    Err(FitError::Missing {
        of: cluster.name.clone(),
        fact: if cluster.links == Links::Unnamed {
            "link between its nodes, and no node holds the model alone".into()
        } else {
            "way to divide the model over nodes that reach each other".into()
        },
    })
}

/// Fills in the rates; where one is not known, a reason names what is missing.
pub(super) fn speeds(
    verdict: &mut Verdict,
    field: &Field,
    plan: &Plan,
    prompt: u32,
    speed: &dyn Speed,
) {
    let timing = Timing { field, plan, speed };
    let prompt = verdict.load.context.min(prompt).max(1);
    let mut unknown: Vec<String> = Vec::new();
    match timing.token_s() {
        Ok(seconds) => {
            let setting = setting(field, plan, verdict.load.context);
            let decode = speed.around(1.0 / seconds, Rate::Decode, &setting);
            verdict.reasons.extend(speed.basis(Rate::Decode, &setting));
            verdict.decode_tok_s = Some(decode);
            if let streams @ 2.. = verdict.load.sequences
                && let Ok(all) = timing.together(streams)
            {
                // What corrects one stream's rate corrects that of several.
                let all = decode.together(all * decode.mid * seconds);
                verdict.together_tok_s = Some(all);
                verdict.reasons.push(format!(
                    "{streams} streams together decode about {} ({} to {}, estimated), {} each.",
                    reasons::rate(all.mid),
                    reasons::rate(all.low),
                    reasons::rate(all.high),
                    reasons::rate(all.mid / f64::from(streams))
                ));
            }
        }
        Err(error) => unknown.push(format!("No speed: {}.", reasons::sentence(&error))),
    }
    match timing.prefill(prompt) {
        Ok((rate, seconds)) => {
            let setting = setting(field, plan, prompt);
            let prefill = speed.around(rate, Rate::Prefill, &setting);
            verdict.reasons.extend(speed.basis(Rate::Prefill, &setting));
            let seconds = seconds * rate / prefill.mid;
            verdict.prefill_tok_s = Some(prefill);
            verdict.ttft_s = Some(Estimate {
                low: seconds * prefill.mid / prefill.high,
                mid: seconds,
                high: seconds * prefill.mid / prefill.low,
                evidence: prefill.evidence,
            });
        }
        Err(error) => {
            let said = format!("No speed: {}.", reasons::sentence(&error));
            if !unknown.contains(&said) {
                unknown.push(said.replace("No speed:", "No prefill speed:"));
            }
        }
    }
    verdict.reasons.extend(unknown);
}

/// What a plan's rates are about.
pub(crate) fn setting<'a>(field: &Field<'a>, plan: &Plan, context: u32) -> Setting<'a> {
    let of_stage = |stage: &crate::placement::PlanStage| {
        let host = &field.hosts[stage.node];
        let machine = host.machine;
        let apart = host.ram().filter(|_| stage.packing.experts_in_ram > 0);
        let parts: Vec<usize> = stage.packing.parts.iter().map(|part| part.pool).collect();
        parts
            .into_iter()
            .chain(apart)
            .map(move |pool| &machine.pools[pool])
    };
    Setting {
        model: field.costs.model,
        quant: field.costs.quant,
        pools: plan.stages.iter().flat_map(of_stage).collect(),
        nodes: plan.stages.len(),
        context,
    }
}
