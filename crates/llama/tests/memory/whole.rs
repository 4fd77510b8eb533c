//! Whole models.

use std::path::Path;

use brigade_fit::memory::{Load, stage};
use brigade_fit::model::Model;
use brigade_gguf::testing::TinyModel;
use brigade_gguf::{GgmlType, Source};
use brigade_llama::Role;

use crate::compare::{Apart, MIB};
use crate::measure;
use crate::{CONTEXTS, HERE, SHAPE, has_amx, load, of_each_type, write};

/// Checks a whole model under some loads.
pub(crate) fn check(apart: &mut Apart, name: &str, path: &Path, loads: &[Load]) {
    let source = Source::open(path).expect("a model");
    let model = Model::from_gguf(source.model(), name).expect("a model that the planner reads");
    assert_eq!(model.missing, Vec::<String>::new(), "{name}");
    let layers = model.layers.len() as u32;
    let loaded = measure::stage(path, Role::Whole, &loads[0]);
    for load in loads {
        let ledger = stage(&model, &model.quants[0], 0..layers, load, HERE, 0);
        let items = ledger.expect("a stage").items();
        apart.check(&format!("{name}, {load:?}"), &items, loaded.with(load));
    }
}

#[test]
fn whole_models_of_nine_architectures() {
    if has_amx("whole_models_of_nine_architectures") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for (name, model, compute_bytes) in [
        ("llama", TinyModel::llama(4), MIB / 8),
        ("llama with experts", TinyModel::llama_moe(4), MIB / 8),
        ("gemma3", TinyModel::gemma3(8), MIB / 8),
        ("qwen2", TinyModel::qwen2(4), MIB / 8),
        ("qwen3moe", TinyModel::qwen3moe(4), MIB / 8),
        ("gpt-oss", TinyModel::gpt_oss(4), MIB / 8),
        ("deepseek2", TinyModel::deepseek2(4), MIB / 8),
        ("lfm2", TinyModel::lfm2(6), MIB / 8),
        ("qwen3next", TinyModel::qwen3next(8), 2 * MIB),
    ] {
        let mut apart = Apart::new(compute_bytes);
        for weights in [GgmlType::Q8_0, GgmlType::Q4_0] {
            let name = format!("{name} {weights}");
            let model = model
                .clone()
                .shape(SHAPE)
                .vocabulary(20_000)
                .weights(weights);
            let path = write(folder.path(), &name, &model);
            let mut loads = CONTEXTS.map(|context| load(context, 1, 512)).to_vec();
            loads.extend([load(4096, 4, 512), load(1000, 3, 64), load(512, 16, 64)]);
            check(&mut apart, &name, &path, &of_each_type(&loads));
        }
        println!("whole, {name}:\n{apart}");
    }
}
