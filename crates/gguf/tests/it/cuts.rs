//! Dividing layers.

use std::io::Cursor;

use brigade_gguf::testing::TinyModel;
use brigade_gguf::{
    Architecture, Balance, Header, Layers, TensorInfo, Value, check_stages, head_layers, plan_cuts,
    plan_even,
};
use proptest::prelude::*;

fn layers(pairs: &[(u32, u32)]) -> Vec<Layers> {
    pairs.iter().map(|&pair| pair.into()).collect()
}

fn header(model: &TinyModel) -> Header {
    Header::read(&mut Cursor::new(model.to_bytes())).unwrap()
}

#[test]
fn even_plans_differ_by_one_layer() {
    for (count, stages, expected) in [
        (30, 4, &[(0, 7), (7, 15), (15, 22), (22, 30)][..]),
        (18, 3, &[(0, 6), (6, 12), (12, 18)]),
        (5, 5, &[(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]),
        (7, 1, &[(0, 7)]),
    ] {
        assert_eq!(
            plan_even(count, 0.0, stages, Balance::Both).unwrap(),
            layers(expected)
        );
    }
}

#[test]
fn the_head_counts_by_the_work() {
    use Balance::{Both, Decode, Prompts};
    for (count, head, stages, balance, expected) in [
        // SmolLM2 135M, whose head is as large as eight layers.
        (30, 8.0, 2, Both, &[(0, 16), (16, 30)][..]),
        (30, 8.0, 2, Decode, &[(0, 19), (19, 30)]),
        (30, 8.0, 2, Prompts, &[(0, 15), (15, 30)]),
        (30, 8.0, 4, Both, &[(0, 8), (8, 16), (16, 24), (24, 30)]),
        // Every stage has a layer, however large the head is.
        (18, 40.0, 3, Both, &[(0, 10), (10, 17), (17, 18)]),
        (4, 1e9, 4, Decode, &[(0, 1), (1, 2), (2, 3), (3, 4)]),
    ] {
        let plan = plan_even(count, head, stages, balance);
        assert_eq!(plan.unwrap(), layers(expected));
    }
}

/// Elements of the tensors that a predicate takes.
fn elements(header: &Header, take: impl Fn(&TensorInfo) -> bool) -> f64 {
    let tensors = header.tensors().iter().filter(|&tensor| take(tensor));
    tensors
        .map(|tensor| tensor.dims().iter().product::<u64>() as f64)
        .sum()
}

#[test]
fn a_head_is_so_many_layers() {
    // The embedding is the head too.
    let is_head = |tensor: &TensorInfo| tensor.name() == "token_embd.weight";
    let dense = header(&TinyModel::llama(4));
    let head = elements(&dense, is_head);
    let blocks = elements(&dense, |tensor| tensor.block().is_some());
    assert!((head_layers(&dense).unwrap() - 4.0 * head / blocks).abs() < 1e-9);

    // Of experts only the chosen ones are computed.
    let mixture = header(&TinyModel::llama_moe(4));
    let head = elements(&mixture, is_head);
    let blocks = elements(&mixture, |tensor| tensor.block().is_some());
    assert!(head_layers(&mixture).unwrap() > 4.0 * head / blocks);
}

#[test]
fn cuts_give_the_stages_between_them() {
    let stages = plan_cuts(18, &[5, 11]).unwrap();
    assert_eq!(stages, layers(&[(0, 5), (5, 11), (11, 18)]));
    assert_eq!(plan_cuts(18, &[]).unwrap(), layers(&[(0, 18)]));
}

#[test]
fn impossible_plans_say_why() {
    for (result, message) in [
        (
            plan_even(4, 0.0, 5, Balance::Both),
            "5 stages are more than the model's 4 layers",
        ),
        (
            plan_even(4, 0.0, 0, Balance::Both),
            "a model needs at least one stage",
        ),
        (
            plan_even(0, 0.0, 1, Balance::Both),
            "1 stages are more than the model's 0 layers",
        ),
        (
            plan_cuts(18, &[5, 18]),
            "a cut at 18 is out of range: the model has 18 layers, so cuts are from 1 to 17",
        ),
        (
            plan_cuts(18, &[0]),
            "a cut at 0 is out of range: the model has 18 layers, so cuts are from 1 to 17",
        ),
        (plan_cuts(18, &[5, 5]), "the cuts must ascend: 5 follows 5"),
        (plan_cuts(18, &[5, 3]), "the cuts must ascend: 3 follows 5"),
    ] {
        assert_eq!(result.unwrap_err().to_string(), message);
    }
}

#[test]
fn stages_must_cover_the_model() {
    let header = header(&TinyModel::llama(6));
    let check = |pairs: &[(u32, u32)]| {
        let result = check_stages(&header, &layers(pairs));
        result.map_err(|error| error.to_string())
    };
    assert_eq!(check(&[(0, 2), (2, 6)]), Ok(()));
    for (pairs, part) in [
        (&[][..], "at least one stage"),
        (&[(0, 2), (3, 6)], "3..6 does not start at 2"),
        (&[(0, 2), (1, 6)], "1..6 does not start at 2"),
        (&[(1, 6)], "1..6 does not start at 0"),
        (&[(0, 2), (2, 5)], "does not start at 5"),
        (&[(0, 2), (2, 2), (2, 6)], "layers 2..2 are not a stage"),
        (&[(0, 2), (2, 7)], "layers 2..7 are not a stage"),
        (&[(0, 1); 7], "7 stages are more"),
    ] {
        let error = check(pairs).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn gemma3_with_62_layers_is_refused() {
    let refused = header(&TinyModel::gemma3(62));
    assert_eq!(
        check_stages(&refused, &layers(&[(0, 31), (31, 62)]))
            .unwrap_err()
            .to_string(),
        "stages do not support gemma3 with 62 layers in a model, because its attention scale \
         derives from that number: the `llama-rpc` engine runs it"
    );
    // Nothing is cut here.
    assert!(check_stages(&refused, &layers(&[(0, 62)])).is_ok());
    // A stage with 62 layers would compute another scale than its model.
    let deeper = header(&TinyModel::gemma3(63));
    let error = check_stages(&deeper, &layers(&[(0, 62), (62, 63)])).unwrap_err();
    assert!(error.to_string().contains("62 layers in a stage"));
    assert!(check_stages(&deeper, &layers(&[(0, 61), (61, 63)])).is_ok());
}

#[test]
fn other_architectures_go_to_the_other_engine() {
    let model = TinyModel::llama(2)
        .with_key("general.architecture", "qwen3next".into())
        .with_key("qwen3next.block_count", Value::U32(2));
    let header = header(&model);
    assert!(check_stages(&header, &layers(&[(0, 2)])).is_ok());
    assert_eq!(
        check_stages(&header, &layers(&[(0, 1), (1, 2)]))
            .unwrap_err()
            .to_string(),
        "stages do not support the architecture `qwen3next` yet: the `llama-rpc` engine runs it"
    );
    assert!(Architecture::supported().eq(["llama", "gemma3"]));
}

#[test]
fn embeddings_are_scaled_as_the_family_does() {
    let scale = |model| {
        let header = header(&model);
        Architecture::of(&header).unwrap().embedding_scale(640)
    };
    assert_eq!(scale(TinyModel::llama(1)).to_bits(), 1f32.to_bits());
    assert_eq!(
        scale(TinyModel::gemma3(1)).to_bits(),
        640f32.sqrt().to_bits()
    );
}

#[test]
fn layers_are_a_pair_in_json() {
    let range = Layers::new(5, 11);
    let json = serde_json::to_string(&range).unwrap();
    assert_eq!(json, "[5,11]");
    assert_eq!(serde_json::from_str::<Layers>(&json).unwrap(), range);
}

proptest! {
    #[test]
    fn even_plans_cover_and_differ_by_one(count in 1u32..600, stages in 1u32..64, head in 0.0..99.0) {
        prop_assume!(stages <= count);
        let plan = plan_even(count, 0.0, stages, Balance::Both).unwrap();
        prop_assert!(plan.iter().all(|range| range.count().abs_diff(count / stages) <= 1));
        let plan = plan_even(count, head, stages, Balance::Decode).unwrap();
        prop_assert_eq!(plan.len() as u32, stages);
        prop_assert_eq!(plan[0].start, 0);
        prop_assert_eq!(plan[plan.len() - 1].end, count);
        prop_assert!(plan.windows(2).all(|pair| pair[0].end == pair[1].start));
        prop_assert!(plan.iter().all(|range| range.count() > 0));
        // The same plan, said by its cuts.
        let cuts: Vec<_> = plan[1..].iter().map(|range| range.start).collect();
        prop_assert_eq!(plan_cuts(count, &cuts).unwrap(), plan);
    }
}
