//! Whether the shapes of the tensors are those that the keys tell.

use super::attention::Kept;
use super::keys::Keys;
use crate::model::Attention;

/// What of a layer's tensors tells what it keeps: the rows of matrices, by llama.cpp's names.
#[derive(Clone, Default)]
struct Rows<'a> {
    queries: Option<u64>,
    keys: Option<u64>,
    values: Option<u64>,
    fused: Option<u64>,
    latent: Option<u64>,
    /// A tensor that only a layer with a state has.
    state: Option<&'a str>,
}

/// Reports what the keys say and the tensors contradict; of the layers, the first only.
pub(super) fn check(gguf: &brigade_gguf::Model, keys: &Keys<'_>, kept: &Kept) {
    let width = u64::from(keys.u32("embedding_length"));
    let row = gguf
        .tensor("token_embd.weight")
        .and_then(|tensor| tensor.info.dims().first().copied());
    if let Some(row) = row.filter(|row| *row != width) {
        let reason = format!("it is {width}, but a row of token_embd.weight has {row}");
        keys.report("embedding_length", &reason);
    }
    // Sizes that the keys do not tell contradict nothing.
    if !keys.is_sound() {
        return check_experts(gguf, keys);
    }
    let layers = rows(gguf, kept.layers.len());
    let fact = layers
        .iter()
        .enumerate()
        .take(kept.own)
        .find_map(|(layer, rows)| contradiction(keys, kept, layer, rows));
    if let Some(fact) = fact {
        keys.report_fact(fact);
    }
    check_experts(gguf, keys);
}

fn rows(gguf: &brigade_gguf::Model, count: usize) -> Vec<Rows<'_>> {
    let mut layers = vec![Rows::default(); count];
    for tensor in gguf.tensors() {
        let Some((index, name)) = tensor.info.block() else {
            continue;
        };
        let Some(layer) = layers.get_mut(index as usize) else {
            continue;
        };
        let rows = Some(tensor.info.dims().get(1).copied().unwrap_or(1));
        match name {
            "attn_q.weight" => layer.queries = rows,
            "attn_k.weight" => layer.keys = rows,
            "attn_v.weight" => layer.values = rows,
            "attn_qkv.weight" => layer.fused = rows,
            "attn_kv_a_mqa.weight" => layer.latent = rows,
            name if name.starts_with("ssm_") || name.starts_with("shortconv.") => {
                layer.state = Some(tensor.info.name());
            }
            _ => {}
        }
    }
    layers
}

/// The fact of a layer that its tensors contradict.
fn contradiction(keys: &Keys<'_>, kept: &Kept, layer: usize, rows: &Rows<'_>) -> Option<String> {
    let kind = |is: &str, tensor: &str| {
        Some(format!(
            "kind of layer {layer}: by its keys it {is}, but there is {tensor}"
        ))
    };
    let attends = || match rows.state {
        Some(tensor) => kind("attends", tensor),
        None => None,
    };
    match kept.layers[layer] {
        Attention::Full {
            kv_heads,
            key_dim,
            value_dim,
        }
        | Attention::Sliding {
            kv_heads,
            key_dim,
            value_dim,
            ..
        } => {
            let sizes = [kv_heads, key_dim, value_dim];
            attends().or_else(|| widths(layer, kept.heads[layer], sizes, rows))
        }
        Attention::Latent {
            kv_lora_rank,
            rope_dims,
            ..
        } => {
            let own = u64::from(kv_lora_rank) + u64::from(rope_dims);
            let differs = rows.latent.filter(|rows| *rows != own).map(|rows| {
                format!(
                    "width of keys: by attention.kv_lora_rank and attention.key_length {own}, \
                     but blk.{layer}.attn_kv_a_mqa.weight has {rows} rows"
                )
            });
            let grouped = rows.keys.and_then(|_| {
                kind(
                    "keeps keys compressed",
                    &format!("blk.{layer}.attn_k.weight"),
                )
            });
            attends().or(grouped).or(differs)
        }
        Attention::Recurrent { .. } | Attention::None => {
            // Kimi's linear attention makes keys and does not keep them.
            let makes = matches!(keys.architecture(), "kimi-linear" | "bailingmoe3");
            rows.keys
                .filter(|_| !makes)
                .and_then(|_| kind("keeps no keys", &format!("blk.{layer}.attn_k.weight")))
        }
    }
}

/// Widths of keys and values that are not the matrices' that make them.
fn widths(layer: usize, heads: u32, sizes: [u32; 3], rows: &Rows<'_>) -> Option<String> {
    let [kv_heads, key, value] = sizes;
    let width = |heads: u32, dim: u32| u64::from(heads).saturating_mul(dim.into());
    let says = |what: &str, heads: u32, dim: u32, tensor: &str, rows: u64| {
        Some(format!(
            "width of {what}: {heads} heads of {dim} by the file's keys, but \
             blk.{layer}.{tensor}.weight has {rows} rows"
        ))
    };
    if let Some(rows) = rows.keys.filter(|rows| *rows != width(kv_heads, key)) {
        return says("keys", kv_heads, key, "attn_k", rows);
    }
    if let Some(rows) = rows.values.filter(|rows| *rows != width(kv_heads, value)) {
        return says("values", kv_heads, value, "attn_v", rows);
    }
    // Some models make a gate beside each query.
    let queries = rows.queries.filter(|rows| {
        let own = width(heads, key);
        *rows != own && *rows != own.saturating_mul(2)
    });
    if let (Some(rows), Some(_)) = (queries, rows.keys) {
        return says("queries", heads, key, "attn_q", rows);
    }
    // What the queries have of it differs between architectures.
    let both = width(kv_heads, key).saturating_add(width(kv_heads, value));
    let fused = rows.fused.filter(|rows| *rows <= both)?;
    says("keys and values", kv_heads, key, "attn_qkv", fused)
}

/// Reports a number of experts that is not that of the tensors.
fn check_experts(gguf: &brigade_gguf::Model, keys: &Keys<'_>) {
    let mut in_layers = gguf.tensors().filter_map(|tensor| {
        let (layer, name) = tensor.info.block()?;
        let own = (layer as usize) < keys.layers() && name.ends_with("_exps.weight");
        match tensor.info.dims() {
            [_, _, experts] if own => Some((tensor.info.name(), *experts)),
            _ => None,
        }
    });
    let Some(first) = in_layers.next() else {
        let count = keys.u32("expert_count");
        let dense = keys.u32("leading_dense_block_count") as usize;
        // One expert is how some files write none.
        if count > 1 && dense < keys.layers() {
            let reason = format!("it is {count}, but no layer has experts");
            keys.report("expert_count", &reason);
        }
        return;
    };
    let count = keys.need("expert_count");
    let mut all = std::iter::once(first).chain(in_layers);
    if let Some((name, experts)) = all.find(|(_, experts)| *experts != u64::from(count)) {
        let reason = format!("it is {count}, but {name} has {experts}");
        keys.report("expert_count", &reason);
    }
    let used = keys.largest("expert_used_count");
    if used == 0 {
        keys.lacks("expert_used_count");
    } else if used > count && count > 0 {
        let reason = format!("it is {used} of {count} experts");
        keys.report("expert_used_count", &reason);
    }
}
