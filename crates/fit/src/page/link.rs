//! What a link means for a model: how it compares, and what a hop costs.

use super::format::{and, brief, short, thousands};
use crate::catalog::Catalog;
use crate::cluster::Link;
use crate::placement::HOP_SOFTWARE_MS;

/// Milliseconds that a hidden state of this width takes from one node to the next: one token in
/// 32-bit floats, over TCP.
pub(super) fn hop_ms(link: &Link, hidden: u32) -> f64 {
    link.latency_ms + f64::from(hidden) * 4.0 / (link.bandwidth_gb_s * 1e6)
}

/// Links that others are compared with.
const YARDSTICKS: [&str; 2] = ["10gbe", "nvlink"];

/// Width of the hidden state that stands for all: that of a 70 B model.
const HIDDEN: u32 = 8_192;

/// What a link means for models over so many nodes, a sentence each.
pub(super) fn facts(catalog: &Catalog, link: &Link, nodes: usize) -> Vec<String> {
    let hop = hop_ms(link, HIDDEN) + HOP_SOFTWARE_MS;
    let mut facts = vec![format!(
        "A hop costs a token about {} ms over TCP: {} ms latency, {} ms for a hidden state of {} values, {} ms in Brigade's software{}.",
        short(hop),
        short(link.latency_ms),
        short(hop_ms(link, HIDDEN) - link.latency_ms),
        thousands(i64::from(HIDDEN)),
        short(HOP_SOFTWARE_MS),
        others(catalog),
    )];
    if nodes > 1 {
        let all = hop * nodes as f64;
        facts.push(format!(
            "Latency between nodes caps a single stream: {nodes} hops a token (the last one back to the first node) are {} ms, so that none is faster than {} tok/s over all {nodes} nodes.",
            short(all),
            brief(1e3 / all)
        ));
    }
    let compared: Vec<String> = YARDSTICKS
        .iter()
        .filter(|id| **id != link.id)
        .filter_map(|id| catalog.link(id).ok())
        .map(|other| {
            let ratio = link.bandwidth_gb_s / other.link.bandwidth_gb_s;
            if ratio >= 1.0 {
                format!("{} times that of {}", brief(ratio), other.link.name)
            } else {
                format!("{} of that of {}", fraction(ratio), other.link.name)
            }
        })
        .collect();
    if !compared.is_empty() {
        facts.push(format!("Its bandwidth over TCP is {}.", and(&compared)));
    }
    if let Some(rdma) = link.rdma {
        facts.push(format!(
            "RDMA brings a small message from {} to {} ms, which is what tensor parallel needs: two all-reduces a layer, where a pipeline sends one message a node.",
            short(link.latency_ms),
            short(rdma.latency_ms)
        ));
    }
    facts
}

/// What other programs take in software, as published.
fn others(catalog: &Catalog) -> String {
    let published = catalog.runtimes.iter().filter_map(|runtime| {
        let hop_ms = runtime.hop_ms?;
        Some(format!("{} in {}'s", brief(hop_ms), runtime.name))
    });
    match &published.collect::<Vec<_>>()[..] {
        [] => String::new(),
        others => format!(" (published: {})", and(others)),
    }
}

/// `1/9`, or `94 %` where that says more.
fn fraction(ratio: f64) -> String {
    if ratio > 0.5 || ratio <= 0.0 {
        super::format::percent(ratio)
    } else {
        format!("1/{}", thousands((1.0 / ratio).round() as i64))
    }
}
