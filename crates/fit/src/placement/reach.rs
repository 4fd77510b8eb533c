//! Whether the layers can be held at all when each node takes as many as it may: the search
//! behind the least utilization and the least time of the slowest stage.
//!
//! A node that starts further on never ends sooner, so of all orders of the same nodes that end
//! at the same one only the furthest matters.

use std::cell::RefCell;

use super::hosts::{Level, least};
use super::{EXACT_STATES, Field, Ranges};
use crate::cluster::{Link, Links};

/// Paths that the beam keeps.
const BEAM: usize = 24;

/// A bound on times beside the level of memory.
pub(super) struct Pace<'a> {
    /// Whether a node, by index, computes these layers in time.
    pub(super) stage: &'a dyn Fn(usize, u32, u32) -> bool,
    /// Whether a link is quick enough for hidden states.
    pub(super) link: &'a dyn Fn(&Link) -> bool,
    /// Whether it is for the way of a token back to the first node.
    pub(super) back: &'a dyn Fn(&Link) -> bool,
}

/// Nodes with layers that hold the whole model, at most `most` of them.
pub(super) fn reach(
    field: &Field,
    level: Level,
    most: usize,
    pace: Option<&Pace>,
) -> Option<Ranges> {
    let ends = Ends::new(field, level, pace);
    if field.nodes() == 1 {
        let layers = field.costs.layers;
        return ends
            .accepts(0, 0, layers)
            .then(|| to_ranges(field, &[(0, layers)]));
    }
    let search = Search {
        field,
        ends,
        most,
        pace,
    };
    match search.states() {
        Some(states) if field.uniform() => search.by_class(states),
        Some(states) => search.by_order(states),
        None => search.by_beam(),
    }
}

/// How far a node of a class gets, each asked for once.
pub(super) struct Ends<'a> {
    field: &'a Field<'a>,
    level: Level,
    pace: Option<&'a Pace<'a>>,
    known: RefCell<Vec<Vec<Option<u32>>>>,
}

impl<'a> Ends<'a> {
    pub(super) fn new(field: &'a Field<'a>, level: Level, pace: Option<&'a Pace<'a>>) -> Self {
        let layers = field.costs.layers as usize;
        Self {
            field,
            level,
            pace,
            known: RefCell::new(vec![vec![None; layers]; field.classes.len()]),
        }
    }

    /// Whether a node of a class holds these layers, in time.
    fn accepts(&self, class: usize, start: u32, end: u32) -> bool {
        let node = self.field.classes[class][0];
        let host = &self.field.hosts[node];
        host.holds(&self.field.costs, start, end, self.level)
            && self.pace.is_none_or(|pace| (pace.stage)(node, start, end))
    }

    /// The furthest allowed end of a stage that starts here; the start itself where there is none.
    pub(super) fn end(&self, class: usize, start: u32) -> u32 {
        if let Some(end) = self.known.borrow()[class][start as usize] {
            return end;
        }
        let layers = self.field.costs.layers;
        let cuts = &self.field.costs.cuts();
        // What fits goes on fitting with layers taken off its end.
        let off = least(layers - start, |off| {
            off == layers - start || self.accepts(class, start, layers - off)
        });
        let furthest = layers - off.unwrap_or(layers - start);
        let end = (start + 1..=furthest)
            .rev()
            .find(|&end| cuts.allows(start, end) && cuts.leaves_rest(end))
            .unwrap_or(start);
        self.known.borrow_mut()[class][start as usize] = Some(end);
        end
    }

    /// The furthest end where the nodes before got this far: they may always take fewer layers.
    fn furthest(&self, class: usize, reached: u32) -> u32 {
        let from = |start: u32| Some(self.end(class, start)).filter(|&end| end > start);
        if !self.field.costs.cuts().free() {
            return (1..=reached).filter_map(from).max().unwrap_or(0);
        }
        from(reached)
            .or_else(|| from(reached - 1).filter(|_| reached > 1))
            .unwrap_or(0)
    }

    /// The ends from each start.
    pub(super) fn all(&self, class: usize) -> Vec<u32> {
        (0..self.field.costs.layers)
            .map(|start| self.end(class, start))
            .collect()
    }
}

