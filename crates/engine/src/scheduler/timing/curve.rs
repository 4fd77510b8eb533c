//! A time that depends on the number of tokens, learned from samples.

/// A time that grows with the tokens of a step, in microseconds.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Line {
    /// Whatever the step holds.
    pub fixed_us: f64,
    /// More for each token.
    pub token_us: f64,
}

impl Line {
    /// The time for so many tokens, in microseconds.
    pub fn at(self, tokens: f64) -> f64 {
        self.fixed_us + self.token_us * tokens
    }
}

/// Times by the number of tokens, the newer ones weighing more.
#[derive(Debug, Default, Clone)]
pub(super) struct Curve {
    /// By the number's logarithm to base 2.
    buckets: [Bucket; 16],
}

#[derive(Debug, Default, Clone, Copy)]
struct Bucket {
    samples: u32,
    tokens: f64,
    time_us: f64,
    last_step: u64,
}

/// Samples that a bucket's average is taken over, about.
const SAMPLES: u32 = 16;
/// A sample counts as at most so many averages: a stage that was stopped for a second says
/// nothing about its next step.
const OUTLIER: f64 = 4.0;
/// Steps after which a bucket that got nothing new weighs half.
const HALF_LIFE: f64 = 512.0;
/// It never weighs less than this part, so that a slope once known is not lost.
const LEAST_WEIGHT: f64 = 0.02;

fn bucket_of(tokens: usize) -> usize {
    tokens.max(1).ilog2().min(15) as usize
}

impl Curve {
    pub(super) fn observe(&mut self, tokens: usize, time_us: f64, step: u64) {
        let bucket = &mut self.buckets[bucket_of(tokens)];
        let time_us = if bucket.samples >= 4 {
            time_us.min(OUTLIER * bucket.time_us.max(1.0))
        } else {
            time_us
        };
        bucket.samples = (bucket.samples + 1).min(SAMPLES);
        let share = 1.0 / f64::from(bucket.samples);
        bucket.tokens += (tokens as f64 - bucket.tokens) * share;
        bucket.time_us += (time_us - bucket.time_us) * share;
        bucket.last_step = step;
    }

    /// Least squares over the buckets; nothing without samples. Where there is only one bucket,
    /// those of `other` help; without them the time does not depend on the tokens.
    pub(super) fn line(&self, other: Option<&Self>, step: u64) -> Option<Line> {
        let own = self.used();
        let other = match own.clone().count() {
            0 => return None,
            1 => other,
            _ => None,
        };
        let all = own.chain(other.into_iter().flat_map(Self::used));
        let weighted = all.map(|bucket| {
            let age = (step - bucket.last_step) as f64 / HALF_LIFE;
            let weight = f64::from(bucket.samples) * (-age).exp2().max(LEAST_WEIGHT);
            (weight, bucket.tokens, bucket.time_us)
        });
        let (mut weight, mut tokens, mut time) = (0.0, 0.0, 0.0);
        for (w, n, t) in weighted.clone() {
            weight += w;
            tokens += w * n;
            time += w * t;
        }
        let (tokens, time) = (tokens / weight, time / weight);
        let (mut covariance, mut variance) = (0.0, 0.0);
        for (w, n, t) in weighted {
            covariance += w * (n - tokens) * (t - time);
            variance += w * (n - tokens) * (n - tokens);
        }
        // Neither part of a time is negative.
        let token_us = if variance > 1e-9 {
            (covariance / variance).clamp(0.0, time / tokens.max(1.0))
        } else {
            0.0
        };
        Some(Line {
            // Rounding would make less than nothing of it.
            fixed_us: (time - token_us * tokens).max(0.0),
            token_us,
        })
    }

    /// The time for about so many tokens, where that was measured, in microseconds.
    pub(super) fn near(&self, tokens: usize) -> Option<f64> {
        let bucket = self.buckets[bucket_of(tokens)];
        (bucket.samples > 0).then_some(bucket.time_us)
    }

    /// The time for so many tokens: from what was measured of about as many, else by the line.
    pub(super) fn at(&self, tokens: usize, line: Line) -> f64 {
        let bucket = self.buckets[bucket_of(tokens)];
        if bucket.samples == 0 {
            return line.at(tokens as f64);
        }
        bucket.time_us + line.token_us * (tokens as f64 - bucket.tokens)
    }

    fn used(&self) -> impl Iterator<Item = &Bucket> + Clone {
        self.buckets.iter().filter(|bucket| bucket.samples > 0)
    }
}
