//! Bytes and operations of any layer range, by prefix sums.

use std::cell::RefCell;
use std::ops::Range;

use super::cuts::Cuts;
use crate::FitError;
use crate::memory::{self, Load};
use crate::model::{Attention, Model, Quantization};
use crate::speed::Work;

/// What a step computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next token of this many streams.
    Decode(u32),
    /// This many tokens of a prompt, in the middle of it.
    Prefill(u32),
}

/// A model in one quantization under one load.
pub(crate) struct Costs<'a> {
    pub(crate) model: &'a Model,
    pub(crate) quant: &'a Quantization,
    pub(crate) load: Load,
    /// Number of layers.
    pub(crate) layers: u32,
    pub(crate) cuts: Cuts,
    dense: Vec<u64>,
    experts: Vec<u64>,
    /// Keys, values and states of all sequences.
    cache: Vec<u64>,
    /// Parameters that a token multiplies with.
    active: Vec<f64>,
    /// Operations of one token's attention over the whole context.
    attention: Vec<f64>,
    compute: Compute,
}

impl<'a> Costs<'a> {
    pub(crate) fn new(
        model: &'a Model,
        quant: &'a Quantization,
        load: Load,
    ) -> Result<Self, FitError> {
        let layers = model.layers.len();
        if layers == 0 || quant.weights.layers.len() != layers {
            return Err(FitError::Model {
                of: model.id.clone(),
                reason: format!(
                    "{} has {} layers, the model {layers}",
                    quant.name,
                    quant.weights.layers.len()
                ),
            });
        }
        let bytes = &quant.weights.layers;
        let used = used_share(model, 1);
        Ok(Self {
            model,
            quant,
            load,
            layers: layers as u32,
            cuts: Cuts::of(model),
            dense: sums(bytes.iter().map(|layer| layer.dense)),
            experts: sums(bytes.iter().map(|layer| layer.experts)),
            cache: sums(model.layers.iter().map(|layer| {
                memory::layer_kv_bytes(layer, &load)
                    .saturating_add(memory::layer_state_bytes(layer, &load))
            })),
            active: sums_f64(model.layers.iter().map(|layer| {
                layer.attention_params as f64
                    + layer.dense_params as f64
                    + layer.expert_params as f64 * used
            })),
            attention: sums_f64(
                model
                    .layers
                    .iter()
                    .map(|layer| attention_flops(model, layer.attention, load.context)),
            ),
            compute: Compute::of(model),
        })
    }

    /// The same under another load.
    pub(crate) fn under(&self, load: Load) -> Result<Self, FitError> {
        Self::new(self.model, self.quant, load)
    }

    /// Working set of these layers as a stage, without what the runtime takes.
    pub(crate) fn stage(&self, start: u32, end: u32) -> u64 {
        let weights = &self.quant.weights;
        let last = end == self.layers;
        let mut sum = between(&self.dense, start, end)
            .saturating_add(self.experts(start, end))
            .saturating_add(between(&self.cache, start, end))
            .saturating_add(weights.shared_bytes)
            .saturating_add(self.compute.bytes(self.model, start..end, &self.load));
        if start == 0 || (last && weights.tied) {
            sum = sum.saturating_add(weights.embedding_bytes);
        }
        if last {
            sum = sum.saturating_add(weights.head_bytes);
        }
        sum
    }

    /// Routed experts of these layers.
    pub(crate) fn experts(&self, start: u32, end: u32) -> u64 {
        between(&self.experts, start, end)
    }

    /// What these layers do in a step, without the experts of those that lie elsewhere.
    pub(crate) fn work(&self, layers: Range<u32>, experts_of: Range<u32>, step: Step) -> Work {
        let (start, end) = (layers.start, layers.end);
        let weights = &self.quant.weights;
        let (tokens, sampled, reads) = match step {
            // Each stream reads its own cache; a prompt's one is half full on average.
            Step::Decode(streams) => (streams, streams, f64::from(streams)),
            Step::Prefill(tokens) => (tokens, 1, 0.5),
        };
        let mut touched = between(&self.dense, start, end) as f64;
        let mut flops = f64::from(tokens)
            * (2.0 * between_f64(&self.active, start, end)
                + between_f64(&self.attention, start, end)
                    * if sampled == tokens { 1.0 } else { 0.5 });
        touched +=
            self.experts(experts_of.start, experts_of.end) as f64 * used_share(self.model, tokens);
        if end == self.layers {
            touched += weights.head_bytes as f64;
            if weights.tied {
                touched += weights.embedding_bytes as f64;
            }
            flops += f64::from(sampled)
                * 2.0
                * f64::from(self.model.hidden)
                * f64::from(self.model.vocab);
        }
        let of_one = between(&self.cache, start, end) as f64 / f64::from(self.sequences());
        Work {
            tokens,
            layers: end - start,
            weight_bytes: touched as u64,
            kv_bytes: (of_one * reads) as u64,
            flops,
            bits_per_weight: self.quant.bits_per_weight,
        }
    }

