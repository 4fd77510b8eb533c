//! Models as the planner sees them: layers with an attention kind and parameter counts, and
//! quantizations with the bytes of each layer.

use brigade_gguf::GgmlType;
use serde::{Deserialize, Serialize};

pub mod config;
pub mod gguf;
pub mod mix;
pub mod shape;

/// A model: facts from the catalog, a GGUF header or a `config.json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    /// Its id, such as `qwen3-235b-a22b`.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// The repository of its weights, such as `Qwen/Qwen3-235B-A22B`.
    pub repo: Option<String>,
    /// Other names that people type, such as `llama3.3:70b`.
    pub aliases: Vec<String>,
    /// Architecture by llama.cpp's name, such as `qwen3moe`.
    pub architecture: String,
    /// All parameters, without multi-token-prediction layers and vision.
    pub params: u64,
    /// Parameters that one token touches.
    pub active_params: u64,
    /// Width of a hidden state.
    pub hidden: u32,
    /// Attention heads (queries) of a layer; the largest, where layers differ.
    pub heads: u32,
    /// Tokens of the vocabulary.
    pub vocab: u32,
    /// Whether the head is the embedding.
    pub tied_embeddings: bool,
    /// The context that it was made for, in tokens.
    pub max_context: u32,
    /// Routed experts of a mixture-of-experts layer; 0 for a dense model.
    pub experts: u32,
    /// Routed experts that one token uses.
    pub experts_used: u32,
    /// The layers, in order.
    pub layers: Vec<Layer>,
    /// Its quantizations, best known first.
    pub quants: Vec<Quantization>,
    /// Names of those that people serve the model with; the smallest of them at 4 bits a weight
    /// or more decides its tier.
    pub production: Vec<String>,
    /// Facts that decide and are not known, by name; a verdict is then `unknown`.
    pub missing: Vec<String>,
    /// Where the facts come from.
    pub source: String,
    /// When they were read, as `2026-11-24`.
    pub date: String,
    /// Where sources differ and which is taken, or what else a reader should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Model {
    /// Share of the routed experts that some tokens touch, if each chooses at random:
    /// 1 − (1 − used ÷ experts)ⁿ; 1 without experts.
    pub(crate) fn touched_share(&self, tokens: u32) -> f64 {
        if self.experts == 0 {
            return 1.0;
        }
        let one = f64::from(self.experts_used.min(self.experts)) / f64::from(self.experts);
        1.0 - (1.0 - one).powf(f64::from(tokens))
    }

    /// The smallest quantization that people serve the model with: of those in
    /// [`production`](Self::production), at 4 bits a weight or more, of the format if one is
    /// given.
    pub fn production_quant(&self, format: Option<Format>) -> Option<&Quantization> {
        self.quants
            .iter()
            .filter(|quant| self.production.contains(&quant.name))
            .filter(|quant| format.is_none_or(|format| quant.format == format))
            .filter(|quant| quant.bits_per_weight >= 4.0)
            .min_by_key(|quant| quant.weights.total())
    }
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Layer {
    /// What it keeps for each token or sequence.
    pub attention: Attention,
    /// Parameters of attention or recurrence, and norms.
    pub attention_params: u64,
    /// Parameters of the feed-forward part that every token touches: dense, shared experts, router.
    pub dense_params: u64,
    /// Parameters of all routed experts together.
    pub expert_params: u64,
}

/// What a layer keeps in the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Attention {
    /// Grouped-query attention over the whole context.
    Full {
        /// Key and value heads.
        kv_heads: u32,
        /// Width of a key.
        key_dim: u32,
        /// Width of a value.
        value_dim: u32,
    },
    /// Grouped-query attention over a window.
    Sliding {
        /// Key and value heads.
        kv_heads: u32,
        /// Width of a key.
        key_dim: u32,
        /// Width of a value.
        value_dim: u32,
        /// Tokens of the window.
        window: u32,
    },
    /// Multi-head latent attention: one compressed vector a token.
    Latent {
        /// Rank of the compressed keys and values.
        kv_lora_rank: u32,
        /// Width of the part with positions.
        rope_dims: u32,
        /// Width of a sparse-attention indexer's key, 0 without one.
        index_dims: u32,
    },
    /// Linear attention or a state-space layer: constant for each sequence.
    Recurrent {
        /// Bytes of its state, for one sequence; kept in 32-bit floats.
        state_bytes: u64,
    },
    /// Nothing is kept: a feed-forward layer.
    None,
}

