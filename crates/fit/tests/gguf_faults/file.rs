//! A file whose keys and tensors a test can change.

use brigade_fit::FitError;
use brigade_fit::model::Model;
use brigade_gguf::testing::to_bytes;
use brigade_gguf::{Array, Builder, GgmlType, Header, NewTensor, TensorData, Value};

pub(crate) fn read(bytes: Vec<u8>) -> Result<Model, FitError> {
    let header = Header::read(&mut std::io::Cursor::new(bytes)).expect("a header");
    let gguf = brigade_gguf::Model::from_headers(vec![header]).expect("a model");
    Model::from_gguf(&gguf, "some")
}

/// A llama of four layers, 512 wide, of 8 heads that share 2 of keys and values.
#[derive(Clone)]
pub(crate) struct File {
    pub(crate) architecture: &'static str,
    pub(crate) keys: Vec<(String, Value)>,
    tensors: Vec<(String, Vec<u64>)>,
}

impl File {
    pub(crate) fn new() -> Self {
        let keys = [
            ("block_count", 4),
            ("context_length", 32_768),
            ("embedding_length", 512),
            ("feed_forward_length", 256),
            ("attention.head_count", 8),
            ("attention.head_count_kv", 2),
        ];
        let mut file = Self {
            architecture: "llama",
            keys: keys
                .map(|(key, number)| (key.to_owned(), Value::U32(number)))
                .into(),
            tensors: Vec::new(),
        }
        .tensor("token_embd.weight", &[512, 256])
        .tensor("output_norm.weight", &[512]);
        for layer in 0..4 {
            for (name, dims) in [
                ("attn_q", [512, 512]),
                ("attn_k", [512, 128]),
                ("attn_v", [512, 128]),
                ("attn_output", [512, 512]),
                ("ffn_up", [512, 256]),
                ("ffn_gate", [512, 256]),
                ("ffn_down", [256, 512]),
            ] {
                file = file.tensor(&format!("blk.{layer}.{name}.weight"), &dims);
            }
        }
        file
    }

    pub(crate) fn of(self, architecture: &'static str) -> Self {
        Self {
            architecture,
            ..self
        }
    }

    pub(crate) fn tensor(mut self, name: &str, dims: &[u64]) -> Self {
        self.tensors.retain(|(other, _)| other != name);
        self.tensors.push((name.to_owned(), dims.to_vec()));
        self
    }

    /// Without the tensors whose names have this in them.
    pub(crate) fn without(mut self, part: &str) -> Self {
        self.tensors.retain(|(name, _)| !name.contains(part));
        self
    }

    pub(crate) fn set(mut self, key: &str, value: Option<Value>) -> Self {
        self.keys.retain(|(other, _)| other != key);
        self.keys.extend(value.map(|value| (key.to_owned(), value)));
        self
    }

    pub(crate) fn number(self, key: &str, number: u32) -> Self {
        self.set(key, Some(Value::U32(number)))
    }

    pub(crate) fn list(self, key: &str, numbers: &[u32]) -> Self {
        self.set(key, Some(Value::Array(Array::of_u32(numbers))))
    }

    pub(crate) fn read(&self) -> Result<Model, FitError> {
        let mut builder = Builder::new();
        builder.set("general.architecture", self.architecture.into());
        for (key, value) in &self.keys {
            builder.set(&format!("{}.{key}", self.architecture), value.clone());
        }
        for (name, dims) in &self.tensors {
            builder.tensor(NewTensor {
                name: name.clone(),
                dims: dims.clone(),
                ggml_type: GgmlType::F16,
                data: TensorData::Zeros,
            });
        }
        read(to_bytes(builder))
    }

    pub(crate) fn model(&self) -> Model {
        self.read().expect("a model")
    }

    pub(crate) fn error(&self) -> String {
        self.read().expect_err("it is refused").to_string()
    }
}
