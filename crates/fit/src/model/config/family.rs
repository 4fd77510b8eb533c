//! What an architecture makes of the keys.

use serde_json::Value;

use super::table::{FAMILIES, Family, HeadNorms, Kind, Window};
use super::{Facts, Flag, Keys, MAX_COUNT, MAX_LAYERS, MAX_VOCAB, narrow};
use crate::model::shape::{Block, Extras, Feed, Form, Grouped, Latent, Mixer, Shape};

pub(super) fn read(keys: &Keys<'_>) -> Facts {
    let model_type = keys.text("model_type").unwrap_or_default();
    let named = FAMILIES.iter().find(|family| {
        let text = family.model_type.strip_suffix("_text");
        family.model_type == model_type || text == Some(model_type)
    });
    let Some(family) = named else {
        keys.report(if model_type.is_empty() {
            "model_type"
        } else {
            "architecture"
        });
        return Facts {
            architecture: model_type.chars().take(64).collect(),
            missing: keys.missing.take(),
            ..Facts::default()
        };
    };
    keys.defaults.set(family.defaults);
    let reader = Reader::new(keys, family);
    reader.check_experts();
    let blocks: Vec<Block> = (0..reader.layers)
        .map(|layer| reader.block(layer))
        .collect();
    let experts = |feed: &Feed| match *feed {
        Feed::Experts { count, used, .. } => Some((count, used)),
        Feed::Dense { .. } | Feed::Other { .. } => None,
    };
    let (experts, experts_used) = blocks
        .iter()
        .flat_map(|block| &block.feeds)
        .find_map(experts)
        .unwrap_or((0, 0));
    if experts_used > experts {
        keys.report("num_experts_per_tok");
    }
    let context = keys.bounded("max_position_embeddings", u64::from(u32::MAX));
    if context.is_none_or(|context| context == 0) {
        keys.report("max_position_embeddings");
    }
    let architecture = match family.kind {
        Kind::NemotronH if experts > 0 => "nemotron_h_moe",
        _ => family.architecture,
    };
    Facts {
        architecture: architecture.to_owned(),
        shape: Shape {
            hidden: reader.hidden,
            vocab: keys.need("vocab_size", MAX_VOCAB),
            tied: keys.flag("tie_word_embeddings", family.tied),
            layer_embedding: keys.count("hidden_size_per_layer_input").unwrap_or(0),
            blocks,
        },
        max_context: narrow(context.unwrap_or(0)),
        heads: narrow(reader.heads),
        experts: narrow(experts),
        experts_used: narrow(experts_used),
        missing: keys.missing.take(),
    }
}

/// Reads the layers of one config.
pub(super) struct Reader<'a> {
    pub(super) keys: &'a Keys<'a>,
    pub(super) family: &'a Family,
    pub(super) layers: u64,
    pub(super) hidden: u64,
    heads: u64,
    kv_heads: u64,
    head_dim: u64,
    types: Option<&'a Vec<Value>>,
}

impl<'a> Reader<'a> {
    fn new(keys: &'a Keys<'a>, family: &'a Family) -> Self {
        let nemotron = family.kind == Kind::NemotronH;
        let pattern = keys.text("hybrid_override_pattern").filter(|_| nemotron);
        let types = keys
            .get("layers_block_type")
            .and_then(Value::as_array)
            .filter(|_| nemotron);
        let stated = pattern
            .map(|text| text.len() as u64)
            .or(types.map(|types| types.len() as u64));
        let layers = match stated {
            Some(layers) if (1..=MAX_LAYERS).contains(&layers) => layers,
            _ => keys.need("num_hidden_layers", MAX_LAYERS),
        };
        let hidden = keys.need_width("hidden_size");
        let heads = keys.need_count("num_attention_heads");
        let kv_heads = keys.count("num_key_value_heads").unwrap_or(heads);
        let head_dim = keys
            .count("head_dim")
            .unwrap_or_else(|| hidden.checked_div(heads).unwrap_or(0));
        let types = types.or_else(|| keys.list("layer_types", layers));
        if kv_heads == 0 && family.kind != Kind::Latent {
            keys.report("num_key_value_heads");
        }
        if head_dim == 0 || head_dim > MAX_COUNT {
            keys.report("head_dim");
        }
        Self {
            keys,
            family,
            layers,
            hidden,
            heads,
            kv_heads,
            head_dim: head_dim.min(MAX_COUNT),
            types,
        }
    }

