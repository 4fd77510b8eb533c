//! What each layer keeps, by architecture.
//!
//! After llama.cpp's `load_arch_hparams` of each architecture, `llama_model::create_memory`,
//! and `n_embd_r` and `n_embd_s` in `llama-hparams.cpp`.

use super::keys::Keys;
use crate::model::Attention;

/// Which layers of an architecture keep what.
#[derive(Clone, Copy)]
enum Pattern {
    /// The whole context on every layer.
    Full,
    /// A window on all but one of `period` layers: the last of them, or the first.
    Window {
        period: u32,
        full_first: bool,
        width: Width,
    },
    /// A window on the layers that the file lists.
    Listed,
    /// A compressed vector on every layer.
    Latent,
    /// A state on every layer.
    State,
    /// A state on the layers without key and value heads, and nothing on those that have a
    /// feed-forward part of their own (`nemotron_h`).
    StateWithoutHeads,
    /// A state on the layers that the file lists, else on all but the last of `period`.
    StateListed { period: u32 },
}

/// Where the window's size comes from; a size of 0 means no window.
#[derive(Clone, Copy)]
enum Width {
    /// The file.
    Key,
    /// The file, else this.
    Or(u32),
    /// This, unless the file says 0.
    Always(u32),
    /// This, if the file has one.
    IfNamed(u32),
    /// The file, else this; for a model with so many layers only.
    OrWithLayers(u32, usize),
}

const fn window(period: u32, width: Width) -> Pattern {
    Pattern::Window {
        period,
        full_first: false,
        width,
    }
}

const fn full_first(period: u32, width: Width) -> Pattern {
    Pattern::Window {
        period,
        full_first: true,
        width,
    }
}

fn pattern(architecture: &str) -> Option<Pattern> {
    Some(match architecture {
        // phi3 names a window that llama.cpp does not use.
        "llama" | "apertus" | "arcee" | "arctic" | "baichuan" | "bailingmoe" | "bailingmoe2"
        | "bitnet" | "bloom" | "chameleon" | "chatglm" | "codeshell" | "command-r" | "dbrx"
        | "deci" | "deepseek" | "deepseek2-ocr" | "dots1" | "ernie4_5" | "ernie4_5-moe"
        | "exaone" | "falcon" | "gemma" | "glm4" | "glm4moe" | "gpt2" | "gptj" | "gptneox"
        | "granite" | "granitemoe" | "grok" | "grovemoe" | "hunyuan-dense" | "hunyuan-moe"
        | "hunyuan_vl" | "internlm2" | "jais" | "jais2" | "minicpm" | "minicpm3" | "minimax-m2"
        | "mistral3" | "mpt" | "nemotron" | "olmo" | "olmoe" | "openelm" | "orion"
        | "pangu-embedded" | "phi2" | "phi3" | "phimoe" | "plamo" | "plm" | "qwen" | "qwen2"
        | "qwen2moe" | "qwen2vl" | "qwen3" | "qwen3moe" | "qwen3vl" | "qwen3vlmoe" | "refact"
        | "seed_oss" | "smollm3" | "stablelm" | "starcoder" | "starcoder2" | "xverse" => {
            Pattern::Full
        }
        "gemma2" => window(2, Width::Or(4096)),
        "gemma3" => window(6, Width::Key),
        "gemma3n" => window(5, Width::Key),
        "gpt-oss" => window(2, Width::Key),
        "afmoe" | "cohere2" | "mellum" | "olmo2" => window(4, Width::Key),
        "exaone-moe" => window(4, Width::Or(128)),
        "exaone4" => window(4, Width::OrWithLayers(4096, 64)),
        "llama4" => window(4, Width::Always(8192)),
        "plamo3" => window(8, Width::Key),
        "cohere2moe" | "laguna" => full_first(4, Width::Key),
        "smallthinker" => full_first(4, Width::IfNamed(4096)),
        "gemma4" | "granite_swa" | "maple" | "mimo2" | "spark2_5" | "step35" => Pattern::Listed,
        "deepseek2" | "deepseek32" | "glm-dsa" | "mistral4" => Pattern::Latent,
        "mamba" | "mamba2" | "rwkv6" | "rwkv6qwen2" | "rwkv7" | "arwkv7" => Pattern::State,
        "bailingmoe3" | "granitehybrid" | "jamba" | "kimi-linear" | "lfm2" | "lfm2moe"
        | "nemotron_h" | "nemotron_h_moe" | "plamo2" => Pattern::StateWithoutHeads,
        "qwen3next" | "qwen35" | "qwen35moe" => Pattern::StateListed { period: 4 },
        "minimax-01" => Pattern::StateListed { period: 8 },
        _ => return None,
    })
}

