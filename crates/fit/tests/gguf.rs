//! What is read from the headers of GGUF files.

use brigade_fit::FitError;
use brigade_fit::model::{Attention, Exactness, Model};
use brigade_gguf::testing::{Shape, TinyModel, to_bytes};
use brigade_gguf::{Array, Builder, GgmlType, Header, NewTensor, TensorData, Value};

fn parse(bytes: Vec<u8>) -> brigade_gguf::Model {
    let header = Header::read(&mut std::io::Cursor::new(bytes)).expect("a header");
    brigade_gguf::Model::from_headers(vec![header]).expect("a model")
}

fn read(model: &TinyModel) -> Model {
    Model::from_gguf(&parse(model.to_bytes()), "tiny").expect("a model to plan with")
}

/// A header of an architecture with a few keys, 64 wide with 4 heads, an embedding, and a tensor
/// for each layer.
fn try_header(name: &str, layers: u32, keys: &[(&str, Value)]) -> Result<Model, FitError> {
    let mut builder = Builder::new();
    builder.set("general.architecture", name.into());
    let mut set = |key: &str, value: Value| {
        builder.set(&format!("{name}.{key}"), value);
    };
    set("block_count", Value::U32(layers));
    set("context_length", Value::U32(4096));
    set("embedding_length", Value::U32(64));
    set("attention.head_count", Value::U32(4));
    let mut predicting = 0;
    for (key, value) in keys {
        set(key, value.clone());
        if *key == "nextn_predict_layers" {
            predicting = value.as_u32().unwrap_or(0);
        }
    }
    let mut tensor = |name: String, dims: &[u64]| {
        builder.tensor(NewTensor {
            name,
            dims: dims.to_vec(),
            ggml_type: GgmlType::F32,
            data: TensorData::Zeros,
        });
    };
    tensor("token_embd.weight".into(), &[64, 10]);
    for layer in 0..layers.saturating_sub(predicting) {
        tensor(format!("blk.{layer}.attn_norm.weight"), &[64]);
    }
    Model::from_gguf(&parse(to_bytes(builder)), "some")
}

fn header(name: &str, layers: u32, keys: &[(&str, Value)]) -> Model {
    try_header(name, layers, keys).expect("a model to plan with")
}

/// A letter for each layer: full, window, latent, state, none.
fn kinds(model: &Model) -> String {
    let letter = |attention: Attention| match attention {
        Attention::Full { .. } => 'f',
        Attention::Sliding { .. } => 'w',
        Attention::Latent { .. } => 'l',
        Attention::Recurrent { .. } => 's',
        Attention::None => '-',
    };
    model
        .layers
        .iter()
        .map(|layer| letter(layer.attention))
        .collect()
}

/// What layers keep, with a question mark where that is not known.
fn check(name: &str, layers: u32, keys: &[(&str, Value)], expected: &str) {
    let model = header(name, layers, keys);
    let unknown = if model.missing.is_empty() { "" } else { "?" };
    assert_eq!(kinds(&model) + unknown, expected, "{name} {keys:?}");
}

