//! Layers of the sizes of large models, of which few stand for all: compute buffers are those of the
//! largest layer.

use brigade_gguf::GgmlType;
use brigade_gguf::testing::{Shape, TinyModel};

use crate::compare::{Apart, MIB};
use crate::{has_amx, load, of_each_type, whole, write};

#[test]
fn compute_buffers_of_large_layers() {
    if has_amx("compute_buffers_of_large_layers") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
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
    for (name, model, sizes, compute_bytes) in [
        (
            "Llama 3 8B",
            TinyModel::llama(2),
            [4096, 32, 8, 128, 14_336, 0],
            MIB / 8,
        ),
        (
            "Gemma 3 4B",
            TinyModel::gemma3(6),
            [2560, 8, 4, 256, 10_240, 0],
            MIB / 8,
        ),
        (
            "Qwen 3 30B",
            TinyModel::qwen3moe(2),
            [2048, 32, 4, 128, 768, 8],
            MIB / 8,
        ),
        (
            "gpt-oss 120b",
            TinyModel::gpt_oss(2),
            [2880, 64, 8, 64, 2880, 4],
            MIB / 8,
        ),
        (
            "DeepSeek 3",
            TinyModel::deepseek2(2),
            [7168, 128, 1, 128, 2048, 8],
            MIB / 8,
        ),
        (
            "Qwen 3 Next",
            TinyModel::qwen3next(4),
            [2048, 32, 16, 128, 512, 10],
            4 * MIB,
        ),
        (
            "narrow experts",
            TinyModel::qwen3moe(2),
            [2048, 16, 4, 128, 256, 8],
            MIB / 8,
        ),
    ] {
        let mut apart = Apart::new(compute_bytes);
        let model = model.shape(shape(sizes)).weights(GgmlType::Q4_0);
        let path = write(folder.path(), name, &model);
        let loads = [load(4096, 1, 512), load(512, 2, 64)];
        whole::check(&mut apart, name, &path, &of_each_type(&loads));
        std::fs::remove_file(path).expect("the model is there");
        println!("large layers, {name}:\n{apart}");
    }
}
