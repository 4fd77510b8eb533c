//! Each stage of a cut.

use std::path::Path;

use brigade_fit::memory::{Load, stage};
use brigade_fit::model::Model;
use brigade_gguf::testing::TinyModel;
use brigade_gguf::{GgmlType, Layers, Source, plan_cuts};
use brigade_llama::Role;

use crate::compare::{Apart, MIB};
use crate::cut::{cut, insists_on_a_head};
use crate::measure;
use crate::{CONTEXTS, HERE, SHAPE, has_amx, load, of_each_type, write};

/// Checks each stage of a cut under some loads.
pub(crate) fn check(apart: &mut Apart, name: &str, path: &Path, stages: &[Layers], loads: &[Load]) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = Source::open(path).expect("a model");
    let model = Model::from_gguf(source.model(), name).expect("a model that the planner reads");
    assert_eq!(model.missing, Vec::<String>::new(), "{name}");
    let quant = &model.quants[0];
    let mut caches = vec![0; loads.len()];
    for &layers in stages {
        let cut = cut(&source, layers, folder.path());
        let insists = insists_on_a_head(&source) && matches!(cut.role, Role::Last);
        let loaded = measure::stage(&cut.path, cut.role, &loads[0]);
        for (load, cache) in loads.iter().zip(&mut caches) {
            let range = layers.start..layers.end;
            let mut ledger = stage(&model, quant, range, load, HERE, 0).expect("a stage");
            if insists {
                // Its file would have an embedding that nothing reads, and a head.
                let range = layers.start as usize..layers.end as usize;
                ledger.weights = quant.weights.stage(range) + quant.weights.embedding_bytes;
            }
            let actual = loaded.with(load);
            *cache += actual.kv + actual.state;
            let what = format!("{name}, {layers:?}, {load:?}");
            apart.check(&what, &ledger.items(), actual);
        }
    }
    for (load, cache) in loads.iter().zip(caches) {
        let layers = model.layers.len() as u32;
        let all = stage(&model, quant, 0..layers, load, HERE, 0).expect("a stage");
        let apart = (all.kv + all.state).abs_diff(cache);
        assert!(apart <= MIB / 16, "{name}, {load:?}");
    }
}

#[test]
fn stages_of_nine_architectures() {
    if has_amx("stages_of_nine_architectures") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    // What llama.cpp derives from a layer's index, Brigade writes out; by hand, cuts are where it
    // comes out right.
    for (name, model, cuts, compute_bytes) in [
        ("llama", TinyModel::llama(9), [3, 6], MIB / 8),
        (
            "llama untied",
            TinyModel::llama(9).untied(),
            [3, 6],
            MIB / 8,
        ),
        (
            "llama with experts",
            TinyModel::llama_moe(9),
            [3, 6],
            MIB / 8,
        ),
        ("gemma3", TinyModel::gemma3(9), [3, 6], MIB / 8),
        ("qwen2", TinyModel::qwen2(9), [3, 6], MIB / 8),
        ("qwen3moe", TinyModel::qwen3moe(9), [3, 6], MIB / 8),
        ("gpt-oss", TinyModel::gpt_oss(12), [4, 8], MIB / 8),
        ("deepseek2", TinyModel::deepseek2(9), [3, 6], MIB / 8),
        ("lfm2", TinyModel::lfm2(9), [3, 6], MIB / 8),
        ("qwen3next", TinyModel::qwen3next(12), [4, 8], MIB / 2),
    ] {
        let mut apart = Apart::new(compute_bytes);
        for weights in [GgmlType::Q8_0, GgmlType::Q4_0] {
            let name = format!("{name} {weights}");
            let model = model.clone().shape(SHAPE).vocabulary(8000).weights(weights);
            let path = write(folder.path(), &name, &model);
            let source = Source::open(&path).expect("a model");
            let count = source.header().block_count().expect("a number of layers");
            let stages = plan_cuts(count, &cuts).expect("cuts within the model");
            let loads = CONTEXTS.map(|context| load(context, 4, 64));
            check(&mut apart, &name, &path, &stages, &of_each_type(&loads));
        }
        println!("stages, {name}:\n{apart}");
    }
}
