//! Architectures: their keys, and the tensors of a layer, as llama.cpp's loaders want them.

use super::Shape;
use super::maker::Maker;
use crate::GgmlType;
use crate::value::{Array, Value};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    LlamaMoe,
    Gemma3,
    Qwen2,
    Qwen3Moe,
    GptOss,
    DeepSeek2,
    Lfm2,
    Qwen3Next,
}

use Family::{DeepSeek2, Gemma3, GptOss, Lfm2, Llama, LlamaMoe, Qwen2, Qwen3Moe, Qwen3Next};

/// Values that a short convolution looks at.
const KERNEL: u32 = 3;

impl Family {
    pub(super) fn architecture(self) -> &'static str {
        match self {
            Llama | LlamaMoe => "llama",
            Gemma3 => "gemma3",
            Qwen2 => "qwen2",
            Qwen3Moe => "qwen3moe",
            GptOss => "gpt-oss",
            DeepSeek2 => "deepseek2",
            Lfm2 => "lfm2",
            Qwen3Next => "qwen3next",
        }
    }

    /// Name of the norm before the head.
    pub(super) fn last_norm(self) -> &'static str {
        match self {
            Lfm2 => "token_embd_norm.weight",
            _ => "output_norm.weight",
        }
    }

    /// Whether a layer has attention, and not another way to look back.
    fn attends(self, layer: u32) -> bool {
        match self {
            Lfm2 => layer % 3 == 2,
            Qwen3Next => layer % 4 == 3,
            _ => true,
        }
    }

    fn has_experts(self, layer: u32) -> bool {
        match self {
            DeepSeek2 => layer > 0,
            family => matches!(family, LlamaMoe | Qwen3Moe | GptOss | Qwen3Next),
        }
    }

    pub(super) fn keys(self, shape: &Shape, layers: u32, set: &mut dyn FnMut(&str, Value)) {
        set("block_count", Value::U32(layers));
        set("context_length", Value::U32(512));
        set("embedding_length", Value::U32(shape.width));
        set("feed_forward_length", Value::U32(shape.feed_forward));
        set("attention.head_count", Value::U32(shape.heads));
        let kv_heads = match self {
            DeepSeek2 => Value::U32(1),
            Lfm2 => {
                let heads = |layer| {
                    if self.attends(layer) {
                        shape.kv_heads
                    } else {
                        0
                    }
                };
                let heads: Vec<u32> = (0..layers).map(heads).collect();
                Value::Array(Array::of_u32(&heads))
            }
            _ => Value::U32(shape.kv_heads),
        };
        set("attention.head_count_kv", kv_heads);
        set("attention.layer_norm_rms_epsilon", Value::F32(1e-6));
        if !matches!(self, Llama | LlamaMoe | DeepSeek2) {
            set("attention.key_length", Value::U32(shape.head_width));
            set("attention.value_length", Value::U32(shape.head_width));
        }
        if matches!(self, Gemma3 | GptOss) {
            set("attention.sliding_window", Value::U32(shape.window));
        }
        let (rope, base) = match self {
            // As wide as a head, which llama.cpp takes for granted.
            Gemma3 => (None, 1_000_000.0),
            DeepSeek2 => (Some(Latent::new(shape).rope), 10_000.0),
            _ => (Some(shape.head_width), 10_000.0),
        };
        if let Some(rope) = rope {
            set("rope.dimension_count", Value::U32(rope));
        }
        set("rope.freq_base", Value::F32(base));
        if self.has_experts(layers) {
            set("expert_count", Value::U32(shape.experts));
            set("expert_used_count", Value::U32(shape.experts_used));
        }
        if self.has_experts(layers) && self != LlamaMoe {
            set("expert_feed_forward_length", Value::U32(shape.feed_forward));
        }
        match self {
            DeepSeek2 => Latent::new(shape).keys(shape, set),
            Lfm2 => set("shortconv.l_cache", Value::U32(KERNEL)),
            Qwen3Next => {
                set("full_attention_interval", Value::U32(4));
                set(
                    "expert_shared_feed_forward_length",
                    Value::U32(shape.feed_forward),
                );
                DeltaNet::new(shape).keys(set);
            }
            _ => {}
        }
    }

    pub(super) fn layer(self, shape: &Shape, layer: u32, maker: &mut Maker) {
        let block = format!("blk.{layer}");
        let width = u64::from(shape.width);
        let head = u64::from(shape.head_width);
        let mut norm = |name: &str, len| maker.norm(&format!("{block}.{name}.weight"), len);
        norm("attn_norm", width);
        match self {
            GptOss | Qwen3Next => norm("post_attention_norm", width),
            _ => norm("ffn_norm", width),
        }
        if matches!(self, Gemma3 | Qwen3Moe | Lfm2 | Qwen3Next) && self.attends(layer) {
            norm("attn_q_norm", head);
            norm("attn_k_norm", head);
        }
        if self == Gemma3 {
            norm("post_attention_norm", width);
            norm("post_ffw_norm", width);
        }
        match self {
            DeepSeek2 => Latent::new(shape).tensors(shape, &block, maker),
            Qwen3Next if !self.attends(layer) => DeltaNet::new(shape).tensors(shape, &block, maker),
            Lfm2 if !self.attends(layer) => {
                let name = |name: &str| format!("{block}.shortconv.{name}.weight");
                // Kernels of convolutions are never quantized.
                let kernel = [KERNEL.into(), width];
                maker.matrix_of(&name("conv"), GgmlType::F32, &kernel);
                maker.matrix(&name("in_proj"), &[width, 3 * width]);
                maker.matrix(&name("out_proj"), &[width, width]);
            }
            _ => self.attention(shape, &block, maker),
        }
        self.feed_forward(shape, layer, &block, maker);
    }

    fn attention(self, shape: &Shape, block: &str, maker: &mut Maker) {
        let width = u64::from(shape.width);
        let queries = u64::from(shape.heads) * u64::from(shape.head_width);
        let keys = u64::from(shape.kv_heads) * u64::from(shape.head_width);
        // A Qwen 3 Next makes a gate beside each query.
        let gates = if self == Qwen3Next { 2 } else { 1 };
        let mut matrix = |name: &str, dims: &[u64]| {
            maker.matrix(&format!("{block}.{name}.weight"), dims);
        };
        matrix("attn_q", &[width, gates * queries]);
        matrix("attn_k", &[width, keys]);
        matrix("attn_v", &[width, keys]);
        matrix("attn_output", &[queries, width]);
        if matches!(self, Qwen2 | GptOss) {
            let mut bias = |name: &str, len| maker.bias(&format!("{block}.{name}.bias"), &[len]);
            bias("attn_q", queries);
            bias("attn_k", keys);
            bias("attn_v", keys);
            if self == GptOss {
                bias("attn_output", width);
                let sinks = format!("{block}.attn_sinks.weight");
                maker.bias(&sinks, &[shape.heads.into()]);
            }
        }
    }

    fn feed_forward(self, shape: &Shape, layer: u32, block: &str, maker: &mut Maker) {
        let (width, hidden) = (u64::from(shape.width), u64::from(shape.feed_forward));
        let mut three = |kind: &str, experts: &[u64]| {
            for (name, mut dims) in [
                ("gate", vec![width, hidden]),
                ("up", vec![width, hidden]),
                ("down", vec![hidden, width]),
            ] {
                dims.extend(experts);
                maker.matrix(&format!("{block}.ffn_{name}{kind}.weight"), &dims);
            }
        };
        if !self.has_experts(layer) {
            three("", &[]);
            return;
        }
        let experts = u64::from(shape.experts);
        three("_exps", &[experts]);
        if matches!(self, DeepSeek2 | Qwen3Next) {
            three("_shexp", &[]);
        }
        // A router is never quantized.
        let mut router = |name: &str, dims: &[u64]| {
            maker.matrix_of(&format!("{block}.ffn_{name}.weight"), GgmlType::F32, dims);
        };
        router("gate_inp", &[width, experts]);
        if self == Qwen3Next {
            router("gate_inp_shexp", &[width]);
        }
        if self == GptOss {
            let mut bias = |name: &str, dims: &[u64]| {
                maker.bias(&format!("{block}.ffn_{name}.bias"), dims);
            };
            bias("gate_inp", &[experts]);
            bias("gate_exps", &[hidden, experts]);
            bias("up_exps", &[hidden, experts]);
            bias("down_exps", &[width, experts]);
        }
    }
}

