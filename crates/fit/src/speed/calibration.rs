//! What a machine was measured to do on stages of zeros, and what a step of a model takes by it.
//!
//! ```text
//! t = step + layers · layer + rows · row + Σ bytes of a type ÷ its rate + KV ÷ its rate
//!   + sampled · vocabulary
//! ```
//!
//! A decode step takes that times the factor of the models that have run here ([`Check`]): what the
//! parts cost together, where they are not alone with the caches and the cores.
//!
//! Rows are those of the matrices, as if all were as long as a hidden state is wide: short rows cost
//! more for their bytes. Of several tokens at once, a type's part is operations ÷ its rate at so many tokens, between
//! the batches that were measured by interpolation in logarithms.

use serde::{Deserialize, Serialize};

use super::{Rate, Setting, Work};
use crate::model::{Quantization, Weights};

/// Half of the 80 % interval of a prediction by calibration, as a logarithm.
///
/// Four of five of 64 labs were closer than 0.26, each of a model that had not been run there, after
/// the other one was checked: 135M in `Q4_1` and 270M in `Q4_K_M`, two stages of one and of two
/// threads, a quarter of them without shaped links; the median was 0.10, of either sign. Before checks
/// were counted, predictions were 11 % too fast at the median. It was one machine, two cores of an AMD
/// EPYC, each of which neighbours slow down to a half for seconds.
pub const HALF_WIDTH: f64 = 0.26;

/// Types of weights that are told apart, by ggml's names; other types count as the one that is
/// nearest in bits.
pub const TYPES: [(&str, f64); 12] = [
    ("F16", 16.0),
    ("BF16", 16.0),
    ("Q4_0", 4.5),
    ("Q4_1", 5.0),
    ("Q5_0", 5.5),
    ("Q5_1", 6.0),
    ("Q8_0", 8.5),
    ("Q2_K", 2.625),
    ("Q3_K", 3.4375),
    ("Q4_K", 4.5),
    ("Q5_K", 5.5),
    ("Q6_K", 6.5625),
];

/// No machine takes longer for a step of next to nothing, in milliseconds.
const MOST_STEP_MS: f64 = 20.0;
/// No type of weights is read so many times as fast as the middle one, or as slow.
const MOST_APART: f64 = 6.0;
/// Several tokens at once are never computed at less than this part of the rate of one.
const LEAST_GAIN: f64 = 0.4;

/// What was measured of a pool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Threads that computed.
    pub threads: u32,
    /// A step of a stage beside its layers, in milliseconds.
    pub step_ms: f64,
    /// A layer beside its weights, in milliseconds.
    pub layer_ms: f64,
    /// Keys and values that a token reads, in 10⁹ bytes a second.
    pub kv_gb_s: f64,
    /// Choosing a token among 100,000, in milliseconds.
    pub vocabulary_ms: f64,
    /// By type of weights.
    pub types: Vec<TypeRates>,
    /// Models that were run after that.
    #[serde(default)]
    pub checks: Vec<Check>,
}

/// What a model did, against what its parts add up to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// The model's name.
    pub model: String,
    /// Time of a decode step as measured ÷ as the parts add up.
    pub ratio: f64,
}

/// What was measured with one type of weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TypeRates {
    /// ggml's name of it.
    pub ggml_type: String,
    /// Weights that one token reads, in 10⁹ bytes a second, beside what rows cost.
    pub decode_gb_s: f64,
    /// A row of a matrix beside its bytes, in nanoseconds, when one token is computed.
    pub row_ns: f64,
    /// Tokens at once, and operations with weights, in 10⁹ a second; ascending.
    pub batches: Vec<(u32, f64)>,
}

/// Shares of the types in a model's layers and in its head, in the order of [`TYPES`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    layers: [f32; TYPES.len()],
    head: [f32; TYPES.len()],
}

