//! Models whose experts are not counted.

use serde_json::json;

use super::{read, small};

const MIXTURES: [(&str, &str); 14] = [
    ("mixtral", "num_local_experts"),
    ("qwen3_moe", "num_experts"),
    ("qwen3_vl_moe", "num_experts"),
    ("qwen3_next", "num_experts"),
    ("qwen3_5_moe", "num_experts"),
    ("glm4_moe", "n_routed_experts"),
    ("glm4_moe_lite", "n_routed_experts"),
    ("deepseek_v3", "n_routed_experts"),
    ("kimi_k2", "n_routed_experts"),
    ("minimax_m2", "num_local_experts"),
    ("gpt_oss", "num_local_experts"),
    ("llama4", "num_local_experts"),
    ("mimo_v2_flash", "n_routed_experts"),
    ("granitemoehybrid", "num_local_experts"),
];

#[test]
fn a_mixture_without_a_number_of_experts_is_not_dense() {
    for (model_type, key) in MIXTURES {
        let model = read(&small(&json!({"model_type": model_type})));
        assert!(
            model.missing.iter().any(|fact| fact == key),
            "{model_type}: {:?}",
            model.missing
        );
        assert!(model.layers.is_empty() && model.quants.is_empty());
    }
    for (changes, fact) in [
        (json!({"num_experts_per_tok": 2}), Some("num_experts")),
        (json!({"moe_intermediate_size": 32}), Some("num_experts")),
        (json!({"n_shared_experts": 1.0}), Some("num_experts")),
        (json!({"moe_layers_enum": "1,2"}), Some("num_experts")),
        (
            json!({"num_experts_per_tok": 2, "num_local_experts": 0}),
            Some("num_local_experts"),
        ),
        (
            json!({"num_experts": "8", "num_experts_per_tok": 2}),
            Some("num_experts"),
        ),
        (
            json!({"model_type": "phi3", "num_experts_per_tok": 2}),
            Some("num_experts"),
        ),
        (
            json!({"model_type": "qwen3_moe", "num_experts": 0}),
            Some("num_experts"),
        ),
        (
            json!({"text_config": {"model_type": "llama"}, "num_experts_per_tok": 2}),
            Some("num_experts"),
        ),
        // What is off says nothing.
        (
            json!({"num_experts_per_tok": null, "num_experts": 0, "use_moe": false}),
            None,
        ),
        (json!({"moe_layer_num_skipped": 0, "moe_list": []}), None),
        (
            json!({"model_type": "granitemoehybrid", "num_local_experts": 0,
                "num_experts_per_tok": 0, "shared_intermediate_size": 64}),
            None,
        ),
        (
            json!({"model_type": "gemma4_text", "sliding_window": 32}),
            None,
        ),
        (
            json!({"model_type": "gemma4_text", "sliding_window": 32, "num_experts": null,
                "top_k_experts": 2}),
            Some("enable_moe_block"),
        ),
        (
            json!({"model_type": "gemma4_text", "sliding_window": 32, "enable_moe_block": true}),
            Some("num_experts"),
        ),
    ] {
        let missing = read(&small(&changes)).missing;
        assert_eq!(
            missing,
            Vec::from_iter(fact.map(str::to_owned)),
            "{changes}"
        );
    }
}
