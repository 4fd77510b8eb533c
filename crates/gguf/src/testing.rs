//! Small random models that llama.cpp loads, for tests.
//!
//! The weights mean nothing, but they are of a size that keeps hidden states and logits
//! ordinary numbers, so that a wrong layer, mask or scale shows in every logit.

mod family;
mod maker;
mod random;
mod vocabulary;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::layout::{Layout, Segment};
use crate::value::{Array, Value};
use crate::write::{Builder, NewTensor};
use crate::{GgmlType, GgufError};
use family::Family;
use maker::Maker;
pub use random::Random;
pub use vocabulary::{CHAT_TEMPLATE, TOKENS};

/// A description of a small model: 64 wide, with 4 heads of 16, 2 of them for keys and values.
/// The same description always gives the same bytes.
#[derive(Debug, Clone)]
pub struct TinyModel {
    family: Family,
    shape: Shape,
    layers: u32,
    vocabulary: u32,
    weights: GgmlType,
    untied: bool,
    rope_freqs: bool,
    seed: u64,
    extra: Vec<(String, Value)>,
}

/// Sizes of a [`TinyModel`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Width of a hidden state.
    pub width: u32,
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Width of a head.
    pub head_width: u32,
    /// Width of the feed-forward part, or of each expert's.
    pub feed_forward: u32,
    /// Routed experts, where the family has them.
    pub experts: u32,
    /// Routed experts that a token uses.
    pub experts_used: u32,
    /// Tokens of the window, where the family has one.
    pub window: u32,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            width: 64,
            heads: 4,
            kv_heads: 2,
            head_width: 16,
            feed_forward: 96,
            experts: 4,
            experts_used: 2,
            window: 16,
        }
    }
}

impl TinyModel {
    fn new(family: Family, layers: u32) -> Self {
        Self {
            family,
            shape: Shape::default(),
            layers,
            vocabulary: vocabulary::TOKENS,
            weights: GgmlType::F32,
            untied: false,
            rope_freqs: false,
            seed: 1,
            extra: Vec::new(),
        }
    }

    /// A dense llama whose head is its embedding, with `RoPE` frequency factors.
    pub fn llama(layers: u32) -> Self {
        Self {
            rope_freqs: true,
            ..Self::new(Family::Llama, layers)
        }
    }

    /// A llama with 4 experts, 2 of them used for each token, and a head of its own.
    pub fn llama_moe(layers: u32) -> Self {
        Self {
            rope_freqs: true,
            untied: true,
            ..Self::new(Family::LlamaMoe, layers)
        }
    }

    /// A Gemma 3 with a sliding window of 16 tokens on 5 of 6 layers.
    pub fn gemma3(layers: u32) -> Self {
        Self::new(Family::Gemma3, layers)
    }

    /// A dense Qwen 2, whose queries, keys and values have biases.
    pub fn qwen2(layers: u32) -> Self {
        Self::new(Family::Qwen2, layers)
    }

    /// A Qwen 3 with experts and a head of its own.
    pub fn qwen3moe(layers: u32) -> Self {
        Self::new(Family::Qwen3Moe, layers).untied()
    }

    /// A gpt-oss: experts with biases, and a sliding window on every other layer.
    pub fn gpt_oss(layers: u32) -> Self {
        Self::new(Family::GptOss, layers).untied()
    }

    /// A `DeepSeek` 2 with latent attention, a dense first layer and a shared expert.
    pub fn deepseek2(layers: u32) -> Self {
        Self::new(Family::DeepSeek2, layers).untied()
    }

    /// An LFM 2: attention on each third layer, short convolutions on the others.
    pub fn lfm2(layers: u32) -> Self {
        Self::new(Family::Lfm2, layers)
    }

    /// A Qwen 3 Next: attention on each fourth layer, a gated delta net on the others; experts.
    pub fn qwen3next(layers: u32) -> Self {
        Self::new(Family::Qwen3Next, layers).untied()
    }

    /// With other sizes.
    #[must_use]
    pub fn shape(self, shape: Shape) -> Self {
        Self { shape, ..self }
    }

    /// With so many tokens, at least the 288 that it has otherwise.
    #[must_use]
    pub fn vocabulary(self, tokens: u32) -> Self {
        Self {
            vocabulary: tokens.max(vocabulary::TOKENS),
            ..self
        }
    }

    /// With a head that is not the embedding.
    #[must_use]
    pub fn untied(self) -> Self {
        Self {
            untied: true,
            ..self
        }
    }

    /// Without `RoPE` frequency factors.
    #[must_use]
    pub fn without_rope_freqs(self) -> Self {
        Self {
            rope_freqs: false,
            ..self
        }
    }

