use std::collections::BTreeMap;

use super::{File, Row, Written, models, read};
use crate::catalog::Catalog;
use crate::model::config::Facts;
use crate::model::mix::{self, Mix, Parts};
use crate::model::{Attention, Exactness, Format, Model};

fn rows() -> Vec<Row<Written>> {
    let text = include_str!("../../../../../catalog/models.toml");
    read(File::new("models.toml", text)).unwrap()
}

fn all() -> (Vec<Row<Written>>, Vec<Mix>, Vec<Model>) {
    let (rows, mixes) = (rows(), mix::builtin().unwrap());
    let models = models(&rows, &mixes).unwrap();
    (rows, mixes, models)
}

fn billions(params: u64) -> f64 {
    params as f64 / 1e9
}

#[test]
fn the_catalog_is_wide_enough() {
    let (_, _, models) = all();
    let complete: Vec<&Model> = models
        .iter()
        .filter(|model| model.missing.is_empty())
        .collect();
    assert!(complete.len() >= 45, "{}", complete.len());
    let has = |kind: fn(&Attention) -> bool| {
        complete
            .iter()
            .filter(|model| model.layers.iter().any(|layer| kind(&layer.attention)))
            .count()
    };
    assert!(has(|attention| matches!(attention, Attention::Full { .. })) >= 30);
    assert!(has(|attention| matches!(attention, Attention::Sliding { .. })) >= 8);
    assert!(has(|attention| matches!(attention, Attention::Latent { .. })) >= 8);
    assert!(has(|attention| matches!(attention, Attention::Recurrent { .. })) >= 8);
    assert!(complete.iter().filter(|model| model.experts > 0).count() >= 15);
    assert!(complete.iter().any(|model| billions(model.params) > 1000.0));
    for model in complete {
        for format in [Format::Gguf, Format::Mlx] {
            assert!(
                model.quants.iter().any(|quant| quant.format == format),
                "{}",
                model.id
            );
        }
        let production = model
            .production_quant(None)
            .unwrap_or_else(|| panic!("{}", model.id));
        assert!(
            production.bits_per_weight < 6.0,
            "{}: {}",
            model.id,
            production.name
        );
    }
}

#[test]
fn a_name_finds_one_model() {
    let (_, _, models) = all();
    // As names are compared: letters, digits and dots.
    let folded = |name: &str| -> String {
        let plain = name.chars().filter(|c| c.is_alphanumeric() || *c == '.');
        plain.flat_map(char::to_lowercase).collect()
    };
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    for model in &models {
        let mut own: Vec<String> = model
            .aliases
            .iter()
            .chain([&model.id, &model.name])
            .chain(&model.repo)
            .map(|name| folded(name))
            .collect();
        own.sort();
        own.dedup();
        for name in own {
            let other = owners.insert(name.clone(), &model.id);
            assert_eq!(other, None, "{name} of {}", model.id);
        }
    }
}

#[test]
fn counted_parameters_are_the_published_ones() {
    let (rows, _, models) = all();
    for (row, model) in rows
        .iter()
        .zip(&models)
        .filter(|(_, model)| model.missing.is_empty())
    {
        let published = row
            .value
            .params_b
            .unwrap_or_else(|| panic!("{}: no params_b", model.id));
        let apart = (published / billions(model.params) - 1.0).abs();
        assert!(
            apart <= 0.015 || row.value.params_include.is_some(),
            "{}: {apart:.3}",
            model.id
        );
        assert!(apart <= 0.11, "{}: {apart:.3}", model.id);
    }
}

/// Vendors count embedding and head or not, so both are right.
#[test]
fn active_parameters_are_the_published_ones() {
    let (rows, _, models) = all();
    for (row, model) in rows
        .iter()
        .zip(&models)
        .filter(|(_, model)| model.experts > 0 && model.missing.is_empty())
    {
        let published = row
            .value
            .active_params_b
            .unwrap_or_else(|| panic!("{}: no active_params_b", model.id));
        let most = billions(model.active_params);
        let tables = if model.tied_embeddings { 1 } else { 2 };
        let least = most - billions(tables * u64::from(model.vocab) * u64::from(model.hidden));
        assert!(
            (0.9 * least..=1.1 * most).contains(&published),
            "{}: {least} to {most}",
            model.id
        );
    }
}

