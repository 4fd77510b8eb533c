//! Small random models that llama.cpp loads, for tests.
//!
//! The weights mean nothing, but they are of a size that keeps hidden states and logits
//! ordinary numbers, so that a wrong layer, mask or scale shows in every logit.

mod random;
mod vocabulary;

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::layout::{Layout, Segment};
use crate::value::{Array, Value};
use crate::write::{Builder, NewTensor, TensorData};
use crate::{GgmlType, GgufError};
pub use random::Random;
pub use vocabulary::{CHAT_TEMPLATE, TOKENS};

const WIDTH: u64 = 64;
const HEADS: u32 = 4;
const KV_HEADS: u32 = 2;
const HEAD_WIDTH: u64 = 16;
const FEED_FORWARD: u64 = 96;

/// A description of a small model: 64 wide, with 4 heads of 16, 2 of them for keys and values.
/// The same description always gives the same bytes.
#[derive(Debug, Clone)]
pub struct TinyModel {
    family: Family,
    layers: u32,
    weights: GgmlType,
    untied: bool,
    rope_freqs: bool,
    seed: u64,
    extra: Vec<(String, Value)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Llama { experts: u32 },
    Gemma3 { window: u32 },
}

impl TinyModel {
    /// A dense llama whose head is its embedding, with `RoPE` frequency factors.
    pub fn llama(layers: u32) -> Self {
        Self {
            family: Family::Llama { experts: 0 },
            layers,
            weights: GgmlType::F32,
            untied: false,
            rope_freqs: true,
            seed: 1,
            extra: Vec::new(),
        }
    }

    /// A llama with 4 experts, 2 of them used for each token, and a head of its own.
    pub fn llama_moe(layers: u32) -> Self {
        Self {
            family: Family::Llama { experts: 4 },
            untied: true,
            ..Self::llama(layers)
        }
    }