/// A model's weights in one format.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Quantization {
    /// Its name, such as `Q4_K_M`, `MXFP4`, `mlx-4bit`.
    pub name: String,
    /// Which runtimes read it.
    pub format: Format,
    /// Bits a weight, over all tensors.
    pub bits_per_weight: f64,
    /// The bytes, by where they lie.
    pub weights: Weights,
    /// How the bytes are known.
    pub exactness: Exactness,
    /// Where they come from.
    pub source: String,
}

/// File formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// llama.cpp's.
    Gguf,
    /// MLX safetensors.
    Mlx,
    /// Other safetensors (vLLM).
    Safetensors,
}

impl Format {
    /// The runtime that reads it, by the name that measurements have.
    pub(crate) fn runtime(self) -> &'static str {
        match self {
            Self::Gguf => "llama.cpp",
            Self::Mlx => "mlx",
            Self::Safetensors => "vllm",
        }
    }
}

/// How a quantization's bytes are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exactness {
    /// Every tensor's size from a header.
    Tensors,
    /// The sum from a published file, shared out over the layers by the quantization's mix.
    Total,
    /// Parameters times the bits of the quantization's tensor mix.
    Computed,
}

/// Where a quantization's bytes lie.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Weights {
    /// Token embedding, needed by the first stage (and by the last, where it is the head).
    pub embedding_bytes: u64,
    /// The head with its norm, needed by the last stage; where it is tied, the norm only.
    pub head_bytes: u64,
    /// Whether the last stage needs the embedding as its head.
    pub tied: bool,
    /// The type of the matrix that is the head, where it is one of ggml's.
    #[serde(skip)]
    pub head_type: Option<GgmlType>,
    /// What every stage needs (`RoPE` factors).
    pub shared_bytes: u64,
    /// The layers, in order.
    pub layers: Vec<LayerBytes>,
    /// The types of the tensors, where a header told them.
    #[serde(skip)]
    pub types: Vec<TypeBytes>,
}

/// What of a model is of one type, in bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TypeBytes {
    /// ggml's name of the type.
    pub ggml_type: &'static str,
    /// Bits of a weight.
    pub bits: f64,
    /// In the layers.
    pub layer_bytes: u64,
    /// In the head, or in the embedding that is the head.
    pub head_bytes: u64,
}

/// A layer's weights, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LayerBytes {
    /// Touched by every token.
    pub dense: u64,
    /// All routed experts; a token touches `experts_used` of `experts`.
    pub experts: u64,
}

impl LayerBytes {
    /// All of the layer.
    pub fn total(self) -> u64 {
        self.dense.saturating_add(self.experts)
    }
}

impl Weights {
    /// All tensors, each once.
    pub fn total(&self) -> u64 {
        let outside = [self.embedding_bytes, self.head_bytes, self.shared_bytes];
        let layers = self.layers.iter().map(|layer| layer.total());
        layers.chain(outside).fold(0, u64::saturating_add)
    }

    /// Tensors of the files of a stage with these layers (half-open, from 0): the first stage has
    /// the embedding, the last one the head; a tied embedding lies on both.
    pub fn stage(&self, layers: std::ops::Range<usize>) -> u64 {
        let (first, last) = (layers.start == 0, layers.end == self.layers.len());
        let blocks = self
            .layers
            .get(layers)
            .unwrap_or_default()
            .iter()
            .map(|layer| layer.total());
        let embedding = if first || (last && self.tied) {
            self.embedding_bytes
        } else {
            0
        };
        let head = if last { self.head_bytes } else { 0 };
        blocks
            .chain([embedding, head, self.shared_bytes])
            .fold(0, u64::saturating_add)
    }
}
