//! A verdict on layers that somebody else has divided, and a division over nodes in a given order.

use std::ops::Range;

use super::assess::{blank, load, quantization, speeds};
use super::choice::Choice;
use super::reasons::{self, Why};
use super::{Ask, Tier, Verdict};
use crate::FitError;
use crate::cluster::Cluster;
use crate::model::Model;
use crate::placement::{COMFORTABLE, Field, Level, Objective, Plan};
use crate::speed::Speed;

/// Nodes, by index, in order of their layers (half-open, from 0).
pub type Given = Vec<(usize, Range<u32>)>;

/// Divides the layers over all of these nodes, in this order, so that they are used alike: the
/// least sum of squared utilizations within the limits. `None` where they do not hold the model.
///
/// # Errors
/// If a quantization is asked for by a name that the model has not.
pub fn divide(
    model: &Model,
    cluster: &Cluster,
    ask: &Ask,
    order: &[usize],
) -> Result<Option<Given>, FitError> {
    let Some(quant) = quantization(model, cluster, ask)? else {
        return Ok(None);
    };
    let field = Field::new(model, quant, cluster, load(model, ask), ask.measured)?;
    let layers = field.costs.layers;
    let cuts = field.costs.cuts();
    let squared = |node: usize, start: u32, end: u32| {
        let host = &field.hosts[node];
        let packing = host.pack(&field.costs, start, end, Level::Limit)?;
        let used = host.utilization(&field.costs, &packing, Level::Effective(1.0));
        Some(used * used)
    };
    // Of the best division of the first layers over the nodes so far: its sum, and where its last
    // stage starts.
    let mut best: Vec<Vec<Option<(f64, u32)>>> = Vec::new();
    for (index, &node) in order.iter().enumerate() {
        let before = |start: u32| match index {
            0 => (start == 0).then_some(0.0),
            _ => best[index - 1][start as usize].map(|(sum, _)| sum),
        };
        let row = (0..=layers).map(|end| {
            let stages = (0..end).filter(|&start| cuts.allows(start, end));
            let sums = stages.filter_map(|start| {
                let sum = before(start)?;
                Some((sum + squared(node, start, end)?, start))
            });
            sums.min_by(|a, b| a.0.total_cmp(&b.0))
        });
        let row = row.collect();
        best.push(row);
    }
    let mut given = Vec::new();
    let mut end = layers;
    for (index, &node) in order.iter().enumerate().rev() {
        let Some((_, start)) = best[index][end as usize] else {
            return Ok(None);
        };
        given.push((node, start..end));
        end = start;
    }
    given.reverse();
    Ok(Some(given))
}

/// Puts a model whose layers are divided so into a tier; with the plan, where it fits.
///
/// # Errors
/// If the stages are not all layers in order on different nodes, or an architecture forbids one.
pub fn assess_given(
    model: &Model,
    cluster: &Cluster,
    ask: &Ask,
    speed: &dyn Speed,
    given: &Given,
) -> Result<(Verdict, Option<Plan>), FitError> {
    let quant = quantization(model, cluster, ask)?;
    let mut verdict = blank(model, quant, ask);
    let Some(quant) = quant else {
        return Ok((verdict, None));
    };
    let field = Field::new(model, quant, cluster, verdict.load, ask.measured)?;
    check(model, &field, given)?;
    let plan = [Level::Effective(1.0), Level::Limit]
        .into_iter()
        .find_map(|level| field.pack(given, level));
    let Some(plan) = plan else {
        verdict.tier = Tier::NotPractical;
        for (node, layers) in given {
            let host = &field.hosts[*node];
            if !host.holds(&field.costs, layers.start, layers.end, Level::Limit) {
                let room: u64 = host
                    .pools
                    .iter()
                    .map(|pool| pool.limit_bytes)
                    .max()
                    .unwrap_or(0);
                verdict.reasons.push(format!(
                    "Layers {} to {} take {:.2} GB, and {} has {:.2} GB for models.",
                    layers.start,
                    layers.end.saturating_sub(1),
                    field.costs.stage(layers.start, layers.end, host.backend(0)) as f64 / 1e9,
                    cluster.nodes[*node].name,
                    room as f64 / 1e9
                ));
            }
        }
        return Ok((verdict, None));
    };
    let takes = field.takes(&plan);
    let choice = Choice { field, plan, takes };
    verdict.tier = if takes <= COMFORTABLE {
        Tier::Comfortable
    } else {
        Tier::Borderline
    };
    let Choice { field, plan, .. } = &choice;
    verdict.utilization = Some(field.utilization(plan, Level::Effective(1.0)));
    let binding = field.binding(plan);
    verdict.binding_node = binding.map(|node| cluster.nodes[node].name.clone());
    verdict.ledger = field.ledger(plan)?;
    reasons::of_memory(
        &mut verdict,
        &choice,
        model,
        quant,
        cluster,
        Why::Asked(Objective::LargestContext),
    );
    speeds(&mut verdict, field, plan, ask.prompt, speed);
    Ok((verdict, Some(choice.plan)))
}

fn check(model: &Model, field: &Field, given: &Given) -> Result<(), FitError> {
    let wrong = |reason: String| FitError::Model {
        of: model.id.clone(),
        reason,
    };
    let mut next = 0;
    for (index, (node, layers)) in given.iter().enumerate() {
        if layers.start != next || layers.end <= layers.start {
            return Err(wrong(format!(
                "stage {} begins at layer {}, where {next} is next",
                index + 1,
                layers.start
            )));
        }
        if given[..index].iter().any(|(other, _)| other == node) {
            return Err(wrong("a node has one stage of a model".to_owned()));
        }
        if layers.end > field.costs.layers || !field.costs.cuts().allows(layers.start, layers.end) {
            return Err(wrong(format!(
                "layers {} to {} cannot be a stage of it",
                layers.start,
                layers.end.saturating_sub(1)
            )));
        }
        next = layers.end;
    }
    if next != field.costs.layers {
        return Err(wrong(format!(
            "the plan has {next} layers, the model {}",
            field.costs.layers
        )));
    }
    Ok(())
}