    /// What the experts of these layers do in a step, where they lie apart from their layer.
    pub(crate) fn expert_work(&self, layers: Range<u32>, step: Step) -> Work {
        let (Step::Decode(tokens) | Step::Prefill(tokens)) = step;
        let params: f64 = self
            .model
            .layers
            .get(layers.start as usize..layers.end as usize)
            .unwrap_or_default()
            .iter()
            .map(|layer| layer.expert_params as f64)
            .sum();
        let bytes = self.experts(layers.start, layers.end) as f64;
        Work {
            tokens,
            layers: layers.end - layers.start,
            weight_bytes: (bytes * used_share(self.model, tokens)) as u64,
            kv_bytes: 0,
            flops: f64::from(tokens) * 2.0 * params * used_share(self.model, 1),
            bits_per_weight: self.quant.bits_per_weight,
        }
    }

    /// Bytes of the hidden states of some tokens, as they go from stage to stage.
    pub(crate) fn hidden_bytes(&self, tokens: u32) -> f64 {
        f64::from(self.model.hidden) * 4.0 * f64::from(tokens)
    }

    fn sequences(&self) -> u32 {
        self.load.sequences.max(1)
    }
}

/// Compute buffers of any range. They depend on which kinds of layers it has and on whether it is
/// the first or the last, so they are asked for once for each such set.
struct Compute {
    /// The kind of each layer, as a bit; `None` where there are more than bits.
    kinds: Option<Vec<u64>>,
    known: RefCell<Vec<(u64, [bool; 2], u64)>>,
}

impl Compute {
    fn of(model: &Model) -> Self {
        let mut found = Vec::new();
        let kinds = model.layers.iter().map(|layer| {
            let kind = found.iter().position(|known| *known == layer);
            let kind = kind.unwrap_or_else(|| {
                found.push(layer);
                found.len() - 1
            });
            1_u64.checked_shl(kind as u32)
        });
        Self {
            kinds: kinds.collect(),
            known: RefCell::new(Vec::new()),
        }
    }

    fn bytes(&self, model: &Model, layers: Range<u32>, load: &Load) -> u64 {
        let Some(kinds) = &self.kinds else {
            return memory::compute_bytes(model, layers, load);
        };
        let own = &kinds[layers.start as usize..layers.end as usize];
        let set = own.iter().fold(0, |set, kind| set | kind);
        let ends = [layers.start == 0, layers.end as usize == kinds.len()];
        let mut known = self.known.borrow_mut();
        if let Some(entry) = known.iter().find(|entry| entry.0 == set && entry.1 == ends) {
            return entry.2;
        }
        let bytes = memory::compute_bytes(model, layers, load);
        known.push((set, ends, bytes));
        bytes
    }
}

/// Share of the routed experts that some tokens touch, if each chooses at random:
/// 1 − (1 − used ÷ experts)ⁿ.
pub(crate) fn used_share(model: &Model, tokens: u32) -> f64 {
    if model.experts == 0 {
        return 1.0;
    }
    let one = f64::from(model.experts_used.min(model.experts)) / f64::from(model.experts);
    1.0 - (1.0 - one).powf(f64::from(tokens))
}

/// Operations of one token's scores and weighted sum over a context.
fn attention_flops(model: &Model, attention: Attention, context: u32) -> f64 {
    let heads = f64::from(model.heads);
    let (width, tokens) = match attention {
        Attention::Full {
            key_dim, value_dim, ..
        } => (f64::from(key_dim) + f64::from(value_dim), context),
        Attention::Sliding {
            key_dim,
            value_dim,
            window,
            ..
        } => (
            f64::from(key_dim) + f64::from(value_dim),
            context.min(window),
        ),
        Attention::Latent {
            kv_lora_rank,
            rope_dims,
            ..
        } => (
            2.0 * f64::from(kv_lora_rank) + f64::from(rope_dims),
            context,
        ),
        Attention::Recurrent { .. } | Attention::None => (0.0, 0),
    };
    2.0 * heads * width * f64::from(tokens)
}

fn sums(of: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut sum = 0_u64;
    std::iter::once(0)
        .chain(of.map(|one| {
            sum = sum.saturating_add(one);
            sum
        }))
        .collect()
}

fn sums_f64(of: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut sum = 0.0;
    std::iter::once(0.0)
        .chain(of.map(|one| {
            sum += one;
            sum
        }))
        .collect()
}

fn between(sums: &[u64], start: u32, end: u32) -> u64 {
    sums[end as usize] - sums[start as usize]
}

fn between_f64(sums: &[f64], start: u32, end: u32) -> f64 {
    sums[end as usize] - sums[start as usize]
}
