//! How long the planner takes: `cargo bench -p brigade-fit`. Where machines and models are made up,
//! what counts is how many there are and how much they differ.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use brigade_fit::FitError;
use brigade_fit::catalog::Catalog;
use brigade_fit::cluster::{Cluster, Link, Links, Node};
use brigade_fit::evidence::{Estimate, Evidence};
use brigade_fit::machine::{Machine, Pool, PoolKind};
use brigade_fit::model::{
    Attention, Exactness, Format, Layer, LayerBytes, Model, Quantization, Weights,
};
use brigade_fit::page::ComboPage;
use brigade_fit::placement::Objective;
use brigade_fit::speed::{Rate, Speed};
use brigade_fit::speed::{Setting, SpeedModel, Work};
use brigade_fit::text::{self, Style};
use brigade_fit::verdict::{Ask, Detail, assess, plan};

/// Runs of each; the median is shown.
const RUNS: usize = 9;

fn main() -> ExitCode {
    whole_catalog();
    real_machines();
    let models: Vec<Model> = (0..60)
        .map(|index| model(20 + 2 * (index % 50), 2 + 5 * u64::from(index)))
        .collect();
    let quad = cluster(4, |_| (64, 273.0), Wiring::Same);
    report("60 models on 4 equal nodes", 50, || {
        for model in &models {
            black_box(assess(model, &quad, &Ask::default(), &Roofline).ok());
        }
    });
    report("one model in full, 4 equal nodes", 50, || {
        let ask = Ask {
            detail: Detail::Full,
            ..Ask::default()
        };
        black_box(assess(&models[40], &quad, &ask, &Roofline).ok());
    });
    let uneven = |index: u64| (24 + 8 * index % 200, 120.0 + 17.0 * index as f64);
    let large = model(94, 200);
    for (nodes, wiring, most_ms) in [
        (8, Wiring::Same, 50),
        (8, Wiring::Pairs, 50),
        (64, Wiring::Same, 1000),
        (64, Wiring::Pairs, 1000),
    ] {
        let cluster = cluster(nodes, uneven, wiring);
        for objective in [
            Objective::OneStream,
            Objective::ManyStreams,
            Objective::LargestContext,
        ] {
            let ask = Ask {
                objective: Some(objective),
                ..Ask::default()
            };
            let name = format!("{objective:?} on {nodes} uneven nodes, links {wiring:?}");
            report(&name, most_ms, || {
                black_box(plan(&large, &cluster, &ask, &Roofline).ok());
            });
        }
    }
    if FAILED.load(Ordering::Relaxed) {
        println!("something took longer than it may");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// What `brigade fit --on` does, from the embedded files to the text of the page.
fn whole_catalog() {
    report("the catalog, read", 25, || {
        black_box(Catalog::embedded().ok());
    });
    let Ok(catalog) = Catalog::embedded() else {
        return;
    };
    for id in ["quad-mac-mini-m4-pro-64gb", "quad-strix-halo-128gb"] {
        let Some(combo) = catalog.combo(id) else {
            continue;
        };
        let name = format!("the catalog's models on {id}");
        report(&name, 50, || {
            let speed = SpeedModel::new(&catalog);
            let page = ComboPage::new(&catalog, &combo.cluster, &Ask::default(), &speed);
            black_box(
                page.map(|page| text::render(&page, Style::Plain, text::WIDTH))
                    .ok(),
            );
        });
    }
}

/// Machines of the catalog that differ in everything, with the speeds that are in use.
fn real_machines() {
    let Ok(catalog) = Catalog::embedded() else {
        return;
    };
    let eight = "mac-studio-m3-ultra-256gb + pc-dual-rtx-3090-64gb + strix-halo-128gb \
                 + mac-mini-m4-pro-64gb + pc-rtx-5090-96gb + dgx-spark-128gb \
                 + mac-mini-m4-pro-48gb + macbook-pro-m4-max-128gb, link=10gbe";
    let cluster = catalog.cluster(eight);
    let model = catalog.model("qwen3-235b-a22b");
    let (Ok(cluster), Ok(model)) = (cluster, model) else {
        println!("the catalog has lost what is planned here");
        FAILED.store(true, Ordering::Relaxed);
        return;
    };
    let speed = SpeedModel::new(&catalog);
    for objective in [
        None,
        Some(Objective::OneStream),
        Some(Objective::ManyStreams),
        Some(Objective::LargestContext),
    ] {
        let ask = Ask {
            objective,
            ..Ask::default()
        };
        let aim = objective.map_or("no objective".into(), |aim| format!("{aim:?}"));
        let name = format!("{aim} on 8 machines of the catalog");
        report(&name, 50, || {
            black_box(plan(model, &cluster, &ask, &speed).ok());
        });
    }
}

/// Whether something took longer than it may.
static FAILED: AtomicBool = AtomicBool::new(false);

fn report(name: &str, most_ms: u64, run: impl Fn()) {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            run();
            start.elapsed()
        })
        .collect();
    times.sort();
    let median = times[RUNS / 2].as_secs_f64() * 1e3;
    println!("{name:55} {median:8.2} ms (at most {most_ms})");
    if median > most_ms as f64 {
        FAILED.store(true, Ordering::Relaxed);
    }
}

