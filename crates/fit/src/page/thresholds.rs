//! What tiers and splits mean, in the words of every page, from the code's own constants.

use super::doc::Block;
use super::format::{percent, thousands};
use super::parts::{Head, Stamp};
use crate::alternatives::TENSOR_GAIN;
use crate::effective::CLUSTER_SHARE;
use crate::placement::COMFORTABLE;
use crate::verdict::{LEAST_CONTEXT, NO_LONG_CONTEXT, Tier};

/// Tiers and what they mean, in short.
pub(super) fn tiers() -> Vec<(String, String)> {
    let comfortable = percent(COMFORTABLE);
    let least = thousands(i64::from(LEAST_CONTEXT));
    vec![
        (
            "comfortable".into(),
            format!(
                "at most {comfortable} of effective memory on the binding node (the one with the least headroom), KV cache and buffers included"
            ),
        ),
        (
            "borderline".into(),
            format!(
                "above {comfortable}, while the weights and {least} tokens stay within the limit on every node"
            ),
        ),
        (
            "not practical".into(),
            format!("the weights, or {least} tokens, exceed the limit however the model is split"),
        ),
        (
            "unknown".into(),
            "a fact that decides is missing; it is named".into(),
        ),
    ]
}

/// What a tier means for whoever runs a model of it.
pub(super) fn meaning(tier: Tier) -> String {
    let comfortable = percent(COMFORTABLE);
    match tier {
        Tier::Comfortable => format!(
            "At most {comfortable} of effective memory, with headroom for a longer context. The largest first."
        ),
        Tier::Borderline => format!(
            "They run, with little headroom. Above {comfortable}: verify the KV cache at the context that you need. Above {}: little room is left beyond the context asked for; a row's max context is what the limit holds. Above 100 %: more than is wise to plan with, though within the limit: cap the context at the row's maximum, or take a larger combo.",
            percent(NO_LONG_CONTEXT)
        ),
        Tier::NotPractical => format!(
            "The weights, or {} tokens, exceed the limit even with the best split. A smaller quantization or a larger combo would help, where one is named.",
            thousands(i64::from(LEAST_CONTEXT))
        ),
        Tier::Unknown => "A fact that decides is missing.".into(),
    }
}

/// What the cluster's own cost is, where there is one.
pub(super) fn cluster_cost(head: &Head) -> Option<Block> {
    let cost = head.effective_ledger.last()?;
    // A measurement says how much it is; nothing stands for what is unknown.
    let put_at = if cost.item.starts_with("unmeasured") {
        format!(
            "The cluster's own cost is put at {} of the limit in all, as published figures are 10–15 %. What of it is not known by name stands as '{}'; a measurement on these machines (--cluster-cost) takes its place.",
            short_percent(CLUSTER_SHARE),
            cost.item,
        )
    } else {
        "The cluster's own cost is what it was measured to be on these machines.".to_owned()
    };
    (head.nodes.len() > 1).then(|| {
        Block::text(format!(
            "{put_at} It is charged only where several nodes share a model: a model on one node alone pays none of it. The KV cache, compute buffers and runtime are no part of it: they are in each model's working set, so that nothing is counted twice."
        ))
    })
}

fn short_percent(share: f64) -> String {
    format!("{} %", (share * 1000.0).round() / 10.0)
}

/// What each way to split is for.
pub(super) fn splits(nodes: usize) -> Vec<Block> {
    if nodes < 2 {
        return Vec::new();
    }
    vec![Block::List {
        items: vec![
            "One node, where the model fits one: no link is in the way, and one stream is fastest on the fastest such node.".into(),
            "Replicas, a copy on each node: for many users. Each stream is as fast as on one node.".into(),
            "A layer pipeline: what makes a model fit that no node holds alone. Each token crosses every link in turn, so that the link's latency caps a single stream. It gives memory, not speed: one stream is in one stage at a time, so it is no faster than the fastest of its nodes would be if it held the model alone. Published: Llama 4 Scout 46.7 tok/s on one M3 Ultra, 36.8 on four (exo #1781); llama.cpp RPC 0.75–1.0 times one process.".into(),
            format!(
                "Tensor parallel, every layer shared: two all-reduces a layer, too many for TCP. Over RDMA on Thunderbolt 5 (macOS 26.2 or newer, a cable between every pair, 2 or 4 equal nodes) exo has been measured at {}–{} times one node on 2–4 M3 Ultra, and Scout at 8 bits went from 30.3 to 57.7 tok/s. Brigade itself does not do it yet.",
                TENSOR_GAIN.0, TENSOR_GAIN.1
            ),
        ],
    }]
}

/// How to cite a page.
pub(super) fn cite(title: &str, stamp: &Stamp) -> String {
    format!(
        "Brigade {}, \"{title}\", catalog of {}. Method: brigade site, method.html.",
        stamp.version, stamp.date
    )
}
