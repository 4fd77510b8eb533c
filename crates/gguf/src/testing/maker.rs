//! Tensors of random numbers.

use super::random::Random;
use crate::GgmlType;
use crate::write::{NewTensor, TensorData};

/// The tensors of a model, in the order in which they are made.
pub(super) struct Maker {
    random: Random,
    weights: GgmlType,
    pub(super) tensors: Vec<NewTensor>,
}

impl Maker {
    pub(super) fn new(seed: u64, weights: GgmlType) -> Self {
        Self {
            random: Random::new(seed),
            weights,
            tensors: Vec::new(),
        }
    }

    /// Of the model's type, or of 32-bit floats where its rows are no whole blocks.
    pub(super) fn matrix(&mut self, name: &str, dims: &[u64]) {
        let fits = self.weights.row_bytes(dims[0]).is_some();
        let ggml_type = if fits { self.weights } else { GgmlType::F32 };
        self.matrix_of(name, ggml_type, dims);
    }

    pub(super) fn matrix_of(&mut self, name: &str, ggml_type: GgmlType, dims: &[u64]) {
        // A row times a vector of unit variance has unit variance.
        let deviation = 1.0 / (dims[0] as f32).sqrt();
        let count = dims.iter().product();
        let bytes = self.random.weights(ggml_type, count, deviation);
        self.push(name, dims, ggml_type, bytes);
    }

    /// Numbers near 1.
    pub(super) fn norm(&mut self, name: &str, len: u64) {
        let values = (0..len).map(|_| 1.0 + 0.1 * self.random.symmetric());
        let values: Vec<_> = values.collect();
        self.floats(name, &values);
    }

    /// Numbers near 0, in any shape.
    pub(super) fn bias(&mut self, name: &str, dims: &[u64]) {
        let count: u64 = dims.iter().product();
        let values = (0..count).map(|_| 0.1 * self.random.symmetric());
        let bytes = values.flat_map(f32::to_le_bytes).collect();
        self.push(name, dims, GgmlType::F32, bytes);
    }

    pub(super) fn floats(&mut self, name: &str, values: &[f32]) {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.push(name, &[values.len() as u64], GgmlType::F32, bytes);
    }

    fn push(&mut self, name: &str, dims: &[u64], ggml_type: GgmlType, bytes: Vec<u8>) {
        self.tensors.push(NewTensor {
            name: name.into(),
            dims: dims.to_vec(),
            ggml_type,
            data: TensorData::Bytes(bytes),
        });
    }
}
