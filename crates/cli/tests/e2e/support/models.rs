//! Models that are not quite what a stage expects.

use std::fs;
use std::path::Path;

use brigade_gguf::testing::{TinyModel, to_bytes};
use brigade_gguf::{Builder, NewTensor, Source, TensorData, Value};

/// A small model of an architecture that llama.cpp runs and stages do not: it has a llama's keys
/// and tensors under another name.
pub(crate) fn internlm2(path: &Path) {
    let llama = TinyModel::llama(4).untied().without_rope_freqs();
    let rename = |key: &str, value: &Value| match key.strip_prefix("llama.") {
        Some(rest) => (format!("internlm2.{rest}"), value.clone()),
        None if key == "general.architecture" => (key.to_owned(), "internlm2".into()),
        None => (key.to_owned(), value.clone()),
    };
    altered(&llama, path, rename, |_| true);
}

/// A llama with 4 layers, of which the last lacks a tensor.
pub(crate) fn damaged(path: &Path) {
    let same = |key: &str, value: &Value| (key.to_owned(), value.clone());
    altered(&TinyModel::llama(4), path, same, |name| {
        name != "blk.3.ffn_norm.weight"
    });
}

fn altered(
    model: &TinyModel,
    path: &Path,
    key: impl Fn(&str, &Value) -> (String, Value),
    keep: impl Fn(&str) -> bool,
) {
    let original = path.with_extension("original");
    model.write(&original).unwrap();
    let bytes = fs::read(&original).unwrap();
    let source = Source::open(&original).unwrap();
    let header = source.header();
    let mut builder = Builder::new();
    for (name, value) in header.metadata() {
        let (name, value) = key(name, value);
        builder.set(&name, value);
    }
    for info in header.tensors().iter().filter(|info| keep(info.name())) {
        let start = info.offset() as usize;
        builder.tensor(NewTensor {
            name: info.name().to_owned(),
            dims: info.dims().to_vec(),
            ggml_type: info.ggml_type(),
            data: TensorData::Bytes(bytes[start..start + info.bytes() as usize].to_vec()),
        });
    }
    fs::write(path, to_bytes(builder)).unwrap();
    fs::remove_file(original).unwrap();
}
