//! Which bytes of a model make a stage.
//!
//! A stage file is a model of its own to llama.cpp: its layers count from 0 and the keys say
//! that there are no others. Only the last stage has a vocabulary and the head. Every other
//! one hands hidden states on and never computes what follows them, so a small dummy stands
//! for each tensor that the loader insists on. The first stage looks up its embedding rows
//! itself, in a file beside its own, because llama.cpp would reserve logits for a whole
//! vocabulary if the stage file had one.

use crate::architecture::{Architecture, is_per_layer};
use crate::layout::Layout;
use crate::model::{Model, ModelTensor, SPLIT_PREFIX};
use crate::value::{Array, Value};
use crate::write::{Builder, NewTensor, TensorData};
use crate::{GgmlType, GgufError, Layers};

/// Tokens of the vocabulary that a stage other than the last pretends to have.
pub const DUMMY_TOKENS: u32 = 32;

const EMBEDDING: &str = "token_embd.weight";
const HEAD: &str = "output.weight";
const HEAD_NORM: &str = "output_norm.weight";

/// Bytes of a stage's weights, without headers and padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StageBytes {
    /// Tensors of the stage file.
    pub stage: u64,
    /// The embedding beside it, if it is the first of several stages.
    pub embedding: u64,
}

impl StageBytes {
    /// Both.
    pub fn total(self) -> u64 {
        self.stage + self.embedding
    }
}

/// A model's token embedding, for a stage that looks up rows itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Embedding {
    /// Which of the model's files, from 0.
    pub part: usize,
    /// Where it starts, in bytes from the start of that file.
    pub offset: u64,
    /// Its element type.
    pub ggml_type: GgmlType,
    /// Elements of a row: the width of a hidden state.
    pub width: u32,
    /// Rows: tokens of the vocabulary.
    pub rows: u64,
    /// Bytes of a row; row `i` starts at `offset + i * row_bytes`.
    pub row_bytes: u64,
    /// What a row is multiplied by before the first layer.
    pub scale: f32,
}

impl Embedding {
    /// Finds the embedding of a model, or of the file beside a first stage.
    pub fn of(model: &Model) -> Result<Self, GgufError> {
        let header = model.header();
        let architecture = Architecture::of(header)?;
        let width = header.embedding_length()?;
        let ModelTensor { part, info } = model
            .tensor(EMBEDDING)
            .ok_or_else(|| GgufError::MissingTensor(EMBEDDING.into()))?;
        let &[row, rows] = info.dims() else {
            return Err(GgufError::Malformed(format!("`{EMBEDDING}` is no matrix")));
        };
        let row_bytes = info.ggml_type().row_bytes(row);
        match row_bytes {
            Some(row_bytes) if row == u64::from(width) => Ok(Self {
                part,
                offset: info.offset(),
                ggml_type: info.ggml_type(),
                width,
                rows,
                row_bytes,
                scale: architecture.embedding_scale(width),
            }),
            _ => Err(GgufError::Malformed(format!(
                "`{EMBEDDING}` has rows of {row}, the model a width of {width}"
            ))),
        }
    }

    /// Bytes of the whole tensor.
    pub fn bytes(&self) -> u64 {
        self.rows * self.row_bytes
    }
}

/// Bytes of the weights of the stage with these layers, without writing it.
pub fn stage_bytes(model: &Model, layers: Layers) -> Result<StageBytes, GgufError> {
    let count = model.header().block_count()?;
    layers.check(count)?;
    if layers.is_whole(count) {
        return Ok(StageBytes {
            stage: model.tensor_bytes(),
            embedding: 0,
        });
    }
    let cut = Cut::new(model, layers)?;
    let mut bytes = StageBytes::default();
    for tensor in cut.tensors()? {
        bytes.stage += tensor.bytes()?;
    }
    if layers.is_first() {
        bytes.embedding = cut.embedding.bytes();
    }
    Ok(bytes)
}

/// The stage file with these layers, which are not all that the model has.
pub fn stage_layout(model: &Model, layers: Layers) -> Result<Layout, GgufError> {
    let cut = Cut::new(model, layers)?;
    let mut builder = Builder::new();
    cut.metadata(&mut builder)?;
    for tensor in cut.tensors()? {
        builder.tensor(tensor);
    }
    builder.layout()
}

/// The file beside the first stage: the token embedding, and the numbers that describe it.
pub fn embedding_layout(model: &Model) -> Result<Layout, GgufError> {
    let header = model.header();
    let embedding = Embedding::of(model)?;
    let prefix = header.architecture_key("")?;
    let mut builder = Builder::new();
    for (key, value) in header.metadata() {
        let describes = key.starts_with(&prefix) && value.as_array().is_none();
        if describes || key == "general.architecture" || key == "general.alignment" {
            builder.set_ref(key, value);
        }
    }
    builder.tensor(NewTensor {
        name: EMBEDDING.into(),
        dims: vec![embedding.width.into(), embedding.rows],
        ggml_type: embedding.ggml_type,
        data: TensorData::Copy {
            part: embedding.part,
            offset: embedding.offset,
        },
    });
    builder.layout()
}

