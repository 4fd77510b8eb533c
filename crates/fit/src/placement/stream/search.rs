//! The least time of a token: what the exact search and the beam share, and the beam.

use super::super::reach::Ends;
use super::super::{EXACT_STATES, Field};
use super::table::Table;
use super::{Steps, Times};

/// Paths that the beam keeps.
const BEAM: usize = 32;

/// Rounding must not cut off what is as good.
const SLACK: f64 = 0.999;

/// What both searches know.
pub(super) struct Search<'a> {
    pub(super) field: &'a Field<'a>,
    pub(super) times: &'a Times<'a>,
    /// By class, then by start: the furthest end.
    pub(super) ends: Vec<Vec<u32>>,
    /// At least so many seconds remain from a layer on, wherever it is computed.
    pub(super) rest: Vec<f64>,
    /// By class: the least seconds of a layer, and the most layers of a stage.
    pub(super) pace: Vec<(f64, u32)>,
    pub(super) most: usize,
}

impl<'a> Search<'a> {
    pub(super) fn new(field: &'a Field<'a>, times: &'a Times<'a>, most: usize) -> Self {
        let known = Ends::new(field, times.level, None);
        let ends: Vec<Vec<u32>> = (0..field.classes.len())
            .map(|class| known.all(class))
            .collect();
        let (rest, pace) = bounds(field, times, &ends);
        Self {
            field,
            times,
            ends,
            rest,
            pace,
            most,
        }
    }

    pub(super) fn layers(&self) -> u32 {
        self.field.costs.layers
    }

    pub(super) fn states(&self) -> Option<usize> {
        let mut sizes = self.field.classes.iter().map(Vec::len);
        sizes
            .try_fold(1_usize, |all, size| all.checked_mul(size + 1))
            .filter(|&all| all <= EXACT_STATES)
    }

    /// Whether a table of all states would be too large: links that differ need the last node,
    /// and a run for each first one.
    pub(super) fn large(&self) -> bool {
        !self.field.uniform() && self.field.classes.len() > 8
    }

    pub(super) fn bytes(&self) -> f64 {
        self.field.costs.hidden_bytes(1)
    }

    /// Seconds of all hops of an order, the token's way back among them.
    pub(super) fn hops_s(&self, order: &[usize]) -> Option<f64> {
        let [first, .., last] = order else {
            return Some(0.0);
        };
        let mut seconds = self.times.hop_s(*last, *first, 0.0)?;
        for pair in order.windows(2) {
            seconds += self.times.hop_s(pair[0], pair[1], self.bytes())?;
        }
        Some(seconds)
    }

    pub(super) fn least_hop_s(&self) -> f64 {
        let classes = 0..self.field.classes.len();
        let pairs = classes
            .clone()
            .flat_map(|from| classes.clone().map(move |to| (from, to)));
        let hops = pairs.filter_map(|(from, to)| self.times.hop_s(from, to, self.bytes()));
        let least = hops.fold(f64::INFINITY, f64::min) * SLACK;
        if least.is_finite() { least } else { 0.0 }
    }

    /// By dynamic programming over how many of each class are used, the last one, and the layers
    /// so far; for each first one where links differ.
    pub(super) fn exactly(&self, states: usize) -> Option<(f64, Steps)> {
        let mut best = self.by_beam();
        let lasts = if self.field.uniform() {
            1
        } else {
            self.field.classes.len()
        };
        for first in 0..lasts {
            let bound = best.as_ref().map_or(f64::INFINITY, |best| best.0);
            let table = Table::new(self, states, lasts, first);
            if let Some(found) = table.fill(bound) {
                best = Some(found);
            }
        }
        best
    }

    pub(super) fn by_beam(&self) -> Option<(f64, Steps)> {
        let classes = &self.field.classes;
        let mut best: Option<(f64, Steps)> = None;
        let mut beam: Vec<(f64, Vec<usize>, Steps)> = vec![(0.0, vec![0; classes.len()], vec![])];
        for _ in 0..self.most.min(self.field.nodes()) {
            let mut found: Vec<(f64, f64, usize, usize, u32)> = Vec::new();
            for (index, (cost, used, steps)) in beam.iter().enumerate() {
                let start = steps.last().map_or(0, |step| step.1);
                for class in (0..classes.len()).filter(|&class| used[class] < classes[class].len())
                {
                    self.field.looked_at.set(self.field.looked_at.get() + 1);
                    let end = self.ends[class][start as usize];
                    let hop = match steps.last() {
                        Some(last) => self.times.hop_s(last.0, class, self.bytes()),
                        None => Some(0.0),
                    };
                    let (Some(hop), true) = (hop, end > start) else {
                        continue;
                    };
                    let cost = cost + hop + self.times.stage_s(class, start, end);
                    if end < self.layers() {
                        // How far it got counts as well: what is left over needs more hops.
                        let left = f64::from(self.layers() - end) / f64::from(end);
                        let ahead = cost + self.rest[end as usize].max(cost * left);
                        found.push((ahead, cost, index, class, end));
                        continue;
                    }
                    let first = steps.first().map_or(class, |step| step.0);
                    let back = if steps.is_empty() {
                        Some(0.0)
                    } else {
                        self.times.hop_s(class, first, 0.0)
                    };
                    let total = cost + back.unwrap_or(f64::INFINITY);
                    if total < best.as_ref().map_or(f64::INFINITY, |best| best.0) {
                        let mut steps = steps.clone();
                        steps.push((class, end));
                        best = Some((total, steps));
                    }
                }
            }
            found.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.2, a.3).cmp(&(b.2, b.3))));
            let mut next: Vec<(f64, Vec<usize>, Steps)> = Vec::new();
            for (_, cost, index, class, end) in found {
                let (_, used, steps) = &beam[index];
                let mut used = used.clone();
                used[class] += 1;
                let known = |other: &(f64, Vec<usize>, Steps)| {
                    other.1 == used && other.2.last().map(|step| step.0) == Some(class)
                };
                if next.iter().any(known) {
                    continue;
                }
                let mut steps = steps.clone();
                steps.push((class, end));
                next.push((cost, used, steps));
                if next.len() == BEAM {
                    break;
                }
            }
            beam = next;
        }
        best
    }
}

/// Lower bounds: of the time from each layer on, every layer where it is quickest; and of the
/// time of one layer by class, with the longest stage. What a step costs whatever its layers is
/// left out, by taking differences of long ranges.
fn bounds(field: &Field, times: &Times, ends: &[Vec<u32>]) -> (Vec<f64>, Vec<(f64, u32)>) {
    let layers = field.costs.layers as usize;
    let mut quickest = vec![f64::INFINITY; layers];
    let mut pace = Vec::new();
    for (class, ends) in ends.iter().enumerate() {
        let (mut least, mut longest) = (f64::INFINITY, 0);
        for start in 0..layers {
            let end = ends[start] as usize;
            if end <= start {
                continue;
            }
            longest = longest.max((end - start) as u32);
            let range = |from: usize, to: usize| times.stage_s(class, from as u32, to as u32);
            let alone = range(start, start + 1);
            let marginal = if end > start + 1 {
                range(start, end) - range(start + 1, end)
            } else {
                alone
            };
            let own = marginal.min(alone).max(0.0);
            quickest[start] = quickest[start].min(own);
            least = least.min(own);
        }
        pace.push((least * SLACK, longest));
    }
    let mut rest = vec![0.0; layers + 1];
    for start in (0..layers).rev() {
        let own = if quickest[start].is_finite() {
            quickest[start]
        } else {
            0.0
        };
        rest[start] = rest[start + 1] + own * SLACK;
    }
    (rest, pace)
}
