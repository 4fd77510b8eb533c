//! How fast a step is on a pool: formulas with fitted factors, and measurements where there are some.

pub mod calibration;
pub mod classes;
pub mod decode;
pub mod fitted;
pub mod interval;
mod known;
pub mod prefill;
pub(crate) mod quants;
mod rate;
pub mod sum;

use crate::catalog::Catalog;
use crate::error::FitError;
use crate::evidence::{Estimate, Evidence};
use crate::machine::{Pool, PoolKind};
use crate::memory::{KvType, Load, kv_bytes};
use crate::model::{Exactness, Model, Quantization};
use crate::placement::HOP_SOFTWARE_MS;
use crate::program::Program;
use crate::verdict::MICRO_BATCH;

pub use rate::Rate;

use classes::{Engine, Family, Traits};
use interval::Class;
use known::{Known, KnownRows};

/// Predicts times; [`SpeedModel`] in use, a roofline in tests.
pub trait Speed {
    /// Seconds of one step on this pool.
    fn step_s(&self, pool: &Pool, runtime: &str, work: &Work) -> Result<f64, FitError>;

    /// How much faster some GPUs of one host read a prompt of so many micro-batches than one does
    /// that has all of their layers.
    fn overlap(&self, pools: usize, batches: f64) -> f64;

    /// Milliseconds that a hop between nodes takes beside the link, in the program that runs them.
    fn hop_software_ms(&self, _program: Program) -> f64 {
        HOP_SOFTWARE_MS
    }

    /// A rate, in tokens a second, with its interval and evidence; `mid` is what
    /// [`step_s`](Self::step_s) came to.
    fn around(&self, mid: f64, rate: Rate, setting: &Setting) -> Estimate;

    /// What was measured of the model with every layer shared by the setting's nodes, and by which
    /// rows.
    fn tensor(&self, _setting: &Setting) -> Option<(Estimate, String)> {
        None
    }

    /// Which measurements stand behind a rate, in a sentence, if any do.
    fn basis(&self, rate: Rate, setting: &Setting) -> Option<String>;
}

/// What one pool does in one step of a stage: the bytes and operations of all tokens of the step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Work {
    /// Whether tokens are generated or a prompt is read.
    pub rate: Rate,
    /// Tokens of the step: 1 for one stream's decode, the streams for a batch, a chunk for prefill.
    pub tokens: u32,
    /// Layers that this pool computes.
    pub layers: u32,
    /// Bytes of weights that the step touches but for the head, experts by what the tokens choose.
    pub weight_bytes: u64,
    /// Bytes of the head; 0 but on the last stage.
    pub head_bytes: u64,
    /// Bytes of the KV cache that the step reads.
    pub kv_bytes: u64,
    /// Operations with weights; a multiply-add is two.
    pub flops: f64,
    /// Operations of attention.
    pub attention_flops: f64,
    /// Tokens that are sampled; 0 but on the last stage.
    pub sampled: u32,
    /// Tokens of the vocabulary.
    pub vocab: u32,
    /// Times that the hidden state came from another pool of this host.
    pub handovers: u32,
    /// What decides the efficiency.
    pub traits: Traits,
}

impl Work {
    /// All bytes that the step reads.
    pub fn bytes(&self) -> u64 {
        self.weight_bytes + self.head_bytes + self.kv_bytes
    }
}

/// What a rate is about.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its quantization.
    pub quant: &'a Quantization,
    /// The pools that compute, in the order of the layers.
    pub pools: Vec<&'a Pool>,
    /// The nodes that they are of.
    pub nodes: usize,
    /// Tokens in the cache while tokens are generated, or of the prompt.
    pub context: u32,
}

/// The speed model: sums of parts with fitted factors, corrected by what was measured nearby.
#[derive(Debug, Clone)]
pub struct SpeedModel<'a> {
    catalog: &'a Catalog,
    decode: Vec<f64>,
    prefill: Vec<f64>,
    /// In the order of [`Program::ALL`].
    hops_ms: [f64; Program::ALL.len()],
    known: KnownRows<'a>,
}

impl<'a> SpeedModel<'a> {
    /// With a catalog's parameters and measurements.
    pub fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            decode: catalog.fitted.decode_values(),
            prefill: catalog.fitted.prefill_values(),
            hops_ms: Program::ALL.map(|program| catalog.hop_software_ms(program)),
            known: KnownRows::new(catalog),
        }
    }

    /// The 80 % interval of the formula alone: how it is known, and its half width as a logarithm.
    fn formula(&self, rate: Rate, setting: &Setting) -> (Evidence, f64) {
        let fitted = &self.catalog.fitted;
        let fit = match rate {
            Rate::Decode => &fitted.decode,
            Rate::Prefill => &fitted.prefill,
        };
        let has_rows = |pool: &&Pool| {
            let family = Family::of_pool(pool).name();
            fit.families.iter().any(|name| name == family)
        };
        let seen = setting.pools.iter().all(has_rows);
        // What a hop between nodes costs is of one measurement or few, not fitted.
        let evidence = if seen && setting.nodes <= 1 {
            Evidence::Extrapolated
        } else {
            Evidence::Estimated
        };
        let width = |class: Class| {
            let families = setting.pools.iter().map(|pool| Family::of_pool(pool));
            let widths = families.map(|family| fitted.half_width(class, rate, family));
            widths.fold(0.0, f64::max)
        };
        let mut half = width(class(rate, setting));
        if !seen {
            half = half.max(fitted.unseen(rate));
        }
        if rate == Rate::Prefill && setting.nodes > 1 {
            // No prompt over nodes was measured with stages; over GPUs of one host is the nearest.
            half = half.max(width(Class::PrefillSeveral));
        }
        (evidence, half)
    }
}

