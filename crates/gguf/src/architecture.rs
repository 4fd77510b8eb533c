//! What stages must know of each architecture, as data.
//!
//! llama.cpp sees a stage as a model of its own. Whatever it derives from a layer's index or
//! from the number of layers would come out differently there, so it is either written into
//! the stage file or the model is refused.

use crate::value::Value;
use crate::{GgufError, Header, Layers};

/// Keys under the architecture's name that hold arrays which are not per layer, even if they
/// happen to be as long as the model is deep.
const NOT_PER_LAYER: [&str; 2] = ["rope.dimension_sections", "classifier.output_labels"];

/// An architecture that can be run in stages.
#[derive(Debug)]
pub struct Architecture {
    name: &'static str,
    embedding_scale: EmbeddingScale,
    window: Option<SlidingWindow>,
    refused_counts: &'static [RefusedCount],
    shared_tensors: &'static [&'static str],
}

/// What an embedding row is multiplied by before the first layer.
#[derive(Debug, Clone, Copy)]
enum EmbeddingScale {
    One,
    /// The square root of the row's length.
    SqrtWidth,
}

/// Layers that attend to a window, by a pattern over the layers' indices.
#[derive(Debug)]
struct SlidingWindow {
    /// Every so manieth layer attends to everything, where the file says nothing else.
    default_period: u32,
}

/// A number of layers from which llama.cpp derives something that stages cannot reproduce.
#[derive(Debug)]
struct RefusedCount {
    layers: u32,
    reason: &'static str,
}

static SUPPORTED: [Architecture; 2] = [
    Architecture {
        name: "llama",
        embedding_scale: EmbeddingScale::One,
        window: None,
        refused_counts: &[],
        shared_tensors: &[
            "rope_freqs.weight",
            "rope_factors_long.weight",
            "rope_factors_short.weight",
        ],
    },
    Architecture {
        name: "gemma3",
        embedding_scale: EmbeddingScale::SqrtWidth,
        window: Some(SlidingWindow { default_period: 6 }),
        refused_counts: &[RefusedCount {
            layers: 62,
            reason: "its attention scale derives from that number",
        }],
        shared_tensors: &[],
    },
];

/// Whether an array under this key, after the architecture's name, has one element a layer.
pub(crate) fn is_per_layer(suffix: &str, len: u64, layer_count: u32) -> bool {
    len == u64::from(layer_count) && !NOT_PER_LAYER.contains(&suffix)
}

impl Architecture {
    /// The names of all architectures that stages support.
    pub fn supported() -> impl Iterator<Item = &'static str> {
        SUPPORTED.iter().map(|architecture| architecture.name)
    }

    /// The architecture of a model, if stages support it.
    pub fn of(header: &Header) -> Result<&'static Self, GgufError> {
        let name = header.architecture()?;
        SUPPORTED
            .iter()
            .find(|architecture| architecture.name == name)
            .ok_or_else(|| GgufError::UnsupportedArchitecture(name.into()))
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// What a row of the embedding is multiplied by before the first layer, given the width of
    /// a hidden state; computed in `f32` as llama.cpp does.
    pub fn embedding_scale(&self, width: u32) -> f32 {
        match self.embedding_scale {
            EmbeddingScale::One => 1.0,
            EmbeddingScale::SqrtWidth => (width as f32).sqrt(),
        }
    }

    /// Fails where `range` of a model with `layer_count` layers would compute something else
    /// than the whole model does.
    pub(crate) fn check_range(&self, layer_count: u32, range: Layers) -> Result<(), GgufError> {
        range.check(layer_count)?;
        for (layers, of) in [(layer_count, "model"), (range.count(), "stage")] {
            let mut refused = self.refused_counts.iter();
            if let Some(count) = refused.find(|count| count.layers == layers) {
                return Err(GgufError::RefusedLayerCount {
                    architecture: self.name,
                    layers,
                    of,
                    reason: count.reason,
                });
            }
        }
        Ok(())
    }

    /// Whether every stage needs this tensor.
    pub(crate) fn is_shared(&self, tensor: &str) -> bool {
        self.shared_tensors.contains(&tensor)
    }

    /// For each layer whether it attends to a window only; `None` where no layer does.
    pub(crate) fn window_pattern(
        &self,
        header: &Header,
        layer_count: u32,
    ) -> Result<Option<Vec<bool>>, GgufError> {
        let Some(window) = &self.window else {
            return Ok(None);
        };
        let [window_key, pattern_key] = self.window_keys();
        match header.get(&window_key) {
            None => return Ok(None),
            Some(_) if header.require_u32(&window_key)? == 0 => return Ok(None),
            Some(_) => {}
        }
        let wrong = || GgufError::WrongType {
            key: pattern_key.clone(),
            expected: "a period, or an array with a flag for each layer",
        };
        let pattern: Vec<bool> = match header.get(&pattern_key) {
            Some(Value::Array(array)) => {
                // llama.cpp ignores what stands beyond the last layer.
                let flags = array.integers().ok_or_else(wrong)?;
                flags
                    .take(layer_count as usize)
                    .map(|flag| flag != 0)
                    .collect()
            }
            other => {
                let period = match other {
                    Some(value) => value.as_u32().ok_or_else(wrong)?,
                    None => window.default_period,
                };
                (0..layer_count)
                    .map(|layer| period == 0 || layer % period < period - 1)
                    .collect()
            }
        };
        if pattern.len() as u64 != u64::from(layer_count) {
            return Err(wrong());
        }
        Ok(Some(pattern))
    }

    /// The keys of the window's size and of the pattern.
    pub(crate) fn window_keys(&self) -> [String; 2] {
        ["sliding_window", "sliding_window_pattern"]
            .map(|suffix| format!("{}.attention.{suffix}", self.name))
    }

    /// Whether a sequence's KV cache can be cut anywhere and is then what it was at that length.
    /// Not so where layers forget what lies before their window.
    pub fn kv_can_be_cut(&self) -> bool {
        self.window.is_none()
    }

    /// Whether some layers may attend to a window.
    pub(crate) fn has_window(&self) -> bool {
        self.window.is_some()
    }
}