#[test]
fn each_architecture_keeps_what_llama_cpp_keeps() {
    let number = Value::U32;
    let list = |values: &[u32]| Value::Array(Array::of_u32(values));
    let flags = |values: &[bool]| Value::Array(Array::of_bool(values));
    let window = "attention.sliding_window";
    let pattern = "attention.sliding_window_pattern";
    let kv_heads = "attention.head_count_kv";
    for (name, layers, keys, expected) in [
        ("llama", 3, vec![], "fff"),
        // Named, but not used by llama.cpp.
        ("phi3", 3, vec![(window, number(8))], "fff"),
        ("qwen2", 2, vec![(window, number(8))], "ff"),
        ("gemma2", 4, vec![], "wfwf"),
        ("gemma3", 7, vec![(window, number(8))], "wwwwwfw"),
        ("gemma3", 7, vec![], "fffffff"),
        (
            "gemma3",
            3,
            vec![(window, number(8)), (pattern, number(2))],
            "wfw",
        ),
        (
            "gemma3",
            2,
            vec![(window, number(8)), (pattern, flags(&[false, true]))],
            "fw",
        ),
        ("gpt-oss", 4, vec![(window, number(8))], "wfwf"),
        ("cohere2", 5, vec![(window, number(8))], "wwwfw"),
        ("cohere2moe", 5, vec![(window, number(8))], "fwwwf"),
        ("llama4", 5, vec![], "wwwfw"),
        ("llama4", 5, vec![(window, number(0))], "fffff"),
        ("exaone4", 4, vec![(window, number(8))], "ffff"),
        ("smallthinker", 5, vec![(window, number(8))], "fwwwf"),
        ("smallthinker", 5, vec![], "fffff"),
        (
            "gemma4",
            4,
            vec![
                (window, number(8)),
                (pattern, flags(&[true, false, true, false])),
                ("attention.shared_kv_layers", number(2)),
            ],
            "wf--",
        ),
        // No file of this architecture does without the list.
        ("mimo2", 2, vec![(window, number(8))], "ff?"),
        // Pruned: no attention in one layer, another kind in the next.
        (
            "deci",
            3,
            vec![
                ("attention.head_count", list(&[4, 0, 4])),
                (kv_heads, list(&[2, 0, 0])),
            ],
            "f--",
        ),
        ("llama", 3, vec![(kv_heads, list(&[2, 0, 2]))], "f-f?"),
        // llama.cpp does not load it without.
        ("cohere2", 2, vec![], "ff?"),
        (
            "deepseek2",
            2,
            vec![("attention.kv_lora_rank", number(32))],
            "ff",
        ),
        (
            "deepseek2",
            2,
            vec![
                (kv_heads, number(1)),
                ("attention.kv_lora_rank", number(32)),
                ("attention.key_length", number(40)),
                ("attention.key_length_mla", number(24)),
            ],
            "ll",
        ),
        // The last of them predicts a token more.
        (
            "glm4moe",
            3,
            vec![("nextn_predict_layers", number(1))],
            "ff",
        ),
        ("falcon-h1", 2, vec![], "ff?"),
        ("an-architecture-of-tomorrow", 2, vec![], "ff?"),
    ] {
        check(name, layers, &keys, expected);
    }
}

#[test]
fn layers_with_a_state_are_those_that_the_file_says() {
    let number = Value::U32;
    let list = |values: &[u32]| Value::Array(Array::of_u32(values));
    let flags = |values: &[bool]| Value::Array(Array::of_bool(values));
    let kv_heads = "attention.head_count_kv";
    let with = |mut keys: Vec<(&'static str, Value)>, state: &[&'static str]| {
        keys.extend(state.iter().map(|key| (*key, number(4))));
        keys
    };
    let mamba = ["ssm.conv_kernel", "ssm.inner_size", "ssm.state_size"];
    let groups = [mamba.as_slice(), &["ssm.group_count"]].concat();
    for (name, layers, keys, expected) in [
        ("mamba", 2, with(vec![], &mamba), "ss"),
        ("mamba", 2, with(vec![], &mamba[1..]), "ss?"),
        (
            "lfm2",
            3,
            with(vec![(kv_heads, list(&[0, 2, 0]))], &["shortconv.l_cache"]),
            "sfs",
        ),
        ("lfm2", 3, vec![(kv_heads, list(&[0, 2, 0]))], "sfs?"),
        (
            "jamba",
            3,
            with(vec![(kv_heads, list(&[0, 2, 0]))], &mamba),
            "sfs",
        ),
        (
            "nemotron_h",
            4,
            with(
                vec![
                    (kv_heads, list(&[0, 0, 2, 0])),
                    ("feed_forward_length", list(&[0, 96, 0, 96])),
                ],
                &groups,
            ),
            "s-f-",
        ),
        ("qwen3next", 5, with(vec![], &groups), "sssfs"),
        ("qwen3next", 5, with(vec![], &mamba), "sssfs?"),
        (
            "qwen35",
            4,
            with(vec![("full_attention_interval", number(2))], &groups),
            "sfsf",
        ),
        (
            "qwen35",
            4,
            with(vec![("full_attention_interval", number(0))], &groups),
            "ffff?",
        ),
        (
            "qwen3next",
            3,
            with(
                vec![("attention.recurrent_layers", flags(&[false, true, false]))],
                &groups,
            ),
            "fsf",
        ),
    ] {
        check(name, layers, &keys, expected);
    }
}

