//! How long steps take on each stage, as measured, and what follows from it: how many groups
//! the decoding sequences are divided into, and how many chunks of prompts are in flight.
//!
//! A stage's time for a step of `n` tokens is taken as `a + b · n`; `a` is mostly the weights
//! that are read whatever the step holds, `b` the computing. With `N` sequences in `G` groups of
//! `n = N / G`, each sequence gets a token every
//!
//! ```text
//! cycle(G) = max(Σ tᵢ(n) + links, G · max tᵢ(n))
//! ```
//!
//! because a group must pass all stages and links, and the slowest stage must serve all groups.
//! The best `G` has the shortest cycle. Where `b` is nothing, no `G` is better than 1, and 1 is
//! taken: splitting is only worth a gain that shows.

mod curve;

use std::ops::Range;

use curve::Curve;
pub use curve::Line;

/// What follows from the measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Decode steps in flight; the decoding sequences are divided evenly among them.
    pub groups: usize,
    /// Chunks of prompts in flight while nothing decodes.
    pub chunks_alone: usize,
    /// Chunks of prompts in flight while something decodes. A decode step waits for at most
    /// these, so that with its own way it takes no longer than two passes of a chunk through the
    /// idle chain.
    pub chunks_beside: usize,
}

/// What a step was, as far as its time is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    Prefill,
    Decode,
}

/// Results between two looks at the plan, unless the number of sequences changes.
const LOOK_EVERY: u32 = 32;
/// More groups must shorten the cycle to this part of what it is.
const WORTH_SPLITTING: f64 = 0.95;
/// Fewer groups may lengthen it to this.
const WORTH_JOINING: f64 = 1.02;
/// Groups and chunks in flight for each stage, at most: links may be far slower than stages.
const MOST_PER_STAGE: usize = 4;

#[derive(Debug)]
pub(super) struct Timing {
    stages: Vec<StageTiming>,
    links: Curve,
    chunk_tokens: f64,
    step: u64,
    plan: Plan,
    /// Sequences that the plan is for, and results until the next look.
    planned_for: usize,
    countdown: u32,
    /// Full chunks were measured.
    knows_chunks: bool,
}

#[derive(Debug, Default, Clone)]
struct StageTiming {
    decode: Curve,
    prefill: Curve,
}

impl Timing {
    pub(super) fn new(stages: u32, chunk_tokens: u32) -> Self {
        let stages = stages as usize;
        Self {
            stages: vec![StageTiming::default(); stages],
            links: Curve::default(),
            chunk_tokens: f64::from(chunk_tokens),
            step: 0,
            // Until something is known: something for each stage, but nobody waits for more than
            // one chunk.
            plan: Plan {
                groups: stages,
                chunks_alone: stages + 1,
                chunks_beside: 1,
            },
            planned_for: 0,
            countdown: 0,
            knows_chunks: false,
        }
    }

    /// A step came back. `links_us` is what its way took without computing and waiting, where
    /// that is known. Times of another number of stages say nothing.
    pub(super) fn observe(
        &mut self,
        work: Option<Work>,
        tokens: usize,
        compute_us: &[u32],
        links_us: Option<u64>,
    ) {
        self.step += 1;
        self.countdown = self.countdown.saturating_sub(1);
        if compute_us.len() != self.stages.len() {
            return;
        }
        if let Some(links_us) = links_us {
            self.links.observe(tokens, links_us as f64, self.step);
        }
        for (stage, &us) in self.stages.iter_mut().zip(compute_us) {
            let curve = match work {
                Some(Work::Decode) => &mut stage.decode,
                Some(Work::Prefill) => &mut stage.prefill,
                None => continue,
            };
            curve.observe(tokens, f64::from(us), self.step);
        }
        if !self.knows_chunks && self.chunk_pass(Line::default()).is_some() {
            self.knows_chunks = true;
            self.countdown = 0;
        }
    }

    /// The plan for so many decoding sequences. It changes only for a gain that shows.
    pub(super) fn plan(&mut self, sequences: usize) -> Plan {
        if self.countdown == 0 || sequences != self.planned_for {
            let known = u32::try_from(self.step).unwrap_or(u32::MAX);
            self.countdown = LOOK_EVERY.min(known);
            self.planned_for = sequences;
            self.look(sequences);
        }
        self.plan
    }

    /// The plan as it is.
    pub(super) fn current(&self) -> Plan {
        self.plan
    }

