//! A transformer's shape: its tensors with their sizes, from the widths that a `config.json` states.
//!
//! Sizes are those of llama.cpp's tensors (`src/models/*.cpp`); counts are parameters.

use super::Layer;

mod tensors;

/// A model's tensors, by widths. Widths are bounded by [`config`](super::config), so that no
/// count overflows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shape {
    /// Width of a hidden state.
    pub hidden: u64,
    /// Tokens of the vocabulary.
    pub vocab: u64,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Width of the embedding that each layer adds for itself; 0 without.
    pub layer_embedding: u64,
    /// The layers, in order.
    pub blocks: Vec<Block>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// What mixes tokens.
    pub mixer: Mixer,
    /// What follows, in order; several where they lie in parallel.
    pub feeds: Vec<Feed>,
    /// Parameters of norms.
    pub norms: u64,
}

/// What mixes tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixer {
    /// Attention with grouped queries.
    Grouped(Grouped),
    /// Multi-head latent attention.
    Latent(Latent),
    /// Gated `DeltaNet` (Qwen3-Next, Qwen3.5).
    Delta {
        /// Key heads.
        key_heads: u64,
        /// Value heads.
        value_heads: u64,
        /// Width of a key.
        key_dim: u64,
        /// Width of a value.
        value_dim: u64,
        /// Width of the convolution.
        conv: u64,
    },
    /// Mamba 2.
    Mamba {
        /// Heads.
        heads: u64,
        /// Width of a head.
        head_dim: u64,
        /// Groups that share their state's input and output.
        groups: u64,
        /// Width of the state.
        state: u64,
        /// Width of the convolution.
        conv: u64,
    },
    /// A feed-forward layer only.
    None,
}

/// Attention with grouped queries.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Grouped {
    /// Query heads.
    pub heads: u64,
    /// Key and value heads.
    pub kv_heads: u64,
    /// Width of a key.
    pub key_dim: u64,
    /// Width of a value.
    pub value_dim: u64,
    /// Tokens of the window; 0: the whole context.
    pub window: u32,
    /// What differs from plain projections.
    pub extras: Extras,
    /// Parameters of biases and sinks.
    pub biases: u64,
}

/// What differs from plain projections of queries, keys and values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Extras {
    /// Nothing.
    #[default]
    Plain,
    /// The output is gated by a second half of the queries.
    Gated,
    /// One tensor for queries, keys and values.
    Fused,
    /// Values are the keys.
    KeysAsValues,
    /// Keys and values of an earlier layer are used: nothing is kept here.
    Borrowed,
}

/// Multi-head latent attention.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latent {
    /// Query heads.
    pub heads: u64,
    /// Rank of compressed queries; 0: not compressed.
    pub q_rank: u64,
    /// Rank of compressed keys and values.
    pub kv_rank: u64,
    /// Width of a head's part without positions.
    pub nope: u64,
    /// Width of the part with positions.
    pub rope: u64,
    /// Width of a value.
    pub value_dim: u64,
    /// Heads of the sparse-attention indexer; 0 without.
    pub index_heads: u64,
    /// Width of the indexer's key; 0 without.
    pub index_dim: u64,
}

/// A feed-forward part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// Every token passes it: a dense layer or shared experts.
    Dense {
        /// Its width.
        width: u64,
        /// How its activation is made.
        form: Form,
    },
    /// Routed experts.
    Experts {
        /// How many.
        count: u64,
        /// How many a token uses.
        used: u64,
        /// Width of one.
        width: u64,
        /// Width of what goes in: the hidden state's, or that of a compressed one.
        input: u64,
        /// How its activation is made.
        form: Form,
        /// Parameters of biases, all experts together.
        biases: u64,
    },
    /// Projections that every token passes and that are neither (per-layer embeddings).
    Other {
        /// Parameters.
        params: u64,
        /// Length of a row.
        row: u64,
    },
}

/// How a feed-forward part makes its activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Gate times up.
    Gated,
    /// Gate and up in one tensor.
    FusedGate,
    /// Up only.
    Plain,
}

