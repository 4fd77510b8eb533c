//! Stages of zeros, to measure what a machine does with weights of some type and sizes: no
//! processor multiplies by a zero sooner than by another number.

use crate::layout::Layout;
use crate::slice::DUMMY_TOKENS;
use crate::value::Value;
use crate::write::{Builder, NewTensor, TensorData};
use crate::{GgmlType, GgufError};

/// A stage in the middle of a llama: hidden states in, hidden states out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synthetic {
    /// Layers.
    pub layers: u32,
    /// Width of a hidden state.
    pub width: u32,
    /// Width of the feed-forward part.
    pub feed_forward: u32,
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Tokens of the context.
    pub context: u32,
    /// Type of the matrices.
    pub weights: GgmlType,
}

impl Synthetic {
    /// The stage file.
    ///
    /// # Errors
    /// If a row of a matrix is no whole number of the type's blocks.
    pub fn layout(&self) -> Result<Layout, GgufError> {
        let mut builder = Builder::new();
        builder.set("general.architecture", "llama".into());
        builder.set("general.name", "calibration".into());
        builder.set("tokenizer.ggml.model", "no_vocab".into());
        let numbers = [
            ("block_count", self.layers),
            ("context_length", self.context),
            ("embedding_length", self.width),
            ("feed_forward_length", self.feed_forward),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("rope.dimension_count", self.width / self.heads.max(1)),
            ("vocab_size", DUMMY_TOKENS),
        ];
        for (key, number) in numbers {
            builder.set(&format!("llama.{key}"), Value::U32(number));
        }
        let epsilon = "llama.attention.layer_norm_rms_epsilon";
        builder.set(epsilon, Value::F32(1e-5));
        let width = u64::from(self.width);
        let mut tensor = |name: &str, ggml_type, dims: &[u64]| {
            builder.tensor(NewTensor {
                name: name.to_owned(),
                dims: dims.to_vec(),
                ggml_type,
                data: TensorData::Zeros,
            });
        };
        let dummy = [width, DUMMY_TOKENS.into()];
        tensor("token_embd.weight", GgmlType::F16, &dummy);
        tensor("output_norm.weight", GgmlType::F32, &[width]);
        for layer in 0..self.layers {
            for name in ["attn_norm", "ffn_norm"] {
                let name = format!("blk.{layer}.{name}.weight");
                tensor(&name, GgmlType::F32, &[width]);
            }
            for (name, [columns, rows]) in self.matrices() {
                let name = format!("blk.{layer}.{name}.weight");
                tensor(&name, self.weights, &[columns, rows]);
            }
        }
        builder.layout()
    }

    /// Bytes of all matrices of the layers.
    pub fn weight_bytes(&self) -> u64 {
        let each = self.matrices();
        let each = each.map(|(_, dims)| self.weights.tensor_bytes(&dims).unwrap_or(0));
        each.iter().sum::<u64>() * u64::from(self.layers)
    }

    /// Weights of all matrices of the layers.
    pub fn params(&self) -> u64 {
        let each = self.matrices().map(|(_, [columns, rows])| columns * rows);
        each.iter().sum::<u64>() * u64::from(self.layers)
    }

    /// Bytes of keys and values of one token, in 16 bits.
    pub fn kv_bytes(&self) -> u64 {
        4 * u64::from(self.layers) * self.kv_width()
    }

    fn kv_width(&self) -> u64 {
        u64::from(self.width / self.heads.max(1)) * u64::from(self.kv_heads)
    }

    fn matrices(&self) -> [(&'static str, [u64; 2]); 7] {
        let [width, inner] = [self.width, self.feed_forward].map(u64::from);
        let kv = self.kv_width();
        [
            ("attn_q", [width, width]),
            ("attn_k", [width, kv]),
            ("attn_v", [width, kv]),
            ("attn_output", [width, width]),
            ("ffn_gate", [width, inner]),
            ("ffn_up", [width, inner]),
            ("ffn_down", [inner, width]),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Segment;

    #[test]
    fn nearly_all_of_it_is_weights_and_all_of_those_are_zeros() {
        let stage = Synthetic {
            layers: 4,
            width: 1024,
            feed_forward: 2816,
            heads: 16,
            kv_heads: 4,
            context: 512,
            weights: GgmlType::from_id(8).unwrap(),
        };
        assert_eq!(stage.kv_bytes(), 4 * 4 * 256);
        assert_eq!(stage.weight_bytes(), stage.params() * 34 / 32);
        let layout = stage.layout().unwrap();
        let zeros = layout
            .segments()
            .iter()
            .filter(|part| matches!(part, Segment::Zeros(_)));
        let zeros: u64 = zeros.map(Segment::len).sum();
        assert!(zeros > stage.weight_bytes() && zeros < stage.weight_bytes() * 102 / 100);
        assert!(layout.len() - zeros < 8192);
    }

    #[test]
    fn rows_that_are_no_blocks_are_refused() {
        let stage = Synthetic {
            layers: 1,
            width: 40,
            feed_forward: 80,
            heads: 1,
            kv_heads: 1,
            context: 8,
            weights: GgmlType::from_id(8).unwrap(),
        };
        assert!(stage.layout().is_err());
    }
}
