//! One row of logits: passes over the vocabulary, which is never sorted.

use std::cmp::Ordering;

use brigade_wire::{SamplingParams, Token};

use crate::StageError;

/// Small enough to stay in the first-level cache between its two loops.
const BLOCK: usize = 1024;
/// As many independent sums and maxima as the widest vector unit has floats.
const LANES: usize = 16;

/// What one pass over the logits finds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan {
    /// The largest logit.
    pub(super) max: f32,
    /// The lowest token that has it.
    pub(super) argmax: Token,
    /// The sum of `exp(logit - max)`.
    pub(super) mass: f64,
}

/// Reads the logits from memory once.
pub(super) fn scan(logits: &[f32]) -> Result<Scan, StageError> {
    let mut max = f32::NEG_INFINITY;
    let mut mass = 0.0;
    let mut block_of_max = 0;
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        let top = largest(block);
        if top > max {
            mass *= f64::from(exp(max - top));
            max = top;
            block_of_max = index;
        }
        // NaN is no maximum, but it spoils the sum.
        mass += sum(block, |logit| exp(logit - max.max(f32::MIN)));
    }
    if !(mass.is_finite() && max < f32::INFINITY) {
        return Err(StageError::Logits("one is NaN or infinite"));
    }
    if max == f32::NEG_INFINITY {
        return Err(StageError::Logits("there is none above minus infinity"));
    }
    let start = block_of_max * BLOCK;
    let offset = logits[start..].iter().take_while(|&&logit| logit < max);
    Ok(Scan {
        max,
        argmax: (start + offset.count()) as Token,
        mass,
    })
}

/// The largest number; NaN does not count.
fn largest(block: &[f32]) -> f32 {
    let (lanes, rest) = block.as_chunks::<LANES>();
    let mut tops = [f32::NEG_INFINITY; LANES];
    for lane in lanes {
        for (top, &logit) in tops.iter_mut().zip(lane) {
            *top = if logit > *top { logit } else { *top };
        }
    }
    let all = tops.iter().chain(rest);
    all.copied().fold(f32::NEG_INFINITY, f32::max)
}

/// The sum of a block's weights.
fn sum(block: &[f32], weight: impl Fn(f32) -> f32) -> f64 {
    let (lanes, rest) = block.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for lane in lanes {
        for (sum, &logit) in sums.iter_mut().zip(lane) {
            *sum += weight(logit);
        }
    }
    let rest = rest.iter().map(|&logit| weight(logit));
    f64::from(sums.into_iter().chain(rest).sum::<f32>())
}

/// `e^x` for `x <= 0`, within 2 units in the last place, 0 where the result would be below
/// the smallest normal float. The compiler vectorises it, and unlike the platform's own it
/// gives the same bits everywhere. NaN stays NaN.
fn exp(x: f32) -> f32 {
    // Adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, so that `n * LN2_HIGH` is exact.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // Taylor's series; |r| <= ln(2) / 2 makes the next term 1.2e-7 of the result.
    let mut power = 1.0 / 720.0;
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        power = power * r + coefficient;
    }
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { power * scale }
}

/// A number in `[0, 1)` from a seed and a position: the finaliser of `SplitMix64` (Steele, Lea
/// and Flood, 2014) over each.
pub(super) fn uniform(seed: u64, position: u64) -> f64 {
    fn mix(mut x: u64) -> u64 {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
    (mix(mix(seed) ^ position) >> 11) as f64 / (1u64 << 53) as f64
}

/// A token that may be drawn.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    logit: f32,
    token: Token,
}

impl Candidate {
    /// As a cutoff: every token with at least this logit.
    fn down_to(logit: f32) -> Self {
        Self {
            logit,
            token: Token::MAX,
        }
    }

    /// The most likely first, equal ones by token. Logits are never NaN here.
    fn order(self, other: Self) -> Ordering {
        other
            .logit
            .partial_cmp(&self.logit)
            .unwrap_or(Ordering::Equal)
            .then(self.token.cmp(&other.token))
    }
}

/// Applies the filters and the temperature, and takes the token that `uniform` falls on.
pub(super) fn draw(
    logits: &[f32],
    scan: &Scan,
    params: &SamplingParams,
    uniform: f64,
    candidates: &mut Vec<Candidate>,
) -> Token {
    let weight = |logit: f32| exp((logit - scan.max) / params.temperature);
    let cutoff = filter(logits, scan, params, candidates);
    if cutoff.logit > f32::MIN {
        gather(candidates, logits, cutoff);
        let weights = candidates.iter().map(|c| (c.token, weight(c.logit)));
        let total: f64 = weights.clone().map(|(_, weight)| f64::from(weight)).sum();
        return pick(weights, uniform * total).unwrap_or(scan.argmax);
    }
    // Everything may be drawn: find the block first, then the token in it.
    let blocks = || logits.chunks(BLOCK).map(|block| sum(block, weight));
    let mut left = uniform * blocks().sum::<f64>();
    let mut start = 0;
    for (mass, first) in blocks().zip((0..).step_by(BLOCK)) {
        start = first;
        if left < mass {
            break;
        }
        left -= mass;
    }
    let weights = (start..).zip(&logits[start as usize..]);
    pick(weights.map(|(token, &logit)| (token, weight(logit))), left).unwrap_or(scan.argmax)
}

