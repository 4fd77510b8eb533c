//! What each layer keeps, by architecture.
//!
//! After llama.cpp's `load_arch_hparams` of each architecture and `llama_model::create_memory`.

use super::keys::Keys;
use super::state::{indexers, state_bytes};
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
    /// The file, which may have none.
    Key,
    /// The file, which llama.cpp does not load without it.
    Needed,
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
        "gemma3n" => window(5, Width::Needed),
        "gpt-oss" => window(2, Width::Needed),
        "afmoe" | "mellum" | "olmo2" => window(4, Width::Key),
        "cohere2" => window(4, Width::Needed),
        "exaone-moe" => window(4, Width::Or(128)),
        "exaone4" => window(4, Width::OrWithLayers(4096, 64)),
        "llama4" => window(4, Width::Always(8192)),
        "plamo3" => window(8, Width::Key),
        "cohere2moe" => full_first(4, Width::Needed),
        "laguna" => full_first(4, Width::Key),
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

/// What each layer keeps, and by how many heads.
pub(super) struct Kept {
    pub(super) layers: Vec<Attention>,
    /// Heads of queries.
    pub(super) heads: Vec<u32>,
    /// How many have a cache of their own, and those after them use one of these; 0 where that is
    /// not known.
    pub(super) own: usize,
}

/// What each layer keeps. What the file says nothing of, or what cannot be, is reported; for an
/// architecture that is not known that is all of it, and the whole context on each layer stands
/// for it.
pub(super) fn attention(keys: &Keys<'_>) -> Kept {
    let shape = Shape::new(keys);
    let each = |of: &dyn Fn(usize) -> Attention| (0..keys.layers()).map(of).collect::<Vec<_>>();
    let pattern = pattern(keys.architecture());
    let windows = pattern.and_then(|pattern| windows_of(keys, pattern));
    let (Some(pattern), Some(windows)) = (pattern, windows) else {
        keys.report_fact(format!(
            "what a layer of {} keeps in the KV cache",
            keys.architecture()
        ));
        let layers = each(&|layer| shape.full(layer));
        return shape.kept(layers, 0);
    };
    let with_cache = layers_with_cache(keys);
    let layers = each(&|layer| {
        if layer >= with_cache || shape.is_recurrent(pattern, layer) {
            return shape.state_or_none(pattern, layer);
        }
        match windows[layer] {
            0 => shape.full(layer),
            window => shape.sliding(layer, window),
        }
    });
    shape.check(pattern, &layers[..with_cache.min(layers.len())]);
    shape.kept(layers, with_cache)
}

/// The window of each layer, 0 for none.
fn windows_of(keys: &Keys<'_>, pattern: Pattern) -> Option<Vec<u32>> {
    match pattern {
        Pattern::Window {
            period,
            full_first,
            width,
        } => windows(keys, width_of(keys, width), Some((period, full_first))),
        Pattern::Listed => windows(keys, width_of(keys, Width::Needed), None),
        // lfm2 may have a window on all layers with attention.
        Pattern::StateWithoutHeads if keys.architecture() == "lfm2" => {
            Some(vec![keys.u32("attention.sliding_window"); keys.layers()])
        }
        _ => Some(vec![0; keys.layers()]),
    }
}

fn width_of(keys: &Keys<'_>, width: Width) -> u32 {
    let key = keys.opt_u32("attention.sliding_window");
    match width {
        Width::Key => key.unwrap_or(0),
        Width::Needed => {
            if key.is_none() {
                keys.lacks("attention.sliding_window");
            }
            key.unwrap_or(0)
        }
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
    if keys
        .get(key)
        .is_some_and(|value| value.as_array().is_some())
    {
        let width = |flag| if flag { width } else { 0 };
        return Some(keys.flags(key)?.into_iter().map(width).collect());
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
            let key = "attention.shared_kv_layers";
            let shared = keys.u32(key) as usize;
            if shared >= keys.layers() {
                keys.report(key, &format!("it is {shared} of {} layers", keys.layers()));
            }
            keys.layers().saturating_sub(shared)
        }
        _ => keys.layers(),
    }
}

/// Sizes of what layers keep.
struct Shape<'a> {
    keys: &'a Keys<'a>,
    heads: Vec<u32>,
    kv_heads: Vec<u32>,
    feed_forward: Vec<u32>,
    recurrent: Option<Vec<bool>>,
    indexers: Vec<u32>,
    /// Widths of a key and of a value, and in layers with a window.
    widths: [u32; 4],
}