#[derive(Debug, Clone, Copy)]
enum Wiring {
    Same,
    Pairs,
}

fn link(latency_ms: f64) -> Link {
    Link {
        id: "l".into(),
        name: "l".into(),
        latency_ms,
        bandwidth_gb_s: 1.25,
        rdma: None,
        source: "made up".into(),
    }
}

fn cluster(nodes: u64, of: impl Fn(u64) -> (u64, f64), wiring: Wiring) -> Cluster {
    let node = |index: u64| {
        let (gib, bandwidth_gb_s) = of(index);
        let memory_bytes = gib << 30;
        let pool = Pool {
            kind: PoolKind::Unified,
            device: format!("device-{bandwidth_gb_s}"),
            device_name: "a device".into(),
            family: "apple".into(),
            memory_bytes,
            limit_bytes: memory_bytes / 100 * 81,
            limit_reason: "made up".into(),
            runtime_bytes: 512 << 20,
            bandwidth_gb_s: Some(bandwidth_gb_s),
            fp16_tflops: Some(bandwidth_gb_s / 16.0),
            fp32_tflops: None,
            calibration: None,
            note: None,
        };
        Node {
            name: format!("node-{}", index + 1),
            machine: Machine {
                id: format!("m-{index}"),
                name: "a machine".into(),
                pools: vec![pool],
            },
        }
    };
    let latency = |from: u64, to: u64| 0.2 + 0.05 * ((from * 7 + to * 3) % 11) as f64;
    Cluster {
        id: "made-up".into(),
        name: "Made up".into(),
        nodes: (0..nodes).map(node).collect(),
        links: match wiring {
            Wiring::Same => Links::Uniform(link(0.3)),
            Wiring::Pairs => Links::Pairs(
                (0..nodes)
                    .map(|from| {
                        (0..nodes)
                            .map(|to| (from != to).then(|| link(latency(from, to))))
                            .collect()
                    })
                    .collect(),
            ),
        },
    }
}

fn model(layers: u32, weights_gb: u64) -> Model {
    let bytes = weights_gb * 1_000_000_000 / (u64::from(layers) + 2);
    let params = (bytes as f64 * 8.0 / 4.8) as u64;
    let layer = Layer {
        attention: Attention::Full {
            kv_heads: 8,
            key_dim: 128,
            value_dim: 128,
        },
        attention_params: params / 4,
        dense_params: params - params / 4,
        expert_params: 0,
    };
    let own = LayerBytes {
        dense: bytes,
        experts: 0,
    };
    Model {
        id: "m".into(),
        name: "m".into(),
        repo: None,
        aliases: Vec::new(),
        architecture: "llama".into(),
        params: params * u64::from(layers),
        active_params: params * u64::from(layers),
        hidden: 8192,
        heads: 64,
        vocab: 128_000,
        tied_embeddings: false,
        max_context: 131_072,
        experts: 0,
        experts_used: 0,
        layers: vec![layer; layers as usize],
        quants: vec![Quantization {
            name: "Q4_K_M".into(),
            format: Format::Gguf,
            bits_per_weight: 4.8,
            weights: Weights {
                head_type: None,
                embedding_bytes: bytes,
                head_bytes: bytes,
                tied: false,
                shared_bytes: 0,
                layers: vec![own; layers as usize],
                types: Vec::new(),
            },
            exactness: Exactness::Computed,
            source: "made up".into(),
        }],
        production: vec!["Q4_K_M".into()],
        missing: Vec::new(),
        source: "made up".into(),
        date: "2026-11-24".into(),
        note: None,
    }
}

struct Roofline;

impl Speed for Roofline {
    fn step_s(&self, pool: &Pool, _runtime: &str, work: &Work) -> Result<f64, FitError> {
        let bandwidth = pool.bandwidth_gb_s.unwrap_or(1.0) * 0.7e9;
        let flops = pool.fp16_tflops.unwrap_or(1.0) * 0.4e12;
        let computed = work.flops + work.attention_flops;
        Ok((work.bytes() as f64 / bandwidth).max(computed / flops))
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