impl Mix {
    /// Of a quantization: by its tensors where they are known, else by its name.
    pub fn of(quant: &Quantization) -> Self {
        let Weights { types, .. } = &quant.weights;
        let mut mix = Self {
            layers: [0.0; TYPES.len()],
            head: [0.0; TYPES.len()],
        };
        for own in types {
            let index = index_of(own.ggml_type, own.bits);
            mix.layers[index] += own.layer_bytes as f32;
            mix.head[index] += own.head_bytes as f32;
        }
        let named = TYPES
            .iter()
            .position(|(name, _)| quant.name.starts_with(name));
        let otherwise = named.unwrap_or_else(|| index_of("", quant.bits_per_weight));
        for shares in [&mut mix.layers, &mut mix.head] {
            let sum: f32 = shares.iter().sum();
            if sum > 0.0 {
                for share in shares.iter_mut() {
                    *share /= sum;
                }
            } else {
                shares[otherwise] = 1.0;
            }
        }
        mix
    }
}

fn index_of(name: &str, bits: f64) -> usize {
    let named = TYPES.iter().position(|(known, _)| *known == name);
    let apart = |index: &usize| (TYPES[*index].1 - bits).abs();
    named
        .or_else(|| (0..TYPES.len()).min_by(|a, b| apart(a).total_cmp(&apart(b))))
        .unwrap_or(0)
}

impl Calibration {
    /// How many times as long as its parts a decode step takes: the geometric mean of all checks.
    pub fn factor(&self) -> f64 {
        let logs = self.checks.iter().map(|check| check.ratio.ln());
        (logs.sum::<f64>() / self.checks.len().max(1) as f64).exp()
    }

    /// The same without what this model has shown, for predictions that are compared with it.
    #[must_use]
    pub fn without(mut self, model: &str) -> Self {
        self.checks.retain(|check| check.model != model);
        self
    }

    /// What no machine does, and so was something else that ran here: for whoever measures again.
    pub fn oddity(&self) -> Option<String> {
        if self.step_ms > MOST_STEP_MS {
            return Some(format!(
                "{:.1} ms for a step of next to nothing",
                self.step_ms
            ));
        }
        let mut rates: Vec<f64> = self.types.iter().map(|own| own.decode_gb_s).collect();
        rates.sort_by(f64::total_cmp);
        let middle = rates.get(rates.len() / 2).copied().unwrap_or_default();
        for own in &self.types {
            let apart = own.decode_gb_s / middle;
            if !(1.0 / MOST_APART..MOST_APART).contains(&apart) {
                return Some(format!(
                    "{} at {:.1} GB/s where half of the types are at {middle:.1} or less",
                    own.ggml_type, own.decode_gb_s
                ));
            }
            let alone = own.batches.first().map_or(0.0, |&(_, rate)| rate);
            let slower = |&&(_, rate): &&(u32, f64)| rate < alone * LEAST_GAIN;
            if let Some((tokens, rate)) = own.batches.iter().find(slower) {
                return Some(format!(
                    "{} at {rate:.0} GFLOP/s for {tokens} tokens at once, {alone:.0} for one",
                    own.ggml_type
                ));
            }
        }
        None
    }

