//! Bytes and operations of any layer range, by prefix sums.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use super::cuts::Cuts;
use crate::FitError;
use crate::memory::{self, Backend, Load, Runner};
use crate::model::{Attention, Layer, Model, Quantization};
use crate::program::Program;
use crate::speed::classes::Traits;
use crate::speed::{Rate, Work};

/// What a step computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next token of this many streams.
    Decode(u32),
    /// This many tokens of a prompt, in the middle of it.
    Prefill {
        /// The micro-batch.
        tokens: u32,
        /// The whole prompt.
        prompt: u32,
    },
}

impl Step {
    fn tokens(self) -> u32 {
        let (Self::Decode(tokens) | Self::Prefill { tokens, .. }) = self;
        tokens
    }

    fn rate(self) -> Rate {
        match self {
            Self::Decode(_) => Rate::Decode,
            Self::Prefill { .. } => Rate::Prefill,
        }
    }
}

/// A model in one quantization under one load.
#[derive(Clone)]
pub(crate) struct Costs<'a> {
    pub(crate) model: &'a Model,
    pub(crate) quant: &'a Quantization,
    pub(crate) load: Load,
    /// What runs it over several nodes.
    pub(crate) program: Program,
    /// Number of layers.
    pub(crate) layers: u32,
    /// What does not depend on the load.
    shape: Rc<Shape>,
    /// Keys, values and states of all sequences.
    cache: Vec<u64>,
    /// Operations of one token's attention over the whole context.
    attention: Vec<f64>,
    compute: Compute,
}