    /// With matrices of this type: `F32` (otherwise), `F16`, `Q8_0` or `Q4_0`.
    #[must_use]
    pub fn weights(self, weights: GgmlType) -> Self {
        Self { weights, ..self }
    }

    /// With other random numbers.
    #[must_use]
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// With a key more, or with another value for one.
    #[must_use]
    pub fn with_key(mut self, key: &str, value: Value) -> Self {
        self.extra.push((key.into(), value));
        self
    }

    /// The model as one file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut builder = Builder::new();
        self.metadata(&mut builder);
        for tensor in self.tensors() {
            builder.tensor(tensor);
        }
        to_bytes(builder)
    }

    /// The model as `count` files, as llama.cpp's own splitter would cut it.
    pub fn to_parts(&self, count: u16) -> Vec<Vec<u8>> {
        let tensors = self.tensors();
        let each = tensors.len().div_ceil(usize::from(count).max(1));
        let total = tensors.len() as i32;
        let mut tensors = tensors.into_iter();
        let part = |number: u16| {
            let mut builder = Builder::new();
            if number == 0 {
                self.metadata(&mut builder);
            }
            builder.set("split.no", Value::U16(number));
            builder.set("split.count", Value::U16(count));
            builder.set("split.tensors.count", Value::I32(total));
            for tensor in tensors.by_ref().take(each) {
                builder.tensor(tensor);
            }
            to_bytes(builder)
        };
        (0..count).map(part).collect()
    }

    /// Writes the model to a file.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        File::create(path)?.write_all(&self.to_bytes())
    }

    /// Writes the model to `count` files `<prefix>-0000N-of-0000M.gguf` in a folder.
    pub fn write_parts(&self, dir: &Path, prefix: &str, count: u16) -> io::Result<Vec<PathBuf>> {
        let parts = self.to_parts(count);
        let mut paths = Vec::new();
        for (index, bytes) in parts.iter().enumerate() {
            let name = format!("{prefix}-{:05}-of-{count:05}.gguf", index + 1);
            let path = dir.join(name);
            File::create(&path)?.write_all(bytes)?;
            paths.push(path);
        }
        Ok(paths)
    }

    fn metadata(&self, builder: &mut Builder<'_>) {
        let name = self.family.architecture();
        builder.set("general.architecture", name.into());
        builder.set("general.name", format!("tiny {name}").as_str().into());
        self.family
            .keys(&self.shape, self.layers, &mut |suffix, value| {
                builder.set(&format!("{name}.{suffix}"), value);
            });
        let tokens = Value::U32(self.vocabulary);
        builder.set(&format!("{name}.vocab_size"), tokens);
        vocabulary::set(builder, self.vocabulary);
        for (key, value) in &self.extra {
            builder.set(key, value.clone());
        }
    }

    fn tensors(&self) -> Vec<NewTensor> {
        let mut maker = Maker::new(self.seed, self.weights);
        let (width, rows) = (u64::from(self.shape.width), u64::from(self.vocabulary));
        maker.matrix("token_embd.weight", &[width, rows]);
        if self.rope_freqs {
            let factors = 0..self.shape.head_width / 2;
            let factors: Vec<_> = factors.map(|i| 1.0 + i as f32 / 4.0).collect();
            maker.floats("rope_freqs.weight", &factors);
        }
        for layer in 0..self.layers {
            self.family.layer(&self.shape, layer, &mut maker);
        }
        maker.norm(self.family.last_norm(), width);
        if self.untied {
            maker.matrix("output.weight", &[width, rows]);
        }
        maker.tensors
    }
}

/// The bytes of a layout that copies nothing.
///
/// # Panics
/// If the builder holds what makes no file, or copies from one.
pub fn to_bytes(builder: Builder<'_>) -> Vec<u8> {
    let layout = builder.layout().expect("the tensors fit together");
    layout_bytes(&layout, &[]).expect("memory can be written to")
}

/// The bytes of a layout, of a model whose files have these bytes.
pub fn layout_bytes(layout: &Layout, parts: &[&[u8]]) -> Result<Vec<u8>, GgufError> {
    let mut parts: Vec<_> = parts.iter().map(io::Cursor::new).collect();
    let mut bytes = Vec::new();
    layout.write_to(&mut parts, &mut bytes, |_| {})?;
    Ok(bytes)
}

/// The bytes of a layout that are copied and not made up.
pub fn copied_bytes(layout: &Layout) -> u64 {
    let segments = layout.segments().iter();
    segments
        .filter(|segment| matches!(segment, Segment::Copy { .. }))
        .map(Segment::len)
        .sum()
}

/// A gemma3 pattern key, as newer converters write it.
pub fn window_pattern(flags: &[bool]) -> (&'static str, Value) {
    (
        "gemma3.attention.sliding_window_pattern",
        Value::Array(Array::of_bool(flags)),
    )
}