struct Search<'a> {
    field: &'a Field<'a>,
    ends: Ends<'a>,
    most: usize,
    pace: Option<&'a Pace<'a>>,
}

/// The best way to a state: how far, and from where.
#[derive(Clone, Copy)]
struct Way {
    reached: u32,
    class: usize,
    before: Option<usize>,
}

#[derive(Clone)]
struct Path {
    reached: u32,
    used: Vec<usize>,
    steps: Vec<(usize, u32)>,
}

impl Search<'_> {
    /// The number of different sets of nodes, where it is small enough.
    fn states(&self) -> Option<usize> {
        let sizes = self.field.classes.iter().map(Vec::len);
        sizes
            .into_iter()
            .try_fold(1_usize, |all, size| all.checked_mul(size + 1))
            .filter(|&all| all <= EXACT_STATES)
    }

    fn layers(&self) -> u32 {
        self.field.costs.layers
    }

    fn look(&self) {
        self.field.looked_at.set(self.field.looked_at.get() + 1);
    }

    /// Whether the path may go from one class's node to another's.
    fn joined(&self, from: usize, to: usize) -> bool {
        self.link(from, to)
            .is_some_and(|link| self.pace.is_none_or(|pace| (pace.link)(link)))
    }

    /// Whether a token gets back from the last one's node to the first one's.
    fn returns(&self, last: usize, first: usize) -> bool {
        self.link(last, first)
            .is_some_and(|link| self.pace.is_none_or(|pace| (pace.back)(link)))
    }

    fn link(&self, from: usize, to: usize) -> Option<&Link> {
        let classes = &self.field.classes;
        match &self.field.cluster.links {
            Links::Uniform(link) => Some(link),
            _ => self.field.link(classes[from][0], classes[to][0]),
        }
    }

    /// All links alike: a state is how many of each class are used.
    fn by_class(&self, states: usize) -> Option<Ranges> {
        let sizes: Vec<usize> = self.field.classes.iter().map(Vec::len).collect();
        let mut ways: Vec<Option<Way>> = vec![None; states];
        for state in 0..states {
            let (reached, used) = match ways[state] {
                None if state > 0 => continue,
                None => (0, 0),
                Some(way) => (way.reached, count(state, &sizes)),
            };
            if reached == self.layers() {
                return self.walk(&ways, state);
            }
            if used >= self.most {
                continue;
            }
            let mut stride = 1;
            for (class, &size) in sizes.iter().enumerate() {
                let of_class = state / stride % (size + 1);
                let next = state + stride;
                stride *= size + 1;
                if of_class == size || used > 0 && !self.joined(class, class) {
                    continue;
                }
                self.look();
                let end = match used {
                    0 => self.ends.end(class, 0),
                    _ => self.ends.furthest(class, reached),
                };
                if end > reached && ways[next].is_none_or(|way| end > way.reached) {
                    ways[next] = Some(Way {
                        reached: end,
                        class,
                        before: (state > 0).then_some(state),
                    });
                }
            }
        }
        None
    }

    /// Links differ: a state is a set of nodes and the last of them, for each first one.
    fn by_order(&self, states: usize) -> Option<Ranges> {
        let nodes = self.field.classes.len();
        for first in 0..nodes {
            let mut ways: Vec<Option<Way>> = vec![None; states * nodes];
            let end = self.ends.end(first, 0);
            if end > 0 {
                ways[(1 << first) * nodes + first] = Some(Way {
                    reached: end,
                    class: first,
                    before: None,
                });
            }
            for state in 0..states * nodes {
                let Some(way) = ways[state] else { continue };
                let (set, last) = (state / nodes, state % nodes);
                if way.reached == self.layers()
                    && (last == first || self.returns(last, first))
                    && let Some(ranges) = self.walk(&ways, state)
                {
                    return Some(ranges);
                }
                if set.count_ones() as usize >= self.most {
                    continue;
                }
                for next in (0..nodes).filter(|next| set & (1 << next) == 0) {
                    self.look();
                    let so_far = way.reached.min(self.layers() - 1);
                    let end = self.ends.furthest(next, so_far);
                    let index = (set | 1 << next) * nodes + next;
                    if end > 0
                        && ways[index].is_none_or(|known| end > known.reached)
                        && self.joined(last, next)
                    {
                        ways[index] = Some(Way {
                            reached: end,
                            class: next,
                            before: Some(state),
                        });
                    }
                }
            }
        }
        None
    }

    /// How far a node gets from here; it may be the last one only if a token gets back from it.
    fn end(&self, class: usize, start: u32, first: usize) -> u32 {
        let end = self.ends.end(class, start);
        if end < self.layers() || self.returns(class, first) {
            return end;
        }
        let cuts = &self.field.costs.cuts();
        let mut shorter = (start + 1..end).rev();
        shorter
            .find(|&end| cuts.allows(start, end) && cuts.leaves_rest(end))
            .unwrap_or(start)
    }

    /// Too many sets of nodes: the paths that got furthest with each number of nodes.
    fn by_beam(&self) -> Option<Ranges> {
        let classes = &self.field.classes;
        let mut beam = vec![Path {
            reached: 0,
            used: vec![0; classes.len()],
            steps: Vec::new(),
        }];
        for _ in 0..self.most.min(self.field.nodes()) {
            let mut found: Vec<(u32, usize, usize)> = Vec::new();
            for (index, path) in beam.iter().enumerate() {
                for (class, nodes) in classes.iter().enumerate() {
                    if path.used[class] == nodes.len() {
                        continue;
                    }
                    self.look();
                    let start = path.reached;
                    let (end, joined) = match (path.steps.first(), path.steps.last()) {
                        (Some(first), Some(last)) => {
                            (self.end(class, start, first.0), self.joined(last.0, class))
                        }
                        _ => (self.ends.end(class, start), true),
                    };
                    if end == self.layers() && joined {
                        return Some(self.ranges(&extended(path, class, end).steps));
                    }
                    if end > start && joined {
                        found.push((end, index, class));
                    }
                }
            }
            found.sort_by_key(|&(end, index, class)| (u32::MAX - end, index, class));
            let mut next: Vec<Path> = Vec::new();
            for (end, index, class) in found {
                let path = extended(&beam[index], class, end);
                // The same nodes in another order, as far: once is enough.
                let known = |other: &Path| {
                    other.used == path.used && other.steps.last().map(|step| step.0) == Some(class)
                };
                if !next.iter().any(known) {
                    next.push(path);
                }
                if next.len() == BEAM {
                    break;
                }
            }
            beam = next;
        }
        None
    }

    /// The way back from a state: each node takes what it can of what the ones before may leave.
    fn walk(&self, ways: &[Option<Way>], state: usize) -> Option<Ranges> {
        let cuts = &self.field.costs.cuts();
        let mut steps = Vec::new();
        let mut at = ways[state];
        let mut end = self.layers();
        while let Some(way) = at {
            steps.push((way.class, end));
            at = way.before.and_then(|state| ways[state]);
            let latest = at.map_or(0, |before| before.reached.min(end.saturating_sub(1)));
            let earliest = u32::from(at.is_some());
            let takes =
                |&start: &u32| self.ends.end(way.class, start) >= end && cuts.allows(start, end);
            end = (earliest..=latest).rev().find(takes)?;
        }
        steps.reverse();
        Some(self.ranges(&steps))
    }

    /// Classes with their ends as nodes with their layers.
    fn ranges(&self, steps: &[(usize, u32)]) -> Ranges {
        to_ranges(self.field, steps)
    }
}

/// Classes with their ends as nodes with their layers: of a class the next one in turn.
pub(super) fn to_ranges(field: &Field, steps: &[(usize, u32)]) -> Ranges {
    let mut used = vec![0; field.classes.len()];
    let mut start = 0;
    let mut ranges = Vec::new();
    for &(class, end) in steps {
        ranges.push((field.classes[class][used[class]], start..end));
        used[class] += 1;
        start = end;
    }
    ranges
}

fn extended(path: &Path, class: usize, end: u32) -> Path {
    let mut path = path.clone();
    path.reached = end;
    path.used[class] += 1;
    path.steps.push((class, end));
    path
}

fn count(mut state: usize, sizes: &[usize]) -> usize {
    let mut used = 0;
    for size in sizes {
        used += state % (size + 1);
        state /= size + 1;
    }
    used
}
