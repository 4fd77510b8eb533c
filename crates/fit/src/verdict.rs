//! The answer for one model on one cluster.

use serde::Serialize;

use crate::evidence::Estimate;
use crate::memory::{Load, NodeLedger};

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
    /// The largest context that fits within the limits, in tokens, up to the model's own.
    pub max_context: Option<u32>,
    /// What was asked for, the context cut to the model's own.
    pub load: Load,
    /// Tokens a second of one stream at this context.
    pub decode_tok_s: Option<Estimate>,
    /// Prompt tokens a second.
    pub prefill_tok_s: Option<Estimate>,
    /// Seconds to the first token of a prompt that fills the context up to 2,048 tokens.
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
    pub streams: Vec<(u32, f64)>,
    /// What speaks for and against it, with published evidence where that is all there is.
    pub note: String,
}

/// Ways to spread a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// All of it on one node.
    OneNode,
    /// A copy on each of several nodes.
    Replicas,
    /// Layer ranges on several nodes.
    Pipeline,
    /// Every layer shared by several nodes.
    Tensor,
}
