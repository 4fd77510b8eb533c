//! Models that are not quite what a stage expects.

use std::fs;
use std::path::Path;

use brigade_gguf::testing::{TinyModel, to_bytes};
use brigade_gguf::{Builder, NewTensor, Segment, Source, TensorData, Value};

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

/// A llama whose feed-forward parts take 300 GB: a header, and a file that is all hole.
pub(crate) fn huge(path: &Path) {
    const TIMES: u64 = 1 << 20;
    let tiny = path.with_extension("tiny");
    TinyModel::llama(4).write(&tiny).unwrap();
    let source = Source::open(&tiny).unwrap();
    let mut builder = Builder::new();
    for (name, value) in source.header().metadata() {
        builder.set_ref(name, value);
    }
    let width = source
        .header()
        .get_u32("llama.feed_forward_length")
        .unwrap();
    let wide = u64::from(width) * TIMES;
    builder.set("llama.feed_forward_length", Value::U32(wide as u32));
    for info in source.header().tensors() {
        let is_wide = |&dim: &u64| dim == u64::from(width);
        let dims = info.dims().iter();
        builder.tensor(NewTensor {
            name: info.name().to_owned(),
            dims: dims
                .map(|dim| if is_wide(dim) { wide } else { *dim })
                .collect(),
            ggml_type: info.ggml_type(),
            data: TensorData::Zeros,
        });
    }
    let layout = builder.layout().unwrap();
    let Some(Segment::Bytes(head)) = layout.segments().first() else {
        panic!("a file begins with its header");
    };
    fs::write(path, head).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(layout.len()).unwrap();
    fs::remove_file(tiny).unwrap();
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
