//! A model's tensors, taken apart once for all quantizations.

use crate::model::config::Facts;
use crate::model::shape::{Block, Mixer, Tensor};

/// A model's tensors: the kinds of layers, and which layer is of which kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parts {
    pub(super) kinds: Vec<Kind>,
    pub(super) layers: Vec<Place>,
    /// Layers that have values.
    pub(super) turns: u64,
    pub(super) embedding: Tensor,
    pub(super) head: Vec<Tensor>,
    pub(super) shared: Vec<Tensor>,
    pub(super) tied: bool,
    pub(super) traits: Traits,
    pub(super) params: u64,
}

/// The tensors of a kind of layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kind {
    pub(super) mixer: Vec<Tensor>,
    pub(super) feed: Vec<Tensor>,
}

/// A layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its kind, an index.
    pub(super) kind: usize,
    /// How many layers before it have values.
    pub(super) turn: u64,
}

/// What of the model decides a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Traits {
    pub(super) queries_per_key: u64,
    pub(super) experts: u32,
    pub(super) seventy_b: bool,
    /// Whether the experts were made in MXFP4, which llama.cpp then keeps in whatever mix.
    pub(super) mxfp4_experts: bool,
}

impl Parts {
    /// Takes a model apart.
    pub fn of(facts: &Facts) -> Self {
        let shape = &facts.shape;
        let mut blocks: Vec<&Block> = Vec::new();
        let mut kinds: Vec<Kind> = Vec::new();
        let mut layers = Vec::with_capacity(shape.blocks.len());
        let mut turn = 0;
        for block in &shape.blocks {
            let kind = blocks
                .iter()
                .position(|other| *other == block)
                .unwrap_or_else(|| {
                    blocks.push(block);
                    kinds.push(Kind {
                        mixer: block.mixer_tensors(shape.hidden),
                        feed: block.feed_tensors(shape.hidden),
                    });
                    kinds.len() - 1
                });
            layers.push(Place { kind, turn });
            let values = kinds
                .get(kind)
                .is_some_and(|kind| kind.mixer.iter().any(Tensor::is_value));
            turn += u64::from(values);
        }
        Self {
            kinds,
            layers,
            turns: turn,
            embedding: shape.embedding(),
            head: shape.head(),
            shared: shape.shared(),
            tied: shape.tied,
            traits: Traits::of(facts),
            params: shape.params(),
        }
    }
}

impl Traits {
    fn of(facts: &Facts) -> Self {
        let shape = &facts.shape;
        let per_key = shape.blocks.iter().find_map(|block| match block.mixer {
            Mixer::Grouped(grouped) => {
                Some(grouped.heads.checked_div(grouped.kv_heads).unwrap_or(1))
            }
            Mixer::Latent(latent) => Some(latent.heads),
            Mixer::Delta { .. } | Mixer::Mamba { .. } | Mixer::None => None,
        });
        let dense = matches!(facts.architecture.as_str(), "llama" | "qwen2");
        Self {
            queries_per_key: per_key.unwrap_or(1),
            experts: facts.experts,
            seventy_b: dense && shape.blocks.len() == 80 && shape.hidden == 8192,
            mxfp4_experts: facts.architecture == "gpt-oss",
        }
    }
}
