//! Headers of GGUF files that leave something out or contradict themselves: a plan with a number
//! that is made up is worse than none.

mod file;

use brigade_fit::memory::{KvType, Load, kv_bytes};
use brigade_fit::model::Model;
use brigade_gguf::testing::TinyModel;
use brigade_gguf::{Array, Value};
use file::{File, read};
use proptest::prelude::*;

fn cache(model: &Model) -> u64 {
    let load = Load {
        context: 8192,
        sequences: 1,
        kv_type: KvType::F16,
        micro_batch: 512,
    };
    kv_bytes(&model.layers, &load)
}

#[test]
fn a_sound_header_lacks_nothing() {
    for file in [
        File::new(),
        File::new().number("attention.key_length", 64),
        File::new().list("attention.head_count_kv", &[2; 4]),
    ] {
        let model = file.model();
        assert_eq!(model.missing, Vec::<String>::new());
        assert_eq!(cache(&model), 16_777_216);
    }
    // Without a number for keys and values there are as many as for queries, as in llama.cpp.
    let mut wide = File::new().set("attention.head_count_kv", None);
    for layer in 0..4 {
        for name in ["attn_k", "attn_v"] {
            wide = wide.tensor(&format!("blk.{layer}.{name}.weight"), &[512, 512]);
        }
    }
    let model = wide.model();
    assert_eq!(model.missing, Vec::<String>::new());
    assert_eq!(cache(&model), 4 * 16_777_216);
    for tiny in [
        TinyModel::llama(4),
        TinyModel::llama_moe(4),
        TinyModel::gemma3(7),
        TinyModel::qwen2(4),
        TinyModel::qwen3moe(4),
        TinyModel::gpt_oss(4),
        TinyModel::deepseek2(4),
        TinyModel::lfm2(6),
        TinyModel::qwen3next(8),
    ] {
        let model = read(tiny.to_bytes()).expect("a model to plan with");
        assert_eq!(
            model.missing,
            Vec::<String>::new(),
            "{}",
            model.architecture
        );
    }
}

/// What is said of a header, which is one thing.
fn fault(file: &File) -> String {
    let mut missing = file.model().missing;
    assert_eq!(missing.len(), 1, "{missing:?}");
    missing.remove(0)
}

#[test]
fn a_key_that_cannot_be_used_is_named() {
    let text = || Some(Value::from("x"));
    let number = |number| Some(Value::U32(number));
    let list = |numbers: &[u32]| Some(Value::Array(Array::of_u32(numbers)));
    let flags = Some(Value::Array(Array::of_bool(&[true; 4])));
    let (heads, kv_heads) = ("attention.head_count", "attention.head_count_kv");
    let key = "attention.key_length";
    let no_number = "it is no whole number below 2^32";
    for (key, value, reason) in [
        (heads, None, ""),
        (heads, text(), no_number),
        (heads, Some(Value::F32(f32::NAN)), no_number),
        (heads, Some(Value::I32(-1)), no_number),
        (heads, number(0), "it is 0"),
        (heads, number(1 << 20), "1048576 heads share a width of 512"),
        (kv_heads, text(), no_number),
        (
            kv_heads,
            flags,
            "it lists what is no whole number below 2^32",
        ),
        (kv_heads, number(0), "it is 0 in layer 0"),
        (
            kv_heads,
            number(3),
            "3 do not divide the 8 heads of layer 0",
        ),
        (
            kv_heads,
            number(1 << 20),
            "1048576 do not divide the 8 heads of layer 0",
        ),
        (kv_heads, list(&[2]), "it lists 1 layers, not 4"),
        (kv_heads, list(&[2; 5]), "it lists 5 layers, not 4"),
        (kv_heads, list(&[2, 2, 2, 0]), "it is 0 in layer 3"),
        (key, text(), no_number),
        (key, number(0), "it is 0"),
        (
            "embedding_length",
            number(1024),
            "it is 1024, but a row of token_embd.weight has 512",
        ),
    ] {
        let fault = fault(&File::new().set(key, value));
        let expected = format!("llama.{key}: {reason}");
        assert_eq!(fault, expected.trim_end_matches(": "));
    }
    let gemma = File::new()
        .of("gemma3")
        .set("attention.sliding_window", text());
    assert_eq!(
        fault(&gemma),
        format!("gemma3.attention.sliding_window: {no_number}")
    );
}