    fn look(&mut self, sequences: usize) {
        let links = self.links().unwrap_or_default();
        let most = MOST_PER_STAGE * self.stages.len();
        let decode = self.decode_lines().map(|lines| Decode {
            lines,
            links,
            sequences: sequences.max(1),
        });
        if let Some(decode) = decode.as_ref().filter(|_| sequences > 0) {
            let allowed = 1..sequences.min(most) + 1;
            self.plan.groups = decode.groups(self.plan.groups, allowed);
        }
        if let Some(chunk) = self.chunk_pass(links) {
            // Enough to keep the slowest stage busy; alone, one more at its door.
            let busy = ((chunk.pass_us / chunk.slowest_us).ceil() as usize).min(most);
            let groups = self.plan.groups.min(sequences.max(1));
            let decode_us = decode.map_or(0.0, |decode| decode.cycle_us(groups));
            let bearable = (2.0 * chunk.pass_us - decode_us) / chunk.slowest_us;
            self.plan.chunks_alone = busy + 1;
            self.plan.chunks_beside = busy.min(bearable.max(1.0) as usize).max(1);
        }
    }

    /// How long it takes, from the number of a decode step's tokens, until the same sequences can
    /// have the next one when so many groups are on their way, in microseconds.
    pub(super) fn decode_cycle(&self, groups: usize) -> Option<impl Fn(usize) -> f64> {
        let lines = self.decode_lines()?;
        let on_links = self.links().unwrap_or_default();
        Some(move |tokens| {
            let stages = self.stages.iter().zip(&lines);
            let stages_us = stages.map(|(stage, line)| stage.decode.at(tokens, *line));
            cycle_us(groups, on_links.at(tokens as f64), stages_us)
        })
    }

    /// The lines of all stages for decode steps, once every stage has one.
    pub(super) fn decode_lines(&self) -> Option<Vec<Line>> {
        let line = |stage: &StageTiming| stage.decode.line(Some(&stage.prefill), self.step);
        self.stages.iter().map(line).collect()
    }

    /// The line of the links, once a step has passed them with nothing before it.
    pub(super) fn links(&self) -> Option<Line> {
        self.links.line(None, self.step)
    }

    fn chunk_pass(&self, links: Line) -> Option<ChunkPass> {
        let mut pass_us = links.at(self.chunk_tokens);
        let mut slowest_us = 1.0_f64;
        for stage in &self.stages {
            let us = stage.prefill.near(self.chunk_tokens as usize)?;
            pass_us += us;
            slowest_us = slowest_us.max(us);
        }
        Some(ChunkPass {
            pass_us,
            slowest_us,
        })
    }
}

/// A full chunk in an idle chain.
struct ChunkPass {
    /// Through all stages and links.
    pass_us: f64,
    /// On the slowest stage.
    slowest_us: f64,
}

/// Until a group has its next token: it must pass all stages and links, and the slowest stage must
/// serve all groups.
fn cycle_us(groups: usize, links_us: f64, stages_us: impl Iterator<Item = f64>) -> f64 {
    let (pass_us, slowest_us) = stages_us.fold((links_us, 0.0_f64), |(pass, slowest), us| {
        (pass + us, slowest.max(us))
    });
    pass_us.max(groups as f64 * slowest_us)
}

struct Decode {
    lines: Vec<Line>,
    links: Line,
    sequences: usize,
}

impl Decode {
    fn cycle_us(&self, groups: usize) -> f64 {
        let tokens = self.sequences.div_ceil(groups.max(1)) as f64;
        let stages_us = self.lines.iter().map(|line| line.at(tokens));
        cycle_us(groups, self.links.at(tokens), stages_us)
    }

    /// The fewest groups of about the shortest cycle, or `current` where that is about as good.
    fn groups(&self, current: usize, allowed: Range<usize>) -> usize {
        let current = current.clamp(allowed.start, allowed.end - 1);
        let cycles: Vec<f64> = allowed.clone().map(|g| self.cycle_us(g)).collect();
        let shortest = cycles.iter().copied().fold(f64::INFINITY, f64::min);
        let now = cycles[current - allowed.start];
        let mut candidates = allowed.zip(cycles);
        let best = candidates.find(|&(_, cycle)| cycle <= shortest * WORTH_JOINING);
        match best {
            Some((groups, cycle)) if groups > current && cycle <= now * WORTH_SPLITTING => groups,
            Some((groups, _)) if groups < current => groups,
            _ => current,
        }
    }
}

#[cfg(test)]
mod tests;
