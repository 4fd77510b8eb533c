//! The exact search for the least time of a token: a table over sets of nodes.

use super::Steps;
use super::search::Search;

/// The least time to each state.
pub(super) struct Table<'a> {
    search: &'a Search<'a>,
    states: usize,
    lasts: usize,
    first: usize,
    width: usize,
    least_hop_s: f64,
}

impl<'a> Table<'a> {
    pub(super) fn new(search: &'a Search<'a>, states: usize, lasts: usize, first: usize) -> Self {
        Self {
            search,
            states,
            lasts,
            first,
            width: search.layers() as usize + 1,
            least_hop_s: search.least_hop_s(),
        }
    }

    /// The best way through that takes less than `bound`.
    pub(super) fn fill(&self, mut bound: f64) -> Option<(f64, Steps)> {
        let search = self.search;
        let (times, layers) = (search.times, search.layers());
        let sizes: Vec<usize> = search.field.classes.iter().map(Vec::len).collect();
        let cells = self.states * self.lasts * self.width;
        let mut cost = vec![f64::INFINITY; cells];
        let mut before = vec![Before::default(); cells];
        let mut best = None;
        let back: Vec<Option<f64>> = (0..sizes.len())
            .map(|class| times.hop_s(class, if self.lasts == 1 { class } else { self.first }, 0.0))
            .collect();
        cost[0] = 0.0;
        for state in 0..self.states * self.lasts {
            let (set, last) = (state / self.lasts, state % self.lasts);
            let used = count(set, &sizes);
            let here = state * self.width..(state + 1) * self.width;
            let reached = cost[here].iter().any(|cost| cost.is_finite());
            if used >= search.most || !reached {
                continue;
            }
            let left = self.left(set, &sizes);
            for start in 0..layers {
                let so_far = cost[state * self.width + start as usize];
                let ahead = search.rest[start as usize].max(left[(layers - start) as usize]);
                if so_far + ahead >= bound {
                    continue;
                }
                let mut stride = 1;
                for (class, &size) in sizes.iter().enumerate() {
                    let of_class = set / stride % (size + 1);
                    let next =
                        (set + stride) * self.lasts + if self.lasts == 1 { 0 } else { class };
                    stride *= size + 1;
                    if of_class == size || used == 0 && self.lasts > 1 && class != self.first {
                        continue;
                    }
                    let hop = match used {
                        0 => Some(0.0),
                        _ => times.hop_s(
                            if self.lasts == 1 { class } else { last },
                            class,
                            search.bytes(),
                        ),
                    };
                    let Some(hop) = hop else { continue };
                    for end in start + 1..=search.ends[class][start as usize] {
                        if !search.field.costs.cuts().allows(start, end) {
                            continue;
                        }
                        search.field.looked_at.set(search.field.looked_at.get() + 1);
                        let sum = so_far + hop + times.stage_s(class, start, end);
                        let here = Before {
                            start: start as u16,
                            class: class as u16,
                            last: last as u16,
                        };
                        if end == layers {
                            let back = if used == 0 { Some(0.0) } else { back[class] };
                            let sum = sum + back.unwrap_or(f64::INFINITY);
                            if sum < bound {
                                bound = sum;
                                best = Some((sum, set, here));
                            }
                        } else if sum < cost[next * self.width + end as usize] {
                            cost[next * self.width + end as usize] = sum;
                            before[next * self.width + end as usize] = here;
                        }
                    }
                }
            }
        }
        let (seconds, set, here) = best?;
        Some((seconds, self.walk(&before, &sizes, set, here)))
    }

    /// At least so many seconds for a number of layers on the nodes that a set leaves: on the
    /// quickest of them as far as they can hold them, and with as few hops as the largest need.
    fn left(&self, set: usize, sizes: &[usize]) -> Vec<f64> {
        let mut nodes: Vec<(f64, u32)> = Vec::new();
        let mut stride = 1;
        for (class, &size) in sizes.iter().enumerate() {
            let unused = size - set / stride % (size + 1);
            nodes.extend(std::iter::repeat_n(self.search.pace[class], unused));
            stride *= size + 1;
        }
        let mut seconds = vec![f64::INFINITY; self.width];
        seconds[0] = 0.0;
        nodes.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (mut count, mut sum) = (0, 0.0);
        for &(least, longest) in &nodes {
            for _ in 0..longest {
                count += 1;
                sum += least;
                if let Some(seconds) = seconds.get_mut(count) {
                    *seconds = sum;
                }
            }
        }
        nodes.sort_by_key(|&(_, longest)| u32::MAX - longest);
        let hop = self.least_hop_s;
        let (mut count, mut hops) = (0, if set == 0 { -hop } else { 0.0 });
        for &(_, longest) in &nodes {
            hops += hop;
            for _ in 0..longest {
                count += 1;
                if let Some(seconds) = seconds.get_mut(count) {
                    *seconds += hops;
                }
            }
        }
        seconds
    }

    /// The steps to the end: the last one, and those that led to the set before it.
    fn walk(&self, before: &[Before], sizes: &[usize], mut set: usize, last: Before) -> Steps {
        let mut end = self.search.layers();
        let mut here = last;
        let mut steps = Vec::new();
        loop {
            steps.push((here.class as usize, end));
            if here.start == 0 {
                break;
            }
            end = here.start.into();
            let state = set * self.lasts + here.last as usize;
            here = before[state * self.width + end as usize];
            let sizes = sizes[..here.class as usize].iter();
            set -= sizes.map(|size| size + 1).product::<usize>();
        }
        steps.reverse();
        steps
    }
}

/// The step that led to a state: where it started, whose it is, and who was last before.
#[derive(Clone, Copy, Default)]
struct Before {
    start: u16,
    class: u16,
    last: u16,
}

fn count(mut state: usize, sizes: &[usize]) -> usize {
    let mut used = 0;
    for size in sizes {
        used += state % (size + 1);
        state /= size + 1;
    }
    used
}
