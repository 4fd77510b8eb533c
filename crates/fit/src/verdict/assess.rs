//! A verdict from facts.

use super::choice::{Choice, Ways};
use super::{Ask, Detail, MICRO_BATCH, Tier, Verdict, changes, reasons};
use crate::FitError;
use crate::alternatives;
use crate::cluster::{Cluster, Links};
use crate::evidence::Estimate;
use crate::machine::Pool;
use crate::memory::Load;
use crate::model::{Model, Quantization};
use crate::placement::{COMFORTABLE, Field, Level, PROMPT, Plan, Rate, Speed, Timing};

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
    let quant = quantization(model, ask)?;
    let mut verdict = blank(model, quant, ask);
    for fact in &model.missing {
        verdict
            .reasons
            .push(format!("{} has no known {fact}.", model.name));
    }
    let Some(quant) = quant else {
        verdict.reasons.push(format!(
            "No size of {} is known at 4 bits a weight or more.",
            model.name
        ));
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
    let Some(quant) = quantization(model, ask)? else {
        return Ok(None);
    };
    let ways = Ways::new(model, quant, cluster, load(model, ask), ask)?;
    let choice = ways.choose(ask.objective, speed)?;
    Ok(choice
        .filter(|choice| choice.field.utilization(&choice.plan, Level::Limit) <= 1.0)
        .map(|choice| choice.plan))
}

/// The quantization that is asked for, or the smallest production one.
pub(crate) fn quantization<'a>(
    model: &'a Model,
    ask: &Ask,
) -> Result<Option<&'a Quantization>, FitError> {
    let Some(name) = &ask.quant else {
        return Ok(model.production_quant(ask.format));
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

/// What is asked for, the context cut to the model's own.
pub(crate) fn load(model: &Model, ask: &Ask) -> Load {
    Load {
        context: ask.context.clamp(1, model.max_context.max(1)),
        sequences: ask.sequences.max(1),
        kv_type: ask.kv_type,
        micro_batch: MICRO_BATCH,
    }
}

fn blank(model: &Model, quant: Option<&Quantization>, ask: &Ask) -> Verdict {
    Verdict {
        id: model.id.clone(),
        name: model.name.clone(),
        quant: quant.map_or(String::new(), |quant| quant.name.clone()),
        weights_bytes: quant.map_or(0, |quant| quant.weights.total()),
        tier: Tier::Unknown,
        utilization: None,
        binding_node: None,
        max_context: None,
        load: load(model, ask),
        decode_tok_s: None,
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
    let ways = || Ways::new(model, quant, cluster, verdict.load, ask);
    let holding = ways()?;
    let practical = holding.least(model.max_context)?;
    let max_context = holding.largest(model.max_context)?;
    let Some(choice) = ways()?.choose(ask.objective, speed)? else {
        return no_plan(cluster);
    };
    let one = choice.plan.stages.len() == 1;
    verdict.tier = if choice.takes <= COMFORTABLE {
        Tier::Comfortable
    } else if practical {
        Tier::Borderline
    } else if one && cluster.nodes.len() > 1 && cluster.links == Links::Unnamed {
        return no_plan(cluster);
    } else {
        Tier::NotPractical
    };
    let Choice { field, plan, .. } = &choice;
    verdict.utilization = Some(field.utilization(plan, Level::Effective(1.0)));
    verdict.binding_node = field
        .binding(plan)
        .map(|node| cluster.nodes[node].name.clone());
    verdict.max_context = max_context.filter(|_| practical);
    verdict.ledger = field.ledger(plan)?;
    reasons::of_memory(verdict, &choice, model, quant, cluster);
    if field.utilization(plan, Level::Limit) <= 1.0 {
        if let Err(error) = speeds(verdict, field, plan, speed) {
            verdict
                .reasons
                .push(format!("No speed: {}.", reasons::sentence(&error)));
        } else {
            reasons::of_speed(verdict, &choice, speed);
        }
    }
    Ok(())
}

fn no_plan(cluster: &Cluster) -> Result<(), FitError> {
    Err(FitError::Missing {
        of: cluster.name.clone(),
        fact: if cluster.links == Links::Unnamed {
            "link between its nodes, and no node holds the model alone".into()
        } else {
            "way to divide the model over nodes that reach each other".into()
        },
    })
}

fn speeds(
    verdict: &mut Verdict,
    field: &Field,
    plan: &Plan,
    speed: &dyn Speed,
) -> Result<(), FitError> {
    let timing = Timing { field, plan, speed };
    let pools = pools(field, plan);
    let (prefill, seconds) = timing.prefill(verdict.load.context.min(PROMPT))?;
    let decode = 1.0 / timing.token_s()?;
    verdict.decode_tok_s = Some(speed.around(decode, Rate::Decode, &pools));
    let prefill = speed.around(prefill, Rate::Prefill, &pools);
    verdict.prefill_tok_s = Some(prefill);
    verdict.ttft_s = Some(Estimate {
        low: seconds * prefill.mid / prefill.high,
        mid: seconds,
        high: seconds * prefill.mid / prefill.low,
        evidence: prefill.evidence,
    });
    Ok(())
}

/// The pools that a plan computes on.
pub(crate) fn pools<'a>(field: &Field<'a>, plan: &Plan) -> Vec<&'a Pool> {
    let of_stage = |stage: &crate::placement::PlanStage| {
        let machine = field.hosts[stage.node].machine;
        let parts = stage.packing.parts.clone();
        parts.into_iter().map(move |part| &machine.pools[part.pool])
    };
    plan.stages.iter().flat_map(of_stage).collect()
}