    fn block(&self, layer: u64) -> Block {
        match self.family.kind {
            Kind::NemotronH => self.nemotron(layer),
            Kind::GraniteHybrid => {
                let mixer = match self.type_of(layer) {
                    Some("mamba") => self.granite_mamba(),
                    _ => self.grouped(layer),
                };
                self.full(mixer, self.granite_feeds())
            }
            Kind::Delta => {
                let every = self.keys.period("full_attention_interval", 4);
                let full = self
                    .type_of(layer)
                    .map_or((layer + 1).is_multiple_of(every), |kind| {
                        kind == "full_attention"
                    });
                let mixer = if full {
                    self.grouped(layer)
                } else {
                    self.delta()
                };
                self.full(mixer, self.feeds(layer))
            }
            Kind::Latent => self.full(self.latent(layer), self.feeds(layer)),
            _ => self.full(self.grouped(layer), self.feeds(layer)),
        }
    }

    fn full(&self, mixer: Mixer, feeds: Vec<Feed>) -> Block {
        let mixture = feeds.len() > 1 && self.family.kind == Kind::Gemma4;
        let extra = if mixture { 4 } else { 0 };
        Block {
            mixer,
            feeds,
            norms: (self.family.norms + extra) * self.hidden,
        }
    }

    fn type_of(&self, layer: u64) -> Option<&'a str> {
        self.types?.get(usize::try_from(layer).ok()?)?.as_str()
    }

    /// Tokens of a layer's window; 0 where it sees the whole context.
    fn window(&self, layer: u64) -> u32 {
        let tokens = || {
            let key = if self.family.kind == Kind::Llama4 {
                "attention_chunk_size"
            } else {
                "sliding_window"
            };
            narrow(self.keys.need(key, u64::from(u32::MAX)))
        };
        match (self.type_of(layer), self.family.window) {
            (Some("full_attention" | "global_attention" | "attention"), _)
            | (None, Window::Never) => 0,
            (Some("sliding_attention" | "chunked_attention"), _) => tokens(),
            (Some(_), _) => {
                self.keys.report("layer_types");
                0
            }
            (None, Window::AllBut(key, default)) => {
                let every = self.keys.period(key, default);
                if (layer + 1).is_multiple_of(every) {
                    0
                } else {
                    tokens()
                }
            }
        }
    }

    fn grouped(&self, layer: u64) -> Mixer {
        let keys = self.keys;
        let window = match self.family.kind {
            // Every fourth layer has no rotary positions and sees everything.
            Kind::Llama4 if self.types.is_none() && (layer + 1).is_multiple_of(4) => 0,
            Kind::Llama4 if self.types.is_none() => {
                narrow(keys.need("attention_chunk_size", u64::from(u32::MAX)))
            }
            Kind::GptOss if self.types.is_none() && layer % 2 == 1 => 0,
            Kind::GptOss if self.types.is_none() => {
                narrow(keys.need("sliding_window", u64::from(u32::MAX)))
            }
            Kind::MiMo => self.mimo_window(layer),
            _ => self.window(layer),
        };
        let mut grouped = Grouped {
            heads: self.heads,
            kv_heads: self.kv_heads,
            key_dim: self.head_dim,
            value_dim: self.head_dim,
            window,
            extras: Extras::Plain,
            biases: 0,
        };
        match self.family.kind {
            Kind::Fused => grouped.extras = Extras::Fused,
            Kind::Delta => grouped.extras = Extras::Gated,
            Kind::Gemma4 => self.gemma4(layer, &mut grouped),
            Kind::MiMo => {
                grouped.value_dim = keys.need_count("v_head_dim");
                if window > 0 {
                    grouped.kv_heads = keys.need_count("swa_num_key_value_heads");
                }
            }
            _ => {}
        }
        let values = grouped.kv_heads * grouped.value_dim;
        let (queries, keys_width) = (
            grouped.heads * grouped.key_dim,
            grouped.kv_heads * grouped.key_dim,
        );
        if keys.flag("attention_bias", self.family.biases) {
            grouped.biases += queries + keys_width + values;
        }
        if self.family.kind == Kind::GptOss {
            grouped.biases += self.hidden + self.heads;
        }
        grouped.biases += match self.family.head_norms {
            _ if self.family.kind == Kind::Mixture
                && keys.flag("use_qk_norm", Flag::Off)
                && self.family.head_norms == HeadNorms::None =>
            {
                2 * self.head_dim
            }
            HeadNorms::None => 0,
            HeadNorms::Head => 2 * grouped.key_dim,
            HeadNorms::All => queries + keys_width,
        };
        Mixer::Grouped(grouped)
    }

    fn gemma4(&self, layer: u64, grouped: &mut Grouped) {
        let keys = self.keys;
        if grouped.window == 0 {
            let dim = keys
                .some("global_head_dim", MAX_COUNT)
                .unwrap_or(self.head_dim);
            (grouped.key_dim, grouped.value_dim) = (dim, dim);
            if keys.flag("attention_k_eq_v", Flag::Off) {
                grouped.kv_heads = keys
                    .some("num_global_key_value_heads", MAX_COUNT)
                    .unwrap_or(self.kv_heads);
                grouped.extras = Extras::KeysAsValues;
            }
        }
        let borrowed = keys
            .bounded("num_kv_shared_layers", MAX_LAYERS)
            .unwrap_or(0);
        if layer + borrowed >= self.layers {
            grouped.extras = Extras::Borrowed;
        }
    }

    fn mimo_window(&self, layer: u64) -> u32 {
        let pattern = self.keys.list("hybrid_layer_pattern", self.layers);
        let Some(pattern) = pattern else {
            self.keys.report("hybrid_layer_pattern");
            return 0;
        };
        let slides = usize::try_from(layer)
            .ok()
            .and_then(|layer| pattern.get(layer))
            .and_then(Value::as_u64);
        if slides == Some(1) {
            narrow(self.keys.need("sliding_window", u64::from(u32::MAX)))
        } else {
            0
        }
    }

    fn latent(&self, layer: u64) -> Mixer {
        let keys = self.keys;
        let types = keys.list("indexer_types", self.layers);
        let own = types.and_then(|types| types.get(usize::try_from(layer).ok()?)?.as_str());
        let index_dim = match own {
            // What an earlier layer's indexer chose.
            Some("shared") => 0,
            _ => keys.count("index_head_dim").unwrap_or(0),
        };
        Mixer::Latent(Latent {
            heads: self.heads,
            q_rank: keys.width("q_lora_rank").unwrap_or(0),
            kv_rank: keys.need_width("kv_lora_rank"),
            nope: keys.need_count("qk_nope_head_dim"),
            rope: keys.need_count("qk_rope_head_dim"),
            value_dim: keys.need_count("v_head_dim"),
            index_heads: if index_dim > 0 {
                keys.need_count("index_n_heads")
            } else {
                0
            },
            index_dim,
        })
    }

    fn delta(&self) -> Mixer {
        Mixer::Delta {
            key_heads: self.keys.need_count("linear_num_key_heads"),
            value_heads: self.keys.need_count("linear_num_value_heads"),
            key_dim: self.keys.need_count("linear_key_head_dim"),
            value_dim: self.keys.need_count("linear_value_head_dim"),
            conv: self.keys.need_count("linear_conv_kernel_dim"),
        }
    }

    fn nemotron(&self, layer: u64) -> Block {
        let keys = self.keys;
        let pattern = keys.text("hybrid_override_pattern");
        let letter =
            pattern.and_then(|text| text.as_bytes().get(usize::try_from(layer).ok()?).copied());
        let (mixer, feeds) = match (self.type_of(layer), letter) {
            (Some("mamba"), _) | (None, Some(b'M')) => (
                Mixer::Mamba {
                    heads: keys.need_count("mamba_num_heads"),
                    head_dim: keys.need_count("mamba_head_dim"),
                    groups: keys.need_count("n_groups"),
                    state: keys.need_count("ssm_state_size"),
                    conv: keys.need_count("conv_kernel"),
                },
                Vec::new(),
            ),
            (Some("attention"), _) | (None, Some(b'*')) => (self.plain(0), Vec::new()),
            (Some("moe"), _) | (None, Some(b'E')) => (Mixer::None, self.nemotron_experts()),
            (Some("mlp"), _) | (None, Some(b'-')) => {
                let width = keys.need_width("intermediate_size");
                (
                    Mixer::None,
                    vec![Feed::Dense {
                        width,
                        form: Form::Plain,
                    }],
                )
            }
            _ => {
                keys.report("hybrid_override_pattern");
                (Mixer::None, Vec::new())
            }
        };
        Block {
            mixer,
            feeds,
            norms: self.hidden,
        }
    }

    fn plain(&self, window: u32) -> Mixer {
        let (key_dim, value_dim) = (self.head_dim, self.head_dim);
        Mixer::Grouped(Grouped {
            heads: self.heads,
            kv_heads: self.kv_heads,
            key_dim,
            value_dim,
            window,
            ..Grouped::default()
        })
    }

    fn granite_mamba(&self) -> Mixer {
        Mixer::Mamba {
            heads: self.keys.need_count("mamba_n_heads"),
            head_dim: self.keys.need_count("mamba_d_head"),
            groups: self.keys.need_count("mamba_n_groups"),
            state: self.keys.need_count("mamba_d_state"),
            conv: self.keys.need_count("mamba_d_conv"),
        }
    }
}
