//! Tensor parallel: what runtimes other than Brigade can do.

use super::{Compare, Way};
use crate::FitError;
use crate::evidence::{Estimate, Evidence};
use crate::machine::PoolKind;
use crate::model::{Attention, Format};
use crate::speed::Setting;
use crate::verdict::{Alternative, Split};

/// What tensor parallel over RDMA made of one stream on 2 and on 4 Mac Studio M3 Ultra with exo,
/// against one of them.
pub const TENSOR_GAIN: (f64, f64) = (1.3, 1.6);

/// Where [`TENSOR_GAIN`] comes from.
pub const TENSOR_SOURCE: &str =
    "https://www.jeffgeerling.com/blog/2025/15-tb-vram-on-mac-studio-rdma-over-thunderbolt-5";

/// How far the published gains of two models lie from their middle, as a share.
const GAIN_SPREAD: f64 = 0.04;

impl Compare<'_> {
    /// Over nodes with RDMA between all, and over the GPUs of one.
    pub(super) fn tensor(&self, one: Option<&Way>) -> Result<Vec<Way>, FitError> {
        let nodes = &self.cluster.nodes;
        let mut ways = Vec::new();
        for count in [2, 4].into_iter().filter(|&count| count <= nodes.len()) {
            let alike = nodes[..count]
                .iter()
                .all(|node| node.machine.pools == nodes[0].machine.pools);
            let rdma = (0..count).all(|from| {
                (0..count).filter(|&to| to != from).all(|to| {
                    let link = self.cluster.link(from, to);
                    link.is_some_and(|link| link.rdma.is_some())
                })
            });
            let [pool] = &nodes[0].machine.pools[..] else {
                continue;
            };
            let runtimes = match (pool.kind, pool.family.as_str()) {
                (PoolKind::Ram, _) => continue,
                (_, family) if family.starts_with("apple") => {
                    ["exo", "mlx-lm distributed"].as_slice()
                }
                _ => ["vLLM"].as_slice(),
            };
            if alike && rdma && self.heads_divide(count as u32) {
                ways.push(self.tensor_over(count, runtimes, one)?);
            }
        }
        ways.extend(self.inside_one()?);
        Ok(ways)
    }

    fn heads_divide(&self, count: u32) -> bool {
        self.model.layers.iter().all(|layer| match layer.attention {
            Attention::Full { kv_heads, .. } | Attention::Sliding { kv_heads, .. } => {
                kv_heads % count == 0
            }
            // One latent for all heads: each node keeps it whole and takes a share of the heads.
            Attention::Latent { .. } => self.model.heads.is_multiple_of(count),
            Attention::Recurrent { .. } | Attention::None => true,
        })
    }

    fn tensor_over(
        &self,
        count: usize,
        runtimes: &[&str],
        one: Option<&Way>,
    ) -> Result<Way, FitError> {
        let field = self.field()?;
        let host = &field.hosts[0];
        let pool = &self.cluster.nodes[0].machine.pools[0];
        let share = field.costs.all_once() / count as u64 + host.runtime_bytes(0);
        let used = share as f64 / host.pools[0].effective_bytes.max(1) as f64;
        let setting = Setting {
            model: self.model,
            quant: self.quant,
            pools: vec![pool; count],
            nodes: count,
            context: self.load.context,
        };
        let gain = match count {
            2 => TENSOR_GAIN.0,
            _ => TENSOR_GAIN.1,
        };
        let single = one.and_then(|way| way.alternative.decode_tok_s);
        let single = single.filter(|_| pool.device.contains("m3-ultra"));
        let (decode, known) = match (self.speed.tensor(&setting), single) {
            (Some((measured, rows)), _) => (Some(measured), format!("Measured: {rows}.")),
            (None, Some(single)) => (
                Some(Estimate {
                    low: single.low * gain * (1.0 - GAIN_SPREAD),
                    mid: single.mid * gain,
                    high: single.high * gain * (1.0 + GAIN_SPREAD),
                    evidence: Evidence::Extrapolated,
                }),
                format!(
                    "Published: {gain} × one node on {count} Mac Studio M3 Ultra, of other models ({TENSOR_SOURCE})."
                ),
            ),
            (None, None) => (
                None,
                "The catalog has no measurement of it on these machines.".to_owned(),
            ),
        };
        let reads = match (self.quant.format, pool.family.starts_with("apple")) {
            (Format::Mlx, true) | (Format::Safetensors, false) => "",
            (_, true) => " exo reads MLX weights, so the size differs a little.",
            (_, false) => " vLLM reads safetensors, so the size differs.",
        };
        let note = format!(
            "Every node computes a share of every layer: equal nodes, RDMA and a cable between each pair. {known} Brigade does not do it yet.{reads}"
        );
        Ok(Way {
            alternative: Alternative {
                split: Split::Tensor,
                name: format!("tensor parallel over {count} nodes"),
                runtimes: runtimes.iter().map(|&name| name.to_owned()).collect(),
                fits: share <= host.pools[0].limit_bytes,
                utilization: Some(used),
                decode_tok_s: decode,
                streams: Vec::new(),
                note,
            },
            nodes: count,
        })
    }

    /// Equal GPUs of one host.
    fn inside_one(&self) -> Result<Option<Way>, FitError> {
        let field = self.field()?;
        for host in field.hosts.iter() {
            let machine = host.machine;
            let mut gpus =
                (0..machine.pools.len()).filter(|&pool| machine.pools[pool].kind == PoolKind::Vram);
            let Some(first) = gpus.next() else { continue };
            let alike = gpus
                .filter(|&gpu| machine.pools[gpu] == machine.pools[first])
                .count()
                + 1;
            let Some(count) = [8, 4, 2]
                .into_iter()
                .find(|&count| count <= alike && self.heads_divide(count as u32))
            else {
                continue;
            };
            let share = field.costs.all_once() / count as u64 + host.runtime_bytes(first);
            let effective = host.pools[first].effective_bytes.max(1);
            return Ok(Some(Way {
                alternative: Alternative {
                    split: Split::Tensor,
                    name: format!("tensor parallel over {count} GPUs of {}", machine.name),
                    runtimes: vec!["vLLM".into(), "llama-server --split-mode row".into()],
                    fits: share <= host.pools[first].limit_bytes,
                    utilization: Some(share as f64 / effective as f64),
                    decode_tok_s: None,
                    streams: Vec::new(),
                    note: "Inside one machine, over PCIe or NVLink. The catalog has no measurement of it. vLLM needs safetensors weights. Brigade does not do it yet.".into(),
                },
                nodes: 1,
            }));
        }
        Ok(None)
    }
}