/// Standard deviations on each side that hold 80 % of a normal distribution.
pub(crate) const NORMAL_80: f64 = 1.2816;

/// What reading the cache adds to a rate's half width, as a logarithm: nearly all measured rows
/// have little in it, so that its price is known less well than that of weights.
fn cache_doubt(setting: &Setting) -> f64 {
    let load = Load {
        context: setting.context,
        sequences: 1,
        kv_type: KvType::F16,
        micro_batch: MICRO_BATCH,
    };
    let model = setting.model;
    let cache = kv_bytes(&model.layers, &load) as f64;
    let touched = model.active_params as f64 / model.params.max(1) as f64;
    let weights = setting.quant.weights.total() as f64 * touched;
    let share = cache / (cache + weights).max(1.0);
    share * fitted::cache_sd() * NORMAL_80
}

impl Speed for SpeedModel<'_> {
    fn step_s(&self, pool: &Pool, runtime: &str, work: &Work) -> Result<f64, FitError> {
        // What was measured on this very machine says more than what is fitted to others.
        if let Some(calibration) = &pool.calibration {
            return Ok(calibration.step_s(work));
        }
        let missing = |fact: &str| FitError::Missing {
            of: pool.device_name.clone(),
            fact: fact.into(),
        };
        let family = Family::of_pool(pool);
        let engine = Engine::of(runtime, family);
        let bandwidth_gb_s = pool
            .bandwidth_gb_s
            .filter(|rate| *rate > 0.0)
            .ok_or_else(|| missing("memory bandwidth"))?;
        let (weight_gb, head_gb) = (work.weight_bytes as f64 / 1e9, work.head_bytes as f64 / 1e9);
        let matrix = prefill::Amounts {
            family,
            engine,
            quant: work.traits.quant,
            bandwidth_gb_s,
            fp16_tflops: matrix_tflops(pool).unwrap_or(0.0),
            gflop: work.flops / 1e9,
            attention_gflop: work.attention_flops / 1e9,
            weight_gb: weight_gb + head_gb,
            layers: f64::from(work.layers),
            moe: work.traits.moe,
        };
        if work.rate == Rate::Prefill {
            if matrix.fp16_tflops <= 0.0 {
                return Err(missing("16-bit matrix throughput"));
            }
            return Ok(matrix.sum().ms(&self.prefill) / 1e3);
        }
        // In a mixture of experts all but the head is read at the experts' pace.
        let (dense_gb, expert_gb) = if work.traits.moe {
            (head_gb, weight_gb)
        } else {
            (head_gb + weight_gb, 0.0)
        };
        let tokens = f64::from(work.tokens.max(1));
        let vector = |active_b: f64| decode::Amounts {
            family,
            engine,
            quant: work.traits.quant,
            bandwidth_gb_s,
            fp32_tflops: pool
                .fp32_tflops
                .unwrap_or_else(|| family.assumed_fp32_tflops(bandwidth_gb_s)),
            dense_gb,
            expert_gb,
            spilled: 0.0,
            active_b,
            kv_gb: work.kv_bytes as f64 / 1e9,
            layers: f64::from(work.layers),
            moe: work.traits.moe,
            recurrent: work.traits.recurrent,
            handovers: f64::from(work.handovers),
            sampled: f64::from(work.sampled),
            vocab: f64::from(work.vocab),
        };
        let active_b = work.flops / 2e9;
        let each = vector(active_b).sum().ms(&self.decode);
        if work.tokens <= 1 || matrix.fp16_tflops <= 0.0 {
            return Ok(each / 1e3);
        }
        // Some tokens at once are multiplied as a matrix; weights are unpacked once for all.
        let once = vector(active_b / tokens).sum().ms(&self.decode);
        let together = once + matrix.arithmetic().ms(&self.prefill);
        Ok(each.min(together) / 1e3)
    }

    fn overlap(&self, pools: usize, batches: f64) -> f64 {
        prefill::overlap(&self.prefill, pools as f64, batches)
    }

    fn hop_software_ms(&self, program: Program) -> f64 {
        self.hops_ms[program as usize]
    }

    fn around(&self, mid: f64, rate: Rate, setting: &Setting) -> Estimate {
        let known = self.known.of(rate, setting);
        let exact = known.as_ref().is_some_and(|known| known.exact.is_some());
        if !exact && calibration::covers(setting) {
            return Estimate {
                low: mid / calibration::HALF_WIDTH.exp(),
                mid,
                high: mid * calibration::HALF_WIDTH.exp(),
                evidence: Evidence::MeasuredNear,
            };
        }
        let (evidence, half) = self.formula(rate, setting);
        // Widths of the formula are those seen where it extrapolates; a lower tier is worth less.
        let formula = half * (Evidence::Extrapolated.weight() / evidence.weight()).max(1.0);
        let near = |spread: f64, evidence: Evidence| {
            self.catalog.fitted.near(rate).max(spread) / evidence.weight()
        };
        let (mid, evidence, half) = match known {
            Some(Known {
                exact: Some(rows), ..
            }) => (
                rows.ln_rate.exp(),
                rows.evidence,
                near(rows.spread, rows.evidence),
            ),
            // How far a pipeline's own figure is off says more than one node's; what it does not
            // say, such as its context, leaves the interval as wide as the formula's.
            Some(Known {
                nodes: Some(rows), ..
            }) => (
                mid * rows.ln_off.exp(),
                rows.evidence.max(Evidence::MeasuredNear),
                formula.max(near(rows.spread, rows.evidence)),
            ),
            // Of one node of several, the measurements still say how the formula is off.
            Some(known) if setting.nodes > 1 => (mid * known.ln_off.exp(), evidence, formula),
            Some(known) => {
                let evidence = known.evidence.max(Evidence::MeasuredNear);
                let half = near(known.spread, evidence).min(formula);
                (mid * known.ln_off.exp(), evidence, half)
            }
            None => (mid, evidence, formula),
        };
        let half = match rate {
            Rate::Decode => half.hypot(cache_doubt(setting)),
            Rate::Prefill => half,
        };
        Estimate {
            low: mid / half.exp(),
            mid,
            high: mid * half.exp(),
            evidence,
        }
    }

    fn tensor(&self, setting: &Setting) -> Option<(Estimate, String)> {
        let known = self.known.tensor(setting)?;
        // At whatever context the rows are of.
        let evidence = Evidence::MeasuredNear;
        let near = self.catalog.fitted.near(Rate::Decode).max(known.spread) / evidence.weight();
        let half = near.hypot(cache_doubt(setting));
        let mid = known.ln_rate.exp();
        let estimate = Estimate {
            low: mid / half.exp(),
            mid,
            high: mid * half.exp(),
            evidence,
        };
        Some((estimate, known.named()))
    }

    fn basis(&self, rate: Rate, setting: &Setting) -> Option<String> {
        let what = match rate {
            Rate::Decode => "Decode",
            Rate::Prefill => "Prefill",
        };
        let known = self.known.of(rate, setting);
        if calibration::covers(setting) && known.as_ref().is_none_or(|known| known.exact.is_none())
        {
            return Some(format!(
                "{what} is computed from what `brigade calibrate` measured on {}.",
                if setting.nodes > 1 {
                    "these machines"
                } else {
                    "this machine"
                }
            ));
        }
        let known = known?;
        let said = match (&known.exact, setting.nodes) {
            (Some(rows), _) => format!("{what} was measured in this setting: {}.", rows.named()),
            (None, 2..) if known.nodes.is_some() => format!(
                "{what} is corrected by what was measured with {} on {} such nodes: {}.",
                known.model(),
                setting.nodes,
                known
                    .nodes
                    .as_ref()
                    .map(known::Exact::named)
                    .unwrap_or_default()
            ),
            (None, 2..) => format!(
                "{what} is corrected by what was measured with {} on one such node: {}.",
                known.model(),
                known.named()
            ),
            (None, _) => format!(
                "{what} is corrected by what was measured with {} on this chip in another setting: {}.",
                known.model(),
                known.named()
            ),
        };
        Some(said)
    }
}

