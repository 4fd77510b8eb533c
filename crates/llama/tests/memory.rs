//! The planner's memory ledger against what llama.cpp allocates, for whole models and for
//! stages, of several architectures, at three contexts.
//!
//! Two things that the ledger counts otherwise than llama.cpp are allowed for, and nothing else:
//!
//! - The token embedding of a first stage lies in a mapped file beside the stage's, so it is no
//!   part of what llama.cpp allocates; the ledger counts it.
//! - llama.cpp keeps a head that is also the embedding, as in the last stage's file, a second time
//!   where the head's type is one that ggml repacks (or a GPU computes it); the ledger counts one.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use brigade_fit::memory::{KvType, Load, StageBytes, stage};
use brigade_fit::model::Model;
use brigade_gguf::testing::{Shape, TinyModel};
use brigade_gguf::{Embedding, GgmlType, Layers, Source, plan_cuts, prepare_stage};
use brigade_llama::{EmbeddingTable, LlamaStage, MemoryUse, Role, Setup, StageConfig};
use brigade_wire::StageParams;

const MIB: u64 = 1 << 20;
const CONTEXTS: [u32; 3] = [512, 4096, 16_384];

fn load(context: u32, sequences: u32, micro_batch: u32) -> Load {
    Load {
        context,
        sequences,
        kv_type: KvType::F16,
        micro_batch,
    }
}

/// llama.cpp says what it allocates in a log that the whole process shares.
static LOG: Mutex<()> = Mutex::new(());

/// What llama.cpp allocates.
fn allocated(path: &Path, role: Role, load: &Load) -> MemoryUse {
    let config = StageConfig {
        path: path.to_owned(),
        role,
        params: StageParams {
            context_tokens: load.context,
            sequences: load.sequences,
            batch_tokens: load.micro_batch,
            flash_attention: true,
            draft_tokens: 0,
        },
        threads: 1,
        rpc: Vec::new(),
        setup: Setup::Stage,
        devices: None,
    };
    let _alone = LOG.lock().unwrap_or_else(PoisonError::into_inner);
    LlamaStage::load(config)
        .expect("the stage loads")
        .memory_use()
}

/// The largest differences seen, in bytes.
#[derive(Default, Debug)]
struct Worst {
    weights: u64,
    cache: u64,
    compute: u64,
}

impl Worst {
    /// Weights and cache are exact but for what llama.cpp's log rounds; compute buffers are
    /// within 2 % or `compute_slack` bytes. `copy` is the size of a head that may be there twice.
    fn check(
        &mut self,
        what: &str,
        ledger: StageBytes,
        actual: MemoryUse,
        copy: u64,
        compute_slack: u64,
    ) {
        let cache = ledger.kv + ledger.state;
        let once = ledger.weights.abs_diff(actual.weights_bytes);
        let twice = (ledger.weights + copy).abs_diff(actual.weights_bytes);
        let weights = once.min(twice);
        let kv = cache.abs_diff(actual.kv_bytes);
        let compute = ledger.compute.abs_diff(actual.compute_bytes);
        // 0.01 MiB for each line of the log, alignment, and the dummies of stages without a head.
        let rounding = MIB / 16;
        let seen = format!("{what}: {ledger:?}, {actual:?}");
        assert!(
            weights <= rounding.max(actual.weights_bytes / 1000),
            "{seen}"
        );
        assert!(kv <= rounding, "{seen}");
        let slack = compute_slack.max(actual.compute_bytes / 50);
        assert!(compute <= slack, "{seen}");
        self.weights = self.weights.max(weights);
        self.cache = self.cache.max(kv);
        self.compute = self.compute.max(compute);
    }
}

