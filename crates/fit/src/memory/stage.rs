//! One stage's working set.

use std::ops::Range;

use serde::Serialize;

use super::{Item, Load, Runner, compute_bytes, kv_bytes, state_bytes, weight_bytes};
use crate::FitError;
use crate::model::{Layer, Model, Quantization};

/// What a stage holds, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct StageBytes {
    /// Tensors.
    pub weights: u64,
    /// Keys and values of all sequences.
    pub kv: u64,
    /// Recurrent state of all sequences.
    pub state: u64,
    /// Activations of a micro-batch, attention masks and logits.
    pub compute: u64,
    /// What the runtime takes besides.
    pub runtime: u64,
}

impl StageBytes {
    /// The working set.
    pub fn total(self) -> u64 {
        [
            self.weights,
            self.kv,
            self.state,
            self.compute,
            self.runtime,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// The parts by name; a state only where there is one.
    pub fn items(self) -> Vec<Item> {
        let item = |item: &str, bytes| Item {
            item: item.to_owned(),
            bytes,
        };
        let mut items = vec![item("weights", self.weights), item("KV cache", self.kv)];
        if self.state > 0 {
            items.push(item("recurrent state", self.state));
        }
        items.push(item("compute buffers", self.compute));
        items.push(item("runtime", self.runtime));
        items
    }
}

/// What a stage with these layers (half-open, from 0) holds. `runtime_bytes` is what the
/// runtime takes on its device, see [`Pool::runtime_bytes`](crate::machine::Pool::runtime_bytes).
///
/// # Errors
/// If the layers are none, or not the model's, or the quantization is not of this model.
pub fn stage(
    model: &Model,
    quant: &Quantization,
    layers: Range<u32>,
    load: &Load,
    runner: Runner,
    runtime_bytes: u64,
) -> Result<StageBytes, FitError> {
    let own = layers_of(model, quant, &layers)?;
    Ok(StageBytes {
        weights: weight_bytes(model, quant, layers.clone(), runner),
        kv: kv_bytes(own, load),
        state: state_bytes(own, load),
        compute: compute_bytes(model, layers, load),
        runtime: runtime_bytes,
    })
}

fn layers_of<'a>(
    model: &'a Model,
    quant: &Quantization,
    layers: &Range<u32>,
) -> Result<&'a [Layer], FitError> {
    let wrong = |reason| {
        Err(FitError::Model {
            of: model.id.clone(),
            reason,
        })
    };
    let count = model.layers.len();
    if quant.weights.layers.len() != count {
        return wrong(format!(
            "{} has {} layers, the model {count}",
            quant.name,
            quant.weights.layers.len()
        ));
    }
    match model.layers.get(layers.start as usize..layers.end as usize) {
        Some(own) if !own.is_empty() => Ok(own),
        _ => wrong(format!(
            "layers {}..{} where there are 0..{count}",
            layers.start, layers.end
        )),
    }
}