#[test]
fn what_the_tensors_contradict_is_named() {
    let (heads, kv_heads) = ("attention.head_count", "attention.head_count_kv");
    let (key, value) = ("attention.key_length", "attention.value_length");
    let rows = |what: &str, heads: u32, width: u32, tensor: &str, rows: u32| {
        format!(
            "width of {what}: {heads} heads of {width} by the file's keys, but {tensor}.weight has {rows} rows"
        )
    };
    let kind = |layer: u32, is: &str, tensor: &str| {
        format!("kind of layer {layer}: by its keys it {is}, but there is {tensor}")
    };
    let keys = "blk.0.attn_k";
    let jamba = ["ssm.conv_kernel", "ssm.inner_size", "ssm.state_size"]
        .into_iter()
        .fold(File::new().of("jamba"), |file, key| file.number(key, 4));
    let fused = File::new()
        .without("attn_k")
        .without("attn_v")
        .tensor("blk.1.attn_qkv.weight", &[512, 768])
        .number(heads, 4096);
    for (file, expected) in [
        (
            File::new().number(heads, 4),
            rows("keys", 2, 128, keys, 128),
        ),
        (
            File::new().set(kv_heads, None),
            rows("keys", 8, 64, keys, 128),
        ),
        (
            File::new().number(kv_heads, 1),
            rows("keys", 1, 64, keys, 128),
        ),
        (File::new().number(key, 32), rows("keys", 2, 32, keys, 128)),
        (
            File::new().list(kv_heads, &[2, 2, 4, 2]),
            rows("keys", 4, 64, "blk.2.attn_k", 128),
        ),
        (
            File::new().number(heads, 4).number(key, 64),
            rows("values", 2, 128, "blk.0.attn_v", 128),
        ),
        (
            File::new()
                .number(heads, 2)
                .number(key, 64)
                .number(value, 64),
            rows("queries", 2, 64, "blk.0.attn_q", 512),
        ),
        (
            fused.number(key, 64).number(value, 64).number(kv_heads, 64),
            rows("keys and values", 64, 64, "blk.1.attn_qkv", 768),
        ),
        (
            File::new()
                .number("attention.kv_lora_rank", 64)
                .number("attention.key_length_mla", 8),
            kind(0, "keeps keys compressed", "blk.0.attn_k.weight"),
        ),
        (
            jamba.clone().list(kv_heads, &[2, 0, 2, 2]),
            kind(1, "keeps no keys", "blk.1.attn_k.weight"),
        ),
        (
            jamba.tensor("blk.1.ssm_a", &[16, 4]),
            kind(1, "attends", "blk.1.ssm_a"),
        ),
    ] {
        assert_eq!(fault(&file), expected);
    }
    let latent =
        TinyModel::deepseek2(2).with_key("deepseek2.attention.head_count_kv", Value::U32(2));
    let model = read(latent.to_bytes()).expect("a model to plan with");
    assert_eq!(
        model.missing,
        [
            "width of keys: by attention.kv_lora_rank and attention.key_length 144, but \
          blk.0.attn_kv_a_mqa.weight has 72 rows"
        ]
    );
}

#[test]
fn the_number_of_experts_is_that_of_the_tensors() {
    let mut file = File::new().without("ffn_");
    for layer in 0..4 {
        for name in ["up", "gate"] {
            let name = format!("blk.{layer}.ffn_{name}_exps.weight");
            file = file.tensor(&name, &[512, 256, 8]);
        }
    }
    let sound = file
        .number("expert_count", 8)
        .number("expert_used_count", 2);
    assert_eq!(sound.model().missing, Vec::<String>::new());
    for (key, value, expected) in [
        ("expert_count", None, "llama.expert_count"),
        (
            "expert_count",
            Some(Value::U32(64)),
            "llama.expert_count: it is 64, but blk.0.ffn_up_exps.weight has 8",
        ),
        ("expert_used_count", None, "llama.expert_used_count"),
        (
            "expert_used_count",
            Some(Value::U32(9)),
            "llama.expert_used_count: it is 9 of 8 experts",
        ),
        (
            "expert_used_count",
            Some(Value::from("x")),
            "llama.expert_used_count: it is no whole number below 2^32",
        ),
    ] {
        let model = sound.clone().set(key, value).model();
        assert_eq!(model.missing, [expected]);
    }
    let none = File::new()
        .number("expert_count", 8)
        .number("expert_used_count", 2);
    let expected = "llama.expert_count: it is 8, but no layer has experts";
    assert_eq!(fault(&none), expected);
    // The first layers of a mixture may be all that there are.
    let dense = none.number("leading_dense_block_count", 4);
    assert_eq!(dense.model().missing, Vec::<String>::new());
}