/// How far the computed bytes are from those of published files.
#[test]
fn computed_sizes_are_those_of_files() {
    let (rows, mixes, models) = all();
    let mut apart: Vec<(f64, String)> = Vec::new();
    for (row, model) in rows.iter().zip(&models) {
        let parts = Parts::of(&Facts::read(&row.value.config()).unwrap());
        for file in &row.value.file {
            let mix = mixes.iter().find(|mix| mix.name == file.quant).unwrap();
            let computed = mix.weights(&parts).total() as f64;
            let known = (file.bytes - row.value.vision_bytes) as f64;
            apart.push((
                (computed / known - 1.0).abs(),
                format!("{} {}", model.id, file.quant),
            ));
            let quant = model
                .quants
                .iter()
                .find(|quant| quant.name == file.quant)
                .unwrap();
            assert_eq!(quant.exactness, Exactness::Total);
            assert_eq!(quant.weights.total(), file.bytes - row.value.vision_bytes);
        }
    }
    apart.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(apart.len() >= 60, "{}", apart.len());
    assert!(
        apart[apart.len() / 2].0 <= 0.001,
        "median: {:?}",
        apart[apart.len() / 2]
    );
    assert!(apart.last().unwrap().0 <= 0.02, "worst: {:?}", apart.last());
}

/// Experts that were made in MXFP4 stay so in whatever mix: sizes of published files, in 10⁹ bytes,
/// rounded as their page has them (huggingface.co/unsloth/gpt-oss-20b-GGUF and gpt-oss-120b-GGUF).
#[test]
fn experts_in_mxfp4_stay_so() {
    let (rows, mixes, models) = all();
    let published = [
        ("gpt-oss-20b", "Q2_K", 11.5),
        ("gpt-oss-20b", "Q3_K_M", 11.5),
        ("gpt-oss-20b", "Q4_0", 11.5),
        ("gpt-oss-20b", "Q4_1", 11.6),
        ("gpt-oss-20b", "Q4_K_S", 11.6),
        ("gpt-oss-20b", "Q4_K_M", 11.6),
        ("gpt-oss-20b", "Q5_K_M", 11.7),
        ("gpt-oss-20b", "F16", 13.8),
        ("gpt-oss-120b", "Q4_K_M", 62.8),
    ];
    for (id, name, gb) in published {
        let row = rows.iter().find(|row| row.value.id == id).unwrap();
        let mix = mixes.iter().find(|mix| mix.name == name).unwrap();
        let parts = Parts::of(&Facts::read(&row.value.config()).unwrap());
        let computed = mix.weights(&parts).total() as f64 / 1e9;
        assert!(
            (computed / gb - 1.0).abs() < 0.005,
            "{id} {name}: {computed}"
        );
    }
    // MLX's own quantizations have been made of the experts too.
    let bits = |id: &str, quant: &str| {
        let model = models.iter().find(|model| model.id == id).unwrap();
        let mut quants = model.quants.iter();
        let quant = quants.find(|own| own.name == quant).unwrap();
        quant.bits_per_weight
    };
    assert!(bits("gpt-oss-120b", "Q8_0") < 4.7 && bits("gpt-oss-120b", "mlx-8bit") > 8.0);
    assert!(bits("qwen3-30b-a3b", "Q8_0") > 8.0);
}

