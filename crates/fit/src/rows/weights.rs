//! Bytes of weights that a token reads: by tensors where a model is known, else by parameters and bits.

use super::names::Facts;
use crate::model::{Model, Quantization};
use crate::speed::classes::Engine;
use crate::speed::quants::Quant;
use crate::speed::quants::QuantClass;

/// Weights by where they are read, in 10⁹ bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weights {
    /// What every token touches; of a mixture of experts, the head only.
    pub(crate) dense: f64,
    /// What else a token touches in a mixture of experts.
    pub(crate) experts: f64,
    /// The whole file.
    pub(crate) file: f64,
}

impl Weights {
    /// Of a model's tensors, as plans count them.
    pub(crate) fn of_tensors(model: &Model, quant: &Quantization) -> Self {
        let weights = &quant.weights;
        let used = model.touched_share(1);
        let layers = weights.layers.iter();
        let body: f64 = layers
            .map(|layer| layer.dense as f64 + layer.experts as f64 * used)
            .sum();
        let tied = if weights.tied {
            weights.embedding_bytes
        } else {
            0
        };
        let head = (weights.head_bytes + tied) as f64 / 1e9;
        Self::new(
            model.experts > 0,
            body / 1e9,
            head,
            weights.total() as f64 / 1e9,
        )
    }

    /// Of parameters, by the bits of a usual mix.
    pub(crate) fn estimated(facts: &Facts, quant: Quant, engine: Engine) -> Self {
        let table_b = match (facts.vocab, facts.hidden) {
            (Some(vocab), Some(hidden)) => vocab * hidden / 1e9,
            _ => 0.0,
        };
        let tables = if facts.tied { 1.0 } else { 2.0 } * table_b;
        let body_b = (facts.active_b - tables).max(0.5 * facts.active_b);
        let (bits, head_bits) = (quant.body_bits, quant.head_bits);
        let head = table_b * head_bits / 8.0;
        let (body, file) = if quant.class == QuantClass::Mxfp4 {
            // Attention and tables are in 8 bits.
            let rest = (0.3 * facts.active_b - table_b).max(0.1).min(body_b);
            (
                (body_b - rest) * bits / 8.0 + rest * 8.5 / 8.0,
                (facts.params_b - 2.0 * table_b - rest) * bits / 8.0
                    + (rest + 2.0 * table_b) * 8.5 / 8.0,
            )
        } else if quant.class == QuantClass::Q2 && facts.moe && engine == Engine::Ds4 {
            // Experts in 2 bits, attention in 8.
            let rest = 0.35 * facts.active_b;
            (
                (body_b - rest).max(0.0) * bits / 8.0 + rest * 8.5 / 8.0,
                (facts.params_b - rest) * bits / 8.0 + rest,
            )
        } else {
            let embedding = if facts.tied {
                0.0
            } else {
                table_b * bits.min(head_bits) / 8.0
            };
            (
                body_b * bits / 8.0,
                (facts.params_b - tables).max(0.0) * bits / 8.0 + head + embedding,
            )
        };
        Self::new(facts.moe, body, head, file)
    }

    fn new(moe: bool, body: f64, head: f64, file: f64) -> Self {
        let (dense, experts) = if moe {
            (head, body)
        } else {
            (head + body, 0.0)
        };
        Self {
            dense,
            experts,
            file,
        }
    }

    /// In a file of a stated size.
    pub(crate) fn scaled(self, file: Option<f64>) -> Self {
        let Some(file) = file else { return self };
        let scale = file / self.file.max(1e-3);
        Self {
            dense: self.dense * scale,
            experts: self.experts * scale,
            file,
        }
    }
}
