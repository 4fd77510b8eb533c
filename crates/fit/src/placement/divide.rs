//! The layers over nodes whose order is decided.

use super::Field;
use super::hosts::Level;
use super::reach::Ends;
use super::stream::Times;

/// How much longer a token may take for a more even division: within what links jitter.
const EVEN: f64 = 1.002;

/// An order of classes to divide the layers over.
pub(super) struct Division<'a> {
    pub(super) field: &'a Field<'a>,
    pub(super) times: &'a Times<'a>,
    pub(super) order: &'a [usize],
}

impl Division<'_> {
    /// The ends of the stages with the least sum of their times, given the furthest end for each
    /// class and start.
    pub(super) fn quickest(&self, furthest: &[Vec<u32>]) -> Option<(f64, Vec<u32>)> {
        let layers = self.field.costs.layers as usize;
        let cuts = &self.field.costs.cuts();
        let mut cost = vec![f64::INFINITY; layers + 1];
        cost[0] = 0.0;
        let mut starts: Vec<Vec<u32>> = Vec::new();
        for &class in self.order {
            let mut next = vec![f64::INFINITY; layers + 1];
            let mut from = vec![0; layers + 1];
            for start in (0..layers).filter(|&start| cost[start].is_finite()) {
                let first = start as u32;
                for end in first + 1..=furthest[class][start] {
                    let sum = cost[start] + self.times.stage_s(class, first, end);
                    if sum < next[end as usize] && cuts.allows(first, end) {
                        next[end as usize] = sum;
                        from[end as usize] = first;
                    }
                }
            }
            cost = next;
            starts.push(from);
        }
        let seconds = cost[layers];
        seconds.is_finite().then(|| {
            let mut end = layers as u32;
            let mut ends = Vec::new();
            for from in starts.iter().rev() {
                ends.push(end);
                end = from[end as usize];
            }
            ends.reverse();
            (seconds, ends)
        })
    }

    pub(super) fn steps(&self, ends: &[u32]) -> Vec<(usize, u32)> {
        self.order
            .iter()
            .copied()
            .zip(ends.iter().copied())
            .collect()
    }
}

/// The roomiest division of the same order that takes hardly longer than `seconds`.
pub(super) fn even_out(
    division: &Division,
    seconds: f64,
    steps: Vec<(usize, u32)>,
) -> Vec<(usize, u32)> {
    let field = division.field;
    let node = |class: usize| field.classes[class][0];
    let simple = |&class: &usize| field.hosts[node(class)].pools.len() == 1;
    if steps.len() < 2 || !division.order.iter().all(simple) {
        return steps;
    }
    let mut best = steps;
    let (mut low, mut high) = (0.0, division.times.share());
    while high - low > 0.004 {
        let share = f64::midpoint(low, high);
        let ends = Ends::new(field, Level::Effective(share), None);
        let furthest: Vec<Vec<u32>> = (0..field.classes.len())
            .map(|class| {
                if division.order.contains(&class) {
                    ends.all(class)
                } else {
                    Vec::new()
                }
            })
            .collect();
        match division.quickest(&furthest) {
            Some((own, ends)) if own <= seconds * EVEN => {
                best = division.steps(&ends);
                high = share;
            }
            _ => low = share,
        }
    }
    best
}
