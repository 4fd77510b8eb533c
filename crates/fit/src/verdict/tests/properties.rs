//! Over arbitrary machines, models and contexts.

use proptest::prelude::*;

use super::*;
use crate::machine::Machine;
use crate::memory::{KvType, NodeLedger};
use crate::model::Layer;
use crate::placement::Objective;

fn arb_machine() -> impl Strategy<Value = Machine> {
    prop_oneof![
        (1_u64..600, 20_u32..1000).prop_map(|(gib, bandwidth)| {
            machine(
                "unified",
                vec![pool(PoolKind::Unified, gib, f64::from(bandwidth))],
            )
        }),
        (1_usize..4, 0_u64..256).prop_map(|(gpus, ram)| rig(gpus, ram)),
        (1_u64..512).prop_map(|gib| machine("cpu", vec![pool(PoolKind::Ram, gib, 60.0)])),
    ]
}

fn arb_cluster() -> impl Strategy<Value = Cluster> {
    (proptest::collection::vec(arb_machine(), 1..4), 0..3).prop_map(|(machines, kind)| {
        let count = machines.len();
        let links = match kind {
            0 => Links::Unnamed,
            1 => Links::Uniform(tb5()),
            _ => Links::Pairs(vec![vec![Some(tb5()); count]; count]),
        };
        cluster(machines, links)
    })
}

fn arb_attention() -> impl Strategy<Value = Attention> {
    prop_oneof![
        (0_u32..64, 0_u32..512, 0_u32..512).prop_map(|(kv_heads, key_dim, value_dim)| {
            Attention::Full {
                kv_heads,
                key_dim,
                value_dim,
            }
        }),
        (1_u32..64, 1_u32..512, 0_u32..10_000).prop_map(|(kv_heads, dim, window)| {
            Attention::Sliding {
                kv_heads,
                key_dim: dim,
                value_dim: dim,
                window,
            }
        }),
        (0_u32..2048, 0_u32..256, 0_u32..256).prop_map(|(kv_lora_rank, rope_dims, index_dims)| {
            Attention::Latent {
                kv_lora_rank,
                rope_dims,
                index_dims,
            }
        }),
        (0_u64..1 << 40).prop_map(|state_bytes| Attention::Recurrent { state_bytes }),
        Just(Attention::None),
    ]
}

fn arb_model() -> impl Strategy<Value = Model> {
    let names = prop_oneof![
        Just("llama"),
        Just("gemma3"),
        Just("qwen3next"),
        Just("llama4"),
        Just("deepseek2"),
        Just("no-such")
    ];
    (
        proptest::collection::vec(arb_attention(), 1..24),
        1_u64..400_000_000_000,
        names,
        (0_u32..300, 0_u32..300),
        (any::<u32>(), any::<u32>(), any::<u32>()),
        0_u32..2_000_000,
    )
        .prop_map(
            |(kinds, bytes, name, (experts, used), (hidden, vocab, heads), context)| {
                let mut model = moe("m", kinds.len() as u32, bytes);
                for (layer, kind) in model.layers.iter_mut().zip(kinds) {
                    *layer = Layer {
                        attention: kind,
                        ..*layer
                    };
                }
                model.architecture = name.into();
                (model.experts, model.experts_used) = (experts, used);
                (model.hidden, model.vocab, model.heads) =
                    (hidden % 20_000, vocab % 300_000, heads % 200);
                model.max_context = context;
                model
            },
        )
}

fn arb_ask() -> impl Strategy<Value = Ask> {
    let types = prop_oneof![Just(KvType::F16), Just(KvType::Q8_0), Just(KvType::Q4_0)];
    let objectives = prop_oneof![
        Just(None),
        Just(Some(Objective::OneStream)),
        Just(Some(Objective::ManyStreams)),
        Just(Some(Objective::LargestContext)),
    ];
    (any::<u32>(), 0_u32..100, types, objectives).prop_map(
        |(context, sequences, kv_type, objective)| Ask {
            context,
            sequences,
            kv_type,
            objective,
            ..full()
        },
    )
}

