//! Cutting models: nothing is lost, nothing is doubled, nothing is left to an index.

use std::collections::BTreeMap;
use std::io::Cursor;

use brigade_gguf::testing::{TinyModel, copied_bytes, layout_bytes, window_pattern};
use brigade_gguf::{
    Array, DUMMY_TOKENS, Embedding, GgmlType, Header, Layers, Layout, Model, Segment, TensorInfo,
    Value, embedding_layout, plan_cuts, stage_bytes, stage_layout,
};
use proptest::prelude::*;

/// A model and the bytes of its files.
struct Whole {
    model: Model,
    parts: Vec<Vec<u8>>,
}

/// A file that was cut out.
struct Piece {
    header: Header,
    bytes: Vec<u8>,
}

impl Piece {
    fn tensor(&self, name: &str) -> Option<&[u8]> {
        let info = self.header.tensor(name)?;
        let start = info.offset() as usize;
        Some(&self.bytes[start..start + info.bytes() as usize])
    }
}

impl Whole {
    fn new(parts: Vec<Vec<u8>>) -> Self {
        let headers = parts
            .iter()
            .map(|bytes| Header::read(&mut Cursor::new(bytes)).unwrap())
            .collect();
        let model = Model::from_headers(headers).unwrap();
        Self { model, parts }
    }

    fn of(model: &TinyModel) -> Self {
        Self::new(vec![model.to_bytes()])
    }

    fn piece(&self, layout: &Layout) -> Piece {
        let parts: Vec<_> = self.parts.iter().map(Vec::as_slice).collect();
        let bytes = layout_bytes(layout, &parts).unwrap();
        assert_eq!(bytes.len() as u64, layout.len());
        let header = Header::read(&mut Cursor::new(&bytes)).unwrap();
        Piece { header, bytes }
    }

    fn stage(&self, start: u32, end: u32) -> Piece {
        self.piece(&stage_layout(&self.model, Layers::new(start, end)).unwrap())
    }

    fn tensor(&self, name: &str) -> &[u8] {
        let tensor = self.model.tensor(name).unwrap();
        let start = tensor.info.offset() as usize;
        &self.parts[tensor.part][start..start + tensor.info.bytes() as usize]
    }
}

