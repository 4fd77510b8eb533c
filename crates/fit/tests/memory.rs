//! Ledgers add up, and ask for no less where more is asked of them, whatever the model.

use brigade_fit::memory::{
    Backend, Cpu, KvType, Load, Runner, compute_bytes, kv_bytes, layer_kv_bytes, layer_state_bytes,
    stage, state_bytes, weight_bytes,
};
use brigade_fit::model::{
    Attention, Exactness, Format, Layer, LayerBytes, Model, Quantization, Weights,
};
use brigade_fit::program::Program;
use brigade_gguf::GgmlType;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

const STAGE: Runner = Runner {
    program: Program::Brigade,
    backend: Backend::Cpu(Cpu::X86),
};

/// Numbers of any size, mostly ordinary ones.
fn any_size() -> impl Strategy<Value = u32> {
    prop_oneof![4 => 0..20_000_u32, 1 => any::<u32>()]
}

fn any_attention() -> impl Strategy<Value = Attention> {
    let kind = 0..5_u8;
    (
        kind,
        any_size(),
        any_size(),
        any_size(),
        any_size(),
        any::<u64>(),
    )
        .prop_map(
            |(kind, kv_heads, key_dim, value_dim, window, state_bytes)| match kind {
                0 => Attention::Full {
                    kv_heads,
                    key_dim,
                    value_dim,
                },
                1 => Attention::Sliding {
                    kv_heads,
                    key_dim,
                    value_dim,
                    window,
                },
                2 => Attention::Latent {
                    kv_lora_rank: key_dim,
                    rope_dims: value_dim,
                    index_dims: window,
                },
                3 => Attention::Recurrent { state_bytes },
                _ => Attention::None,
            },
        )
}

fn any_layer() -> impl Strategy<Value = (Layer, LayerBytes)> {
    (any_attention(), any::<[u64; 5]>()).prop_map(|(attention, numbers)| {
        let [
            attention_params,
            dense_params,
            expert_params,
            dense,
            experts,
        ] = numbers;
        let layer = Layer {
            attention,
            attention_params,
            dense_params,
            expert_params,
        };
        (layer, LayerBytes { dense, experts })
    })
}

fn any_model() -> impl Strategy<Value = Model> {
    let layers = prop::collection::vec(any_layer(), 1..12);
    let sizes = prop::array::uniform5(any_size());
    (layers, sizes, any::<[u64; 3]>(), any::<bool>()).prop_map(|(layers, sizes, bytes, tied)| {
        let [hidden, heads, vocab, experts, experts_used] = sizes;
        let (layers, layer_bytes) = layers.into_iter().unzip();
        let weights = Weights {
            embedding_bytes: bytes[0],
            head_bytes: bytes[1],
            tied,
            head_type: None,
            shared_bytes: bytes[2],
            layers: layer_bytes,
            types: Vec::new(),
        };
        let quant = Quantization {
            name: "any".to_owned(),
            format: Format::Gguf,
            bits_per_weight: 4.0,
            weights,
            exactness: Exactness::Total,
            source: String::new(),
        };
        Model {
            id: "any".to_owned(),
            name: "Any".to_owned(),
            repo: None,
            aliases: Vec::new(),
            architecture: "any".to_owned(),
            params: 0,
            active_params: 0,
            hidden,
            heads,
            vocab,
            tied_embeddings: tied,
            max_context: 0,
            experts,
            experts_used,
            layers,
            quants: vec![quant],
            production: Vec::new(),
            missing: Vec::new(),
            source: String::new(),
            date: String::new(),
            note: None,
        }
    })
}

fn any_load() -> impl Strategy<Value = Load> {
    let kv_types = prop::sample::select(vec![KvType::F16, KvType::Q8_0, KvType::Q4_0]);
    (any_size(), any_size(), kv_types, any_size()).prop_map(
        |(context, sequences, kv_type, micro_batch)| Load {
            context,
            sequences,
            kv_type,
            micro_batch,
        },
    )
}

fn sum(bytes: impl Iterator<Item = u64>) -> u64 {
    bytes.fold(0, u64::saturating_add)
}