struct Shape {
    cuts: Cuts,
    dense: Vec<u64>,
    experts: Vec<u64>,
    /// Parameters that a token multiplies with.
    active: Vec<f64>,
    traits: Traits,
    /// For each kind of layer and each layer the next one of that kind; `None` where there are
    /// too many kinds.
    next: Option<Vec<Vec<u32>>>,
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
        let used = model.touched_share(1);
        let active = |layer: &Layer| {
            layer.attention_params as f64
                + layer.dense_params as f64
                + layer.expert_params as f64 * used
        };
        let shape = Shape {
            cuts: Cuts::of(model),
            dense: sums(bytes.iter().map(|layer| layer.dense)),
            experts: sums(bytes.iter().map(|layer| layer.experts)),
            active: sums_f64(model.layers.iter().map(active)),
            traits: Traits::of(model, quant),
            next: next_of_kind(model),
        };
        Ok(Self::of(model, quant, load, Rc::new(shape)))
    }

    fn of(model: &'a Model, quant: &'a Quantization, load: Load, shape: Rc<Shape>) -> Self {
        let cache = |layer| {
            memory::layer_kv_bytes(layer, &load)
                .saturating_add(memory::layer_state_bytes(layer, &load))
        };
        let attention = |layer: &Layer| attention_flops(model, layer.attention, load.context);
        let alike = || model.layers.chunk_by(|a, b| a == b);
        Self {
            model,
            quant,
            load,
            program: Program::of_pipeline(model, quant.format),
            layers: model.layers.len() as u32,
            shape,
            cache: sums(alike().flat_map(|run| vec![cache(&run[0]); run.len()])),
            attention: sums_f64(alike().flat_map(|run| vec![attention(&run[0]); run.len()])),
            compute: Compute::default(),
        }
    }

    /// The same under another load.
    pub(crate) fn under(&self, load: Load) -> Self {
        Self::of(self.model, self.quant, load, Rc::clone(&self.shape))
    }

    /// The rules of division.
    pub(crate) fn cuts(&self) -> &Cuts {
        &self.shape.cuts
    }

    /// Working set of these layers as a stage, without what the runtime takes.
    pub(crate) fn stage(&self, start: u32, end: u32, on: Backend) -> u64 {
        self.run_by(start, end, self.runner(on))
    }

    /// Working set of all layers where each tensor is held once, as by programs that share out
    /// the tensors, without what the runtime takes.
    pub(crate) fn all_once(&self) -> u64 {
        let runner = Runner {
            program: Program::Vllm,
            backend: Backend::Gpu,
        };
        self.run_by(0, self.layers, runner)
    }

    fn run_by(&self, start: u32, end: u32, runner: Runner) -> u64 {
        let weights = &self.quant.weights;
        let ends = memory::end_bytes(self.model, weights, start..end, runner);
        between(&self.shape.dense, start, end)
            .saturating_add(self.experts(start, end))
            .saturating_add(between(&self.cache, start, end))
            .saturating_add(weights.shared_bytes)
            .saturating_add(ends)
            .saturating_add(self.compute_bytes(start, end))
    }

    /// Who runs a stage that this computes.
    pub(crate) fn runner(&self, backend: Backend) -> Runner {
        Runner {
            program: self.program,
            backend,
        }
    }

    /// Compute buffers of a stage. They depend on which kinds of layers it has and on whether it
    /// is the first or the last, so they are computed once for each such set.
    fn compute_bytes(&self, start: u32, end: u32) -> u64 {
        let compute = || memory::compute_bytes(self.model, start..end, &self.load);
        let Some(next) = &self.shape.next else {
            return compute();
        };
        let mut set = 0_u64;
        for (kind, next) in next.iter().enumerate() {
            set |= u64::from(next[start as usize] < end) << kind;
        }
        let ends = [start == 0, end == self.layers];
        let mut known = self.compute.borrow_mut();
        if let Some(entry) = known.iter().find(|entry| entry.0 == set && entry.1 == ends) {
            return entry.2;
        }
        let bytes = compute();
        known.push((set, ends, bytes));
        bytes
    }

    /// Routed experts of these layers.
    pub(crate) fn experts(&self, start: u32, end: u32) -> u64 {
        between(&self.shape.experts, start, end)
    }

    /// What these layers do in a step, without the experts of those that lie elsewhere.
    pub(crate) fn work(&self, layers: Range<u32>, experts_of: Range<u32>, step: Step) -> Work {
        let (start, end) = (layers.start, layers.end);
        let weights = &self.quant.weights;
        let tokens = step.tokens();
        let (read, seen) = match step {
            // Each stream reads its own cache: all of it but the cells that are only allocated.
            Step::Decode(streams) => (f64::from(streams) * self.used(), 1.0),
            // A prompt's cache is read once for all tokens; half of it is there on average.
            Step::Prefill { prompt, .. } => {
                let half = f64::from(prompt) / 2.0 / f64::from(self.load.context.max(1));
                (half, half)
            }
        };
        let experts = self.experts(experts_of.start, experts_of.end) as f64
            * self.model.touched_share(tokens);
        let each = 2.0 * between_f64(&self.shape.active, start, end);
        let mut work = Work {
            rate: step.rate(),
            tokens,
            layers: end - start,
            weight_bytes: between(&self.shape.dense, start, end) + experts as u64,
            head_bytes: 0,
            kv_bytes: (self.of_one(start, end) * read) as u64,
            flops: f64::from(tokens) * each,
            attention_flops: f64::from(tokens) * seen * between_f64(&self.attention, start, end),
            sampled: 0,
            vocab: self.model.vocab,
            handovers: 0,
            traits: self.shape.traits,
        };
        if end == self.layers {
            let tied = if weights.tied {
                weights.embedding_bytes
            } else {
                0
            };
            work.head_bytes = weights.head_bytes.saturating_add(tied);
            work.sampled = tokens;
            // Of a prompt too: formulas are fitted to all of a model's parameters.
            let head = f64::from(self.model.hidden) * f64::from(self.model.vocab);
            work.flops += f64::from(tokens) * 2.0 * head;
        }
        work
    }

    /// Share of the cache's cells that hold a token.
    fn used(&self) -> f64 {
        if self.shape.traits.recurrent {
            return 1.0;
        }
        let context = u64::from(self.load.context.max(1));
        context as f64 / memory::cells(context) as f64
    }

    /// Bytes of the cache of one sequence.
    fn of_one(&self, start: u32, end: u32) -> f64 {
        between(&self.cache, start, end) as f64 / f64::from(self.load.sequences.max(1))
    }

    /// What the experts of these layers do in a step, where they lie apart from their layer.
    pub(crate) fn expert_work(&self, layers: Range<u32>, step: Step) -> Work {
        let tokens = step.tokens();
        let of = self
            .model
            .layers
            .get(layers.start as usize..layers.end as usize);
        let params: u64 = of
            .unwrap_or_default()
            .iter()
            .map(|layer| layer.expert_params)
            .sum();
        let bytes = self.experts(layers.start, layers.end) as f64;
        Work {
            rate: step.rate(),
            tokens,
            layers: layers.end - layers.start,
            weight_bytes: (bytes * self.model.touched_share(tokens)) as u64,
            head_bytes: 0,
            kv_bytes: 0,
            flops: f64::from(tokens) * 2.0 * params as f64 * self.model.touched_share(1),
            attention_flops: 0.0,
            sampled: 0,
            vocab: self.model.vocab,
            handovers: layers.end - layers.start,
            traits: self.shape.traits,
        }
    }

    /// Bytes of the hidden states of some tokens, as they go from stage to stage.
    pub(crate) fn hidden_bytes(&self, tokens: u32) -> f64 {
        f64::from(self.model.hidden) * 4.0 * f64::from(tokens)
    }
}

/// Compute buffers that were asked for, by the kinds of layers and by whether the first or the
/// last one is among them.
type Compute = RefCell<Vec<(u64, [bool; 2], u64)>>;

/// For each kind of layer and each layer the next one of that kind, if kinds are few.
fn next_of_kind(model: &Model) -> Option<Vec<Vec<u32>>> {
    let mut kinds: Vec<&Layer> = Vec::new();
    for layer in &model.layers {
        if !kinds.contains(&layer) {
            kinds.push(layer);
        }
        if kinds.len() > 64 {
            return None;
        }
    }
    let next = kinds.iter().map(|kind| {
        let mut next = model.layers.len() as u32;
        let mut all: Vec<u32> = Vec::with_capacity(model.layers.len());
        for (index, layer) in model.layers.iter().enumerate().rev() {
            if layer == *kind {
                next = index as u32;
            }
            all.push(next);
        }
        all.reverse();
        all
    });
    Some(next.collect())
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