/// Bytes that a further token adds to a 16-bit cache, without indexers, as published for each
/// model, or by its formula: 4 · heads · width over the full layers; 2 · (rank + rope) where latent.
#[test]
fn a_token_takes_what_is_known() {
    let (_, _, models) = all();
    let table = [
        ("llama-3.1-8b", 131_072),
        ("llama-3.1-70b", 327_680),
        ("llama-3.1-405b", 516_096),
        ("qwen3-0.6b", 114_688),
        ("qwen3-1.7b", 114_688),
        ("qwen3-8b", 147_456),
        ("qwen3-32b", 262_144),
        ("qwen3-30b-a3b", 98_304),
        ("qwen3-235b-a22b", 192_512),
        ("qwen3-coder-480b-a35b", 253_952),
        ("qwen3.5-27b", 65_536),
        ("qwen3.5-35b-a3b", 20_480),
        ("qwen3.5-122b-a10b", 24_576),
        ("qwen3.5-397b-a17b", 30_720),
        ("deepseek-v3", 70_272),
        ("deepseek-v3.2", 70_272),
        ("qwen2.5-7b", 57_344),
        ("qwen2.5-32b", 262_144),
        ("qwen2.5-72b", 327_680),
        ("gpt-oss-20b", 24_576),
        ("gpt-oss-120b", 36_864),
        ("kimi-k2", 70_272),
        ("minimax-m2.5", 253_952),
        ("glm-5", 89_856),
        ("glm-5.2", 89_856),
        ("glm-4.5-air", 188_416),
        ("gemma-4-26b-a4b", 20_480),
        ("gemma-4-31b", 81_920),
        ("mistral-7b", 131_072),
        ("mixtral-8x7b", 131_072),
        ("mixtral-8x22b", 229_376),
        ("nemotron-3-nano-30b-a3b", 6_144),
        ("nemotron-3-super-120b-a12b", 8_192),
        // 12 of 48 layers see more than a chunk of 8,192 tokens.
        ("llama-4-scout", 49_152),
        ("llama-4-maverick", 49_152),
    ];
    for (id, bytes) in table {
        let model = models
            .iter()
            .find(|model| model.id == id)
            .unwrap_or_else(|| panic!("{id}"));
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
        let own: u64 = model.layers.iter().map(|own| layer(&own.attention)).sum();
        assert_eq!(own, bytes, "{id}");
    }
}

/// A newer or retrained model of the same widths may have another context: it must not be taken for
/// the older one.
#[test]
fn a_name_has_its_own_context() {
    let (_, _, models) = all();
    let catalog = Catalog::embedded().unwrap();
    for (name, id, context) in [
        ("qwen3-235b-a22b", "qwen3-235b-a22b", 40_960),
        (
            "qwen3-235b-a22b-instruct-2507",
            "qwen3-235b-a22b-2507",
            262_144,
        ),
        (
            "Qwen/Qwen3-30B-A3B-Instruct-2507",
            "qwen3-30b-a3b-2507",
            262_144,
        ),
        ("Qwen3-30B-A3B-Thinking-2507", "qwen3-30b-a3b-2507", 262_144),
        ("Qwen3-4B-Thinking-2507", "qwen3-4b-2507", 262_144),
        ("qwen3-coder:30b", "qwen3-coder-30b-a3b", 262_144),
        ("qwq-32b", "qwq-32b", 40_960),
        (
            "deepseek-r1-distill-qwen-32b",
            "deepseek-r1-distill-qwen-32b",
            131_072,
        ),
        ("DeepSeek-R1-Distill-Llama-70B", "llama-3.3-70b", 131_072),
        ("qwen2.5:32b", "qwen2.5-32b", 32_768),
        (
            "Mistral-Small-24B-Instruct-2501",
            "mistral-small-3-24b",
            32_768,
        ),
        ("Phi-4-reasoning-plus", "phi-4-reasoning", 32_768),
    ] {
        let found = catalog.model(name).unwrap();
        assert_eq!(
            (found.id.as_str(), found.max_context),
            (id, context),
            "{name}"
        );
    }
    let of = |id: &str| models.iter().find(|model| model.id == id).unwrap();
    for (id, base) in [
        ("qwen3-4b-2507", "qwen3-4b"),
        ("qwen3-30b-a3b-2507", "qwen3-30b-a3b"),
        ("qwen3-coder-30b-a3b", "qwen3-30b-a3b"),
        ("qwen3-235b-a22b-2507", "qwen3-235b-a22b"),
        ("qwq-32b", "qwen2.5-32b"),
        ("deepseek-r1-distill-qwen-7b", "qwen2.5-7b"),
        ("deepseek-r1-distill-qwen-14b", "qwen2.5-14b"),
        ("deepseek-r1-distill-qwen-32b", "qwen2.5-32b"),
        ("mistral-small-3-24b", "mistral-small-24b"),
        ("phi-4-reasoning", "phi-4"),
    ] {
        let (own, base) = (of(id), of(base));
        let shape = |model: &Model| (model.params, model.hidden, model.vocab, model.experts);
        assert!(
            own.layers == base.layers && shape(own) == shape(base),
            "{id}"
        );
        assert_ne!(own.max_context, base.max_context, "{id}");
    }
}