/// Checks a whole model under some loads.
fn whole(worst: &mut Worst, name: &str, path: &Path, loads: &[Load], compute_slack: u64) {
    let source = Source::open(path).expect("a model");
    let model = Model::from_gguf(source.model(), name).expect("a model that the planner reads");
    assert_eq!(model.missing, Vec::<String>::new(), "{name}");
    let weights = &model.quants[0].weights;
    let copy = if weights.tied {
        weights.embedding_bytes
    } else {
        0
    };
    for load in loads {
        let layers = model.layers.len() as u32;
        let ledger = stage(&model, &model.quants[0], 0..layers, load, 0).expect("a stage");
        let actual = allocated(path, Role::Whole, load);
        worst.check(
            &format!("{name}, {load:?}"),
            ledger,
            actual,
            copy,
            compute_slack,
        );
    }
}

/// Wide enough for every term to count, with few enough weights to be quick.
const SHAPE: Shape = Shape {
    width: 512,
    heads: 8,
    kv_heads: 4,
    head_width: 64,
    feed_forward: 1024,
    experts: 6,
    experts_used: 2,
    window: 300,
};

fn write(folder: &Path, name: &str, model: &TinyModel) -> PathBuf {
    let path = folder.join(format!("{name}.gguf"));
    model.write(&path).expect("the model is written");
    path
}

#[test]
fn whole_models_of_nine_architectures() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut worst = Worst::default();
    for (name, model) in [
        ("llama", TinyModel::llama(4)),
        ("llama with experts", TinyModel::llama_moe(4)),
        ("gemma3", TinyModel::gemma3(8)),
        ("qwen2", TinyModel::qwen2(4)),
        ("qwen3moe", TinyModel::qwen3moe(4)),
        ("gpt-oss", TinyModel::gpt_oss(4)),
        ("deepseek2", TinyModel::deepseek2(4)),
        ("lfm2", TinyModel::lfm2(6)),
        ("qwen3next", TinyModel::qwen3next(8)),
    ] {
        let model = model.shape(SHAPE).vocabulary(8000).weights(GgmlType::Q8_0);
        let path = write(folder.path(), name, &model);
        let mut loads: Vec<Load> = CONTEXTS.map(|context| load(context, 1, 512)).into();
        loads.extend([load(4096, 4, 512), load(1000, 3, 64)]);
        whole(&mut worst, name, &path, &loads, 4 * MIB);
    }
    println!("whole models: at most {worst:?} bytes apart");
}

/// Layers of the sizes of large models, of which few stand for all: compute buffers are those of
/// the largest layer.
#[test]
fn compute_buffers_of_large_layers() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut worst = Worst::default();
    let shape = |[
        width,
        heads,
        kv_heads,
        head_width,
        feed_forward,
        experts_used,
    ]: [u32; 6]| Shape {
        width,
        heads,
        kv_heads,
        head_width,
        feed_forward,
        experts: experts_used.max(1),
        experts_used,
        window: 128,
    };
    for (name, model, sizes, slack) in [
        (
            "Llama 3 8B",
            TinyModel::llama(2),
            [4096, 32, 8, 128, 14_336, 0],
            MIB,
        ),
        (
            "Gemma 3 4B",
            TinyModel::gemma3(6),
            [2560, 8, 4, 256, 10_240, 0],
            MIB,
        ),
        (
            "Qwen 3 30B",
            TinyModel::qwen3moe(2),
            [2048, 32, 4, 128, 768, 8],
            MIB,
        ),
        (
            "gpt-oss 120b",
            TinyModel::gpt_oss(2),
            [2880, 64, 8, 64, 2880, 4],
            MIB,
        ),
        (
            "DeepSeek 3",
            TinyModel::deepseek2(2),
            [7168, 128, 1, 128, 2048, 8],
            MIB,
        ),
        (
            "Qwen 3 Next",
            TinyModel::qwen3next(4),
            [2048, 32, 16, 128, 512, 10],
            16 * MIB,
        ),
        (
            "narrow experts",
            TinyModel::qwen3moe(2),
            [2048, 16, 4, 128, 256, 8],
            16 * MIB,
        ),
    ] {
        let model = model.shape(shape(sizes)).weights(GgmlType::Q4_0);
        let path = write(folder.path(), name, &model);
        whole(
            &mut worst,
            name,
            &path,
            &[load(4096, 1, 512), load(512, 2, 64)],
            slack,
        );
        std::fs::remove_file(path).expect("the model is there");
    }
    println!("large layers: at most {worst:?} bytes apart");
}

