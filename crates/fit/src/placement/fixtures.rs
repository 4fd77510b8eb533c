//! Machines, models and a speed for tests.

use crate::FitError;
use crate::cluster::{Cluster, Link, Links, Node, Rdma};
use crate::evidence::{Estimate, Evidence};
use crate::machine::{Machine, Pool, PoolKind};
use crate::memory::{KvType, Load};
use crate::model::{Attention, Exactness, Format, Layer, LayerBytes, Model, Quantization, Weights};
use crate::speed::{Rate, Setting, Speed, Work};

pub(crate) const GIB: u64 = 1 << 30;

pub(crate) fn pool(kind: PoolKind, gib: u64, bandwidth_gb_s: f64) -> Pool {
    let memory_bytes = gib * GIB;
    Pool {
        kind,
        device: format!("{kind:?}-{gib}").to_lowercase(),
        device_name: format!("{kind:?} of {gib} GiB"),
        family: "test".into(),
        memory_bytes,
        limit_bytes: match kind {
            PoolKind::Unified => memory_bytes / 100 * 81,
            PoolKind::Vram => memory_bytes / 100 * 97,
            PoolKind::Ram => memory_bytes.saturating_sub(4 * GIB),
        },
        limit_reason: "a test".into(),
        runtime_bytes: match kind {
            PoolKind::Unified | PoolKind::Vram => 512 << 20,
            PoolKind::Ram => 64 << 20,
        },
        bandwidth_gb_s: Some(bandwidth_gb_s),
        fp16_tflops: Some(bandwidth_gb_s / 15.0),
        fp32_tflops: None,
        calibration: None,
        note: None,
    }
}

pub(crate) fn machine(id: &str, pools: Vec<Pool>) -> Machine {
    Machine {
        id: id.into(),
        name: id.into(),
        pools,
    }
}

/// A Mac mini M4 Pro.
pub(crate) fn mac(gib: u64) -> Machine {
    let mut unified = pool(PoolKind::Unified, gib, 273.0);
    unified.device = "m4-pro-20".into();
    unified.device_name = "M4 Pro".into();
    unified.family = "apple".into();
    if gib == 64 {
        unified.limit_bytes = 53_084 << 20;
    }
    machine(&format!("mac-mini-m4-pro-{gib}gb"), vec![unified])
}

/// A host with this many 24 GiB GPUs and RAM.
pub(crate) fn rig(gpus: usize, ram_gib: u64) -> Machine {
    let mut pools = vec![pool(PoolKind::Vram, 24, 936.0); gpus];
    for gpu in &mut pools {
        gpu.device = "rtx-3090".into();
        gpu.device_name = "RTX 3090".into();
        gpu.family = "nvidia-consumer".into();
        gpu.runtime_bytes = 457 << 20;
    }
    if ram_gib > 0 {
        pools.push(pool(PoolKind::Ram, ram_gib, 60.0));
    }
    machine(&format!("{gpus}x-rtx-3090"), pools)
}

pub(crate) fn link(id: &str, latency_ms: f64, bandwidth_gb_s: f64) -> Link {
    Link {
        id: id.into(),
        name: id.into(),
        latency_ms,
        bandwidth_gb_s,
        rdma: None,
        source: "a test".into(),
    }
}

pub(crate) fn tb5() -> Link {
    Link {
        rdma: Some(Rdma {
            latency_ms: 0.01,
            bandwidth_gb_s: 6.0,
        }),
        ..link("tb5", 0.3, 5.0)
    }
}

pub(crate) fn cluster(machines: Vec<Machine>, links: Links) -> Cluster {
    Cluster {
        id: "test".into(),
        name: "Test".into(),
        nodes: machines
            .into_iter()
            .enumerate()
            .map(|(index, machine)| Node {
                name: format!("node-{}", index + 1),
                machine,
            })
            .collect(),
        links,
    }
}

/// Four Mac mini M4 Pro with 64 GB over Thunderbolt 5.
pub(crate) fn quad() -> Cluster {
    cluster(vec![mac(64); 4], Links::Uniform(tb5()))
}

pub(crate) const FULL: Attention = Attention::Full {
    kv_heads: 8,
    key_dim: 128,
    value_dim: 128,
};