fn models() -> impl Strategy<Value = (TinyModel, u32)> {
    let types = [GgmlType::F32, GgmlType::F16, GgmlType::Q8_0, GgmlType::Q4_0];
    (
        0..3u8,
        2u32..9,
        any::<bool>(),
        proptest::sample::select(types.to_vec()),
        any::<bool>(),
    )
        .prop_map(|(family, layers, untied, weights, aligned)| {
            let mut model = match family {
                0 => TinyModel::llama(layers),
                1 => TinyModel::llama_moe(layers),
                _ => TinyModel::gemma3(layers),
            };
            if untied {
                model = model.untied();
            }
            if aligned {
                model = model.with_key("general.alignment", Value::U32(128));
            }
            (model.weights(weights), layers)
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn stages_put_together_are_the_model(
        (model, layers) in models(),
        mask in any::<u16>(),
        files in 1u16..4,
    ) {
        let whole = if files == 1 {
            Whole::of(&model)
        } else {
            Whole::new(model.to_parts(files))
        };
        let cuts: Vec<u32> = (1..layers).filter(|cut| mask >> cut & 1 == 1).collect();
        prop_assume!(!cuts.is_empty());
        let stages = plan_cuts(layers, &cuts).unwrap();

        let mut found: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for &range in &stages {
            let layout = stage_layout(&whole.model, range).unwrap();
            let stage = whole.piece(&layout);
            let last = range.is_last(layers);
            let bytes = stage_bytes(&whole.model, range).unwrap();
            let sum: u64 = stage.header.tensors().iter().map(TensorInfo::bytes).sum();
            prop_assert_eq!(bytes.stage, sum);
            prop_assert_eq!(bytes.embedding > 0, range.is_first());
            prop_assert_eq!(stage.header.block_count().unwrap(), range.count());
            prop_assert!(stage.header.metadata().iter().all(|(key, _)| !key.starts_with("split.")));
            for info in stage.header.tensors() {
                let name = match info.block() {
                    Some((layer, rest)) => format!("blk.{}.{rest}", layer + range.start),
                    None if last || info.name() == "rope_freqs.weight" => info.name().to_owned(),
                    None => {
                        let dummy = stage.tensor(info.name()).unwrap();
                        prop_assert!(dummy.iter().all(|&byte| byte == 0));
                        continue;
                    }
                };
                let bytes = stage.tensor(info.name()).unwrap().to_vec();
                found.entry(name).or_default().push(bytes);
            }
        }
        let side = whole.piece(&embedding_layout(&whole.model).unwrap());
        prop_assert_eq!(side.header.tensors().len(), 1);
        let embedding = side.tensor("token_embd.weight").unwrap();
        prop_assert_eq!(embedding, whole.tensor("token_embd.weight"));

        // The last stage's embedding is the head.
        let head = found.remove("token_embd.weight").unwrap();
        let untied = whole.model.tensor("output.weight").is_some();
        let expected = whole.tensor(if untied { "output.weight" } else { "token_embd.weight" });
        prop_assert_eq!(head, vec![expected.to_vec()]);
        for tensor in whole.model.tensors() {
            let name = tensor.info.name();
            if ["token_embd.weight", "output.weight"].contains(&name) {
                continue;
            }
            let copies = found.remove(name).unwrap_or_default();
            let times = if name == "rope_freqs.weight" { stages.len() } else { 1 };
            prop_assert_eq!(copies.len(), times, "{}", name);
            prop_assert!(copies.iter().all(|copy| copy == whole.tensor(name)), "{}", name);
        }
        prop_assert!(found.is_empty(), "made up {:?}", found.keys());
    }
}

#[test]
fn weights_are_copied_and_never_held() {
    let whole = Whole::of(&TinyModel::llama(4));
    let layout = stage_layout(&whole.model, Layers::new(1, 3)).unwrap();
    let literal: u64 = layout
        .segments()
        .iter()
        .filter(|segment| matches!(segment, Segment::Bytes(_)))
        .map(Segment::len)
        .sum();
    let stage = whole.piece(&layout);
    assert!(literal <= stage.header.data_offset());
    let dummies: u64 = ["token_embd.weight", "output_norm.weight"]
        .map(|name| stage.header.tensor(name).unwrap().bytes())
        .iter()
        .sum();
    let bytes = stage_bytes(&whole.model, Layers::new(1, 3)).unwrap();
    assert_eq!(copied_bytes(&layout), bytes.total() - dummies);
}

#[test]
fn only_the_last_stage_has_a_vocabulary() {
    let whole = Whole::of(&TinyModel::llama(6));
    for (start, end) in [(0, 2), (2, 4)] {
        let stage = whole.stage(start, end);
        let kept: Vec<_> = stage
            .header
            .metadata()
            .iter()
            .filter(|(key, _)| key.starts_with("tokenizer."))
            .collect();
        assert_eq!(
            kept,
            [&("tokenizer.ggml.model".to_owned(), Value::from("no_vocab"))]
        );
        assert_eq!(stage.header.get_u32("llama.vocab_size"), Some(DUMMY_TOKENS));
        let embedding = stage.header.tensor("token_embd.weight").unwrap();
        assert_eq!(embedding.dims(), [64, 32]);
    }
    let last = whole.stage(4, 6);
    let original = whole.model.header().metadata();
    for (key, value) in original {
        if key.starts_with("tokenizer.") || key == "llama.vocab_size" {
            assert_eq!(last.header.get(key), Some(value), "{key}");
        }
    }
}

#[test]
fn per_layer_arrays_are_cut_and_others_are_not() {
    let heads = Array::of_u32(&[2, 1, 2, 4]);
    let rope = Array::of_u32(&[1, 2, 3, 4]);
    let names = Array::of_text(&["p", "q", "r", "s"]);
    let model = TinyModel::llama(4)
        .with_key("llama.attention.head_count_kv", Value::Array(heads))
        .with_key("llama.rope.dimension_sections", Value::Array(rope.clone()))
        .with_key("llama.names", Value::Array(names))
        .with_key("general.tags", Value::Array(rope.clone()));
    let stage = Whole::of(&model).stage(1, 3);
    let array = |key| stage.header.get_array(key).unwrap().clone();
    assert_eq!(
        array("llama.attention.head_count_kv"),
        Array::of_u32(&[1, 2])
    );
    assert_eq!(array("llama.names"), Array::of_text(&["q", "r"]));
    assert_eq!(array("llama.rope.dimension_sections"), rope);
    assert_eq!(array("general.tags"), rope);
}

/// The window keys of a stage: whether it has a window, and the pattern.
fn window(stage: &Piece) -> (bool, Option<Vec<bool>>) {
    let pattern = stage
        .header
        .get_array("gemma3.attention.sliding_window_pattern")
        .map(|flags| flags.integers().unwrap().map(|flag| flag != 0).collect());
    let size = stage.header.get("gemma3.attention.sliding_window");
    (size.is_some(), pattern)
}

#[test]
fn window_patterns_follow_the_layers() {
    const T: bool = true;
    const F: bool = false;
    let key = "gemma3.attention.sliding_window_pattern";
    let default = TinyModel::gemma3(8);
    let period = TinyModel::gemma3(8).with_key(key, Value::U32(3));
    let every = TinyModel::gemma3(8).with_key(key, Value::U32(0));
    let (name, flags) = window_pattern(&[F, T, F, F, T, T, F, T]);
    let array = TinyModel::gemma3(8).with_key(name, flags);
    let numbers = Value::Array(Array::of_u32(&[0, 1, 0, 0, 1, 1, 0, 1]));
    let numbers = TinyModel::gemma3(8).with_key(name, numbers);
    for (model, start, end, expected) in [
        (&default, 0, 5, &[T, T, T, T, T][..]),
        (&default, 4, 8, &[T, F, T, T]),
        (&default, 5, 6, &[]),
        (&period, 1, 8, &[T, F, T, T, F, T, T]),
        (&period, 2, 3, &[]),
        (&every, 5, 6, &[T]),
        (&array, 0, 3, &[F, T, F]),
        (&array, 2, 4, &[]),
        (&numbers, 3, 6, &[F, T, T]),
    ] {
        let stage = Whole::of(model).stage(start, end);
        let expected = (!expected.is_empty()).then(|| expected.to_vec());
        assert_eq!(
            window(&stage),
            (expected.is_some(), expected),
            "{start}..{end}"
        );
    }
}

#[test]
fn a_gemma3_without_a_window_has_no_pattern() {
    let key = "gemma3.attention.sliding_window";
    let model = TinyModel::gemma3(8).with_key(key, Value::U32(0));
    assert_eq!(window(&Whole::of(&model).stage(0, 4)), (false, None));
}

#[test]
fn patterns_that_do_not_fit_are_refused() {
    for value in [
        Value::Array(Array::of_bool(&[true; 7])),
        Value::Array(Array::of_text(&["a"; 8])),
        "often".into(),
    ] {
        let key = "gemma3.attention.sliding_window_pattern";
        let whole = Whole::of(&TinyModel::gemma3(8).with_key(key, value));
        let error = stage_layout(&whole.model, Layers::new(0, 4)).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}

#[test]
fn the_embedding_is_found_in_the_model_and_beside_the_first_stage() {
    let model = TinyModel::gemma3(3).weights(GgmlType::Q8_0);
    let whole = Whole::of(&model);
    let original = Embedding::of(&whole.model).unwrap();
    assert_eq!((original.width, original.rows), (64, 288));
    assert_eq!(original.row_bytes, 2 * 34);
    assert_eq!(original.scale.to_bits(), 8f32.to_bits());
    let side = whole.piece(&embedding_layout(&whole.model).unwrap());
    let beside = Embedding::of(&Model::from_headers(vec![side.header]).unwrap()).unwrap();
    assert_eq!(
        Embedding {
            offset: original.offset,
            ..beside
        },
        original
    );
}

#[test]
fn models_that_contradict_themselves_are_refused() {
    let range = Layers::new(0, 1);
    for (model, part) in [
        (
            TinyModel::llama(2).with_key("llama.embedding_length", Value::U32(32)),
            "rows of 64, the model a width of 32",
        ),
        (
            TinyModel::llama(3).with_key("llama.block_count", Value::U32(2)),
            "`blk.2.attn_norm.weight` belongs to no layer",
        ),
        (
            TinyModel::llama(2).with_key("llama.block_count", Value::U32(0)),
            "layers 0..1 are not a stage of a model with 0 layers",
        ),
        (
            TinyModel::llama(2).with_key("general.architecture", "gpt2".into()),
            "`gpt2`",
        ),
    ] {
        let whole = Whole::of(&model);
        let error = stage_layout(&whole.model, range).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let whole = Whole::of(&TinyModel::llama(2));
    for range in [Layers::new(1, 1), Layers::new(2, 1), Layers::new(1, 3)] {
        assert!(stage_layout(&whole.model, range).is_err());
        assert!(stage_bytes(&whole.model, range).is_err());
    }
}