proptest! {
    #[test]
    fn ledgers_add_up(model in any_model(), load in any_load(), runtime in any::<u64>()) {
        let quant = &model.quants[0];
        let count = model.layers.len() as u32;
        let bytes = stage(&model, quant, 0..count, &load, STAGE, runtime).unwrap();
        prop_assert_eq!(bytes.total(), sum(bytes.items().iter().map(|item| item.bytes)));
        prop_assert_eq!(bytes.weights, weight_bytes(&model, quant, 0..count, STAGE));
        prop_assert_eq!(bytes.runtime, runtime);
        prop_assert_eq!(bytes.compute, compute_bytes(&model, 0..count, &load));
    }

    #[test]
    fn stages_hold_the_cache_of_the_whole(
        model in any_model(),
        load in any_load(),
        at in any::<prop::sample::Index>(),
    ) {
        let all = &model.layers[..];
        let (first, last) = all.split_at(at.index(all.len()));
        for of in [kv_bytes, state_bytes] {
            let both = of(first, &load).saturating_add(of(last, &load));
            prop_assert_eq!(of(all, &load), both);
        }
        let kv = sum(all.iter().map(|layer| layer_kv_bytes(layer, &load)));
        let state = sum(all.iter().map(|layer| layer_state_bytes(layer, &load)));
        prop_assert_eq!((kv_bytes(all, &load), state_bytes(all, &load)), (kv, state));
    }

    #[test]
    fn a_larger_load_takes_no_less(
        model in any_model(),
        load in any_load(),
        more in any::<[u32; 3]>(),
    ) {
        let count = model.layers.len() as u32;
        let of = |load: &Load| stage(&model, &model.quants[0], 0..count, load, STAGE, 0).unwrap();
        let before = of(&load);
        let context = load.context.saturating_add(more[0]);
        let after = of(&Load { context, ..load });
        prop_assert!(before.kv <= after.kv && before.state <= after.state);
        prop_assert!(before.compute <= after.compute && before.total() <= after.total());
        let micro_batch = load.micro_batch.saturating_add(more[1]);
        let after = of(&Load { micro_batch, ..load });
        prop_assert!(before.kv <= after.kv && before.compute <= after.compute);
        prop_assert!(before.total() <= after.total());
        // Compute buffers are for a multiple of the sequences, so they need not grow with them.
        let sequences = load.sequences.saturating_add(more[2]);
        let after = of(&Load { sequences, ..load });
        prop_assert!(before.kv <= after.kv && before.state <= after.state);
    }

    #[test]
    fn a_part_takes_no_more_than_the_whole(model in any_model(), load in any_load()) {
        let count = model.layers.len() as u32;
        let compute = compute_bytes(&model, 0..count, &load);
        for layer in 0..count {
            prop_assert!(compute_bytes(&model, layer..layer + 1, &load) <= compute);
            prop_assert!(compute_bytes(&model, 0..layer, &load) <= compute);
        }
    }

    #[test]
    fn a_smaller_cache_type_takes_no_more(
        sizes in prop::array::uniform3(0..10_000_u32),
        load in any_load(),
    ) {
        // A row of fewer values than a block has would take a whole block.
        let [kv_heads, key_dim, value_dim] = sizes.map(|size| size * 32);
        let layer = with(Attention::Full { kv_heads, key_dim, value_dim });
        let of = |kv_type| layer_kv_bytes(&layer, &Load { kv_type, ..load });
        let [f16, q8, q4] = [KvType::F16, KvType::Q8_0, KvType::Q4_0].map(of);
        prop_assert!(q4 <= q8 && q8 <= f16);
    }
}

#[test]
fn stages_that_do_not_exist_are_refused() {
    let mut runner = TestRunner::deterministic();
    let model = any_model().new_tree(&mut runner).unwrap().current();
    let load = any_load().new_tree(&mut runner).unwrap().current();
    let count = model.layers.len() as u32;
    for layers in [0..0, 0..count + 1, count..count, u32::MAX - 1..u32::MAX] {
        let error = stage(&model, &model.quants[0], layers.clone(), &load, STAGE, 0).unwrap_err();
        assert!(error.to_string().contains("layers"), "{layers:?}: {error}");
    }
    let mut quant = model.quants[0].clone();
    quant.weights.layers.push(LayerBytes::default());
    let error = stage(&model, &quant, 0..count, &load, STAGE, 0).unwrap_err();
    assert!(error.to_string().contains("the model"), "{error}");
}

fn with(attention: Attention) -> Layer {
    Layer {
        attention,
        attention_params: 0,
        dense_params: 0,
        expert_params: 0,
    }
}