/// Sizes of latent attention, in the proportions of the large models.
struct Latent {
    rank: u32,
    rope: u32,
}

impl Latent {
    fn new(shape: &Shape) -> Self {
        Self {
            rank: 4 * shape.head_width,
            rope: shape.head_width / 2,
        }
    }

    fn keys(&self, shape: &Shape, set: &mut dyn FnMut(&str, Value)) {
        let head = shape.head_width;
        for (key, value) in [
            ("attention.kv_lora_rank", self.rank),
            ("attention.q_lora_rank", self.rank),
            ("attention.key_length", self.rank + self.rope),
            ("attention.value_length", self.rank),
            ("attention.key_length_mla", head + self.rope),
            ("attention.value_length_mla", head),
            ("leading_dense_block_count", 1),
            ("expert_shared_count", 1),
        ] {
            set(key, Value::U32(value));
        }
    }

    fn tensors(&self, shape: &Shape, block: &str, maker: &mut Maker) {
        let [width, heads, head] = [shape.width, shape.heads, shape.head_width].map(u64::from);
        let (rank, rope) = (u64::from(self.rank), u64::from(self.rope));
        maker.norm(&format!("{block}.attn_q_a_norm.weight"), rank);
        maker.norm(&format!("{block}.attn_kv_a_norm.weight"), rank);
        for (name, dims) in [
            ("q_a", vec![width, rank]),
            ("q_b", vec![rank, heads * (head + rope)]),
            ("kv_a_mqa", vec![width, rank + rope]),
            ("k_b", vec![head, rank, heads]),
            ("v_b", vec![rank, head, heads]),
            ("output", vec![heads * head, width]),
        ] {
            maker.matrix(&format!("{block}.attn_{name}.weight"), &dims);
        }
    }
}