#[test]
fn a_width_or_a_context_of_nothing_is_refused() {
    for (key, value, expected) in [
        (
            "embedding_length",
            Some(Value::U32(0)),
            "some: llama.embedding_length is 0",
        ),
        (
            "context_length",
            Some(Value::U32(0)),
            "some: llama.context_length is 0",
        ),
        (
            "block_count",
            Some(Value::U32(0)),
            "some: llama.block_count is 0",
        ),
        (
            "context_length",
            None,
            "some has no known llama.context_length",
        ),
        (
            "context_length",
            Some(Value::from("x")),
            "some: llama.context_length is no whole number below 2^32",
        ),
        (
            "nextn_predict_layers",
            Some(Value::from("x")),
            "some: llama.nextn_predict_layers is no whole number below 2^32",
        ),
    ] {
        assert_eq!(File::new().set(key, value).error(), expected);
    }
}

#[test]
fn tensors_are_of_the_blocks_that_the_file_has() {
    let blocks = |count| File::new().number("block_count", count);
    for (file, expected) in [
        (
            blocks(1),
            "llama.block_count is 1, but the tensors are of 2 blocks: there is blk.1.attn_q.weight",
        ),
        (
            blocks(7),
            "llama.block_count is 7, but the tensors are of 4 blocks: none is of blk.4",
        ),
        (
            File::new().without("blk.2"),
            "llama.block_count is 4, but the tensors are of 3 blocks: none is of blk.2",
        ),
        (
            File::new().without("blk."),
            "llama.block_count is 4, but the tensors are of 0 blocks: none is of blk.0",
        ),
        (
            File::new().tensor("blk.01.ffn_up.weight", &[512, 256]),
            "the tensor blk.01.ffn_up.weight is of no layer",
        ),
        (
            File::new().number("nextn_predict_layers", 3),
            "llama.nextn_predict_layers is 3 of 4 blocks, but blk.1 has no nextn tensor",
        ),
        (
            blocks(6).number("nextn_predict_layers", 1),
            "llama.block_count is 6, but the tensors are of 4 blocks: none is of blk.4",
        ),
    ] {
        assert_eq!(file.error(), format!("some: {expected}"));
    }
    // A block that predicts a token more may be there or not.
    let predicting = blocks(5).number("nextn_predict_layers", 1).of("glm4moe");
    let with = predicting
        .clone()
        .tensor("blk.4.attn_q.weight", &[512, 512])
        .tensor("blk.4.nextn.eh_proj.weight", &[1024, 512]);
    for file in [predicting, with] {
        let model = file.model();
        assert_eq!((model.layers.len(), model.missing), (4, Vec::new()));
    }
    // A pruned layer may have neither attention nor a feed-forward part.
    let pruned = File::new()
        .of("deci")
        .without("blk.2")
        .list("attention.head_count", &[8, 8, 0, 8])
        .list("attention.head_count_kv", &[2, 2, 0, 2])
        .list("feed_forward_length", &[256, 256, 0, 256]);
    let model = pruned.model();
    assert_eq!(model.missing, Vec::<String>::new());
    assert_eq!(cache(&model), 16_777_216 / 4 * 3);
}

const KEYS: [&str; 12] = [
    "block_count",
    "context_length",
    "embedding_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.sliding_window",
    "attention.kv_lora_rank",
    "attention.key_length_mla",
    "nextn_predict_layers",
    "feed_forward_length",
];

fn any_value() -> impl Strategy<Value = Option<Value>> {
    prop_oneof![
        1 => Just(None),
        4 => (0_u32..12).prop_map(|number| Some(Value::U32(number))),
        2 => (0_u32..32).prop_map(|bits| Some(Value::U32(1 << bits))),
        1 => any::<u64>().prop_map(|number| Some(Value::U64(number))),
        1 => any::<i32>().prop_map(|number| Some(Value::I32(number))),
        1 => any::<f32>().prop_map(|number| Some(Value::F32(number))),
        1 => any::<bool>().prop_map(|flag| Some(Value::Bool(flag))),
        1 => "[a-z0-9]{0,4}".prop_map(|text| Some(Value::from(text.as_str()))),
        2 => proptest::collection::vec(0_u32..10, 0..7)
            .prop_map(|numbers| Some(Value::Array(Array::of_u32(&numbers)))),
    ]
}

proptest! {
    /// The tensors of a llama leave no choice: whatever a key says, the cache is theirs, or the
    /// model is not known.
    #[test]
    fn whatever_the_keys_say_the_cache_is_that_of_the_tensors(
        changes in proptest::collection::vec((0..KEYS.len(), any_value()), 1..4),
    ) {
        let mut file = File::new();
        for (index, value) in changes {
            file = file.set(KEYS[index], value);
        }
        if let Ok(model) = file.read() && model.missing.is_empty() {
            prop_assert_eq!(cache(&model), 16_777_216, "{:?}", file.keys);
            prop_assert_eq!((model.hidden, model.heads, model.layers.len()), (512, 8, 4));
        }
    }
}
