//! Compute buffers: what llama.cpp reserves for a micro-batch.
//!
//! llama.cpp reserves the largest set of activations that live at once, as its allocator
//! (`ggml-alloc.c`) lays them out, for the largest micro-batch. The sets here were read off what
//! it reserves on the CPU for models of nine architectures whose sizes were varied one by one;
//! all floats are of 32 bits. Of one or two layers alone it reserves up to two hidden states less.

use std::ops::Range;

use super::cache::{cells, clamp, micro_batch, window_cells};
use super::{KvType, Load};
use crate::model::{Attention, Layer, Model};

/// Hidden states that live beside whatever is the largest.
const HIDDEN_STATES: u128 = 5;
const FLOAT: u128 = 4;
/// Bytes of a token's number, its position and its places in the caches, with some to spare.
const INPUTS: u128 = 64;

/// Bytes that llama.cpp reserves to compute a micro-batch of a stage with these layers, with
/// flash attention, and for the logits of one token of each sequence on the last stage.
pub fn compute_bytes(model: &Model, layers: Range<u32>, load: &Load) -> u64 {
    let sequences = u128::from(load.sequences.max(1));
    let tokens = u128::from(micro_batch(load)).next_multiple_of(sequences);
    let own = model
        .layers
        .get(layers.start as usize..layers.end as usize)
        .unwrap_or_default();
    // Neighbours are alike in most models.
    let activations = own
        .chunk_by(|a, b| a == b)
        .filter_map(|alike| alike.first())
        .map(|layer| live_bytes(model, layer, tokens, sequences))
        .max()
        .unwrap_or(0);
    let is_last = layers.end as usize >= model.layers.len();
    let logits = if is_last {
        u128::from(model.vocab) * sequences * FLOAT
    } else {
        0
    };
    // The logits are computed after all activations, where the last layer has left its hidden
    // states, and then copied.
    let head = logits + HIDDEN_STATES * u128::from(model.hidden) * tokens * FLOAT;
    let inputs = masks(own, load, tokens) + rotations(own, load) + tokens * INPUTS;
    clamp(
        activations
            .max(if is_last { head } else { 0 })
            .saturating_add(logits)
            .saturating_add(inputs),
    )
}

/// The largest set of activations that lives at once in a layer, in bytes.
fn live_bytes(model: &Model, layer: &Layer, tokens: u128, sequences: u128) -> u128 {
    let hidden = HIDDEN_STATES * u128::from(model.hidden);
    let floats = |floats: u128| (hidden + floats).saturating_mul(tokens * FLOAT);
    let attention = floats(attention_floats(model, layer));
    let states = match layer.attention {
        // The states of a micro-batch are gathered, and given back, in copies.
        Attention::Recurrent { state_bytes } => u128::from(state_bytes) * 5 / 2 * sequences,
        _ => 0,
    };
    attention
        .saturating_add(states)
        .max(floats(feed_forward_floats(model, layer)))
}

/// A mask of 16-bit floats for the layers with the whole context, and one for those with a window.
fn masks(layers: &[Layer], load: &Load, tokens: u128) -> u128 {
    let cells_of = |layer: &Layer| match layer.attention {
        Attention::Full { .. } | Attention::Latent { .. } => (cells(load.context.into()), 0),
        Attention::Sliding { window, .. } => (0, window_cells(window, load)),
        Attention::Recurrent { .. } | Attention::None => (0, 0),
    };
    let (full, window) = layers
        .chunk_by(|a, b| a == b)
        .filter_map(|alike| alike.first())
        .map(cells_of)
        .fold((0, 0), |a, b| (u64::max(a.0, b.0), u64::max(a.1, b.1)));
    (u128::from(full) + u128::from(window)) * tokens * 2
}

/// Matrices that turn keys and values before they are quantized, for the cache of the layers with
/// the whole context and for that of those with a window: `llama_kv_cache` in `llama-kv-cache.cpp`.
fn rotations(layers: &[Layer], load: &Load) -> u128 {
    if load.kv_type == KvType::F16 {
        return 0;
    }
    let mut full = Heads::default();
    let mut window = Heads::default();
    for alike in layers.chunk_by(|a, b| a == b) {
        match alike[0].attention {
            Attention::Full {
                key_dim, value_dim, ..
            } => full.add(key_dim, value_dim),
            Attention::Latent {
                kv_lora_rank,
                rope_dims,
                ..
            } => full.add(kv_lora_rank.saturating_add(rope_dims), 0),
            Attention::Sliding {
                key_dim, value_dim, ..
            } => window.add(key_dim, value_dim),
            Attention::Recurrent { .. } | Attention::None => {}
        }
    }
    full.rotation_bytes() + window.rotation_bytes()
}

/// Widths of the keys and values in a cache: 0 without any, `None` where they differ.
struct Heads {
    key: Option<u32>,
    value: Option<u32>,
}

impl Default for Heads {
    fn default() -> Self {
        Self {
            key: Some(0),
            value: Some(0),
        }
    }
}

impl Heads {
    fn add(&mut self, key: u32, value: u32) {
        let join = |all: Option<u32>, one| all.filter(|&all| all == 0 || all == one).map(|_| one);
        self.key = join(self.key, key);
        self.value = join(self.value, value);
    }

    /// A square matrix for keys, as large as the largest power of two that divides them, and one of
    /// 64 for values, where they are multiples of 64.
    fn rotation_bytes(self) -> u128 {
        let whole = |dim: Option<u32>| dim.filter(|&dim| dim > 0 && dim.is_multiple_of(64));
        let key = whole(self.key).map_or(0, |dim| 1_u128 << dim.trailing_zeros());
        let value = whole(self.value).map_or(0, |_| 64);
        (key * key + value * value) * FLOAT
    }
}

/// Floats of a token that live at once around a layer's attention.
fn attention_floats(model: &Model, layer: &Layer) -> u128 {
    let heads = u128::from(model.heads);
    match layer.attention {
        // Queries and what attention gives.
        Attention::Full { key_dim, .. } | Attention::Sliding { key_dim, .. } => {
            2 * heads * u128::from(key_dim)
        }
        // Queries, and twice as compressed, which is three times as wide in all known models.
        Attention::Latent {
            kv_lora_rank,
            rope_dims,
            ..
        } => heads * (u128::from(kv_lora_rank) + u128::from(rope_dims)) * 7 / 3,
        // Every projection's outcome, some of them twice.
        Attention::Recurrent { .. } => per_hidden(model, layer.attention_params) * 3 / 2,
        Attention::None => 0,
    }
}

/// Floats of a token that live at once in a layer's feed-forward part: gate, up and their
/// product, which is as many as its weights for each hidden float.
fn feed_forward_floats(model: &Model, layer: &Layer) -> u128 {
    let dense = per_hidden(model, layer.dense_params);
    if layer.expert_params == 0 || model.experts == 0 {
        return dense;
    }
    let used = u128::from(model.experts_used.min(model.experts));
    let inner =
        per_hidden(model, layer.expert_params).saturating_mul(used) / u128::from(model.experts);
    // What the experts give goes where gate and up were, if it fits there, or if their product has
    // left them: a shared expert leaves no room for it.
    let outer = used * u128::from(model.hidden);
    let shared = dense > u128::from(model.experts);
    let experts = if outer <= inner * 2 / 3 {
        inner
    } else if inner / 3 <= u128::from(model.hidden) && !shared {
        outer.max(inner)
    } else {
        inner + outer
    };
    dense.max(experts)
}

fn per_hidden(model: &Model, params: u64) -> u128 {
    u128::from(params) / u128::from(model.hidden.max(1))
}