/// The least likely token that passes all filters. Every filter keeps a prefix of
/// [`Candidate::order`], so together they are one cutoff.
fn filter(
    logits: &[f32],
    scan: &Scan,
    params: &SamplingParams,
    candidates: &mut Vec<Candidate>,
) -> Candidate {
    let mut cutoff = Candidate::down_to(f32::MIN);
    let mut total = scan.mass;
    let top_k = params.top_k as usize;
    let has_top_k = top_k > 0 && top_k < logits.len();
    if has_top_k {
        gather_until(candidates, logits, scan.max, |found| found.len() >= top_k);
        if top_k <= candidates.len() {
            let (_, last, _) = candidates.select_nth_unstable_by(top_k - 1, |a, b| a.order(*b));
            cutoff = *last;
            candidates.truncate(top_k);
        }
        total = mass(candidates, scan.max);
    }
    if params.top_p < 1.0 {
        let target = f64::from(params.top_p) * total;
        if !has_top_k {
            gather_until(candidates, logits, scan.max, |found| {
                mass(found, scan.max) >= target
            });
        }
        cutoff = nucleus(candidates, scan.max, target).unwrap_or(cutoff);
    }
    let floor = scan.max + params.min_p.ln();
    if floor > cutoff.logit {
        cutoff = Candidate::down_to(floor);
    }
    cutoff
}

/// Fills `candidates` with the tokens down to the cutoff, in order of token.
fn gather(candidates: &mut Vec<Candidate>, logits: &[f32], cutoff: Candidate) {
    candidates.clear();
    for (lane, first) in logits.chunks(LANES).zip((0..).step_by(LANES)) {
        // One vector comparison rules out most of the vocabulary.
        if lane.iter().filter(|&&logit| logit >= cutoff.logit).count() == 0 {
            continue;
        }
        for (&logit, token) in lane.iter().zip(first..) {
            let candidate = Candidate { logit, token };
            if candidate.order(cutoff).is_le() {
                candidates.push(candidate);
            }
        }
    }
}

/// The `count` most likely tokens, likeliest first.
pub(super) fn likeliest<'a>(
    logits: &[f32],
    scan: &Scan,
    count: usize,
    candidates: &'a mut Vec<Candidate>,
) -> impl Iterator<Item = Token> + 'a {
    candidates.clear();
    if count > 0 {
        gather_until(candidates, logits, scan.max, |found| found.len() >= count);
        candidates.sort_unstable_by(|a, b| a.order(*b));
        candidates.truncate(count);
    }
    candidates.iter().map(|candidate| candidate.token)
}

/// Fills `candidates` with the most likely tokens, more and more of them until they are enough.
/// Mostly a handful is, and a pass that finds few is fast.
fn gather_until(
    candidates: &mut Vec<Candidate>,
    logits: &[f32],
    max: f32,
    enough: impl Fn(&[Candidate]) -> bool,
) {
    let widths = (1..=16u8).map(|step| 2.0 * f32::from(step));
    for width in widths.chain([f32::INFINITY]) {
        let cutoff = Candidate::down_to((max - width).max(f32::MIN));
        gather(candidates, logits, cutoff);
        if enough(candidates) {
            return;
        }
    }
}

fn mass(candidates: &[Candidate], max: f32) -> f64 {
    candidates
        .iter()
        .map(|candidate| f64::from(exp(candidate.logit - max)))
        .sum()
}

/// The last of the fewest candidates whose mass reaches `target`: halves what is left, like
/// quickselect, so that the time is linear however flat the distribution is.
fn nucleus(candidates: &mut [Candidate], max: f32, mut target: f64) -> Option<Candidate> {
    let mut rest = candidates;
    while rest.len() > 1 {
        let half = rest.len() / 2;
        rest.select_nth_unstable_by(half, |a, b| a.order(*b));
        let (upper, lower) = rest.split_at_mut(half);
        let upper_mass = mass(upper, max);
        if upper_mass >= target {
            rest = upper;
        } else {
            target -= upper_mass;
            rest = lower;
        }
    }
    rest.first().copied()
}

/// The token whose weight reaches beyond `left`, or the last one that has any.
fn pick(weights: impl Iterator<Item = (Token, f32)>, mut left: f64) -> Option<Token> {
    let mut chosen = None;
    for (token, weight) in weights.filter(|(_, weight)| *weight > 0.0) {
        chosen = Some(token);
        left -= f64::from(weight);
        if left < 0.0 {
            break;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_to_the_exact_one() {
        for i in 0..87_000 {
            let x = -(i as f32) / 1000.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}) is off by {error}");
        }
        assert!(exp(-88.0).abs() < f32::MIN_POSITIVE);
        assert!(exp(f32::NEG_INFINITY).abs() < f32::MIN_POSITIVE);
    }

    #[test]
    fn uniform_fills_the_interval_and_depends_on_both_arguments() {
        let count = 10_000;
        let mean = (0..count).map(|p| uniform(7, p)).sum::<f64>() / count as f64;
        assert!((mean - 0.5).abs() < 0.02, "mean {mean}");
        assert!((0..count).all(|p| (0.0..1.0).contains(&uniform(p, 0))));
        let distinct: std::collections::HashSet<u64> = (0..100)
            .flat_map(|seed| (0..100).map(move |p| uniform(seed, p).to_bits()))
            .collect();
        assert_eq!(distinct.len(), 10_000);
    }
}