impl<'a> Shape<'a> {
    fn new(keys: &'a Keys<'a>) -> Self {
        let zeros = || vec![0; keys.layers()];
        let heads = keys.per_layer("attention.head_count").unwrap_or_else(zeros);
        let kv_heads = match keys.get("attention.head_count_kv") {
            Some(_) => keys.per_layer("attention.head_count_kv"),
            // As llama.cpp has it.
            None => Some(heads.clone()),
        };
        let first = heads.first().copied().unwrap_or(0);
        let width = keys.u32("embedding_length").checked_div(first).unwrap_or(0);
        let dim = |key: &str, default| keys.opt_u32(key).unwrap_or(default);
        let key = dim("attention.key_length", width);
        let value = dim("attention.value_length", width);
        Self {
            keys,
            heads,
            kv_heads: kv_heads.unwrap_or_else(zeros),
            feed_forward: keys.per_layer("feed_forward_length").unwrap_or_else(zeros),
            recurrent: keys.flags("attention.recurrent_layers"),
            indexers: indexers(keys),
            widths: [
                key,
                value,
                dim("attention.key_length_swa", key),
                dim("attention.value_length_swa", value),
            ],
        }
    }

    fn kept(self, layers: Vec<Attention>, own: usize) -> Kept {
        Kept {
            layers,
            heads: self.heads,
            own,
        }
    }

    /// Reports what layers with a cache of their own cannot do without, or what cannot be.
    fn check(&self, pattern: Pattern, layers: &[Attention]) {
        let none_is_fine =
            matches!(pattern, Pattern::StateWithoutHeads) || self.keys.architecture() == "deci";
        for (layer, attention) in layers.iter().enumerate() {
            match *attention {
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
                } => self.check_heads(layer, kv_heads, [key_dim, value_dim]),
                Attention::Latent { kv_lora_rank, .. } => {
                    self.check_heads(layer, 1, [1, 1]);
                    let width = self.widths[0].saturating_mul(self.kv_heads[layer]);
                    if width < kv_lora_rank {
                        let reason = format!("a key of {width} holds no rank of {kv_lora_rank}");
                        self.keys.report("attention.kv_lora_rank", &reason);
                    }
                }
                Attention::None if self.kv_heads[layer] == 0 && !none_is_fine => {
                    self.lacks_kv_heads(layer);
                }
                Attention::Recurrent { .. } | Attention::None => {}
            }
        }
    }

    fn check_heads(&self, layer: usize, kv_heads: u32, widths: [u32; 2]) {
        let keys = self.keys;
        let heads = self.heads[layer];
        if heads == 0 {
            keys.lacks("attention.head_count");
        } else if kv_heads == 0 {
            self.lacks_kv_heads(layer);
        } else if !heads.is_multiple_of(kv_heads) {
            let reason = format!("{kv_heads} do not divide the {heads} heads of layer {layer}");
            keys.report("attention.head_count_kv", &reason);
        }
        for (key, width) in ["attention.key_length", "attention.value_length"]
            .into_iter()
            .zip(widths)
        {
            if width > 0 {
                continue;
            }
            if keys.get(key).is_some() {
                keys.lacks(key);
            } else {
                let width = keys.u32("embedding_length");
                let reason = format!("{heads} heads share a width of {width}");
                keys.report("attention.head_count", &reason);
            }
        }
    }

    fn lacks_kv_heads(&self, layer: usize) {
        if self.keys.get("attention.head_count_kv").is_some() {
            let reason = format!("it is 0 in layer {layer}");
            self.keys.report("attention.head_count_kv", &reason);
        } else {
            self.keys.lacks("attention.head_count");
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
                if let Some(listed) = &self.recurrent {
                    return listed[layer];
                }
                let key = "full_attention_interval";
                let period = self.keys.opt_u32(key).unwrap_or(period);
                if period == 0 {
                    self.keys.lacks(key);
                }
                !(layer + 1).is_multiple_of(period.max(1) as usize)
            }
            _ => false,
        }
    }

    fn state_or_none(&self, pattern: Pattern, layer: usize) -> Attention {
        let feed_forward =
            self.keys.architecture().starts_with("nemotron_h") && self.feed_forward[layer] > 0;
        if self.is_recurrent(pattern, layer) && !feed_forward {
            Attention::Recurrent {
                state_bytes: state_bytes(self.keys, self.widths[0]),
            }
        } else {
            Attention::None
        }
    }
}
