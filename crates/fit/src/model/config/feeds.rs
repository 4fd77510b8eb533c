//! The feed-forward part of each layer.

use serde_json::Value;

use super::family::Reader;
use super::table::Kind;
use super::{Flag, MAX_COUNT, MAX_LAYERS, MAX_WIDTH};
use crate::model::shape::{Feed, Form};

/// Keys of the number of routed experts.
const COUNTS: [&str; 3] = ["n_routed_experts", "num_experts", "num_local_experts"];

impl Reader<'_> {
    /// Reports a number of experts that is not there, or 0, where there must be some: without it
    /// the model would pass for a dense one.
    pub(super) fn check_experts(&self) {
        let keys = self.keys;
        let family = self.family;
        // Its layers say which of them have experts, and those need the number.
        if family.kind == Kind::NemotronH || self.expert_count() > 0 {
            return;
        }
        let stated = COUNTS.into_iter().find(|key| keys.has(key));
        let needed = match family.kind {
            Kind::Gemma4 if keys.has("enable_moe_block") => {
                keys.flag("enable_moe_block", Flag::Off)
            }
            Kind::Gemma4 if keys.speaks_of_experts() => return keys.report("enable_moe_block"),
            // Its configuration class has experts unless the file says that there are 0.
            Kind::GraniteHybrid if stated.is_none() => true,
            _ => family.is_mixture() || keys.speaks_of_experts(),
        };
        if needed {
            keys.report(stated.unwrap_or(family.experts_key()));
        }
    }

    fn expert_count(&self) -> u64 {
        let mut counts = COUNTS.iter().filter_map(|key| self.keys.count(key));
        counts.next().unwrap_or(0)
    }

    pub(super) fn nemotron_experts(&self) -> Vec<Feed> {
        let keys = self.keys;
        let form = Form::Plain;
        let count = keys.need_count("n_routed_experts");
        vec![
            Feed::Experts {
                count,
                used: keys.need_count("num_experts_per_tok"),
                width: keys.need_width("moe_intermediate_size"),
                input: keys
                    .some("moe_latent_size", MAX_WIDTH)
                    .unwrap_or(self.hidden),
                form,
                biases: count,
            },
            Feed::Dense {
                width: keys.need_width("moe_shared_expert_intermediate_size"),
                form,
            },
        ]
    }

    pub(super) fn granite_feeds(&self) -> Vec<Feed> {
        let shared = Feed::Dense {
            width: self.keys.need_width("shared_intermediate_size"),
            form: Form::Gated,
        };
        match self.keys.count("num_local_experts").unwrap_or(0) {
            0 => vec![shared],
            count => vec![
                self.experts(count, self.keys.need_width("intermediate_size")),
                shared,
            ],
        }
    }

    fn experts(&self, count: u64, width: u64) -> Feed {
        let used = [
            "num_experts_per_tok",
            "num_experts_per_token",
            "top_k_experts",
        ];
        let used = self.keys.need_any(&used, MAX_COUNT);
        Feed::Experts {
            count,
            used,
            width,
            input: self.hidden,
            form: Form::Gated,
            biases: 0,
        }
    }

    pub(super) fn feeds(&self, layer: u64) -> Vec<Feed> {
        let keys = self.keys;
        let gated = |width| Feed::Dense {
            width,
            form: Form::Gated,
        };
        let width = || keys.need_width("intermediate_size");
        let count = self.expert_count();
        let own = ["moe_intermediate_size", "expert_intermediate_size"]
            .iter()
            .find_map(|key| keys.some(key, MAX_WIDTH));
        match self.family.kind {
            Kind::Fused => vec![Feed::Dense {
                width: width(),
                form: Form::FusedGate,
            }],
            Kind::Gemma4 => self.gemma4_feeds(layer, count, own),
            Kind::GptOss => {
                let biases = count * (2 * width() + self.hidden + 1);
                let Feed::Experts {
                    count,
                    used,
                    width,
                    input,
                    form,
                    ..
                } = self.experts(count, width())
                else {
                    return Vec::new();
                };
                vec![Feed::Experts {
                    count,
                    used,
                    width,
                    input,
                    form,
                    biases,
                }]
            }
            Kind::Llama4 => {
                let every = keys.period("interleave_moe_layer_step", 1);
                if (layer + 1).is_multiple_of(every) {
                    vec![self.experts(count, width()), gated(width())]
                } else {
                    vec![gated(keys.need_width("intermediate_size_mlp"))]
                }
            }
            _ if count == 0 || self.dense_layer(layer) => vec![gated(width())],
            _ => {
                let own = own.unwrap_or_else(width);
                let mut feeds = vec![self.experts(count, own)];
                let shared = keys
                    .width("shared_expert_intermediate_size")
                    .or_else(|| keys.width("share_expert_dim"));
                let units = ["n_shared_experts", "num_shared_experts"]
                    .iter()
                    .find_map(|key| keys.count(key));
                match (shared, units) {
                    (Some(width), _) if width > 0 => feeds.push(gated(width)),
                    (_, Some(units)) if units > 0 => {
                        feeds.push(gated((units * own).min(MAX_WIDTH)));
                    }
                    _ => {}
                }
                feeds
            }
        }
    }

    /// Whether a layer of a mixture-of-experts model is dense.
    fn dense_layer(&self, layer: u64) -> bool {
        let first = self
            .keys
            .bounded("first_k_dense_replace", MAX_LAYERS)
            .unwrap_or(0);
        // One number for all layers is another key of the same name.
        let key = "moe_layer_freq";
        let is_list = self.keys.get(key).is_some_and(Value::is_array);
        let listed = is_list.then(|| self.keys.list(key, self.layers)).flatten();
        let entry = listed.and_then(|list| list.get(usize::try_from(layer).ok()?)?.as_u64());
        layer < first || entry == Some(0)
    }

    fn gemma4_feeds(&self, layer: u64, count: u64, own: Option<u64>) -> Vec<Feed> {
        let keys = self.keys;
        let borrowed = keys
            .bounded("num_kv_shared_layers", MAX_LAYERS)
            .unwrap_or(0);
        let double = keys.flag("use_double_wide_mlp", Flag::Off) && layer + borrowed >= self.layers;
        let width = keys.need_width("intermediate_size") * if double { 2 } else { 1 };
        let mut feeds = vec![Feed::Dense {
            width: width.min(MAX_WIDTH),
            form: Form::Gated,
        }];
        if keys.flag("enable_moe_block", Flag::Off) && count > 0 {
            match own {
                Some(own) => feeds.push(self.experts(count, own)),
                None => keys.report("moe_intermediate_size"),
            }
        }
        let own = keys.count("hidden_size_per_layer_input").unwrap_or(0);
        if own > 0 {
            feeds.push(Feed::Other {
                params: 2 * own * self.hidden,
                row: self.hidden,
            });
        }
        feeds
    }
}