#[test]
fn states_are_as_large_as_llama_cpp_makes_them() {
    let number = Value::U32;
    for (name, keys, floats) in [
        (
            "mamba2",
            vec![
                ("ssm.conv_kernel", number(4)),
                ("ssm.inner_size", number(128)),
                ("ssm.state_size", number(16)),
                ("ssm.group_count", number(2)),
            ],
            3 * (128 + 2 * 2 * 16) + 16 * 128,
        ),
        (
            "mamba",
            vec![
                ("ssm.conv_kernel", number(4)),
                ("ssm.inner_size", number(128)),
                ("ssm.state_size", number(16)),
            ],
            3 * 128 + 16 * 128,
        ),
        (
            "rwkv7",
            vec![("wkv.head_size", number(16))],
            2 * 64 + 64 * 16,
        ),
        (
            "kimi-linear",
            vec![
                ("attention.head_count_kv", number(0)),
                ("ssm.conv_kernel", number(4)),
                ("kda.head_dim", number(16)),
            ],
            3 * 3 * 4 * 16 + 16 * 16 * 4,
        ),
        (
            "lfm2",
            vec![
                ("attention.head_count_kv", number(0)),
                ("shortconv.l_cache", number(3)),
            ],
            2 * 64,
        ),
        ("minimax-01", vec![], 16 * 16 * 4),
    ] {
        let model = header(name, 1, &keys);
        let state_bytes = floats * 4;
        let expected = Attention::Recurrent { state_bytes };
        assert_eq!(model.layers[0].attention, expected, "{name}");
    }
}

#[test]
fn sizes_of_heads_may_differ_between_layers() {
    let keys = [
        ("attention.head_count_kv", Value::U32(2)),
        ("attention.key_length", Value::U32(32)),
        ("attention.value_length", Value::U32(32)),
        ("attention.key_length_swa", Value::U32(16)),
        ("attention.value_length_swa", Value::U32(8)),
        ("attention.sliding_window", Value::U32(100)),
        (
            "attention.sliding_window_pattern",
            Value::Array(Array::of_bool(&[true, false])),
        ),
    ];
    let model = header("gemma4", 2, &keys);
    let kept: Vec<_> = model.layers.iter().map(|layer| layer.attention).collect();
    let sliding = Attention::Sliding {
        kv_heads: 2,
        key_dim: 16,
        value_dim: 8,
        window: 100,
    };
    let full = Attention::Full {
        kv_heads: 2,
        key_dim: 32,
        value_dim: 32,
    };
    assert_eq!(kept, [sliding, full]);
}

#[test]
fn indexers_lie_where_glm_has_them() {
    let keys = |context| {
        [
            ("context_length", Value::U32(context)),
            ("attention.head_count_kv", Value::U32(1)),
            ("attention.kv_lora_rank", Value::U32(32)),
            ("attention.key_length", Value::U32(40)),
            ("attention.key_length_mla", Value::U32(24)),
            ("attention.indexer.key_length", Value::U32(16)),
        ]
    };
    let widths = |context| -> Vec<u32> {
        let model = header("glm-dsa", 8, &keys(context));
        let width = |attention| match attention {
            Attention::Latent { index_dims, .. } => index_dims,
            other => panic!("{other:?}"),
        };
        model
            .layers
            .iter()
            .map(|layer| width(layer.attention))
            .collect()
    };
    assert_eq!(widths(200_000), [16; 8]);
    assert_eq!(widths(1 << 20), [16, 16, 16, 0, 0, 0, 16, 0]);
}

#[test]
fn bytes_and_parameters_are_those_of_the_tensors() {
    for (name, tiny, tied) in [
        ("llama", TinyModel::llama(3), true),
        ("untied", TinyModel::llama(3).untied(), false),
        ("experts", TinyModel::llama_moe(3), false),
        ("gemma3", TinyModel::gemma3(6), true),
        ("deepseek2", TinyModel::deepseek2(3), false),
        ("qwen3next", TinyModel::qwen3next(4), false),
    ] {
        let gguf = parse(tiny.to_bytes());
        let model = Model::from_gguf(&gguf, "tiny").unwrap();
        let quant = &model.quants[0];
        assert_eq!(quant.weights.total(), gguf.tensor_bytes(), "{name}");
        // All are 32-bit floats.
        assert_eq!(model.params * 4, gguf.tensor_bytes(), "{name}");
        assert_eq!(
            (quant.name.as_str(), quant.exactness),
            ("F32", Exactness::Tensors)
        );
        assert!((quant.bits_per_weight - 32.0).abs() < 1e-9, "{name}");
        assert_eq!(
            (quant.weights.tied, model.tied_embeddings),
            (tied, tied),
            "{name}"
        );
        assert_eq!(
            (model.hidden, model.heads, model.vocab),
            (64, 4, 288),
            "{name}"
        );
        assert_eq!(quant.weights.embedding_bytes, 64 * 288 * 4, "{name}");
        let norm = 64 * 4;
        let head = if tied { norm } else { norm + 64 * 288 * 4 };
        assert_eq!(quant.weights.head_bytes, head, "{name}");
        assert_eq!(quant.weights.head_type, Some(GgmlType::F32), "{name}");
        for (layer, bytes) in model.layers.iter().zip(&quant.weights.layers) {
            assert_eq!(layer.expert_params * 4, bytes.experts, "{name}");
            let dense = layer.attention_params + layer.dense_params;
            assert_eq!(dense * 4, bytes.dense, "{name}");
        }
    }
}

