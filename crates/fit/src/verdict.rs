//! The answer for one model on one cluster.

mod assess;
mod changes;
pub(crate) mod choice;
mod given;
mod reasons;

use serde::Serialize;

pub(crate) use assess::setting;
pub use assess::{assess, plan};
pub use given::{Given, assess_given, divide};
pub(crate) use reasons::{percent, rate};

use crate::cluster::Link;
use crate::evidence::Estimate;
use crate::memory::{KvType, Load, NodeLedger};
use crate::model::Format;
use crate::placement::{Objective, PROMPT};
pub use crate::split::Split;

/// Above this share of effective memory a long context will not fit.
pub const NO_LONG_CONTEXT: f64 = 0.92;

/// Tokens that must stay within the limit for a model to be more than not practical.
pub const LEAST_CONTEXT: u32 = 4096;

/// Tokens of context where nothing else is asked.
pub const USUAL_CONTEXT: u32 = 8192;

/// Tokens that are computed at once, llama.cpp's usual micro-batch.
pub const MICRO_BATCH: u32 = 512;

/// What is asked about a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Ask {
    /// Tokens of context; cut to the model's own.
    pub context: u32,
    /// Sequences at once.
    pub sequences: u32,
    /// Type of keys and values.
    pub kv_type: KvType,
    /// Tokens of the prompt that prefill and the first token are about; cut to the context.
    pub prompt: u32,
    /// A quantization by name; the smallest production one where there is none.
    pub quant: Option<String>,
    /// Only quantizations of this format.
    pub format: Option<Format>,
    /// What the plan should be best at. Without one: one node where the model is a comfortable
    /// fit there, else the roomiest pipeline over the nodes.
    pub objective: Option<Objective>,
    /// The share of the limit that a cluster of these machines was measured to cost.
    pub measured: Option<f64>,
    /// How much is answered.
    pub detail: Detail,
    /// Links to compare with, for what would change the speed.
    pub links: Vec<Link>,
}

/// How much is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// The tier, the ledger and the speed.
    Brief,
    /// What would change it and the alternatives as well.
    Full,
}

impl Default for Ask {
    fn default() -> Self {
        Self {
            context: USUAL_CONTEXT,
            sequences: 1,
            kv_type: KvType::F16,
            prompt: PROMPT,
            quant: None,
            format: None,
            objective: None,
            measured: None,
            detail: Detail::Brief,
            links: Vec::new(),
        }
    }
}

/// Fit tiers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    /// At most 85 % of effective memory on the binding node.
    Comfortable,
    /// Above that, while the weights and 4,096 tokens stay within the limit on every node.
    Borderline,
    /// The weights, or 4,096 tokens, exceed the limit under every supported split.
    NotPractical,
    /// A fact that decides is missing.
    Unknown,
}

/// What a model does on a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// The model's id.
    pub id: String,
    /// The model's name.
    pub name: String,
    /// The quantization's name; empty where none is known.
    pub quant: String,
    /// Bytes of all tensors.
    pub weights_bytes: u64,
    /// The tier.
    pub tier: Tier,
    /// Working set ÷ effective memory on the binding node.
    pub utilization: Option<f64>,
    /// The node with the least headroom.
    pub binding_node: Option<String>,
    /// The largest context that fits within the limits, in tokens, up to the model's own, however
    /// the model is divided.
    pub max_context: Option<u32>,
    /// The same of the plan that this verdict is about.
    pub plan_max_context: Option<u32>,
    /// What was asked for, the context cut to the model's own.
    pub load: Load,
    /// Tokens a second of one stream at this context.
    pub decode_tok_s: Option<Estimate>,
    /// Tokens a second of all streams together, where more than one is asked for.
    pub together_tok_s: Option<Estimate>,
    /// Prompt tokens a second.
    pub prefill_tok_s: Option<Estimate>,
    /// Seconds to the first token of a prompt of [`Ask::prompt`] tokens, or of the context where that
    /// is smaller.
    pub ttft_s: Option<Estimate>,
    /// Why it is so, a sentence each; a missing fact is named.
    pub reasons: Vec<String>,
    /// What would change the verdict, a sentence each.
    pub changes: Vec<String>,
    /// The nodes of the plan; empty where there is none.
    pub ledger: Vec<NodeLedger>,
    /// The ways to run it that were compared, the chosen one first.
    pub alternatives: Vec<Alternative>,
}

/// One way to run a model on a cluster.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alternative {
    /// The split.
    pub split: Split,
    /// What it is, such as `pipeline over 4 nodes`.
    pub name: String,
    /// The runtimes that can do it.
    pub runtimes: Vec<String>,
    /// Whether the model fits this way.
    pub fits: bool,
    /// Working set ÷ effective memory on its binding node.
    pub utilization: Option<f64>,
    /// Tokens a second of one stream.
    pub decode_tok_s: Option<Estimate>,
    /// Tokens a second of all streams together, by number of streams.
    pub streams: Vec<(u32, Estimate)>,
    /// What speaks for and against it, with published evidence where that is all there is.
    pub note: String,
}

impl Verdict {
    /// Nodes that hold layers.
    pub fn nodes_used(&self) -> usize {
        let holding = self.ledger.iter().filter(|node| !node.pools.is_empty());
        holding.count()
    }
}

impl Tier {
    /// Its name in output.
    pub fn name(self) -> &'static str {
        match self {
            Self::Comfortable => "comfortable",
            Self::Borderline => "borderline",
            Self::NotPractical => "not-practical",
            Self::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
mod tests;
