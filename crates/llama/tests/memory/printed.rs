//! Plans' ledgers, as `brigade plan` prints them for CPUs.

use std::path::Path;

use brigade_fit::catalog::Catalog;
use brigade_fit::cluster::{Cluster, Link, Links, Node};
use brigade_fit::machine::Machine;
use brigade_fit::memory::NodeLedger;
use brigade_fit::model::Model;
use brigade_fit::speed::SpeedModel;
use brigade_fit::verdict::{Ask, assess_given};
use brigade_gguf::testing::TinyModel;
use brigade_gguf::{GgmlType, Layers, Source, Value, plan_cuts};
use brigade_llama::Role;

use crate::compare::{Apart, MIB};
use crate::cut::cut;
use crate::{CONTEXTS, KV_TYPES, SHAPE, has_amx, measure, write};

/// A CPU of this one's kind.
const CPU: &str = if cfg!(target_arch = "aarch64") {
    "cortex-a76-cm5"
} else {
    "ryzen-9-9950x"
};

/// So many nodes with a CPU each.
fn cluster(catalog: &Catalog, count: usize) -> Cluster {
    let pool = catalog.pool(CPU, Some(64 << 30)).expect("a CPU");
    let node = |index| Node {
        name: format!("node-{index}"),
        machine: Machine {
            id: CPU.to_owned(),
            name: CPU.to_owned(),
            pools: vec![pool.clone()],
        },
    };
    Cluster {
        id: "cpus".to_owned(),
        name: "CPUs".to_owned(),
        nodes: (0..count).map(node).collect(),
        links: Links::Uniform(Link {
            id: "a link".to_owned(),
            name: "a link".to_owned(),
            latency_ms: 1.0,
            bandwidth_gb_s: 1.0,
            rdma: None,
            source: "a test".to_owned(),
        }),
    }
}

fn ledger(catalog: &Catalog, model: &Model, stages: &[Layers], ask: &Ask) -> Vec<NodeLedger> {
    let given = stages.iter().enumerate();
    let given = given.map(|(node, layers)| (node, layers.start..layers.end));
    let cluster = cluster(catalog, stages.len());
    let speed = SpeedModel::new(catalog);
    let assessed = assess_given(model, &cluster, ask, &speed, &given.collect());
    let (verdict, _) = assessed.expect("a division of the layers");
    verdict.ledger
}

fn check(apart: &mut Apart, catalog: &Catalog, name: &str, path: &Path, cuts: &[u32]) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Source::open(path).expect("a model");
    let model = Model::from_gguf(source.model(), name).expect("a model that the planner reads");
    let stages = plan_cuts(model.layers.len() as u32, cuts).expect("cuts within the model");
    let asks = CONTEXTS.iter().flat_map(|&context| {
        KV_TYPES.map(|kv_type| Ask {
            context,
            kv_type,
            sequences: 4,
            ..Ask::default()
        })
    });
    let asks: Vec<Ask> = asks.collect();
    for (index, &layers) in stages.iter().enumerate() {
        let load = |ask: &Ask| brigade_fit::memory::Load {
            context: ask.context,
            sequences: ask.sequences,
            kv_type: ask.kv_type,
            micro_batch: brigade_fit::verdict::MICRO_BATCH,
        };
        let loaded = if let [_] = stages[..] {
            measure::stage(path, Role::Whole, &load(&asks[0]))
        } else {
            let cut = cut(&source, layers, folder.path());
            measure::stage(&cut.path, cut.role, &load(&asks[0]))
        };
        for ask in &asks {
            let ledger = ledger(catalog, &model, &stages, ask);
            assert_eq!(ledger[index].layers, layers.start..layers.end, "{name}");
            let [pool] = &ledger[index].pools[..] else {
                panic!("{name}: {:?}", ledger[index]);
            };
            let sum = pool.items.iter().map(|item| item.bytes).sum::<u64>();
            assert_eq!(pool.working_set_bytes, sum, "{name}");
            let load = load(ask);
            let what = format!("{name}, {layers:?}, {load:?}");
            apart.check(&what, &pool.items, loaded.with(&load));
        }
    }
}

#[test]
fn ledgers_of_plans_for_cpus() {
    if has_amx("ledgers_of_plans_for_cpus") {
        return;
    }
    let catalog = Catalog::embedded().expect("a catalog");
    let folder = tempfile::tempdir().expect("a folder");
    let longest = CONTEXTS.iter().copied().max().unwrap_or(0);
    for (name, model, weights) in [
        ("llama", TinyModel::llama(9), GgmlType::Q8_0),
        ("llama, repacked", TinyModel::llama(9), GgmlType::Q4_0),
        ("llama untied", TinyModel::llama(9).untied(), GgmlType::Q4_0),
        ("gemma3", TinyModel::gemma3(9), GgmlType::Q8_0),
    ] {
        let mut apart = Apart::new(MIB / 8);
        // A plan's context is at most the model's own.
        let architecture = if name == "gemma3" { "gemma3" } else { "llama" };
        let key = format!("{architecture}.context_length");
        let model = model.shape(SHAPE).vocabulary(20_000).weights(weights);
        let model = model.with_key(&key, Value::U32(longest));
        let path = write(folder.path(), name, &model);
        check(&mut apart, &catalog, name, &path, &[]);
        check(&mut apart, &catalog, name, &path, &[3, 6]);
        println!("plans, {name}:\n{apart}");
    }
}
