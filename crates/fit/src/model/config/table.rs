//! The architectures that are known, and what differs between them.

use super::Flag;

/// An architecture: how its `model_type` reads, llama.cpp's name of it, and what differs.
pub(super) struct Family {
    pub(super) model_type: &'static str,
    pub(super) architecture: &'static str,
    pub(super) kind: Kind,
    /// Whether the head is the embedding where the key is absent.
    pub(super) tied: Flag,
    /// Norms of a layer, in hidden widths.
    pub(super) norms: u64,
    /// Norms of queries and keys.
    pub(super) head_norms: HeadNorms,
    /// Whether queries, keys and values have biases where no key says so.
    pub(super) biases: Flag,
    pub(super) window: Window,
    /// What the configuration class has for keys that a file leaves out.
    pub(super) defaults: &'static [(&'static str, u64)],
}

impl Family {
    /// Whether no model of it is dense.
    pub(super) fn is_mixture(&self) -> bool {
        match self.kind {
            Kind::Mixture | Kind::Latent | Kind::GptOss | Kind::Llama4 | Kind::MiMo => true,
            Kind::Delta => self.model_type != "qwen3_5_text",
            Kind::Dense | Kind::Fused | Kind::NemotronH | Kind::GraniteHybrid | Kind::Gemma4 => {
                false
            }
        }
    }

    /// The key that has the number of routed experts.
    pub(super) fn experts_key(&self) -> &'static str {
        match (self.kind, self.model_type) {
            (Kind::Latent | Kind::MiMo, _) | (_, "glm4_moe") => "n_routed_experts",
            (Kind::GptOss | Kind::Llama4 | Kind::GraniteHybrid, _)
            | (_, "mixtral" | "minimax_m2") => "num_local_experts",
            _ => "num_experts",
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dense,
    /// Gate and up in one tensor; queries, keys and values in one.
    Fused,
    /// Experts of the width in `moe_intermediate_size`.
    Mixture,
    /// Multi-head latent attention, with experts.
    Latent,
    /// Full and gated-delta layers.
    Delta,
    /// Mamba, attention and feed-forward layers, each alone.
    NemotronH,
    /// Mamba or attention, and a feed-forward part.
    GraniteHybrid,
    GptOss,
    Llama4,
    Gemma4,
    /// Layers of two kinds of attention with their own heads.
    MiMo,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadNorms {
    None,
    /// One of a head's width.
    Head,
    /// One of all heads' width.
    All,
}

/// Which layers have a window, where `layer_types` does not say.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Window {
    /// None.
    Never,
    /// All but each n-th, n from the key or this.
    AllBut(&'static str, u64),
}

const fn family(model_type: &'static str, architecture: &'static str, kind: Kind) -> Family {
    Family {
        model_type,
        architecture,
        kind,
        tied: Flag::Off,
        norms: 2,
        head_norms: HeadNorms::None,
        biases: Flag::Off,
        window: Window::Never,
        defaults: &[],
    }
}

const fn gemma(
    model_type: &'static str,
    architecture: &'static str,
    kind: Kind,
    head_norms: HeadNorms,
    every: u64,
) -> Family {
    Family {
        tied: Flag::On,
        norms: 4,
        head_norms,
        window: Window::AllBut("sliding_window_pattern", every),
        ..family(model_type, architecture, kind)
    }
}

const fn normed(
    model_type: &'static str,
    architecture: &'static str,
    kind: Kind,
    head_norms: HeadNorms,
) -> Family {
    Family {
        head_norms,
        ..family(model_type, architecture, kind)
    }
}

/// All that are known.
pub(super) static FAMILIES: [Family; 43] = [
    family("llama", "llama", Kind::Dense),
    // llama.cpp gives it the whole context, whatever `sliding_window` says.
    family("mistral", "llama", Kind::Dense),
    family("mistral3", "llama", Kind::Dense),
    family("ministral3", "mistral3", Kind::Dense),
    family("mixtral", "llama", Kind::Mixture),
    Family {
        biases: Flag::On,
        ..family("qwen2", "qwen2", Kind::Dense)
    },
    normed("qwen3", "qwen3", Kind::Dense, HeadNorms::Head),
    normed("qwen3_moe", "qwen3moe", Kind::Mixture, HeadNorms::Head),
    normed("qwen3_vl_text", "qwen3vl", Kind::Dense, HeadNorms::Head),
    normed(
        "qwen3_vl_moe_text",
        "qwen3vlmoe",
        Kind::Mixture,
        HeadNorms::Head,
    ),
    normed("qwen3_next", "qwen3next", Kind::Delta, HeadNorms::Head),
    normed("qwen3_5_text", "qwen35", Kind::Delta, HeadNorms::Head),
    normed(
        "qwen3_5_moe_text",
        "qwen35moe",
        Kind::Delta,
        HeadNorms::Head,
    ),
    gemma("gemma2", "gemma2", Kind::Dense, HeadNorms::None, 2),
    Family {
        defaults: &[
            ("num_attention_heads", 8),
            ("num_key_value_heads", 4),
            ("head_dim", 256),
            ("vocab_size", 262_208),
            ("max_position_embeddings", 131_072),
        ],
        ..gemma("gemma3_text", "gemma3", Kind::Dense, HeadNorms::Head, 6)
    },
    gemma("gemma4_text", "gemma4", Kind::Gemma4, HeadNorms::Head, 6),
    family("phi3", "phi3", Kind::Fused),
    Family {
        tied: Flag::On,
        ..family("smollm3", "smollm3", Kind::Dense)
    },
    normed("olmo2", "olmo2", Kind::Dense, HeadNorms::All),
    Family {
        window: Window::AllBut("sliding_window_pattern", 4),
        ..normed("olmo3", "olmo2", Kind::Dense, HeadNorms::All)
    },
    family("granite", "granite", Kind::Dense),
    family("granitemoehybrid", "granitehybrid", Kind::GraniteHybrid),
    Family {
        tied: Flag::On,
        norms: 1,
        ..family("cohere", "command-r", Kind::Dense)
    },
    Family {
        tied: Flag::On,
        norms: 1,
        window: Window::AllBut("sliding_window_pattern", 4),
        ..family("cohere2", "cohere2", Kind::Dense)
    },
    family("gpt_oss", "gpt-oss", Kind::GptOss),
    family("llama4_text", "llama4", Kind::Llama4),
    Family {
        norms: 4,
        ..family("glm4", "glm4", Kind::Dense)
    },
    family("glm4_moe", "glm4moe", Kind::Mixture),
    family("glm4_moe_lite", "deepseek2", Kind::Latent),
    family("glm_moe_dsa", "glm-dsa", Kind::Latent),
    family("deepseek_v2", "deepseek2", Kind::Latent),
    family("deepseek_v3", "deepseek2", Kind::Latent),
    family("deepseek_v32", "deepseek32", Kind::Latent),
    family("kimi_k2", "deepseek2", Kind::Latent),
    normed("minimax_m2", "minimax-m2", Kind::Mixture, HeadNorms::All),
    family("nemotron_h", "nemotron_h", Kind::NemotronH),
    normed("step3p7", "step35", Kind::Mixture, HeadNorms::Head),
    family("mimo_v2_flash", "mimo2", Kind::MiMo),
    family("seed_oss", "seed_oss", Kind::Dense),
    normed(
        "hunyuan_v1_dense",
        "hunyuan-dense",
        Kind::Dense,
        HeadNorms::Head,
    ),
    family("internlm2", "internlm2", Kind::Dense),
    family("internlm3", "llama", Kind::Dense),
    family("ernie4_5", "ernie4_5", Kind::Dense),
];
