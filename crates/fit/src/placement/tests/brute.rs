//! The best plan by trying every order and every division.

use super::*;

/// What an objective minimizes.
pub(super) fn cost(field: &Field, plan: &Plan, objective: Objective) -> f64 {
    let seconds = |step: Step| -> Vec<f64> {
        let stages = plan.stages.iter().map(|stage| {
            field.hosts[stage.node]
                .step_s(&field.costs, &stage.packing, step, &Roofline)
                .unwrap()
        });
        stages.collect()
    };
    let bytes = field.costs.hidden_bytes(1);
    let between = |from: usize, to: usize, bytes: f64| {
        field.hop_s(field.link(from, to).unwrap(), bytes, &Roofline)
    };
    let pairs = plan.stages.windows(2);
    let mut hops: Vec<f64> = pairs
        .map(|pair| between(pair[0].node, pair[1].node, bytes))
        .collect();
    let (first, last) = (plan.stages[0].node, plan.stages.last().unwrap().node);
    if first != last {
        hops.push(between(last, first, 0.0));
    }
    let stages = seconds(Step::Decode(1)).into_iter();
    match objective {
        Objective::OneStream => stages.sum::<f64>() + hops.iter().sum::<f64>(),
        Objective::ManyStreams => stages.chain(hops).fold(0.0, f64::max),
        Objective::LargestContext => field.utilization(plan, Level::Effective(1.0)),
    }
}

pub(super) fn best_by_trying_all(field: &Field, objective: Objective, level: Level) -> Option<f64> {
    let mut best = None;
    extend(field, objective, level, &mut Vec::new(), &mut best);
    best
}

fn extend(
    field: &Field,
    objective: Objective,
    level: Level,
    ranges: &mut Ranges,
    best: &mut Option<f64>,
) {
    let start = ranges.last().map_or(0, |range| range.1.end);
    if start == field.costs.layers {
        let (first, last) = (ranges[0].0, ranges.last().unwrap().0);
        let closed = first == last || field.link(last, first).is_some();
        if let (Some(plan), true) = (field.pack(ranges, level), closed) {
            let cost = cost(field, &plan, objective);
            *best = Some(best.map_or(cost, |best: f64| best.min(cost)));
        }
        return;
    }
    for node in 0..field.hosts.len() {
        let joined = ranges
            .last()
            .is_none_or(|last| field.link(last.0, node).is_some());
        if !joined || ranges.iter().any(|range| range.0 == node) {
            continue;
        }
        for end in start + 1..=field.costs.layers {
            ranges.push((node, start..end));
            extend(field, objective, level, ranges, best);
            ranges.pop();
        }
    }
}