    /// Seconds of a step.
    pub(super) fn step_s(&self, work: &Work) -> f64 {
        let tokens = f64::from(work.tokens.max(1));
        let mix = &work.traits.mix;
        let (layers, head) = (work.weight_bytes as f64, work.head_bytes as f64);
        let whole = (layers + head).max(1.0);
        let weights = if work.rate == Rate::Decode && work.tokens <= 1 {
            let rows = work.flops / 2.0 / f64::from(work.traits.width.max(1));
            let row = |shares| self.each(shares, |rates| rates.row_ns / 1e9);
            rows * (layers * row(&mix.layers) + head * row(&mix.head)) / whole
                + layers * self.each(&mix.layers, |rates| 1.0 / (rates.decode_gb_s * 1e9))
                + head * self.each(&mix.head, |rates| 1.0 / (rates.decode_gb_s * 1e9))
        } else {
            // Parameters are shared out as bytes are: types of one model differ little in bits.
            let of = |shares| self.each(shares, |rates| 1.0 / (rates.gflop_s(tokens) * 1e9));
            work.flops * (layers * of(&mix.layers) + head * of(&mix.head)) / whole
        };
        let ms = self.step_ms
            + f64::from(work.layers) * self.layer_ms
            + f64::from(work.sampled) * f64::from(work.vocab) / 1e5 * self.vocabulary_ms;
        // A prompt's attention is computed, at the pace of its tokens' weights.
        let attention = match work.rate {
            Rate::Decode => work.kv_bytes as f64 / (self.kv_gb_s * 1e9),
            Rate::Prefill => {
                let pace = self.each(&mix.layers, |rates| 1.0 / (rates.gflop_s(tokens) * 1e9));
                work.attention_flops * pace
            }
        };
        let factor = match work.rate {
            Rate::Decode => self.factor(),
            Rate::Prefill => 1.0,
        };
        factor * (ms / 1e3 + weights + attention)
    }

    /// The mean of something over types with these shares; of a type that was not measured, that
    /// of the one nearest in bits.
    fn each(&self, shares: &[f32], of: impl Fn(&TypeRates) -> f64) -> f64 {
        let mut sum = 0.0;
        for (&share, &(name, bits)) in shares.iter().zip(&TYPES) {
            let apart = |rates: &&TypeRates| {
                let known = TYPES.iter().find(|(name, _)| *name == rates.ggml_type);
                known.map_or(f64::INFINITY, |(_, known)| (known - bits).abs())
            };
            let own = self.types.iter().find(|rates| rates.ggml_type == name);
            let rates = own.or_else(|| {
                let all = self.types.iter();
                all.min_by(|a, b| apart(a).total_cmp(&apart(b)))
            });
            if share > 0.0 {
                sum += rates.map_or(f64::INFINITY, &of) * f64::from(share);
            }
        }
        sum
    }
}

impl TypeRates {
    /// Operations at so many tokens at once, in 10⁹ a second.
    fn gflop_s(&self, tokens: f64) -> f64 {
        let mut before: Option<(f64, f64)> = None;
        for &(batch, rate) in &self.batches {
            let batch = f64::from(batch);
            if tokens <= batch {
                let Some((low, slow)) = before else {
                    return rate;
                };
                let part = (tokens / low).ln() / (batch / low).ln();
                return slow * (rate / slow).powf(part);
            }
            before = Some((batch, rate));
        }
        before.map_or(0.0, |(_, rate)| rate)
    }
}