    /// A Gemma 3 with a sliding window of 16 tokens on 5 of 6 layers.
    pub fn gemma3(layers: u32) -> Self {
        Self {
            family: Family::Gemma3 { window: 16 },
            rope_freqs: false,
            ..Self::llama(layers)
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

    fn architecture(&self) -> &'static str {
        match self.family {
            Family::Llama { .. } => "llama",
            Family::Gemma3 { .. } => "gemma3",
        }
    }

    fn metadata(&self, builder: &mut Builder<'_>) {
        let name = self.architecture();
        builder.set("general.architecture", name.into());
        builder.set("general.name", format!("tiny {name}").as_str().into());
        let mut set = |suffix: &str, value| {
            builder.set(&format!("{name}.{suffix}"), value);
        };
        set("block_count", Value::U32(self.layers));
        set("context_length", Value::U32(512));
        set("embedding_length", Value::U32(WIDTH as u32));
        set("feed_forward_length", Value::U32(FEED_FORWARD as u32));
        set("attention.head_count", Value::U32(HEADS));
        set("attention.head_count_kv", Value::U32(KV_HEADS));
        set("attention.layer_norm_rms_epsilon", Value::F32(1e-6));
        set("vocab_size", Value::U32(vocabulary::TOKENS));
        match self.family {
            Family::Llama { experts } => {
                set("rope.dimension_count", Value::U32(HEAD_WIDTH as u32));
                set("rope.freq_base", Value::F32(10_000.0));
                if experts > 0 {
                    set("expert_count", Value::U32(experts));
                    set("expert_used_count", Value::U32(2));
                }
            }
            Family::Gemma3 { window } => {
                set("attention.key_length", Value::U32(HEAD_WIDTH as u32));
                set("attention.value_length", Value::U32(HEAD_WIDTH as u32));
                set("attention.sliding_window", Value::U32(window));
                set("rope.freq_base", Value::F32(1_000_000.0));
            }
        }
        vocabulary::set(builder);
        for (key, value) in &self.extra {
            builder.set(key, value.clone());
        }
    }

    fn tensors(&self) -> Vec<NewTensor> {
        let mut maker = Maker {
            random: Random::new(self.seed),
            weights: self.weights,
            tensors: Vec::new(),
        };
        let rows = u64::from(vocabulary::TOKENS);
        maker.matrix("token_embd.weight", &[WIDTH, rows]);
        if self.rope_freqs {
            let factors: Vec<_> = (0..HEAD_WIDTH / 2).map(|i| 1.0 + i as f32 / 4.0).collect();
            maker.floats("rope_freqs.weight", &factors);
        }
        for layer in 0..self.layers {
            self.layer(&mut maker, &format!("blk.{layer}"));
        }
        maker.norm("output_norm.weight", WIDTH);
        if self.untied {
            maker.matrix("output.weight", &[WIDTH, rows]);
        }
        maker.tensors
    }

    fn layer(&self, maker: &mut Maker, block: &str) {
        let queries = u64::from(HEADS) * HEAD_WIDTH;
        let keys = u64::from(KV_HEADS) * HEAD_WIDTH;
        let mut norm = |name: &str, len| maker.norm(&format!("{block}.{name}.weight"), len);
        norm("attn_norm", WIDTH);
        norm("ffn_norm", WIDTH);
        if let Family::Gemma3 { .. } = self.family {
            norm("attn_q_norm", HEAD_WIDTH);
            norm("attn_k_norm", HEAD_WIDTH);
            norm("post_attention_norm", WIDTH);
            norm("post_ffw_norm", WIDTH);
        }
        let mut matrix = |name: &str, dims: &[u64]| {
            maker.matrix(&format!("{block}.{name}.weight"), dims);
        };
        matrix("attn_q", &[WIDTH, queries]);
        matrix("attn_k", &[WIDTH, keys]);
        matrix("attn_v", &[WIDTH, keys]);
        matrix("attn_output", &[queries, WIDTH]);
        match self.family {
            Family::Llama { experts } if experts > 0 => {
                let experts = u64::from(experts);
                matrix("ffn_gate_exps", &[WIDTH, FEED_FORWARD, experts]);
                matrix("ffn_up_exps", &[WIDTH, FEED_FORWARD, experts]);
                matrix("ffn_down_exps", &[FEED_FORWARD, WIDTH, experts]);
                // A router is never quantized.
                maker.matrix_of(
                    &format!("{block}.ffn_gate_inp.weight"),
                    GgmlType::F32,
                    &[WIDTH, experts],
                );
            }
            _ => {
                matrix("ffn_gate", &[WIDTH, FEED_FORWARD]);
                matrix("ffn_up", &[WIDTH, FEED_FORWARD]);
                matrix("ffn_down", &[FEED_FORWARD, WIDTH]);
            }
        }
    }
}

struct Maker {
    random: Random,
    weights: GgmlType,
    tensors: Vec<NewTensor>,
}

impl Maker {
    fn matrix(&mut self, name: &str, dims: &[u64]) {
        self.matrix_of(name, self.weights, dims);
    }

    fn matrix_of(&mut self, name: &str, ggml_type: GgmlType, dims: &[u64]) {
        // A row times a vector of unit variance has unit variance.
        let deviation = 1.0 / (dims[0] as f32).sqrt();
        let count = dims.iter().product();
        let bytes = self.random.weights(ggml_type, count, deviation);
        self.push(name, dims, ggml_type, bytes);
    }

    fn norm(&mut self, name: &str, len: u64) {
        let values = (0..len).map(|_| 1.0 + 0.1 * self.random.symmetric());
        let values: Vec<_> = values.collect();
        self.floats(name, &values);
    }

    fn floats(&mut self, name: &str, values: &[f32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.push(name, &[values.len() as u64], GgmlType::F32, bytes);
    }

    fn push(&mut self, name: &str, dims: &[u64], ggml_type: GgmlType, bytes: Vec<u8>) {
        self.tensors.push(NewTensor {
            name: name.into(),
            dims: dims.to_vec(),
            ggml_type,
            data: TensorData::Bytes(bytes),
        });
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
