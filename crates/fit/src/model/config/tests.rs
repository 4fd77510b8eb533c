mod experts;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::table::FAMILIES;
use crate::error::FitError;
use crate::model::{Attention, Model};

/// Bytes that each further token adds to a 16-bit cache, without indexers.
fn growing_bytes(model: &Model) -> u64 {
    let layer = |attention: &Attention| match *attention {
        Attention::Full {
            kv_heads,
            key_dim,
            value_dim,
        } => 2 * u64::from(kv_heads) * u64::from(key_dim + value_dim),
        Attention::Latent {
            kv_lora_rank,
            rope_dims,
            ..
        } => 2 * u64::from(kv_lora_rank + rope_dims),
        Attention::Sliding { .. } | Attention::Recurrent { .. } | Attention::None => 0,
    };
    model.layers.iter().map(|own| layer(&own.attention)).sum()
}

fn read(config: &Value) -> Model {
    Model::from_config(&config.to_string(), "test").unwrap()
}

/// Small configs of each kind; parameters are counted by hand, tensor by tensor.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_architecture_is_counted() {
    let plain = json!({"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
        "vocab_size": 100, "max_position_embeddings": 512});
    let with = |changes: Value| {
        let mut config = plain.clone();
        let own = config.as_object_mut().unwrap();
        own.extend(changes.as_object().unwrap().clone());
        config
    };
    // Embedding, head and last norm, with 64 wide states and 100 tokens.
    let outer = 2 * 6400 + 64;
    let qkvo = 64 * 64 + 2 * 64 * 32 + 64 * 64;
    let dense = 3 * 64 * 128;
    let full = |layers: u64| layers * 2 * 2 * (16 + 16);
    let table = [
        (
            "llama",
            json!({}),
            outer + 2 * (qkvo + dense + 128),
            full(2),
        ),
        (
            "tied",
            json!({"tie_word_embeddings": true}),
            6400 + 64 + 2 * (qkvo + dense + 128),
            full(2),
        ),
        (
            "qwen2",
            json!({"model_type": "qwen2"}),
            outer + 2 * (qkvo + 128 + dense + 128),
            full(2),
        ),
        (
            "qwen3",
            json!({"model_type": "qwen3", "head_dim": 32}),
            outer + 2 * (2 * qkvo + 64 + dense + 128),
            full(4),
        ),
        (
            "phi3",
            json!({"model_type": "phi3"}),
            outer + 2 * (qkvo + dense + 128),
            full(2),
        ),
        (
            "gemma2",
            json!({"model_type": "gemma2", "sliding_window": 32}),
            6400 + 64 + 2 * (qkvo + dense + 256),
            full(1),
        ),
        (
            "gemma3",
            json!({"model_type": "gemma3_text", "head_dim": 16, "sliding_window": 32}),
            6400 + 64 + 2 * (qkvo + 32 + dense + 256),
            0,
        ),
        (
            "mixtral",
            json!({"model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}),
            outer + 2 * (qkvo + 8 * dense + 8 * 64 + 128),
            full(2),
        ),
        (
            "qwen3_moe",
            json!({"model_type": "qwen3_moe", "num_experts": 8, "num_experts_per_tok": 2,
                "moe_intermediate_size": 32}),
            outer + 2 * (qkvo + 32 + 8 * 3 * 64 * 32 + 8 * 64 + 128),
            full(2),
        ),
        (
            "gpt_oss",
            json!({"model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2,
                "sliding_window": 16, "attention_bias": true}),
            outer + 2 * (qkvo + 64 + 64 + 64 + 4 + 4 * (dense + 2 * 128 + 64 + 1) + 4 * 64 + 128),
            full(1),
        ),
        (
            "deepseek_v3",
            json!({"model_type": "deepseek_v3", "q_lora_rank": 32, "kv_lora_rank": 24,
                "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16, "n_routed_experts": 8,
                "num_experts_per_tok": 2, "n_shared_experts": 1, "moe_intermediate_size": 32,
                "first_k_dense_replace": 1}),
            outer
                + 2 * (64 * 32 + 32 * 96 + 64 * 32 + 4 * 24 * 32 + 64 * 64 + 32 + 24 + 128)
                + dense
                + 8 * 3 * 64 * 32
                + 3 * 64 * 32
                + 8 * 64,
            2 * 2 * (24 + 8),
        ),
        (
            "qwen3_next",
            json!({"model_type": "qwen3_next", "full_attention_interval": 2,
                "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 8,
                "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4, "num_experts": 8,
                "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 16}),
            outer
                + (qkvo + 64 * 64 + 32)
                + (64 * 64 + 64 * 32 + 64 * 8 + 4 * 64 + 8 + 8 + 32 * 64)
                + 2 * (8 * 3 * 64 * 32 + 8 * 64 + 3 * 64 * 16 + 128),
            full(1),
        ),
        (
            "nemotron_h",
            json!({"model_type": "nemotron_h", "hybrid_override_pattern": "M*-",
                "mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 8,
                "conv_kernel": 4}),
            outer
                + (64 * (64 + 96 + 4) + 5 * 96 + 12 + 64 + 64 * 64)
                + qkvo
                + 2 * 64 * 128
                + 3 * 64,
            full(1),
        ),
        (
            "cohere2",
            json!({"model_type": "cohere2", "sliding_window": 32, "num_hidden_layers": 4}),
            6400 + 64 + 4 * (qkvo + dense + 64),
            full(1),
        ),
    ];
    for (name, changes, params, growing) in table {
        let model = read(&with(changes));
        assert_eq!(model.missing, Vec::<String>::new(), "{name}");
        assert_eq!(model.params, params, "{name}");
        assert_eq!(growing_bytes(&model), growing, "{name}");
        assert!(model.active_params <= model.params, "{name}");
    }
}

#[test]
fn recurrent_states_are_llama_cpps() {
    // n_embd_r = 3 · (inner + 2 · groups · state), n_embd_s = state · inner; 4 bytes each.
    let model = read(
        &json!({"model_type": "nemotron_h", "hybrid_override_pattern": "M", "hidden_size": 64,
        "num_attention_heads": 4, "num_key_value_heads": 2, "mamba_num_heads": 4, "mamba_head_dim": 16,
        "n_groups": 2, "ssm_state_size": 8, "conv_kernel": 4, "vocab_size": 100,
        "max_position_embeddings": 512}),
    );
    let state_bytes = 4 * (3 * (64 + 2 * 2 * 8) + 8 * 64);
    assert_eq!(
        model.layers[0].attention,
        Attention::Recurrent { state_bytes }
    );
}

#[test]
fn a_text_part_is_found_and_class_defaults_hold() {
    let model = read(
        &json!({"model_type": "gemma3", "vision_config": {"hidden_size": 1152},
        "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
            "num_hidden_layers": 34, "sliding_window": 1024}}),
    );
    assert_eq!(model.params, 3_880_263_168);
    assert_eq!(
        (model.heads, model.vocab, model.max_context),
        (8, 262_208, 131_072)
    );
}

#[test]
fn what_is_not_known_is_named() {
    let table = [
        (json!({}), "model_type"),
        (json!({"model_type": "tomorrow"}), "architecture"),
        (
            json!({"model_type": "llama", "hidden_size": 64}),
            "num_hidden_layers",
        ),
        (
            json!({"model_type": "gemma2", "hidden_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 8, "vocab_size": 10,
            "max_position_embeddings": 8}),
            "sliding_window",
        ),
        (
            json!({"model_type": "llama", "hidden_size": 1_u64 << 60}),
            "hidden_size",
        ),
        (
            json!({"model_type": "llama", "hidden_size": -1}),
            "hidden_size",
        ),
        (
            small(&json!({"layer_types": "full_attention"})),
            "layer_types",
        ),
        (
            small(&json!({"layer_types": ["full_attention"]})),
            "layer_types",
        ),
        (
            small(
                &json!({"model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2,
                "moe_intermediate_size": 0}),
            ),
            "moe_intermediate_size",
        ),
        (
            small(&json!({"model_type": "gemma3_text", "sliding_window": 32,
                "sliding_window_pattern": 0})),
            "sliding_window_pattern",
        ),
        (
            small(&json!({"model_type": "gemma4_text", "sliding_window": 32,
                "num_hidden_layers": 6, "global_head_dim": 0})),
            "global_head_dim",
        ),
        (
            small(&json!({"model_type": "gemma4_text", "sliding_window": 32,
                "num_hidden_layers": 6, "attention_k_eq_v": true, "num_global_key_value_heads": 0})),
            "num_global_key_value_heads",
        ),
        (
            small(&json!({"model_type": "mimo_v2_flash", "moe_layer_freq": [0]})),
            "n_routed_experts",
        ),
        (
            small(&json!({"model_type": "glm4_moe", "n_routed_experts": 4,
                "num_experts_per_tok": 2, "moe_layer_freq": [0]})),
            "moe_layer_freq",
        ),
    ];
    for (config, fact) in table {
        let model = read(&config);
        assert!(
            model.missing.iter().any(|missing| missing == fact),
            "{fact}: {:?}",
            model.missing
        );
        assert!(model.layers.is_empty() && model.quants.is_empty(), "{fact}");
    }
}

#[test]
fn python_numbers_are_no_fault() {
    let text = r#"{"model_type": "llama", "a\"Infinity": "NaN", "limit": [0.0, Infinity, -Infinity, NaN]}"#;
    let model = Model::from_config(text, "x").unwrap();
    assert_eq!(model.missing[0], "num_hidden_layers");
    assert!(Model::from_config(r#"{"a": Infinite}"#, "x").is_err());
}

/// A small dense llama with other keys.
fn small(changes: &Value) -> Value {
    let mut config = json!({"model_type": "llama", "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 128,
        "vocab_size": 100, "max_position_embeddings": 512});
    if let (Some(own), Some(changes)) = (config.as_object_mut(), changes.as_object()) {
        own.extend(changes.clone());
    }
    config
}

#[test]
fn a_flag_is_true_or_false() {
    for (key, value, said) in [
        ("tie_word_embeddings", json!(1), "1"),
        ("tie_word_embeddings", json!("true"), "\"true\""),
        ("tie_word_embeddings", json!([]), "[]"),
        ("tie_word_embeddings", json!({}), "{}"),
        ("attention_bias", json!(0.0), "0.0"),
    ] {
        let mut config = small(&json!({}));
        config[key] = value;
        let error = Model::from_config(&config.to_string(), "x").unwrap_err();
        let expected = format!("x: `{key}` is {said}, neither true nor false");
        assert_eq!(error.to_string(), expected);
    }
    let model = read(&small(&json!({"tie_word_embeddings": null})));
    assert_eq!((model.missing, model.tied_embeddings), (Vec::new(), false));
}

#[test]
fn a_mark_of_byte_order_is_no_fault() {
    let text = format!("\u{feff}{}", small(&json!({})));
    let model = Model::from_config(&text, "x").unwrap();
    assert_eq!(model.missing, Vec::<String>::new());
}

#[test]
fn what_is_no_config_is_refused() {
    for text in ["", "[]", "{", "null"] {
        let error = Model::from_config(text, "x").unwrap_err();
        assert!(
            matches!(error, FitError::Model { ref of, .. } if of == "x"),
            "{error}"
        );
    }
}

const KEYS: [&str; 32] = [
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "intermediate_size",
    "moe_intermediate_size",
    "vocab_size",
    "max_position_embeddings",
    "sliding_window",
    "sliding_window_pattern",
    "num_experts",
    "n_routed_experts",
    "num_local_experts",
    "num_experts_per_tok",
    "n_shared_experts",
    "first_k_dense_replace",
    "q_lora_rank",
    "kv_lora_rank",
    "qk_nope_head_dim",
    "qk_rope_head_dim",
    "v_head_dim",
    "full_attention_interval",
    "linear_num_value_heads",
    "layer_types",
    "hybrid_override_pattern",
    "num_kv_shared_layers",
    "hidden_size_per_layer_input",
    "attention_bias",
    "tie_word_embeddings",
    "interleave_moe_layer_step",
    "text_config",
];

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        8 => (0_u64..200).prop_map(Value::from),
        2 => (0_u32..20).prop_map(|bits| Value::from(1_u64 << bits)),
        1 => any::<u64>().prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => "[ME*a-]{0,6}".prop_map(Value::from),
        1 => Just(Value::Null),
        1 => Just(json!(["full_attention", "sliding_attention", 3])),
        1 => Just(json!({"hidden_size": 1})),
    ]
}

proptest! {
    #[test]
    fn any_config_is_read_or_refused(
        family in 0..FAMILIES.len(),
        values in proptest::collection::vec(any_value(), KEYS.len()),
    ) {
        let mut config: serde_json::Map<String, Value> =
            KEYS.iter().map(|key| (*key).to_owned()).zip(values).collect();
        config.insert("model_type".to_owned(), FAMILIES[family].model_type.into());
        let Ok(model) = Model::from_config(&Value::Object(config).to_string(), "x") else {
            return Ok(());
        };
        prop_assert_eq!(model.layers.is_empty(), !model.missing.is_empty());
        prop_assert!(model.active_params <= model.params);
        for quant in &model.quants {
            prop_assert_eq!(quant.weights.layers.len(), model.layers.len());
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = Model::from_config(&text, "x");
    }
}