/// Roles of tensors, as far as quantizations treat them differently; after the categories of
/// llama.cpp's `src/llama-quant.cpp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Token embedding.
    Embedding,
    /// Output head.
    Head,
    /// Queries.
    Query,
    /// Keys.
    Key,
    /// Values.
    Value,
    /// Queries, keys and values in one.
    Fused,
    /// Attention's output.
    Output,
    /// Feed-forward, gate.
    Gate,
    /// Feed-forward, up.
    Up,
    /// Feed-forward, down.
    Down,
    /// Other matrices.
    Other,
    /// Norms, biases, routers, convolutions: not quantized.
    Float,
}

/// A tensor, or several of a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tensor {
    /// Its role.
    pub role: Role,
    /// Whether it holds routed experts.
    pub routed: bool,
    /// Parameters.
    pub params: u64,
    /// Length of a row, which a quantization's blocks divide.
    pub row: u64,
}

impl Tensor {
    fn new(role: Role, row: u64, rows: u64) -> Self {
        Self {
            role,
            routed: false,
            params: row * rows,
            row,
        }
    }

    /// Whether it holds values: alone, or fused with queries and keys, which llama.cpp treats
    /// as them.
    pub fn is_value(&self) -> bool {
        matches!(self.role, Role::Value | Role::Fused)
    }

    fn float(params: u64) -> Self {
        Self::new(Role::Float, params, 1)
    }
}

impl Shape {
    /// The layers as the planner sees them.
    pub fn layers(&self) -> Vec<Layer> {
        let layer = |block: &Block| {
            let feed = block.feed_tensors(self.hidden);
            let sum = |routed: bool| -> u64 {
                let own = feed.iter().filter(|tensor| tensor.routed == routed);
                own.map(|tensor| tensor.params).sum()
            };
            Layer {
                attention: block.mixer.attention(),
                attention_params: params(&block.mixer_tensors(self.hidden)),
                dense_params: sum(false),
                expert_params: sum(true),
            }
        };
        self.blocks.iter().map(layer).collect()
    }

    /// The token embedding.
    pub fn embedding(&self) -> Tensor {
        Tensor::new(Role::Embedding, self.hidden, self.vocab)
    }

    /// The head and its norm; where the head is tied, the norm only.
    pub fn head(&self) -> Vec<Tensor> {
        let norm = Tensor::float(self.hidden);
        if self.tied {
            vec![norm]
        } else {
            vec![norm, Tensor::new(Role::Head, self.hidden, self.vocab)]
        }
    }

    /// What every stage needs: the embeddings that layers add for themselves, with their
    /// projection.
    pub fn shared(&self) -> Vec<Tensor> {
        let width = self.layer_embedding * self.blocks.len() as u64;
        if width == 0 {
            return Vec::new();
        }
        vec![
            Tensor::new(Role::Embedding, width, self.vocab),
            Tensor::float(width * self.hidden + self.layer_embedding),
        ]
    }

    /// All parameters.
    pub fn params(&self) -> u64 {
        let own = self.embedding().params + params(&self.head()) + params(&self.shared());
        let block = |block: &Block| {
            params(&block.mixer_tensors(self.hidden)) + params(&block.feed_tensors(self.hidden))
        };
        own + self.blocks.iter().map(block).sum::<u64>()
    }

    /// Parameters without those of experts that a token does not use. The way vendors count: the
    /// embedding is in it, though a token reads one row.
    pub fn active_params(&self) -> u64 {
        let feeds = self.blocks.iter().flat_map(|block| &block.feeds);
        let idle = feeds.map(|feed| match feed {
            Feed::Experts { count, used, .. } => {
                let all: u64 = feed
                    .tensors(self.hidden)
                    .iter()
                    .filter(|t| t.routed)
                    .map(|t| t.params)
                    .sum();
                all / count.max(&1) * count.saturating_sub(*used)
            }
            _ => 0,
        });
        self.params() - idle.sum::<u64>()
    }
}

impl Block {
    /// Tensors of what mixes tokens, and norms.
    pub fn mixer_tensors(&self, hidden: u64) -> Vec<Tensor> {
        let mut all = self.mixer.tensors(hidden);
        all.push(Tensor::float(self.norms));
        all
    }

    /// Tensors of the feed-forward part.
    pub fn feed_tensors(&self, hidden: u64) -> Vec<Tensor> {
        self.feeds
            .iter()
            .flat_map(|feed| feed.tensors(hidden))
            .collect()
    }
}

fn params(tensors: &[Tensor]) -> u64 {
    tensors.iter().map(|tensor| tensor.params).sum()
}