#[test]
fn stages_of_a_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut worst = Worst::default();
    for (name, model) in [
        ("llama", TinyModel::llama(6)),
        ("llama untied", TinyModel::llama(6).untied()),
        ("llama with experts", TinyModel::llama_moe(6)),
        ("gemma3", TinyModel::gemma3(6)),
    ] {
        let model = model.shape(SHAPE).vocabulary(8000).weights(GgmlType::Q8_0);
        let path = write(folder.path(), name, &model);
        let source = Source::open(&path).expect("a model");
        let planned = Model::from_gguf(source.model(), name).expect("a model");
        let quant = &planned.quants[0];
        for load in CONTEXTS.map(|context| load(context, 4, 64)) {
            let mut cache = 0;
            // In its last layer llama.cpp reserves for the rows of the outputs only: at least two.
            for layers in plan_cuts(6, &[2, 4]).expect("cuts within the model") {
                let files = prepare_stage(&source, layers, folder.path(), |_, _| {});
                let files = files.expect("stage files");
                let range = layers.start..layers.end;
                let mut ledger = stage(&planned, quant, range, &load, 0).expect("a stage");
                let role = role(layers, files.embedding.as_deref());
                if matches!(role, Role::First(_)) {
                    ledger.weights -= quant.weights.embedding_bytes;
                }
                let weights = &quant.weights;
                let copy = match role {
                    Role::Last if weights.tied => weights.embedding_bytes,
                    Role::Last => weights.head_bytes,
                    _ => 0,
                };
                let actual = allocated(&files.model, role, &load);
                cache += actual.kv_bytes;
                worst.check(
                    &format!("{name}, {layers:?}, {load:?}"),
                    ledger,
                    actual,
                    copy,
                    MIB,
                );
            }
            let all = stage(&planned, quant, 0..6, &load, 0).expect("a stage");
            assert!(all.kv.abs_diff(cache) <= MIB / 16, "{name}, {load:?}");
        }
    }
    println!("stages: at most {worst:?} bytes apart");
}

fn role(layers: Layers, embedding: Option<&Path>) -> Role {
    let Some(path) = embedding else {
        return if layers.is_last(6) {
            Role::Last
        } else {
            Role::Middle
        };
    };
    let source = Source::open(path).expect("the embedding's file");
    let table = Embedding::of(source.model()).expect("an embedding");
    let file = std::fs::File::open(path).expect("the embedding's file");
    let table = EmbeddingTable::new(
        file,
        table.offset,
        table.rows as u32,
        table.width as usize,
        table.ggml_type.id(),
        table.scale,
    );
    Role::First(table.expect("a table that ggml can read"))
}

/// The demo's models, where they have been fetched.
#[test]
fn real_models() {
    let Some(folder) = std::env::var_os("BRIGADE_TEST_MODELS").map(PathBuf::from) else {
        println!("BRIGADE_TEST_MODELS names no folder: no real model was checked");
        return;
    };
    let mut worst = Worst::default();
    let files = std::fs::read_dir(folder).expect("the folder");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|name| name == "gguf"));
    paths.sort();
    assert!(!paths.is_empty(), "no model is there");
    for path in paths {
        let mut loads: Vec<Load> = CONTEXTS.map(|context| load(context, 1, 512)).into();
        loads.extend([load(4096, 4, 64), load(4096, 16, 64)]);
        whole(&mut worst, &path.display().to_string(), &path, &loads, MIB);
    }
    println!("real models: at most {worst:?} bytes apart");
}