/// Whether all pools of a setting are calibrated.
pub(super) fn covers(setting: &Setting) -> bool {
    let calibrated = |pool: &&crate::machine::Pool| pool.calibration.is_some();
    !setting.pools.is_empty() && setting.pools.iter().all(calibrated)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calibration() -> Calibration {
        let rates = |name: &str, decode_gb_s| TypeRates {
            ggml_type: name.to_owned(),
            decode_gb_s,
            row_ns: 2.0,
            batches: vec![(1, 10.0), (64, 80.0)],
        };
        Calibration {
            threads: 2,
            step_ms: 0.1,
            layer_ms: 0.02,
            kv_gb_s: 5.0,
            vocabulary_ms: 0.3,
            types: vec![rates("Q4_0", 20.0), rates("Q8_0", 30.0)],
            checks: Vec::new(),
        }
    }

    fn mix(layers: &str, head: &str) -> Mix {
        let shares = |name: &str| {
            let mut shares = [0.0; TYPES.len()];
            shares[index_of(name, 0.0)] = 1.0;
            shares
        };
        Mix {
            layers: shares(layers),
            head: shares(head),
        }
    }

    fn work(rate: Rate, tokens: u32) -> Work {
        Work {
            rate,
            tokens,
            layers: 10,
            weight_bytes: 400_000_000,
            head_bytes: 300_000_000,
            kv_bytes: 5_000_000,
            flops: 2e9 * f64::from(tokens),
            attention_flops: 0.0,
            sampled: 1,
            vocab: 100_000,
            handovers: 0,
            traits: super::super::Traits {
                quant: super::super::quants::QuantClass::Q40,
                moe: false,
                recurrent: false,
                mix: mix("Q4_0", "Q8_0"),
                width: 1000,
            },
        }
    }

    #[test]
    fn a_token_takes_the_sum_of_its_parts() {
        let seconds = calibration().step_s(&work(Rate::Decode, 1));
        // A million rows of a thousand weights.
        let rows = 1e6 * 2.0 / 1e9;
        let expected =
            (0.1 + 10.0 * 0.02 + 0.3) / 1e3 + rows + 0.4 / 20.0 + 0.3 / 30.0 + 0.005 / 5.0;
        assert!((seconds - expected).abs() < 1e-9, "{seconds}");
    }

    #[test]
    fn batches_lie_between_those_that_were_measured() {
        let rates = &calibration().types[0];
        for (tokens, expected) in [
            (1.0, 10.0),
            (8.0, 800_f64.sqrt()),
            (64.0, 80.0),
            (512.0, 80.0),
        ] {
            let rate = rates.gflop_s(tokens);
            assert!((rate - expected).abs() < 1e-6, "{tokens}: {rate}");
        }
        let one = calibration().step_s(&work(Rate::Prefill, 64));
        assert!((one - (0.6e-3 + 128.0 / 80.0)).abs() < 1e-6, "{one}");
    }

    #[test]
    fn a_type_that_was_not_measured_is_as_the_nearest() {
        let known = calibration();
        let as_measured = known.each(&mix("Q4_0", "Q4_0").layers, |rates| rates.decode_gb_s);
        for near in ["Q4_K", "Q3_K", "Q4_1"] {
            let rate = known.each(&mix(near, near).layers, |rates| rates.decode_gb_s);
            assert!((rate - as_measured).abs() < 1e-9, "{near}");
        }
    }

    #[test]
    fn what_no_machine_does_is_odd() {
        let check = |change: fn(&mut Calibration)| {
            let mut changed = calibration();
            changed.types.push(changed.types[0].clone());
            change(&mut changed);
            changed.oddity()
        };
        assert_eq!(check(|_| {}), None);
        // As seen beside other programs.
        let step = check(|own| own.step_ms = 219.7).unwrap();
        assert_eq!(step, "219.7 ms for a step of next to nothing");
        let fast = check(|own| own.types[1].decode_gb_s = 107_774.0).unwrap();
        assert!(fast.starts_with("Q8_0 at 107774.0 GB/s"), "{fast}");
        assert!(check(|own| own.types[1].decode_gb_s = 2.0).is_some());
        let batch = check(|own| own.types[0].batches[1].1 = 3.0).unwrap();
        assert_eq!(batch, "Q4_0 at 3 GFLOP/s for 64 tokens at once, 10 for one");
    }

    #[test]
    fn what_models_have_shown_counts_for_others() {
        let plain = calibration();
        let check = |model: &str, ratio| Check {
            model: model.to_owned(),
            ratio,
        };
        let mut checked = plain.clone();
        checked.checks = vec![check("a", 1.2), check("b", 1.2 * 1.2 * 1.2)];
        let times = |of: &Calibration, rate, tokens| {
            let work = work(rate, tokens);
            of.step_s(&work) / plain.step_s(&work)
        };
        assert!((times(&checked, Rate::Decode, 1) - 1.44).abs() < 1e-9);
        assert!((times(&checked, Rate::Decode, 8) - 1.44).abs() < 1e-9);
        assert!((times(&checked, Rate::Prefill, 64) - 1.0).abs() < 1e-9);
        let others = checked.without("b");
        assert!((times(&others, Rate::Decode, 1) - 1.2).abs() < 1e-9);
        assert!((others.without("a").factor() - 1.0).abs() < 1e-9);
    }
}