#[test]
fn where_sources_differ_is_noted() {
    let (_, _, models) = all();
    let note = |id: &str| {
        let model = models.iter().find(|model| model.id == id).unwrap();
        model.note.clone().unwrap_or_default()
    };
    for (id, part) in [
        ("kimi-k2.5", "1,058.6"),
        ("glm-5.1", "753.9"),
        ("qwen3-next-80b-a3b", "81.3"),
        ("qwen3-0.6b", "0.752"),
        ("qwen3-1.7b", "2.032"),
        ("glm-4.5", "34.9"),
        ("nemotron-3-nano-30b-a3b", "the name says 3"),
        ("glm-4.7", "91"),
        ("qwen2.5-7b", "131,072"),
    ] {
        assert!(note(id).contains(part), "{id}: {}", note(id));
    }
    assert_eq!(note("llama-3.1-8b"), "");
}

#[test]
fn what_is_not_known_wholly_is_named() {
    let (_, _, models) = all();
    for id in ["kimi-k3", "deepseek-v4-flash", "minimax-m3"] {
        let model = models.iter().find(|model| model.id == id).unwrap();
        assert!(
            !model.missing.is_empty() && model.layers.is_empty() && model.quants.is_empty(),
            "{id}"
        );
    }
}

#[test]
fn a_bad_entry_is_named_with_its_line() {
    let good = "[[model]]\nid = \"a\"\nname = \"A\"\nsource = \"x\"\ndate = \"2026-11-24\"\n[model.config]\nmodel_type = \"llama\"\n";
    let table = [
        (
            good.replace("2026-11-24", "today"),
            "models.toml:1: date: a: 'today' is no date",
        ),
        (
            good.replace("\"x\"", "\" \""),
            "models.toml:1: source: a: is empty",
        ),
        (
            format!("{good}[[model.file]]\nquant = \"Q4_K_N\"\nbytes = 1\nsource = \"x\"\n"),
            "models.toml:1: file.quant: a: nothing is called 'Q4_K_N'; did you mean",
        ),
        (
            good.replace("name =", "nam ="),
            "models.toml:3: nam: unknown field `nam`",
        ),
        (
            format!("{good}hidden_size = nan\n"),
            "models.toml:8: hidden_size: not finite",
        ),
        (
            format!("{good}layer_types = [1, [{{ deep = -inf }}]]\n"),
            "models.toml:1: deep: not finite",
        ),
        (
            format!("{good}tie_word_embeddings = 1\n"),
            "models.toml:1: config: a: `tie_word_embeddings` is 1, neither true nor false",
        ),
        (
            good.replace("source", "params_b = -1\nsource"),
            "models.toml:4: params_b: not plausible",
        ),
        (
            good.replace("source", "params_b = nan\nsource"),
            "models.toml:4: params_b: not plausible",
        ),
        (
            good.replace("source", "params_b = 1e300\nsource"),
            "models.toml:4: params_b: not plausible",
        ),
        (
            good.replace("source", "params_b = 8\nactive_params_b = 9\nsource"),
            "models.toml:5: active_params_b: not plausible",
        ),
        (
            good.replace("source", "active_params_b = inf\nsource"),
            "models.toml:4: active_params_b: not plausible",
        ),
    ];
    for (text, message) in table {
        let read = read(File::new("models.toml", &text));
        let error = read
            .and_then(|rows| models(&rows, &mix::builtin()?))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(message), "{error}");
    }
}