/// An embedding of 100 bytes, a head of 10 (a norm of 10 where it is tied), three layers of 1 each.
#[test]
fn tensors_outside_the_layers_are_counted_where_they_lie() {
    let mut runner = TestRunner::deterministic();
    let mut model = any_model().new_tree(&mut runner).unwrap().current();
    model.vocab = 32_000;
    let types = |name: &str| GgmlType::all().find(|of| of.name() == name);
    let mut held = |program, backend, tied, head: &str, vocab| {
        model.vocab = vocab;
        let quant = &mut model.quants[0];
        quant.weights = Weights {
            embedding_bytes: 100,
            head_bytes: 10,
            tied,
            head_type: types(head),
            shared_bytes: 0,
            layers: vec![
                LayerBytes {
                    dense: 1,
                    experts: 0
                };
                3
            ],
            types: Vec::new(),
        };
        let runner = Runner { program, backend };
        let quant = &model.quants[0];
        [0..3, 0..1, 1..2, 2..3].map(|layers| weight_bytes(&model, quant, layers, runner))
    };
    let (x86, arm) = (Backend::Cpu(Cpu::X86), Backend::Cpu(Cpu::Arm));
    let (brigade, rpc) = (Program::Brigade, Program::LlamaRpc);
    // The whole model; its first, a middle and its last layer.
    for (program, backend, tied, head, vocab, bytes) in [
        // A head in the type of the file is looked up and multiplied with as it is.
        (brigade, x86, true, "Q6_K", 32_000, [113, 1, 1, 111]),
        (brigade, x86, false, "Q6_K", 32_000, [113, 1, 1, 11]),
        (brigade, x86, true, "Q8_0", 32_000, [113, 1, 1, 111]),
        (brigade, x86, true, "", 32_000, [113, 1, 1, 111]),
        // A repacked one is not: the last stage's file has one tensor for both, tied or not.
        (brigade, x86, true, "Q4_0", 32_000, [213, 1, 1, 221]),
        (brigade, x86, false, "Q4_K", 32_000, [113, 1, 1, 21]),
        (brigade, arm, true, "Q6_K", 32_000, [213, 1, 1, 221]),
        (brigade, arm, false, "Q8_0", 32_000, [113, 1, 1, 21]),
        // Rows that do not come in eights, or in fours, stay as they are.
        (brigade, x86, true, "Q4_0", 50_257, [113, 1, 1, 111]),
        (brigade, x86, true, "Q4_0", 32_004, [113, 1, 1, 111]),
        (brigade, arm, true, "Q4_0", 32_004, [213, 1, 1, 221]),
        // A GPU has what it computes; a memory that it shares has what is looked up, too.
        (brigade, Backend::Gpu, true, "F16", 32_000, [113, 1, 1, 111]),
        (brigade, Backend::Gpu, false, "F16", 32_000, [13, 1, 1, 11]),
        (
            brigade,
            Backend::UnifiedGpu,
            true,
            "F16",
            32_000,
            [213, 1, 1, 221],
        ),
        (
            brigade,
            Backend::UnifiedGpu,
            false,
            "F16",
            32_000,
            [113, 1, 1, 21],
        ),
        (
            brigade,
            Backend::CpuBesideGpu,
            true,
            "Q4_0",
            32_000,
            [113, 101, 1, 111],
        ),
        // RPC servers get what they compute, and nothing anew; the rest is the coordinator's.
        (rpc, x86, true, "Q4_0", 32_000, [213, 101, 1, 111]),
        (
            rpc,
            Backend::UnifiedGpu,
            false,
            "F16",
            32_000,
            [113, 101, 1, 11],
        ),
        (
            Program::Vllm,
            Backend::Gpu,
            false,
            "",
            32_000,
            [113, 101, 1, 11],
        ),
        (
            Program::Exo,
            Backend::UnifiedGpu,
            true,
            "",
            32_000,
            [113, 101, 1, 111],
        ),
    ] {
        let what = format!("{program:?} {backend:?} {tied} {head} {vocab}");
        assert_eq!(held(program, backend, tied, head, vocab), bytes, "{what}");
    }
}

#[test]
fn known_sizes() {
    let load = |context, kv_type| Load {
        context,
        sequences: 1,
        kv_type,
        micro_batch: 512,
    };
    // Llama 3 8B: 32 layers of 8 heads of 128 for keys and as many for values.
    let llama = vec![
        with(Attention::Full {
            kv_heads: 8,
            key_dim: 128,
            value_dim: 128,
        });
        32
    ];
    for (context, kv_type, bytes) in [
        (8192, KvType::F16, 1 << 30),
        (8000, KvType::F16, 1 << 30),
        (8192, KvType::Q8_0, (1 << 30) / 32 * 17),
        (8192, KvType::Q4_0, (1 << 30) / 32 * 9),
    ] {
        assert_eq!(
            kv_bytes(&llama, &load(context, kv_type)),
            bytes,
            "{kv_type:?}"
        );
    }
    // DeepSeek 3: 576 values a token and layer, as keys only.
    let latent = with(Attention::Latent {
        kv_lora_rank: 512,
        rope_dims: 64,
        index_dims: 0,
    });
    let bytes = layer_kv_bytes(&latent, &load(4096, KvType::F16));
    assert_eq!(bytes, 576 * 2 * 4096);
    // A window of 512 and a micro-batch of 512 fill 1,024 cells, however long the context is.
    let sliding = with(Attention::Sliding {
        kv_heads: 1,
        key_dim: 256,
        value_dim: 256,
        window: 512,
    });
    for (context, cells) in [(256, 256), (512, 512), (1024, 1024), (100_000, 1024)] {
        let bytes = layer_kv_bytes(&sliding, &load(context, KvType::F16));
        assert_eq!(bytes, cells * 2 * 256 * 2, "{context}");
    }
}
