use super::{Layers, Place, builtin, parse};
use crate::model::{Exactness, Format, Model};

/// A config of widths that K-quants' blocks do not divide, where `hidden` is 2,880.
fn model(hidden: u64) -> Model {
    let config = serde_json::json!({"model_type": "llama", "hidden_size": hidden, "num_hidden_layers": 16,
        "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 4096, "head_dim": 64,
        "vocab_size": 1000, "max_position_embeddings": 512});
    Model::from_config(&config.to_string(), "test").unwrap()
}

fn bits(model: &Model, name: &str) -> f64 {
    model
        .quants
        .iter()
        .find(|quant| quant.name == name)
        .unwrap()
        .bits_per_weight
}

#[test]
fn more_bits_go_to_the_layers_that_llama_cpp_picks() {
    let picked: Vec<u64> = (0..32)
        .filter(|index| {
            Layers::More.hold(Place {
                index: *index,
                of: 32,
            })
        })
        .collect();
    assert_eq!(
        picked,
        [0, 1, 2, 3, 6, 9, 12, 15, 18, 21, 24, 27, 28, 29, 30, 31]
    );
}

#[test]
fn rows_that_blocks_do_not_divide_fall_back() {
    let (even, odd) = (model(2048), model(2880));
    assert!(
        (4.5..5.0).contains(&bits(&even, "Q4_K_M")),
        "{}",
        bits(&even, "Q4_K_M")
    );
    // Q5_0 and Q8_0 take the places of Q4_K and Q6_K, but for what goes down, whose rows fit.
    assert!(
        (5.0..6.0).contains(&bits(&odd, "Q4_K_M")),
        "{}",
        bits(&odd, "Q4_K_M")
    );
    for name in ["Q8_0", "F16", "mlx-4bit"] {
        assert!(
            (bits(&even, name) - bits(&odd, name)).abs() < 0.02,
            "{name}"
        );
    }
}

#[test]
fn a_wider_quantization_is_larger() {
    let model = model(2048);
    let order = [
        "IQ2_XXS", "IQ2_M", "IQ3_XXS", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_S",
        "Q5_K_M", "Q6_K", "Q8_0", "F16",
    ];
    for pair in order.windows(2) {
        assert!(bits(&model, pair[0]) < bits(&model, pair[1]), "{pair:?}");
    }
}

#[test]
fn a_known_sum_is_shared_out_whole() {
    let model = model(2048);
    for total_bytes in [1, 999_983, 1 << 30, u64::MAX / 2] {
        let quant = model.quants[0]
            .clone()
            .with_total(total_bytes, model.params, "a file");
        assert_eq!(quant.weights.total(), total_bytes);
        assert_eq!(quant.exactness, Exactness::Total);
    }
}

#[test]
fn the_production_quantization_is_the_smallest_listed_at_four_bits() {
    let model = model(2048);
    let name = |format| {
        model
            .production_quant(format)
            .map(|quant| quant.name.as_str())
    };
    assert_eq!(name(Some(Format::Gguf)), Some("Q4_K_M"));
    assert_eq!(name(Some(Format::Mlx)), Some("mlx-4bit"));
    assert_eq!(name(None), Some("mlx-4bit"));
    assert!(model.quants.iter().any(|quant| quant.name == "Q2_K"));
}

#[test]
fn a_bad_quantization_is_named_with_its_line() {
    let text = "\n[[quantization]]\nid = \"q\"\nname = \"Q\"\nformat = \"gguf\"\nbase = \"Q9\"\nfloat = \"F32\"\nhead = \"F16\"\nsource = \"x\"\ndate = \"2026-11-24\"\n";
    let error = parse("q.toml", text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "q.toml:2: base: q: no type is called 'Q9'"
    );
}

#[test]
fn every_quantization_has_a_source_and_a_date() {
    let mixes = builtin().unwrap();
    assert!(mixes.len() >= 30, "{}", mixes.len());
    for mix in mixes {
        assert!(
            !mix.source.is_empty() && mix.date.len() == 10,
            "{}",
            mix.name
        );
    }
}