/// Sizes of a gated delta net.
struct DeltaNet {
    state: u32,
    key_heads: u32,
    value_heads: u32,
}

impl DeltaNet {
    const KERNEL: u32 = 4;

    fn new(shape: &Shape) -> Self {
        Self {
            state: shape.head_width,
            key_heads: shape.kv_heads,
            value_heads: shape.heads,
        }
    }

    fn keys(&self, set: &mut dyn FnMut(&str, Value)) {
        for (key, value) in [
            ("conv_kernel", Self::KERNEL),
            ("state_size", self.state),
            ("group_count", self.key_heads),
            ("time_step_rank", self.value_heads),
            ("inner_size", self.state * self.value_heads),
        ] {
            set(&format!("ssm.{key}"), Value::U32(value));
        }
    }

    fn tensors(&self, shape: &Shape, block: &str, maker: &mut Maker) {
        let width = u64::from(shape.width);
        let [state, key_heads, heads] =
            [self.state, self.key_heads, self.value_heads].map(u64::from);
        let (keys, values) = (state * key_heads, state * heads);
        let through = 2 * keys + values;
        maker.matrix(&format!("{block}.attn_qkv.weight"), &[width, through]);
        maker.matrix(&format!("{block}.attn_gate.weight"), &[width, values]);
        maker.matrix(&format!("{block}.ssm_ba.weight"), &[width, 2 * heads]);
        maker.matrix(&format!("{block}.ssm_out.weight"), &[values, width]);
        let kernel = [Self::KERNEL.into(), through];
        let name = format!("{block}.ssm_conv1d.weight");
        maker.matrix_of(&name, GgmlType::F32, &kernel);
        maker.bias(&format!("{block}.ssm_dt.bias"), &[heads]);
        maker.bias(&format!("{block}.ssm_a"), &[heads]);
        maker.norm(&format!("{block}.ssm_norm.weight"), state);
    }
}
