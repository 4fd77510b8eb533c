//! What layers keep besides keys and values: a state, or what an indexer needs.

use super::keys::Keys;

/// Both parts of one sequence's state, in 32-bit floats, as `n_embd_r` and `n_embd_s` of
/// `llama-hparams.cpp` count them; `key_width` is that of a key.
pub(super) fn state_bytes(keys: &Keys<'_>, key_width: u32) -> u64 {
    let architecture = keys.architecture();
    // The key without which the state of such an architecture has no size.
    let own = match architecture {
        "rwkv6" | "rwkv6qwen2" | "rwkv7" | "arwkv7" => Some("wkv.head_size"),
        "lfm2" | "lfm2moe" => Some("shortconv.l_cache"),
        "kimi-linear" | "bailingmoe3" => Some("kda.head_dim"),
        _ => None,
    };
    let is_linear = architecture == "minimax-01";
    match own {
        Some(key) => {
            keys.need(key);
        }
        None if is_linear => {}
        None => {
            for key in ["ssm.conv_kernel", "ssm.inner_size", "ssm.state_size"] {
                keys.need(key);
            }
            // The first generation has no groups, and files of plamo2 have 0.
            if !matches!(architecture, "mamba" | "jamba" | "plamo2") {
                keys.need("ssm.group_count");
            }
        }
    }
    let key = |key: &str| u128::from(keys.u32(key));
    let hidden = key("embedding_length");
    let heads = u128::from(keys.largest("attention.head_count"));
    let before = |kernel: u128| kernel.saturating_sub(1);
    let wkv = key("wkv.head_size");
    let short = key("shortconv.l_cache");
    let delta = key("kda.head_dim");
    if (delta > 0 || is_linear) && heads == 0 {
        keys.lacks("attention.head_count");
    }
    let convolution = match (wkv, short, delta) {
        (1.., _, _) => {
            let shifts = keys.opt_u32("token_shift_count").unwrap_or(2);
            u128::from(shifts) * hidden
        }
        (0, 1.., _) => hidden * before(short),
        (0, 0, 1..) => {
            let kernel = keys.opt_u32("ssm.conv_kernel").unwrap_or(4);
            3 * before(kernel.into()) * heads * delta
        }
        _ => {
            let groups = 2 * key("ssm.group_count") * key("ssm.state_size");
            before(key("ssm.conv_kernel")).saturating_mul(key("ssm.inner_size") + groups)
        }
    };
    let state = match (wkv, delta) {
        (1.., _) => hidden * wkv,
        (0, 1..) => delta * delta * heads,
        _ if is_linear => {
            let width = u128::from(key_width);
            width * width * heads
        }
        _ => key("ssm.state_size") * key("ssm.inner_size"),
    };
    let bytes = convolution.saturating_add(state).saturating_mul(4);
    bytes.try_into().unwrap_or(u64::MAX)
}

/// Width of the key that each layer keeps for choosing what to attend to; 0 for none.
pub(super) fn indexers(keys: &Keys<'_>) -> Vec<u32> {
    if !matches!(keys.architecture(), "deepseek32" | "glm-dsa") {
        return vec![0; keys.layers()];
    }
    let width = keys.need("attention.indexer.key_length");
    let flag = |flag: bool| if flag { width } else { 0 };
    match keys.architecture() {
        "glm-dsa" => match keys.flags("attention.indexer.types") {
            Some(types) => types.into_iter().map(flag).collect(),
            // GLM 5.2: the first two layers, then the first of every four; before it, all.
            None if keys.u32("context_length") >= 1 << 20 => (0..keys.layers())
                .map(|layer| flag(layer < 2 || (layer - 2).is_multiple_of(4)))
                .collect(),
            None => vec![width; keys.layers()],
        },
        _ => vec![width; keys.layers()],
    }
}
