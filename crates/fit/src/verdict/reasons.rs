//! Why a verdict is as it is, in sentences.

use super::choice::Choice;
use super::{NO_LONG_CONTEXT, Tier, Verdict};
use crate::FitError;
use crate::cluster::Cluster;
use crate::memory::PoolLedger;
use crate::model::{Model, Quantization};
use crate::placement::{COMFORTABLE, Level, Objective, Rule, rule};
use crate::speed::Speed;

/// Bytes of memory for people.
pub(crate) fn gib(bytes: u64) -> String {
    let gib = bytes as f64 / f64::from(1 << 30);
    if gib < 10.0 {
        format!("{gib:.1} GiB")
    } else {
        format!("{gib:.0} GiB")
    }
}

/// Bytes to download, for people.
pub(crate) fn gb(bytes: u64) -> String {
    let gb = bytes as f64 / 1e9;
    if gb < 10.0 {
        format!("{gb:.1} GB")
    } else {
        format!("{gb:.0} GB")
    }
}

/// A share for people; with a digit more where rounding would hide that it is above a bound.
pub(crate) fn percent(share: f64) -> String {
    let rounded = (share * 100.0).round();
    let hides = |bound: f64| (rounded / 100.0 <= bound) && share > bound;
    if hides(COMFORTABLE) || hides(NO_LONG_CONTEXT) || hides(1.0) {
        format!("{:.1} %", share * 100.0)
    } else {
        format!("{rounded:.0} %")
    }
}

/// A number of tokens, with thousands apart and the unit.
pub(crate) fn tokens(count: u32) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + if count == 1 { " token" } else { " tokens" }
}

/// Tokens a second for people.
pub(crate) fn rate(tok_s: f64) -> String {
    if tok_s < 10.0 {
        format!("{tok_s:.1} tok/s")
    } else {
        format!("{tok_s:.0} tok/s")
    }
}

/// An error as a sentence without its full stop.
pub(crate) fn sentence(error: &FitError) -> String {
    error.to_string()
}

/// Why a model is spread over several nodes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Why {
    /// No node is a comfortable fit.
    Room,
    /// The GPUs of several nodes are quicker than one node's with its system memory.
    Quicker,
    /// That is best at what was asked for.
    Asked(Objective),
}

impl Why {
    fn sentence(self, nodes: usize) -> String {
        match self {
            Self::Room => format!(
                "No node is a comfortable fit alone, so {nodes} nodes hold a layer range each, which leaves the fullest of them most room."
            ),
            Self::Quicker => format!(
                "The GPUs of {nodes} nodes hold a layer range each, which is quicker than one node with its system memory."
            ),
            Self::Asked(objective) => format!(
                "As asked, for {}: {nodes} nodes hold a layer range each.",
                objective.name()
            ),
        }
    }
}

pub(super) fn of_memory(
    verdict: &mut Verdict,
    choice: &Choice,
    model: &Model,
    quant: &Quantization,
    cluster: &Cluster,
    why: Why,
) {
    let stages = &choice.plan.stages;
    let mut reasons = Vec::new();
    if let Some((node, pool)) = fullest(verdict) {
        reasons.push(format!(
            "{} of weights at {}: {node} holds {} of {} effective memory ({}, limit {}).",
            gb(verdict.weights_bytes),
            quant.name,
            gib(pool.working_set_bytes),
            gib(pool.effective_bytes),
            pool.pool,
            gib(pool.limit_bytes),
        ));
    }
    match &stages[..] {
        [only] if cluster.nodes.len() > 1 => reasons.push(format!(
            "One node is enough: {} holds all of it.",
            cluster.nodes[only.node].name
        )),
        [_] => {}
        _ => reasons.push(why.sentence(stages.len())),
    }
    if quant.bits_per_weight < 4.0 {
        reasons.push(format!(
            "{} is {:.1} bits a weight, below the 4 that hold their quality well; it was asked for.",
            quant.name, quant.bits_per_weight
        ));
    }
    reasons.extend(of_context(verdict, model));
    of_tier(&mut reasons, verdict, model);
    for stage in stages {
        let node = &cluster.nodes[stage.node].name;
        if stage.packing.experts_in_ram > 0 {
            reasons.push(format!(
                "On {node} the experts of {} of {} layers lie in system memory.",
                stage.packing.experts_in_ram,
                stage.layers.len()
            ));
        } else if choice.field.hosts[stage.node].spills(&stage.packing) {
            let in_ram = stage.packing.parts[0].layers.len();
            reasons.push(format!(
                "On {node} {in_ram} of {} layers lie in system memory and are computed by the CPU.",
                stage.layers.len()
            ));
        }
    }
    if stages.len() > 1 && rule(&model.architecture) == Rule::Refused {
        reasons.push(format!(
            "The layers of {} cannot run as stages; llama.cpp's own RPC engine divides them.",
            model.architecture
        ));
    }
    verdict.reasons.extend(reasons);
}

