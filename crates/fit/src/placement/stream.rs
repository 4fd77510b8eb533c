//! Plans for speed: the least time of a token, and the least time of the slowest stage.

mod search;
mod table;

use std::cell::RefCell;

use super::costs::Step;
use super::divide::{Division, even_out};
use super::hosts::Level;
use super::reach::{self, Pace, to_ranges};
use super::{Field, Plan, Speed, narrow};
use search::Search;

use crate::FitError;
use crate::cluster::{Link, Links};
use crate::effective::Effective;

/// Stage times by class and range, each computed once.
pub(super) struct Times<'a> {
    field: &'a Field<'a>,
    level: Level,
    step: Step,
    speed: &'a dyn Speed,
    known: RefCell<Vec<Vec<f64>>>,
    failed: RefCell<Option<FitError>>,
}

impl<'a> Times<'a> {
    pub(super) fn new(
        field: &'a Field<'a>,
        level: Level,
        step: Step,
        speed: &'a dyn Speed,
    ) -> Self {
        Self {
            field,
            level,
            step,
            speed,
            known: RefCell::new(vec![Vec::new(); field.classes.len()]),
            failed: RefCell::new(None),
        }
    }

    /// Seconds of these layers on a node of a class; infinite where they do not fit, or where no
    /// time is known, which [`check`](Self::check) then says.
    pub(super) fn stage_s(&self, class: usize, start: u32, end: u32) -> f64 {
        let width = self.field.costs.layers as usize + 1;
        let index = start as usize * width + end as usize;
        let mut known = self.known.borrow_mut();
        let row = &mut known[class];
        if row.is_empty() {
            row.resize(width * width, f64::NAN);
        }
        if row[index].is_nan() {
            row[index] = self.compute(class, start, end);
        }
        row[index]
    }

    fn compute(&self, class: usize, start: u32, end: u32) -> f64 {
        let host = &self.field.hosts[self.field.classes[class][0]];
        let costs = &self.field.costs;
        let Some(packing) = host.pack(costs, start, end, self.level) else {
            return f64::INFINITY;
        };
        match host.step_s(costs, &packing, self.step, self.speed) {
            Ok(seconds) if !seconds.is_nan() => seconds,
            Ok(_) => f64::INFINITY,
            Err(error) => {
                *self.failed.borrow_mut() = Some(error);
                f64::INFINITY
            }
        }
    }

    /// The share of effective memory that may be filled.
    pub(super) fn share(&self) -> f64 {
        match self.level {
            Level::Effective(share) => share,
            Level::Limit => {
                let pools = self.field.hosts.iter().flat_map(|host| &host.pools);
                let more =
                    |pool: &Effective| pool.limit_bytes as f64 / pool.effective_bytes.max(1) as f64;
                pools.map(more).fold(f64::INFINITY, f64::min)
            }
        }
    }

    /// Fails if a time was not known: a plan that only avoids what is unknown is none.
    pub(super) fn check(&self) -> Result<(), FitError> {
        self.failed.borrow_mut().take().map_or(Ok(()), Err)
    }

    /// Seconds of a hop between nodes of two classes, if they are joined.
    pub(super) fn hop_s(&self, from: usize, to: usize, bytes: f64) -> Option<f64> {
        let classes = &self.field.classes;
        let link = match &self.field.cluster.links {
            Links::Uniform(link) => link,
            _ => self.field.link(classes[from][0], classes[to][0])?,
        };
        Some(self.field.hop_s(link, bytes, self.speed))
    }
}

/// Classes with the ends of their stages.
type Steps = Vec<(usize, u32)>;

/// The plan with the least time of a token; of the divisions that take as long, the roomiest.
pub(super) fn fastest(
    field: &Field,
    level: Level,
    most: usize,
    speed: &dyn Speed,
) -> Result<Option<Plan>, FitError> {
    let times = Times::new(field, level, Step::Decode(1), speed);
    let search = Search::new(field, &times, most);
    let exact = search.states().filter(|_| !search.large());
    let found = match exact {
        Some(states) => search.exactly(states),
        None => search.by_beam(),
    };
    times.check()?;
    let Some((seconds, steps)) = found else {
        return Ok(None);
    };
    let order: Vec<usize> = steps.iter().map(|step| step.0).collect();
    let hops = search.hops_s(&order).unwrap_or(f64::INFINITY);
    let division = Division {
        field,
        times: &times,
        order: &order,
    };
    // A beam's own division may be bettered; an exact one only be evened out.
    let steps = match division.quickest(&search.ends) {
        Some((own, ends)) if own + hops < seconds * (1.0 - 1e-9) => {
            let steps = division.steps(&ends);
            even_out(&division, own, steps)
        }
        _ => even_out(&division, seconds - hops, steps),
    };
    Ok(field.pack(&to_ranges(field, &steps), level))
}

/// The plan with the least time of its slowest stage or hop, when the streams are spread over
/// the nodes.
pub(super) fn steadiest(
    field: &Field,
    level: Level,
    most: usize,
    speed: &dyn Speed,
) -> Result<Option<Plan>, FitError> {
    let nodes = field.nodes().min(most).max(1) as u32;
    let tokens = field.costs.load.sequences.max(1).div_ceil(nodes);
    let times = Times::new(field, level, Step::Decode(tokens), speed);
    let class_of = |node: usize| {
        let mut classes = field.classes.iter();
        classes.position(|class| class.contains(&node)).unwrap_or(0)
    };
    let by_node: Vec<usize> = (0..field.hosts.len()).map(class_of).collect();
    let bytes = field.costs.hidden_bytes(tokens);
    let hop_s = |link: &Link, bytes: f64| field.hop_s(link, bytes, speed);
    let try_at = |seconds: f64| {
        let stage = |node: usize, start, end| times.stage_s(by_node[node], start, end) <= seconds;
        let link = |link: &Link| hop_s(link, bytes) <= seconds;
        let back = |link: &Link| hop_s(link, 0.0) <= seconds;
        let pace = Pace {
            stage: &stage,
            link: &link,
            back: &back,
        };
        let ranges = reach::reach(field, level, most, Some(&pace))?;
        let slowest = ranges
            .iter()
            .map(|(node, layers)| times.stage_s(by_node[*node], layers.start, layers.end))
            .fold(0.0, f64::max);
        let hop = |pair: &[(usize, std::ops::Range<u32>)]| {
            let link = field.link(pair[0].0, pair[1].0);
            link.map_or(0.0, |link| hop_s(link, bytes))
        };
        let slowest = ranges.windows(2).map(hop).fold(slowest, f64::max);
        // The way back of the token counts as well.
        let back = match &ranges[..] {
            [first, .., last] => field.link(last.0, first.0),
            _ => None,
        };
        let slowest = slowest.max(back.map_or(0.0, |link| hop_s(link, 0.0)));
        Some((ranges, slowest))
    };
    let found = try_at(f64::MAX);
    times.check()?;
    let Some(first) = found else {
        return Ok(None);
    };
    let best = narrow(first, 0.0, |found| found.1, try_at);
    times.check()?;
    Ok(field.pack(&best.0, level))
}