/// A range of layers that can be cut out.
struct Cut<'a> {
    model: &'a Model,
    architecture: &'static Architecture,
    layers: Layers,
    layer_count: u32,
    embedding: Embedding,
}

impl<'a> Cut<'a> {
    fn new(model: &'a Model, layers: Layers) -> Result<Self, GgufError> {
        let header = model.header();
        let architecture = Architecture::of(header)?;
        let layer_count = header.block_count()?;
        architecture.check_range(layer_count, layers)?;
        Ok(Self {
            model,
            architecture,
            layers,
            layer_count,
            embedding: Embedding::of(model)?,
        })
    }

    fn is_last(&self) -> bool {
        self.layers.is_last(self.layer_count)
    }

    fn tensors(&self) -> Result<Vec<NewTensor>, GgufError> {
        let width = u64::from(self.embedding.width);
        let mut tensors = Vec::new();
        if !self.is_last() {
            tensors.push(zeros(
                EMBEDDING,
                GgmlType::F16,
                &[width, DUMMY_TOKENS.into()],
            ));
            tensors.push(zeros(HEAD_NORM, GgmlType::F32, &[width]));
        }
        let untied = self.model.tensor(HEAD).is_some();
        for tensor in self.model.tensors() {
            let name = tensor.info.name();
            if let Some((layer, rest)) = tensor.info.block() {
                if layer >= self.layer_count {
                    return Err(GgufError::Malformed(format!(
                        "tensor `{name}` belongs to no layer: there are {}",
                        self.layer_count
                    )));
                }
                if self.layers.contains(layer) {
                    let name = format!("blk.{}.{rest}", layer - self.layers.start);
                    tensors.push(copy(name, tensor));
                }
            } else if self.architecture.is_shared(name) {
                tensors.push(copy(name.into(), tensor));
            } else if self.is_last() {
                match name {
                    EMBEDDING if untied => {}
                    // Without a tensor of its own for the head, llama.cpp takes the embedding.
                    HEAD => tensors.push(copy(EMBEDDING.into(), tensor)),
                    _ => tensors.push(copy(name.into(), tensor)),
                }
            }
        }
        Ok(tensors)
    }

    fn metadata(&self, builder: &mut Builder<'a>) -> Result<(), GgufError> {
        let header = self.model.header();
        let prefix = header.architecture_key("")?;
        for (key, value) in header.metadata() {
            if key.starts_with(SPLIT_PREFIX) {
                continue;
            }
            if !self.is_last() && key.starts_with("tokenizer.") {
                continue;
            }
            let per_layer = match (key.strip_prefix(&prefix), value) {
                (Some(suffix), Value::Array(array)) => {
                    is_per_layer(suffix, array.len(), self.layer_count).then_some(array)
                }
                _ => None,
            };
            match per_layer {
                Some(array) => builder.set(key, Value::Array(self.slice(key, array)?)),
                None => builder.set_ref(key, value),
            };
        }
        builder.set(
            &format!("{prefix}block_count"),
            Value::U32(self.layers.count()),
        );
        if !self.is_last() {
            builder.set("tokenizer.ggml.model", "no_vocab".into());
            builder.set(&format!("{prefix}vocab_size"), Value::U32(DUMMY_TOKENS));
        }
        self.window(builder)
    }

    /// Writes out which layers attend to a window, which llama.cpp would derive from indices.
    fn window(&self, builder: &mut Builder<'a>) -> Result<(), GgufError> {
        if !self.architecture.has_window() {
            return Ok(());
        }
        let header = self.model.header();
        let pattern = self.architecture.window_pattern(header, self.layer_count)?;
        let pattern = pattern
            .as_deref()
            .map(|all| &all[self.layers.start as usize..self.layers.end as usize])
            .unwrap_or_default();
        let [window_key, pattern_key] = self.architecture.window_keys();
        if pattern.contains(&true) {
            builder.set(&pattern_key, Value::Array(Array::of_bool(pattern)));
        } else {
            // llama.cpp aborts on a window that no layer uses.
            builder.unset(&window_key).unset(&pattern_key);
        }
        Ok(())
    }

    fn slice(&self, key: &str, array: &Array) -> Result<Array, GgufError> {
        let range = u64::from(self.layers.start)..u64::from(self.layers.end);
        array
            .slice(range)
            .ok_or_else(|| GgufError::Malformed(format!("`{key}` ends too early")))
    }
}

fn copy(name: String, tensor: ModelTensor<'_>) -> NewTensor {
    NewTensor {
        name,
        dims: tensor.info.dims().to_vec(),
        ggml_type: tensor.info.ggml_type(),
        data: TensorData::Copy {
            part: tensor.part,
            offset: tensor.info.offset(),
        },
    }
}

fn zeros(name: &str, ggml_type: GgmlType, dims: &[u64]) -> NewTensor {
    NewTensor {
        name: name.into(),
        dims: dims.to_vec(),
        ggml_type,
        data: TensorData::Zeros,
    }
}
