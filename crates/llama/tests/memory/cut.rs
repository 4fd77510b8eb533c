//! Stage files of a model: Brigade's, and for architectures that it does not cut, files by hand that
//! are to llama.cpp what Brigade's are.

use std::fs::File;
use std::path::{Path, PathBuf};

use brigade_gguf::{
    Architecture, Builder, DUMMY_TOKENS, Embedding, GgmlType, Layers, NewTensor, Source,
    TensorData, Value, prepare_stage,
};
use brigade_llama::{EmbeddingTable, Role};

/// A stage's file and its place.
pub(crate) struct Cut {
    pub(crate) path: PathBuf,
    pub(crate) role: Role,
}

/// Writes the file of a stage, which is not all of the model, into a folder.
pub(crate) fn cut(source: &Source, layers: Layers, folder: &Path) -> Cut {
    let header = source.header();
    let is_last = layers.is_last(header.block_count().expect("a number of layers"));
    let (path, role) = if Architecture::of(header).is_ok() {
        let files = prepare_stage(source, layers, folder, |_, _| {}).expect("stage files");
        let first = files.embedding.map(|path| Role::First(table(&path)));
        (files.model, first)
    } else {
        (by_hand(source, layers, folder), None)
    };
    let other = if is_last { Role::Last } else { Role::Middle };
    Cut {
        path,
        role: role.unwrap_or(other),
    }
}

fn table(path: &Path) -> EmbeddingTable {
    let source = Source::open(path).expect("the embedding's file");
    let table = Embedding::of(source.model()).expect("an embedding");
    let file = File::open(path).expect("the embedding's file");
    EmbeddingTable::new(
        file,
        table.offset,
        table.rows as u32,
        table.width as usize,
        table.ggml_type.id(),
        table.scale,
    )
    .expect("a table that ggml can read")
}

fn by_hand(source: &Source, layers: Layers, folder: &Path) -> PathBuf {
    let header = source.header();
    let count = header.block_count().expect("a number of layers");
    let is_last = layers.is_last(count);
    let key = |suffix: &str| header.architecture_key(suffix).expect("an architecture");
    let mut builder = Builder::new();
    for (name, value) in header.metadata() {
        match value.as_array() {
            _ if !is_last && name.starts_with("tokenizer.") => {}
            Some(array) if name.starts_with(&key("")) && array.len() == u64::from(count) => {
                let own = array.slice(layers.start.into()..layers.end.into());
                builder.set(name, Value::Array(own.expect("a value for each layer")));
            }
            _ => {
                builder.set_ref(name, value);
            }
        }
    }
    builder.set(&key("block_count"), Value::U32(layers.count()));
    let dense = key("leading_dense_block_count");
    if let Some(dense_layers) = header.get_u32(&dense) {
        let own = dense_layers.saturating_sub(layers.start);
        builder.set(&dense, Value::U32(own));
    }
    if !is_last {
        builder.set("tokenizer.ggml.model", "no_vocab".into());
        builder.set(&key("vocab_size"), Value::U32(DUMMY_TOKENS));
    }
    for tensor in tensors(source, layers, is_last) {
        builder.tensor(tensor);
    }
    let path = folder.join(format!("{}-{}.gguf", layers.start, layers.end));
    let layout = builder.layout().expect("the tensors fit together");
    let mut parts = source.open_files().expect("the model's files");
    let mut file = File::create(&path).expect("the stage's file");
    let written = layout.write_to(&mut parts, &mut file, |_| {});
    written.expect("the stage is written");
    path
}

fn tensors(source: &Source, layers: Layers, is_last: bool) -> Vec<NewTensor> {
    let model = source.model();
    let width = source.header().embedding_length().expect("a width");
    let untied = model.tensor("output.weight").is_some();
    let mut tensors = Vec::new();
    for tensor in model.tensors() {
        let name = tensor.info.name();
        let mut add = |name: &str| {
            tensors.push(NewTensor {
                name: name.to_owned(),
                dims: tensor.info.dims().to_vec(),
                ggml_type: tensor.info.ggml_type(),
                data: TensorData::Copy {
                    part: tensor.part,
                    offset: tensor.info.offset(),
                },
            });
        };
        match (tensor.info.block(), name) {
            (Some((layer, rest)), _) if layers.contains(layer) => {
                add(&format!("blk.{}.{rest}", layer - layers.start));
            }
            (Some(_), _) => {}
            (None, "output.weight") if !is_last && !insists_on_a_head(source) => {}
            (None, "token_embd.weight" | "output.weight") if !is_last => {
                tensors.push(NewTensor {
                    name: name.to_owned(),
                    dims: vec![width.into(), DUMMY_TOKENS.into()],
                    ggml_type: GgmlType::F16,
                    data: TensorData::Zeros,
                });
            }
            (None, "token_embd.weight") if untied && !insists_on_a_head(source) => {}
            (None, "output.weight") if !insists_on_a_head(source) => add("token_embd.weight"),
            (None, name) => add(name),
        }
    }
    tensors
}

/// Whether llama.cpp never takes the embedding for the head, so that both are in a last stage's file.
pub(crate) fn insists_on_a_head(source: &Source) -> bool {
    source.header().architecture().ok() == Some("gpt-oss")
}