#[test]
fn embeddings_of_layers_are_no_part_of_a_tied_head() {
    let tiny = parse(TinyModel::gemma3(6).to_bytes());
    let mut builder = Builder::new();
    for (key, value) in tiny.header().metadata() {
        builder.set_ref(key, value);
    }
    let zeros = |name: &str, dims: &[u64]| NewTensor {
        name: name.to_owned(),
        dims: dims.to_vec(),
        ggml_type: GgmlType::F32,
        data: TensorData::Zeros,
    };
    for tensor in tiny.tensors() {
        builder.tensor(zeros(tensor.info.name(), tensor.info.dims()));
    }
    builder.tensor(zeros("per_layer_token_embd.weight", &[6 * 8, 288]));
    builder.tensor(zeros("per_layer_model_proj.weight", &[64, 6 * 8]));
    let gguf = parse(to_bytes(builder));
    let model = Model::from_gguf(&gguf, "tiny").unwrap();
    let weights = &model.quants[0].weights;
    assert_eq!(weights.embedding_bytes, 64 * 288 * 4);
    assert_eq!(weights.shared_bytes, 6 * 8 * (288 + 64) * 4);
    assert_eq!(weights.total(), gguf.tensor_bytes());
}

#[test]
fn a_token_uses_some_experts_only() {
    let model = read(&TinyModel::llama_moe(2));
    let routed: u64 = model.layers.iter().map(|layer| layer.expert_params).sum();
    assert_eq!(routed, 2 * 3 * 64 * 96 * 4);
    assert_eq!((model.experts, model.experts_used), (4, 2));
    assert_eq!(model.active_params, model.params - routed / 2);
    // The router, for every token.
    assert_eq!(model.layers[0].dense_params, 64 * 4);
    let dense = read(&TinyModel::llama(2));
    assert_eq!((dense.experts, dense.active_params), (0, dense.params));
}

#[test]
fn a_quantization_is_named_by_the_file_or_by_its_bytes() {
    let shape = Shape {
        width: 256,
        ..Shape::default()
    };
    let tiny = TinyModel::llama(1).shape(shape).weights(GgmlType::Q8_0);
    assert_eq!(read(&tiny).quants[0].name, "Q8_0");
    let named = tiny.clone().with_key("general.file_type", Value::U32(15));
    let model = read(&named);
    assert_eq!(model.quants[0].name, "Q4_K_M");
    assert_eq!(model.production, ["Q4_K_M"]);
    let strange = tiny.with_key("general.file_type", Value::U32(5_000));
    assert_eq!(read(&strange).quants[0].name, "Q8_0");
}

#[test]
fn headers_that_make_no_sense_are_refused() {
    for (keys, expected) in [
        (
            vec![("context_length", Value::Bool(true))],
            "context_length",
        ),
        (
            vec![("embedding_length", Value::U64(1 << 40))],
            "embedding_length",
        ),
        (vec![("nextn_predict_layers", Value::U32(2))], "predict"),
    ] {
        let error = try_header("llama", 2, &keys).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    // Numbers as large as they get do not overflow.
    let huge: Vec<(&str, Value)> = [
        "embedding_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "ssm.conv_kernel",
        "ssm.inner_size",
        "ssm.state_size",
        "ssm.group_count",
        "kda.head_dim",
        "wkv.head_size",
    ]
    .map(|key| (key, Value::U32(u32::MAX)))
    .into();
    for name in [
        "llama",
        "mamba",
        "rwkv7",
        "kimi-linear",
        "minimax-01",
        "qwen3next",
    ] {
        assert_eq!(header(name, 4, &huge).layers.len(), 4, "{name}");
    }
    let mut lists = vec![("attention.head_count_kv", Value::Array(Array::of_u32(&[1])))];
    lists.push((
        "attention.recurrent_layers",
        Value::Array(Array::of_u32(&[1])),
    ));
    assert_eq!(header("jamba", 4, &lists).layers.len(), 4);
}
