//! A model from the headers of its GGUF files.

mod attention;
mod blocks;
mod keys;
mod shapes;
mod state;

use brigade_gguf::ModelTensor;

use super::{Exactness, Format, Layer, LayerBytes, Model, Quantization, TypeBytes, Weights};
use crate::FitError;
use attention::attention;
use keys::Keys;

impl Model {
    /// What the headers of a model's files tell: shapes, and one quantization with the exact
    /// bytes of its tensors. Blocks for multi-token prediction count nowhere: llama.cpp does not
    /// load them. What an unknown architecture keeps in its cache, and what the keys leave out,
    /// have of a wrong type or say against the tensors' shapes, is named in
    /// [`missing`](Model::missing). The date and the repository are left empty.
    ///
    /// # Errors
    /// If a key without which there is no model is missing or makes no sense, or if the tensors
    /// are of other layers than the file says it has.
    pub fn from_gguf(gguf: &brigade_gguf::Model, id: &str) -> Result<Self, FitError> {
        let keys = Keys::new(gguf.header(), id)?;
        blocks::check(gguf, &keys)?;
        let (hidden, max_context) = (
            keys.positive("embedding_length")?,
            keys.positive("context_length")?,
        );
        let count = keys.layers();
        let kept = attention(&keys);
        shapes::check(gguf, &keys, &kept);
        let mut layers: Vec<Layer> = kept
            .layers
            .into_iter()
            .map(|attention| Layer {
                attention,
                attention_params: 0,
                dense_params: 0,
                expert_params: 0,
            })
            .collect();
        let mut weights = Weights {
            embedding_bytes: 0,
            head_bytes: 0,
            tied: gguf.tensor("output.weight").is_none(),
            head_type: gguf.tensor(head(gguf)).map(|head| head.info.ggml_type()),
            shared_bytes: 0,
            layers: vec![LayerBytes::default(); count],
            types: types(gguf, count),
        };
        let mut outside: u64 = 0;
        for tensor in gguf.tensors() {
            outside = outside.saturating_add(place(tensor, &mut layers, &mut weights));
        }
        let sum = |part: fn(&Layer) -> u64| layers.iter().map(part).fold(0, u64::saturating_add);
        let routed = sum(|layer| layer.expert_params);
        let other = outside
            .saturating_add(sum(|layer| layer.attention_params))
            .saturating_add(sum(|layer| layer.dense_params));
        let params = other.saturating_add(routed);
        let (experts, experts_used) = (keys.u32("expert_count"), keys.largest("expert_used_count"));
        let used =
            u128::from(routed) * u128::from(experts_used.min(experts)) / u128::from(experts.max(1));
        let quant = quantization(gguf, weights, params);
        Ok(Self {
            id: id.to_owned(),
            name: gguf.header().name().unwrap_or(id).to_owned(),
            repo: None,
            aliases: Vec::new(),
            architecture: keys.architecture().to_owned(),
            params,
            active_params: other.saturating_add(u64::try_from(used).unwrap_or(u64::MAX)),
            hidden,
            heads: kept.heads.into_iter().max().unwrap_or(0),
            vocab: vocabulary(gguf, &keys),
            tied_embeddings: quant.weights.tied,
            max_context,
            experts,
            experts_used,
            layers,
            production: vec![quant.name.clone()],
            quants: vec![quant],
            missing: keys.faults(),
            source: "the header of its GGUF file".to_owned(),
            date: String::new(),
            note: None,
        })
    }
}

/// The types of the tensors, the vectors and the routed experts of which stand for themselves.
fn types(gguf: &brigade_gguf::Model, layers: usize) -> Vec<TypeBytes> {
    let head = head(gguf);
    let mut types: Vec<TypeBytes> = Vec::new();
    for tensor in gguf.tensors() {
        let info = tensor.info;
        let in_layer = info
            .block()
            .is_some_and(|(index, _)| (index as usize) < layers);
        let in_head = info.name() == head;
        // Vectors are read in no time; their type says nothing of the matrices.
        if info.dims().len() < 2 || !(in_layer || in_head) {
            continue;
        }
        let own = info.ggml_type();
        let index = types
            .iter()
            .position(|known| known.ggml_type == own.name())
            .unwrap_or_else(|| {
                types.push(TypeBytes {
                    ggml_type: own.name(),
                    bits: own.block_bytes() as f64 * 8.0 / own.block_elements() as f64,
                    layer_bytes: 0,
                    head_bytes: 0,
                });
                types.len() - 1
            });
        let sum = if in_head {
            &mut types[index].head_bytes
        } else {
            &mut types[index].layer_bytes
        };
        *sum = sum.saturating_add(info.bytes());
    }
    types
}

