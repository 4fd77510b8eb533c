//! Keys, values and recurrent state, as llama.cpp allocates them.
//!
//! After llama.cpp's `llama-kv-cache.cpp`, `llama-kv-cache-iswa.cpp` and
//! `llama-memory-recurrent.cpp`, with a cache for each sequence (`kv_unified = false`), a
//! window's cache no larger than it must be (`swa_full = false`) and flash attention on.

use super::{KvType, Load};
use crate::model::{Attention, Layer};

/// Cells of a cache come in steps of this.
const CELLS: u64 = 256;

/// Bytes of keys and values of some layers, for all sequences.
pub fn kv_bytes(layers: &[Layer], load: &Load) -> u64 {
    sum(layers.iter().map(|layer| layer_kv_bytes(layer, load)))
}

/// Bytes of the recurrent state of some layers, for all sequences.
pub fn state_bytes(layers: &[Layer], load: &Load) -> u64 {
    sum(layers.iter().map(|layer| layer_state_bytes(layer, load)))
}

/// Bytes of a layer's keys and values, for all sequences.
pub fn layer_kv_bytes(layer: &Layer, load: &Load) -> u64 {
    let context = cells(load.context.into());
    // A key or a value is a row of whole blocks.
    let row = |values: u128| bytes(values, load.kv_type);
    let grouped = |kv_heads: u32, key_dim: u32, value_dim: u32| {
        let width = |dim: u32| u128::from(kv_heads) * u128::from(dim);
        row(width(key_dim)) + row(width(value_dim))
    };
    let (cells, cell) = match layer.attention {
        Attention::Full {
            kv_heads,
            key_dim,
            value_dim,
        } => (context, grouped(kv_heads, key_dim, value_dim)),
        Attention::Sliding {
            kv_heads,
            key_dim,
            value_dim,
            window,
        } => (
            window_cells(window, load),
            grouped(kv_heads, key_dim, value_dim),
        ),
        Attention::Latent {
            kv_lora_rank,
            rope_dims,
            index_dims,
        } => (
            context,
            row(u128::from(kv_lora_rank) + u128::from(rope_dims)) + row(index_dims.into()),
        ),
        Attention::Recurrent { .. } | Attention::None => (0, 0),
    };
    clamp((u128::from(cells) * sequences(load)).saturating_mul(cell))
}

/// Bytes of a layer's recurrent state, for all sequences.
pub fn layer_state_bytes(layer: &Layer, load: &Load) -> u64 {
    match layer.attention {
        Attention::Recurrent { state_bytes } => clamp(u128::from(state_bytes) * sequences(load)),
        _ => 0,
    }
}

/// Cells of one sequence's cache of a layer with a window: it must hold the window of the first
/// token of a micro-batch and the whole micro-batch.
pub(super) fn window_cells(window: u32, load: &Load) -> u64 {
    let wanted = u64::from(window) + u64::from(micro_batch(load));
    cells(cells(load.context.into()).min(wanted))
}

/// Tokens that are computed at once: at least one of each sequence.
pub(super) fn micro_batch(load: &Load) -> u32 {
    load.micro_batch.max(load.sequences).max(1)
}

/// Cells of one sequence's cache for this many tokens.
pub(crate) fn cells(tokens: u64) -> u64 {
    tokens.max(1).next_multiple_of(CELLS)
}

fn sequences(load: &Load) -> u128 {
    load.sequences.max(1).into()
}

fn bytes(values: u128, kv_type: KvType) -> u128 {
    let (block, block_bytes) = kv_type.block();
    values.div_ceil(block.into()) * u128::from(block_bytes)
}

fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

pub(super) fn clamp(bytes: u128) -> u64 {
    bytes.try_into().unwrap_or(u64::MAX)
}