/// The largest context, of this plan and of any.
fn of_context(verdict: &Verdict, model: &Model) -> Option<String> {
    let most = verdict.max_context.filter(|_| model.max_context > 0)?;
    let here = verdict.plan_max_context.unwrap_or(0);
    let own = |most: u32| {
        if most == model.max_context {
            ", the model's own"
        } else {
            ""
        }
    };
    let said = if here < most {
        let here = match here {
            0 => "none".to_owned(),
            here => tokens(here),
        };
        format!(
            "The largest context within the limit is {here} this way, and {} divided otherwise{}.",
            tokens(most),
            own(most)
        )
    } else {
        format!(
            "The largest context within the limit is {}{}.",
            tokens(most),
            own(most)
        )
    };
    (verdict.load.context < most).then_some(said)
}

fn of_tier(reasons: &mut Vec<String>, verdict: &Verdict, model: &Model) {
    let used = verdict.utilization.unwrap_or(0.0);
    match verdict.tier {
        Tier::Borderline if used > 1.0 && verdict.max_context == Some(model.max_context) => {
            reasons.push(format!(
                "Over what is wise to plan with, though the limit holds the model's own context of {}.",
                tokens(model.max_context)
            ));
        }
        Tier::Borderline if used > 1.0 => {
            let most = verdict.max_context.unwrap_or(0);
            let streams = verdict.load.sequences;
            reasons.push(if most == 0 {
                format!("{streams} streams are more than fit at any context: ask for fewer.")
            } else if most < verdict.load.context {
                let each = if streams > 1 {
                    format!(" for each of {streams} streams, or ask for fewer of them")
                } else {
                    String::new()
                };
                format!("More than fits: cap the context at {}{each}.", tokens(most))
            } else {
                format!(
                    "Over what is wise to plan with: cap the context at {}, which the limit allows.",
                    tokens(most)
                )
            });
        }
        Tier::Borderline if used > NO_LONG_CONTEXT => {
            let most = verdict.max_context.unwrap_or(0);
            reasons.push(if most == model.max_context {
                format!(
                    "Little is left, though the limit holds the model's own context of {}.",
                    tokens(most)
                )
            } else {
                "Little is left: a long context will not fit.".into()
            });
        }
        Tier::Borderline => {
            reasons.push("Verify the KV budget for the context that you need.".into());
        }
        Tier::NotPractical => reasons.push(format!(
            "The weights and {} exceed the limit however the model is split.",
            tokens(super::LEAST_CONTEXT.min(model.max_context))
        )),
        Tier::Comfortable | Tier::Unknown => {}
    }
}

pub(super) fn of_speed(verdict: &mut Verdict, choice: &Choice, speed: &dyn Speed) {
    if !choice.spills() {
        return;
    }
    // The price: the same layers as if the GPUs could hold them all.
    let (Ok(real), Ok(ideal)) = (
        choice.token_s(speed),
        choice.field.without_spill_s(&choice.plan, speed),
    ) else {
        return;
    };
    verdict.reasons.push(format!(
        "Its price: {} instead of {} if the GPUs held everything.",
        rate(1.0 / real),
        rate(1.0 / ideal)
    ));
    // What is not comfortable may still be what somebody wants.
    if let Some(field) = choice.field.gpus_only()
        && let Some((plan, takes)) = field.roomiest(choice.plan.stages.len())
        && takes <= 1.0
        && field.utilization(&plan, Level::Limit) <= 1.0
        && let Ok(seconds) = (Choice { field, plan, takes }).token_s(speed)
        && seconds < real
    {
        verdict.reasons.push(format!(
            "In its GPUs alone it takes {} of them and decodes {}: plan it with --objective one-stream.",
            percent(takes),
            rate(1.0 / seconds)
        ));
    }
}

/// The node's name and the pool that is the fullest of all.
fn fullest(verdict: &Verdict) -> Option<(&str, &PoolLedger)> {
    verdict
        .ledger
        .iter()
        .flat_map(|node| node.pools.iter().map(|pool| (&*node.node, pool)))
        .reduce(|a, b| {
            if b.1.utilization > a.1.utilization {
                b
            } else {
                a
            }
        })
}