/// Name of the tensor that is the head.
fn head(gguf: &brigade_gguf::Model) -> &'static str {
    if gguf.tensor("output.weight").is_some() {
        "output.weight"
    } else {
        "token_embd.weight"
    }
}

/// Counts a tensor where it lies; gives its elements if that is outside the layers.
fn place(tensor: ModelTensor<'_>, layers: &mut [Layer], weights: &mut Weights) -> u64 {
    let info = tensor.info;
    let elements = info
        .dims()
        .iter()
        .fold(1, |all: u64, &dim| all.saturating_mul(dim));
    let add = |sum: &mut u64, what| *sum = sum.saturating_add(what);
    let Some((index, name)) = info.block() else {
        let sum = match info.name() {
            name if name.starts_with("output") => &mut weights.head_bytes,
            // Factors of positions, and embeddings that layers add for themselves.
            name if name.starts_with("rope") || name.starts_with("per_layer") => {
                &mut weights.shared_bytes
            }
            _ => &mut weights.embedding_bytes,
        };
        add(sum, info.bytes());
        return elements;
    };
    let index = index as usize;
    // Blocks beyond the last layer predict several tokens.
    let (Some(layer), Some(bytes)) = (layers.get_mut(index), weights.layers.get_mut(index)) else {
        return 0;
    };
    let feed_forward = name.starts_with("ffn_") || name.starts_with("exp_probs");
    if name.contains("_exps.") {
        add(&mut layer.expert_params, elements);
        add(&mut bytes.experts, info.bytes());
    } else {
        let is_dense = feed_forward && !name.contains("norm");
        let params = if is_dense {
            &mut layer.dense_params
        } else {
            &mut layer.attention_params
        };
        add(params, elements);
        add(&mut bytes.dense, info.bytes());
    }
    0
}

fn vocabulary(gguf: &brigade_gguf::Model, keys: &Keys<'_>) -> u32 {
    let rows = gguf
        .tensor("token_embd.weight")
        .and_then(|tensor| tensor.info.dims().get(1).copied())
        .and_then(|rows| u32::try_from(rows).ok());
    rows.unwrap_or_else(|| keys.need("vocab_size"))
}

fn quantization(gguf: &brigade_gguf::Model, weights: Weights, params: u64) -> Quantization {
    let bytes = weights.total();
    Quantization {
        name: quant_name(gguf),
        format: Format::Gguf,
        bits_per_weight: bytes as f64 * 8.0 / params.max(1) as f64,
        weights,
        exactness: Exactness::Tensors,
        source: "the tensors of its GGUF file".to_owned(),
    }
}

/// By `general.file_type`, numbered as `llama_ftype` in llama.cpp's `llama.h`; else the type
/// that most bytes have.
fn quant_name(gguf: &brigade_gguf::Model) -> String {
    const NAMES: [(u32, &str); 35] = [
        (0, "F32"),
        (1, "F16"),
        (2, "Q4_0"),
        (3, "Q4_1"),
        (7, "Q8_0"),
        (8, "Q5_0"),
        (9, "Q5_1"),
        (10, "Q2_K"),
        (11, "Q3_K_S"),
        (12, "Q3_K_M"),
        (13, "Q3_K_L"),
        (14, "Q4_K_S"),
        (15, "Q4_K_M"),
        (16, "Q5_K_S"),
        (17, "Q5_K_M"),
        (18, "Q6_K"),
        (19, "IQ2_XXS"),
        (20, "IQ2_XS"),
        (21, "Q2_K_S"),
        (22, "IQ3_XS"),
        (23, "IQ3_XXS"),
        (24, "IQ1_S"),
        (25, "IQ4_NL"),
        (26, "IQ3_S"),
        (27, "IQ3_M"),
        (28, "IQ2_S"),
        (29, "IQ2_M"),
        (30, "IQ4_XS"),
        (31, "IQ1_M"),
        (32, "BF16"),
        (36, "TQ1_0"),
        (37, "TQ2_0"),
        (38, "MXFP4"),
        (39, "NVFP4"),
        (40, "Q1_0"),
    ];
    if let Some(number) = gguf.header().get_u32("general.file_type")
        && let Some((_, name)) = NAMES.iter().find(|(id, _)| *id == number)
    {
        return (*name).to_owned();
    }
    let mut bytes: Vec<(&str, u64)> = Vec::new();
    for tensor in gguf.tensors() {
        let name = tensor.info.ggml_type().name();
        match bytes.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum = sum.saturating_add(tensor.info.bytes()),
            None => bytes.push((name, tensor.info.bytes())),
        }
    }
    let most = bytes.iter().max_by_key(|(_, sum)| *sum);
    most.map_or("F32", |(name, _)| name).to_owned()
}