/// What each layer keeps; for an architecture that is not known, the whole context on each
/// layer as an error.
pub(super) fn attention(keys: &Keys<'_>) -> Result<Vec<Attention>, Vec<Attention>> {
    let shape = Shape::new(keys);
    let each = |of: &dyn Fn(usize) -> Attention| (0..keys.layers()).map(of).collect::<Vec<_>>();
    let Some(pattern) = pattern(keys.architecture()) else {
        return Err(each(&|layer| shape.full(layer)));
    };
    let windows = match pattern {
        Pattern::Window {
            period,
            full_first,
            width,
        } => windows(keys, width_of(keys, width), Some((period, full_first))),
        Pattern::Listed => windows(keys, keys.u32("attention.sliding_window"), None),
        // lfm2 may have a window on all layers with attention.
        Pattern::StateWithoutHeads if keys.architecture() == "lfm2" => {
            Some(vec![keys.u32("attention.sliding_window"); keys.layers()])
        }
        _ => Some(vec![0; keys.layers()]),
    };
    let Some(windows) = windows else {
        return Err(each(&|layer| shape.full(layer)));
    };
    let with_cache = layers_with_cache(keys);
    Ok(each(&|layer| {
        if layer >= with_cache || shape.is_recurrent(pattern, layer) {
            return shape.state_or_none(pattern, layer);
        }
        match windows[layer] {
            0 => shape.full(layer),
            window => shape.sliding(layer, window),
        }
    }))
}

fn width_of(keys: &Keys<'_>, width: Width) -> u32 {
    let key = keys.opt_u32("attention.sliding_window");
    match width {
        Width::Key => key.unwrap_or(0),
        Width::Or(width) => key.unwrap_or(width),
        Width::Always(width) => key.map_or(width, |key| width.min(key.saturating_mul(width))),
        Width::IfNamed(width) => key.map_or(0, |key| width.min(key.saturating_mul(width))),
        Width::OrWithLayers(width, layers) if keys.layers() == layers => key.unwrap_or(width),
        Width::OrWithLayers(..) => 0,
    }
}

/// The window of each layer, 0 for none. The file may list the layers, or name a period.
fn windows(keys: &Keys<'_>, width: u32, default: Option<(u32, bool)>) -> Option<Vec<u32>> {
    let key = "attention.sliding_window_pattern";
    let count = keys.layers();
    let listed = keys
        .get(key)
        .filter(|value| value.as_array().is_some())
        .and_then(|_| keys.per_layer(key));
    if let Some(listed) = listed {
        let width = |&flag: &u32| if flag == 0 { 0 } else { width };
        return Some(listed.iter().map(width).collect());
    }
    let (period, full_first) = default?;
    let period = keys.opt_u32(key).unwrap_or(period) as usize;
    let is_full = |layer: usize| match (period, full_first) {
        (0, _) => false,
        (_, true) => layer.is_multiple_of(period),
        (_, false) => layer % period == period - 1,
    };
    let window = |layer| if is_full(layer) { 0 } else { width };
    Some((0..count).map(window).collect())
}

/// Layers that have a cache of their own; those after them use an earlier one's.
fn layers_with_cache(keys: &Keys<'_>) -> usize {
    match keys.architecture() {
        "gemma3n" => 20,
        "gemma4" => {
            let shared = keys.u32("attention.shared_kv_layers") as usize;
            keys.layers().saturating_sub(shared)
        }
        _ => keys.layers(),
    }
}

/// Sizes of what layers keep.
struct Shape<'a> {
    keys: &'a Keys<'a>,
    kv_heads: Vec<u32>,
    feed_forward: Vec<u32>,
    recurrent: Option<Vec<u32>>,
    indexers: Vec<u32>,
    /// Widths of a key and of a value, and in layers with a window.
    widths: [u32; 4],
}

impl<'a> Shape<'a> {
    fn new(keys: &'a Keys<'a>) -> Self {
        let zeros = || vec![0; keys.layers()];
        let heads = keys.per_layer("attention.head_count").unwrap_or_else(zeros);
        let kv_heads = keys.per_layer("attention.head_count_kv");
        let width = keys.u32("embedding_length") / heads.first().map_or(1, |&heads| heads.max(1));
        let dim = |key: &str, default| keys.opt_u32(key).unwrap_or(default);
        let key = dim("attention.key_length", width);
        let value = dim("attention.value_length", width);
        Self {
            keys,
            kv_heads: kv_heads.unwrap_or(heads),
            feed_forward: keys.per_layer("feed_forward_length").unwrap_or_else(zeros),
            recurrent: keys.per_layer("attention.recurrent_layers"),
            indexers: indexers(keys),
            widths: [
                key,
                value,
                dim("attention.key_length_swa", key),
                dim("attention.value_length_swa", value),
            ],
        }
    }

