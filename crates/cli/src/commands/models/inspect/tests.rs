use brigade_gguf::testing::TinyModel;
use brigade_gguf::{GgmlType, Value};

use super::*;

fn facts(model: &TinyModel) -> Facts {
    let header = Header::read(&mut std::io::Cursor::new(model.to_bytes())).unwrap();
    Facts::of(&Headers {
        name: "tiny".to_owned(),
        place: "tiny.gguf".to_owned(),
        model: Model::from_headers(vec![header]).unwrap(),
    })
    .unwrap()
}

fn text(value: &str) -> Value {
    Value::String(brigade_gguf::Text(value.as_bytes().to_vec()))
}

#[test]
fn what_stages_support_can_be_cut_anywhere() {
    let facts = facts(&TinyModel::llama(4));
    assert_eq!((&*facts.architecture, facts.layers), ("llama", 4));
    assert_eq!(
        (&facts.cuts[..], facts.engine),
        (&[1, 2, 3][..], Engine::Stages)
    );
    assert_eq!(facts.cuts_text(), "before any layer from 1 to 3");
    assert!(facts.licence.is_none());
}

#[test]
fn the_other_engine_comes_with_its_reason() {
    let facts = facts(&TinyModel::qwen2(4));
    assert_eq!((facts.cuts.len(), facts.engine), (0, Engine::LlamaRpc));
    assert!(
        facts
            .why
            .contains("do not support the architecture `qwen2` yet"),
        "{}",
        facts.why
    );
    let facts = self::facts(&TinyModel::gemma3(62));
    assert_eq!(facts.engine, Engine::LlamaRpc);
    assert!(facts.why.contains("attention scale"), "{}", facts.why);
}

#[test]
fn every_tensor_is_counted_once() {
    for model in [
        TinyModel::llama(4).weights(GgmlType::Q8_0),
        TinyModel::llama_moe(3),
        TinyModel::qwen3next(4),
    ] {
        let facts = facts(&model);
        let header = Header::read(&mut std::io::Cursor::new(model.to_bytes())).unwrap();
        let (count, bytes) = (
            header.tensors().len() as u32,
            header
                .tensors()
                .iter()
                .map(brigade_gguf::TensorInfo::bytes)
                .sum::<u64>(),
        );
        let by_kind = facts.tensors.iter().fold((0, 0), |(count, bytes), kind| {
            (count + kind.tensors, bytes + kind.bytes)
        });
        let mix = &facts.quantization.mix;
        let by_type = mix.iter().fold((0, 0), |(count, bytes), share| {
            (count + share.tensors, bytes + share.bytes)
        });
        assert_eq!((by_kind, by_type), ((count, bytes), (count, bytes)));
        assert!(mix.windows(2).all(|pair| pair[0].bytes >= pair[1].bytes));
    }
}

#[test]
fn kinds_by_name() {
    for (name, expected) in [
        ("token_embd.weight", "embedding"),
        ("output.weight", "head"),
        ("output_norm.weight", "norms"),
        ("blk.0.attn_q.weight", "attention"),
        ("blk.0.attn_q_norm.weight", "norms"),
        ("blk.12.ffn_down.weight", "feed-forward"),
        ("blk.12.ffn_down_exps.weight", "experts"),
        ("blk.12.ffn_gate_inp.weight", "experts"),
        ("blk.3.ssm_in.weight", "recurrent"),
        ("blk.3.layer_output_scale.weight", "other"),
        ("rope_freqs.weight", "other"),
    ] {
        assert_eq!(kind(name), expected, "{name}");
    }
}

#[test]
fn template_and_licence() {
    let model = TinyModel::llama(2)
        .with_key(
            "tokenizer.chat_template",
            text("<|im_start|>{% if tools %}<tool_call>{% endif %}"),
        )
        .with_key("general.license", text("apache-2.0"));
    let facts = facts(&model);
    assert_eq!(
        facts.chat_template.as_ref().unwrap().text(),
        "ChatML, tools"
    );
    assert_eq!(facts.licence.as_deref(), Some("apache-2.0"));
    assert!(
        facts.text().contains("\nlicence        apache-2.0\n"),
        "{}",
        facts.text()
    );
}