/// Matrix throughput that a prompt is computed with, in 10¹² operations a second: the data sheet's
/// for 16 bits.
fn matrix_tflops(pool: &Pool) -> Option<f64> {
    match Family::of_pool(pool) {
        // No rate of CPUs is fitted.
        Family::Cpu => None,
        _ => pool.fp16_tflops,
    }
}

/// Rows whose errors are like those of a setting.
fn class(rate: Rate, setting: &Setting) -> Class {
    let on_gpus: Vec<&&Pool> = setting
        .pools
        .iter()
        .filter(|pool| pool.kind != PoolKind::Ram)
        .collect();
    let spills = !on_gpus.is_empty() && on_gpus.len() < setting.pools.len();
    match rate {
        Rate::Prefill => {
            let family = setting
                .pools
                .first()
                .map_or(Family::Other, |pool| Family::of_pool(pool));
            Class::of_prefill(family, on_gpus.len() > setting.nodes)
        }
        Rate::Decode => {
            let vram: u64 = on_gpus
                .iter()
                .filter(|pool| pool.kind == PoolKind::Vram)
                .map(|pool| pool.memory_bytes)
                .sum();
            let full = vram > 0 && setting.quant.weights.total() as f64 > 0.85 * vram as f64;
            let sized = setting.quant.exactness != Exactness::Computed;
            Class::of_decode(spills || full, setting.model.experts > 0, sized)
        }
    }
}

#[cfg(test)]
mod tests;