/// A dense model with layers alike that has about `weight_bytes` at 4.5 bits.
pub(crate) fn dense(id: &str, layers: u32, weight_bytes: u64) -> Model {
    let layer = weight_bytes / (u64::from(layers) + 2);
    let params = |bytes: u64| (bytes as f64 * 8.0 / 4.5) as u64;
    let shape = Layer {
        attention: FULL,
        attention_params: params(layer) / 4,
        dense_params: params(layer) - params(layer) / 4,
        expert_params: 0,
    };
    let bytes = LayerBytes {
        dense: layer,
        experts: 0,
    };
    model(id, shape, bytes, layers, layer, weight_bytes)
}

/// A mixture of experts: 128 of them, 8 used, that hold nine tenths of each layer.
pub(crate) fn moe(id: &str, layers: u32, weight_bytes: u64) -> Model {
    let layer = weight_bytes / (u64::from(layers) + 1);
    let params = |bytes: u64| (bytes as f64 * 8.0 / 4.5) as u64;
    let shape = Layer {
        attention: FULL,
        attention_params: params(layer) / 10,
        dense_params: 0,
        expert_params: params(layer) - params(layer) / 10,
    };
    let bytes = LayerBytes {
        dense: layer / 10,
        experts: layer - layer / 10,
    };
    let mut model = model(id, shape, bytes, layers, layer / 2, weight_bytes);
    model.experts = 128;
    model.experts_used = 8;
    model
}

fn model(
    id: &str,
    shape: Layer,
    bytes: LayerBytes,
    layers: u32,
    table_bytes: u64,
    weight_bytes: u64,
) -> Model {
    let params = (weight_bytes as f64 * 8.0 / 4.5) as u64;
    Model {
        id: id.into(),
        name: id.into(),
        repo: Some(format!("test/{id}")),
        aliases: Vec::new(),
        architecture: "llama".into(),
        params,
        active_params: params,
        hidden: 8192,
        heads: 64,
        vocab: 128_000,
        tied_embeddings: false,
        max_context: 131_072,
        experts: 0,
        experts_used: 0,
        layers: vec![shape; layers as usize],
        quants: vec![quant(
            "Q4_K_M",
            4.5,
            vec![bytes; layers as usize],
            table_bytes,
        )],
        production: vec!["Q4_K_M".into()],
        missing: Vec::new(),
        source: "a test".into(),
        date: "2026-11-24".into(),
        note: None,
    }
}

pub(crate) fn quant(
    name: &str,
    bits_per_weight: f64,
    layers: Vec<LayerBytes>,
    table_bytes: u64,
) -> Quantization {
    Quantization {
        name: name.into(),
        format: Format::Gguf,
        bits_per_weight,
        weights: Weights {
            embedding_bytes: table_bytes,
            head_bytes: table_bytes,
            tied: false,
            head_type: None,
            shared_bytes: 0,
            layers,
            types: Vec::new(),
        },
        exactness: Exactness::Computed,
        source: "a test".into(),
    }
}

pub(crate) fn load(context: u32) -> Load {
    Load {
        context,
        sequences: 1,
        kv_type: KvType::F16,
        micro_batch: 512,
    }
}

/// Bytes over bandwidth or operations over throughput, whichever takes longer.
pub(crate) struct Roofline;

impl Speed for Roofline {
    fn step_s(&self, pool: &Pool, _runtime: &str, work: &Work) -> Result<f64, FitError> {
        let missing = |fact: &str| FitError::Missing {
            of: pool.device_name.clone(),
            fact: fact.into(),
        };
        let bandwidth = pool.bandwidth_gb_s.ok_or_else(|| missing("bandwidth"))?;
        let tflops = pool.fp16_tflops.ok_or_else(|| missing("throughput"))?;
        let reads = work.bytes() as f64 / (0.7 * bandwidth * 1e9);
        let computes = (work.flops + work.attention_flops) / (0.4 * tflops * 1e12);
        Ok(reads.max(computes) + 20e-6 * f64::from(work.layers))
    }

    fn overlap(&self, _pools: usize, _batches: f64) -> f64 {
        1.0
    }

    fn basis(&self, _rate: Rate, _setting: &Setting) -> Option<String> {
        None
    }

    fn around(&self, mid: f64, _rate: Rate, _setting: &Setting) -> Estimate {
        Estimate {
            low: mid * 0.8,
            mid,
            high: mid * 1.25,
            evidence: Evidence::Estimated,
        }
    }
}