fn assert_whole(verdict: &Verdict, model: &Model) {
    let mut ranges: Vec<_> = verdict
        .ledger
        .iter()
        .map(|node| node.layers.clone())
        .filter(|range| !range.is_empty())
        .collect();
    ranges.sort_by_key(|range| range.start);
    if let (Some(first), Some(last)) = (ranges.first(), ranges.last()) {
        assert_eq!((first.start, last.end as usize), (0, model.layers.len()));
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
    for pool in verdict.ledger.iter().flat_map(|node| &node.pools) {
        let sum = pool
            .items
            .iter()
            .fold(0_u64, |sum, item| sum.saturating_add(item.bytes));
        assert_eq!(sum, pool.working_set_bytes);
    }
    for estimate in [verdict.decode_tok_s, verdict.prefill_tok_s, verdict.ttft_s]
        .into_iter()
        .flatten()
    {
        assert!(
            estimate.low <= estimate.mid && estimate.mid <= estimate.high,
            "{estimate:?}"
        );
    }
    if verdict.tier == Tier::Unknown {
        assert!(!verdict.reasons.is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_panics_and_ledgers_add_up(cluster in arb_cluster(), model in arb_model(), ask in arb_ask()) {
        let verdict = assess(&model, &cluster, &ask, &Roofline).unwrap();
        assert_whole(&verdict, &model);
    }

    #[test]
    fn more_memory_never_worsens_a_tier(cluster in arb_cluster(), model in arb_model(), context in 1_u32..300_000, node in 0_usize..4, pool in 0_usize..4, more in 0_u64..200 * GIB) {
        let ask = Ask { context, ..Ask::default() };
        let before = assess(&model, &cluster, &ask, &Roofline).unwrap();
        let mut larger = cluster.clone();
        let node = node % larger.nodes.len();
        let pools = &mut larger.nodes[node].machine.pools;
        let pool = pool % pools.len();
        pools[pool].memory_bytes += more;
        pools[pool].limit_bytes += more;
        let after = assess(&model, &larger, &ask, &Roofline).unwrap();
        prop_assert!(after.tier <= before.tier, "{:?} {:?} then {:?} {:?}", before.tier, before.utilization, after.tier, after.utilization);
        prop_assert!(after.max_context >= before.max_context);
    }

    #[test]
    fn what_is_shown_keeps_its_word(cluster in arb_cluster(), model in arb_model(), ask in arb_ask()) {
        let verdict = assess(&model, &cluster, &ask, &Roofline).unwrap();
        let chosen = verdict.ledger.iter().filter(|node| !node.pools.is_empty());
        let within = |node: &NodeLedger| {
            node.pools.iter().all(|pool| pool.working_set_bytes <= pool.limit_bytes)
        };
        // What fits in some way is shown in a way that fits.
        if verdict.max_context.unwrap_or(0) >= verdict.load.context {
            prop_assert!(chosen.clone().all(within), "{:?} {:?}", verdict.max_context, verdict.load);
        }
        prop_assert!(verdict.plan_max_context <= verdict.max_context);
        if verdict.tier == Tier::NotPractical {
            prop_assert!(verdict.decode_tok_s.is_none() || verdict.load.context < LEAST_CONTEXT);
        }
        // A plan is at least as good at what was asked for as the one for nothing in particular.
        let wise = assess(&model, &cluster, &Ask { objective: None, ..ask.clone() }, &Roofline).unwrap();
        let both = |of: fn(&Verdict) -> Option<f64>| of(&verdict).zip(of(&wise)).filter(|_| {
            wise.utilization.unwrap_or(f64::MAX) <= 1.0
        });
        match ask.objective {
            Some(Objective::OneStream) => {
                if let Some((own, wise)) = both(|verdict| Some(verdict.decode_tok_s?.mid)) {
                    prop_assert!(own >= wise * (1.0 - 1e-9), "{own} and {wise} tok/s");
                }
            }
            Some(Objective::LargestContext) => {
                if let Some((own, wise)) = both(|verdict| verdict.plan_max_context.map(f64::from)) {
                    prop_assert!(own >= wise, "{own} and {wise} tokens");
                }
            }
            Some(Objective::ManyStreams) if ask.sequences > 1 => {
                if let Some((own, wise)) = both(|verdict| Some(verdict.together_tok_s?.mid)) {
                    prop_assert!(own >= wise * (1.0 - 1e-9), "{own} and {wise} tok/s together");
                }
            }
            _ => {}
        }
    }

    #[test]
    fn the_order_of_machines_changes_nothing(machines in proptest::collection::vec(arb_machine(), 2..5), model in arb_model()) {
        let mut machines = machines;
        for (index, machine) in machines.iter_mut().enumerate() {
            machine.id = format!("machine-{index}");
        }
        let of = |machines: &[Machine]| {
            let cluster = cluster(machines.to_vec(), Links::Uniform(tb5()));
            assess(&model, &cluster, &Ask::default(), &Roofline).unwrap()
        };
        let verdict = of(&machines);
        machines.reverse();
        let reversed = of(&machines);
        prop_assert_eq!(verdict.tier, reversed.tier);
        prop_assert_eq!(verdict.utilization, reversed.utilization);
        prop_assert_eq!(verdict.decode_tok_s, reversed.decode_tok_s);
    }

    #[test]
    fn more_context_never_lowers_use(cluster in arb_cluster(), model in arb_model(), context in 1_u32..300_000, more in 0_u32..300_000) {
        let at = |context| {
            let ask = Ask { context, objective: Some(Objective::LargestContext), ..Ask::default() };
            assess(&model, &cluster, &ask, &Roofline).unwrap()
        };
        let (less, more) = (at(context), at(context + more));
        prop_assert!(more.tier >= less.tier, "{:?} {:?}", less.tier, more.tier);
        prop_assert_eq!(less.max_context, more.max_context);
        let held = |verdict: &Verdict| -> u64 {
            verdict.ledger.iter().flat_map(|node| &node.pools).map(|pool| pool.working_set_bytes).sum()
        };
        // Of two memories one may be left, and with it what both need.
        let used = |verdict: &Verdict| {
            let pools = verdict.ledger.iter().flat_map(|node| node.pools.iter().map(|pool| (node.node.clone(), pool.pool.clone())));
            pools.collect::<Vec<_>>()
        };
        let layers = |verdict: &Verdict| {
            let nodes = verdict.ledger.iter().map(|node| node.layers.clone());
            nodes.collect::<Vec<_>>()
        };
        if used(&more) == used(&less) && layers(&more) == layers(&less) {
            prop_assert!(held(&more) >= held(&less), "{} then {}", held(&less), held(&more));
        }
        // GPUs beside system memory are filled up to a share, by whole layers.
        let alone = cluster.nodes.iter().all(|node| node.machine.pools.len() == 1);
        if alone && used(&more) == used(&less) {
            let (less, more) = (less.utilization.unwrap_or(0.0), more.utilization.unwrap_or(0.0));
            prop_assert!(more >= less * (1.0 - 1e-9), "{less} then {more}");
        }
    }
}