    fn full(&self, layer: usize) -> Attention {
        let (kv_heads, [key_dim, value_dim, ..]) = (self.kv_heads[layer], self.widths);
        let rank = self.keys.u32("attention.kv_lora_rank");
        // Older files of such models have no keys for the compressed form and run without it.
        if rank > 0 && self.keys.u32("attention.key_length_mla") > 0 {
            return Attention::Latent {
                kv_lora_rank: rank,
                rope_dims: key_dim.saturating_mul(kv_heads).saturating_sub(rank),
                index_dims: self.indexers[layer],
            };
        }
        if kv_heads == 0 {
            return Attention::None;
        }
        Attention::Full {
            kv_heads,
            key_dim,
            value_dim,
        }
    }

    fn sliding(&self, layer: usize, window: u32) -> Attention {
        let [.., key_dim, value_dim] = self.widths;
        Attention::Sliding {
            kv_heads: self.kv_heads[layer],
            key_dim,
            value_dim,
            window,
        }
    }

    fn is_recurrent(&self, pattern: Pattern, layer: usize) -> bool {
        match pattern {
            Pattern::State => true,
            Pattern::StateWithoutHeads => self.kv_heads[layer] == 0,
            Pattern::StateListed { period } => {
                let period = self
                    .keys
                    .opt_u32("full_attention_interval")
                    .unwrap_or(period);
                match &self.recurrent {
                    Some(listed) => listed[layer] != 0,
                    None => !(layer + 1).is_multiple_of(period.max(1) as usize),
                }
            }
            _ => false,
        }
    }

    fn state_or_none(&self, pattern: Pattern, layer: usize) -> Attention {
        let feed_forward =
            self.keys.architecture().starts_with("nemotron_h") && self.feed_forward[layer] > 0;
        if self.is_recurrent(pattern, layer) && !feed_forward {
            Attention::Recurrent {
                state_bytes: self.state_bytes(),
            }
        } else {
            Attention::None
        }
    }

    /// Both parts of one sequence's state, in 32-bit floats.
    fn state_bytes(&self) -> u64 {
        let key = |key: &str| u128::from(self.keys.u32(key));
        let hidden = key("embedding_length");
        let heads = u128::from(self.keys.largest("attention.head_count"));
        let before = |kernel: u128| kernel.saturating_sub(1);
        let wkv = key("wkv.head_size");
        let short = key("shortconv.l_cache");
        let delta = key("kda.head_dim");
        let convolution = match (wkv, short, delta) {
            (1.., _, _) => {
                let shifts = self.keys.opt_u32("token_shift_count").unwrap_or(2);
                u128::from(shifts) * hidden
            }
            (0, 1.., _) => hidden * before(short),
            (0, 0, 1..) => {
                let kernel = self.keys.opt_u32("ssm.conv_kernel").unwrap_or(4);
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
            _ if self.keys.architecture() == "minimax-01" => {
                let width = u128::from(self.widths[0]);
                width * width * heads
            }
            _ => key("ssm.state_size") * key("ssm.inner_size"),
        };
        let bytes = convolution.saturating_add(state).saturating_mul(4);
        bytes.try_into().unwrap_or(u64::MAX)
    }
}

/// Width of the key that each layer keeps for choosing what to attend to; 0 for none.
fn indexers(keys: &Keys<'_>) -> Vec<u32> {
    let width = keys.u32("attention.indexer.key_length");
    let flag = |flag: bool| if flag { width } else { 0 };
    match keys.architecture() {
        "deepseek32" => vec![width; keys.layers()],
        "glm-dsa" => match keys.per_layer("attention.indexer.types") {
            Some(types) => types.iter().map(|&kind| flag(kind != 0)).collect(),
            // GLM 5.2: the first two layers, then the first of every four; before it, all.
            None if keys.u32("context_length") >= 1 << 20 => (0..keys.layers())
                .map(|layer| flag(layer < 2 || (layer - 2).is_multiple_of(4)))
                .collect(),
            None => vec![width; keys.layers()],
        },
        _ => vec![0; keys.layers()],
    }
}
