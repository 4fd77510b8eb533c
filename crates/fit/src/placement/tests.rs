mod brute;
mod scenarios;

use proptest::prelude::*;

use super::fixtures::*;
use super::*;
use crate::machine::{Machine, PoolKind};
use crate::memory::{Backend, Cpu, stage};
use crate::model::Attention;
use brute::best_by_trying_all;

const FULLY: Level = Level::Effective(1.0);

fn arb_machine() -> impl Strategy<Value = Machine> {
    (8_u64..40, 50_u32..900).prop_map(|(gib, bandwidth)| {
        let unified = pool(PoolKind::Unified, gib, f64::from(bandwidth));
        machine(&format!("m-{gib}-{bandwidth}"), vec![unified])
    })
}

fn arb_links(nodes: usize) -> impl Strategy<Value = Links> {
    let one = || {
        proptest::option::weighted(0.8, (1_u32..40, 1_u32..50)).prop_map(|link_of| {
            link_of.map(|(latency, bandwidth)| {
                link("l", f64::from(latency) / 10.0, f64::from(bandwidth) / 10.0)
            })
        })
    };
    let pairs = proptest::collection::vec(proptest::collection::vec(one(), nodes), nodes);
    prop_oneof![
        Just(Links::Uniform(link("u", 0.4, 1.0))),
        pairs.prop_map(|mut pairs| {
            for (index, row) in pairs.iter_mut().enumerate() {
                row[index] = None;
            }
            Links::Pairs(pairs)
        })
    ]
}

/// Up to four nodes, some of them alike, under any links.
fn arb_cluster() -> impl Strategy<Value = Cluster> {
    (1_usize..=4)
        .prop_flat_map(|nodes| {
            let machines = proptest::collection::vec(arb_machine(), nodes);
            let alike = proptest::collection::vec(any::<bool>(), nodes);
            (machines, alike, arb_links(nodes))
        })
        .prop_map(|(mut machines, alike, links)| {
            for index in 1..machines.len() {
                if alike[index] {
                    machines[index] = machines[index - 1].clone();
                }
            }
            cluster(machines, links)
        })
}

fn field<'a>(model: &'a Model, cluster: &'a Cluster) -> Field<'a> {
    Field::new(model, &model.quants[0], cluster, load(4096), None).unwrap()
}

/// Contiguous, all layers, no node twice, within the level.
fn assert_valid(field: &Field, plan: &Plan, level: Level) {
    let mut at = 0;
    let mut seen = Vec::new();
    for stage in &plan.stages {
        assert_eq!(stage.layers.start, at);
        assert!(stage.layers.end > at);
        at = stage.layers.end;
        assert!(!seen.contains(&stage.node));
        seen.push(stage.node);
        let mut layer = stage.layers.start;
        for part in &stage.packing.parts {
            assert_eq!(part.layers.start, layer);
            layer = part.layers.end;
        }
        assert_eq!(layer, at);
    }
    assert_eq!(at, field.costs.layers);
    if level == FULLY {
        assert!(field.utilization(plan, level) <= 1.0 + 1e-9);
    }
    for pair in plan.stages.windows(2) {
        assert!(field.link(pair[0].node, pair[1].node).is_some());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn searches_are_as_good_as_trying_all(
        cluster in arb_cluster(),
        layers in 2_u32..8,
        gb in 2_u64..60,
        experts in any::<bool>(),
    ) {
        let bytes = gb * 1_000_000_000;
        let model = if experts { moe("m", layers, bytes) } else { dense("m", layers, bytes) };
        let field = field(&model, &cluster);
        for objective in [Objective::OneStream, Objective::ManyStreams, Objective::LargestContext] {
            let plan = field.place(objective, FULLY, usize::MAX, &Roofline).unwrap();
            let best = best_by_trying_all(&field, objective, FULLY);
            let cost = plan.as_ref().map(|plan| {
                assert_valid(&field, plan, FULLY);
                brute::cost(&field, plan, objective)
            });
            match (cost, best) {
                (None, None) => {}
                // The roomiest division within a hair of the quickest is taken.
                (Some(found), Some(best)) => prop_assert!(
                    found <= best * 1.0021 && found >= best * 0.999_999,
                    "{objective:?}: {found} where {best} is possible"
                ),
                other => prop_assert!(false, "{objective:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn costs_are_those_of_the_ledger(layers in 1_u32..20, gb in 1_u64..100, start in 0_u32..20, len in 1_u32..20, context in 1_u32..200_000) {
        let mut model = moe("m", layers, gb * 1_000_000_000);
        for (index, layer) in model.layers.iter_mut().enumerate().filter(|(index, _)| index % 3 > 0) {
            layer.attention = match index % 3 {
                1 => Attention::Sliding { kv_heads: 4, key_dim: 64, value_dim: 64, window: 100 * index as u32 },
                _ => Attention::Recurrent { state_bytes: 1 << index },
            };
        }
        let costs = Costs::new(&model, &model.quants[0], load(context)).unwrap();
        let start = start.min(layers - 1);
        let end = (start + len).min(layers);
        for backend in [Backend::Cpu(Cpu::X86), Backend::CpuBesideGpu, Backend::UnifiedGpu, Backend::Gpu] {
            let runner = costs.runner(backend);
            let whole = stage(&model, &model.quants[0], start..end, &load(context), runner, 0).unwrap();
            prop_assert_eq!(costs.stage(start, end, backend), whole.total());
        }
    }

    #[test]
    fn a_ledger_adds_up(cluster in arb_cluster(), layers in 2_u32..30, gb in 2_u64..200, gpus in 0_usize..3, ram in 8_u64..200) {
        let mut cluster = cluster;
        if gpus > 0 {
            cluster.nodes[0].machine = rig(gpus, ram);
        }
        let model = moe("m", layers, gb * 1_000_000_000);
        let field = field(&model, &cluster);
        let Some((plan, takes)) = field.roomiest(usize::MAX) else { return Ok(()) };
        let ledger = field.ledger(&plan).unwrap();
        prop_assert_eq!(ledger.len(), cluster.nodes.len());
        let mut fullest = 0.0_f64;
        for pool in ledger.iter().flat_map(|node| &node.pools) {
            prop_assert_eq!(pool.working_set_bytes, pool.items.iter().map(|item| item.bytes).sum::<u64>());
            fullest = fullest.max(pool.utilization);
        }
        let used = field.utilization(&plan, FULLY);
        prop_assert!((fullest - used).abs() < 1e-9, "{} {}", fullest, used);
        prop_assert!(used <= takes + 1e-6);
    }
}

#[test]
fn identical_nodes_share_evenly() {
    let model = dense("d", 80, 110_000_000_000);
    let cluster = quad();
    let field = field(&model, &cluster);
    for objective in [
        Objective::OneStream,
        Objective::ManyStreams,
        Objective::LargestContext,
    ] {
        let plan = field
            .place(objective, FULLY, usize::MAX, &Roofline)
            .unwrap()
            .unwrap();
        let counts: Vec<usize> = plan.stages.iter().map(|stage| stage.layers.len()).collect();
        // The last one has the head, twice: as much as two layers.
        assert!(
            counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 4,
            "{objective:?} {counts:?}"
        );
    }
}

#[test]
fn layers_go_to_the_gpus_first_and_then_experts_to_ram() {
    let cluster = cluster(vec![rig(1, 128)], Links::Unnamed);
    let small = dense("small", 32, 10_000_000_000);
    let one = field(&small, &cluster);
    let (plan, takes) = one.roomiest(1).unwrap();
    assert_eq!(plan.stages[0].packing.parts.len(), 1);
    assert!(takes < COMFORTABLE);

    let experts = moe("experts", 32, 60_000_000_000);
    let spilling = field(&experts, &cluster);
    let (plan, takes) = spilling.roomiest(1).unwrap();
    assert!(plan.stages[0].packing.experts_in_ram > 0);
    assert_eq!(
        plan.stages[0].packing.parts.len(),
        1,
        "attention stays on the GPU"
    );
    assert!(takes <= COMFORTABLE + 1e-6, "{takes}");

    let large = dense("large", 80, 60_000_000_000);
    let spilling = field(&large, &cluster);
    let (plan, _) = spilling.roomiest(1).unwrap();
    let parts = &plan.stages[0].packing.parts;
    assert_eq!(
        (parts[0].pool, parts[1].pool),
        (1, 0),
        "first layers in RAM, the others on the GPU"
    );
    let real = Timing {
        field: &spilling,
        plan: &plan,
        speed: &Roofline,
    }
    .token_s()
    .unwrap();
    assert!(spilling.without_spill_s(&plan, &Roofline).unwrap() < real / 2.0);
}

#[test]
fn pools_are_not_summed() {
    // 46 GB where two GPUs of 24 GiB have 48 together.
    let cluster = cluster(vec![rig(2, 0)], Links::Unnamed);
    let model = dense("d", 10, 49_000_000_000);
    assert!(!field(&model, &cluster).holds(Level::Limit));
}

#[test]
fn a_stage_keeps_the_rules_of_its_architecture() {
    let mut model = dense("d", 48, 110_000_000_000);
    model.architecture = "llama4".into();
    let cluster = quad();
    let plan = field(&model, &cluster).roomiest(usize::MAX).unwrap().0;
    assert!(plan.stages.iter().all(|stage| stage.layers.start % 4 == 0));

    let window = Attention::Sliding {
        kv_heads: 8,
        key_dim: 128,
        value_dim: 128,
        window: 1024,
    };
    let mut model = dense("d", 12, 110_000_000_000);
    model.architecture = "gemma3".into();
    for layer in [0, 3, 6, 11] {
        model.layers[layer].attention = window;
    }
    let plan = field(&model, &cluster).roomiest(usize::MAX).unwrap().0;
    assert!(plan.stages.iter().all(|stage| {
        let layers = &model.layers[stage.layers.start as usize..stage.layers.end as usize];
        layers.iter().any(|layer| layer.attention == window)
    }));
}

#[test]
fn eight_that_differ_are_searched_exactly_with_little_work() {
    let machines: Vec<Machine> = (0..8_u64)
        .map(|index| {
            let unified = pool(
                PoolKind::Unified,
                24 + 8 * index,
                120.0 + 90.0 * index as f64,
            );
            machine(&format!("m{index}"), vec![unified])
        })
        .collect();
    let mut pairs = vec![vec![None; 8]; 8];
    for (from, row) in pairs.iter_mut().enumerate() {
        for (to, pair) in row.iter_mut().enumerate().filter(|(to, _)| *to != from) {
            *pair = Some(link("l", 0.2 + 0.05 * ((from + to) % 5) as f64, 1.25));
        }
    }
    let model = dense("d", 94, 200_000_000_000);
    for links in [Links::Uniform(tb5()), Links::Pairs(pairs)] {
        let cluster = cluster(machines.clone(), links);
        for objective in [
            Objective::OneStream,
            Objective::ManyStreams,
            Objective::LargestContext,
        ] {
            let field = field(&model, &cluster);
            let plan = field
                .place(objective, FULLY, usize::MAX, &Roofline)
                .unwrap()
                .unwrap();
            assert_valid(&field, &plan, FULLY);
            let looked = field.looked_at.get();
            assert!(looked < 20_000_000, "{objective:?}: {looked} states");
        }
    }
}

#[test]
fn sixty_four_that_differ_get_a_plan() {
    let machines: Vec<Machine> = (0..64_u64)
        .map(|index| {
            let unified = pool(
                PoolKind::Unified,
                8 + index % 13,
                100.0 + 7.0 * index as f64,
            );
            machine(&format!("m{index}"), vec![unified])
        })
        .collect();
    let cluster = cluster(machines, Links::Uniform(tb5()));
    let model = dense("d", 94, 200_000_000_000);
    for objective in [
        Objective::OneStream,
        Objective::ManyStreams,
        Objective::LargestContext,
    ] {
        let field = field(&model, &cluster);
        let plan = field
            .place(objective, FULLY, usize::MAX, &Roofline)
            .unwrap()
            .unwrap();
        assert_valid(&field, &plan, FULLY);
        assert!(
            field.looked_at.get() < 10_000_000,
            "{}",
            field.looked_at.get()
        );
    }
}

#[test]
fn the_beam_is_about_as_good_as_the_exact_search() {
    let machines: Vec<Machine> = (0..12)
        .map(|index| mac(if index < 6 { 64 } else { 24 }))
        .collect();
    let pairs = Links::Pairs(
        (0..12)
            .map(|from| (0..12).map(|to| (from != to).then(tb5)).collect())
            .collect(),
    );
    let exact = cluster(machines.clone(), Links::Uniform(tb5()));
    let by_beam = cluster(machines, pairs);
    let model = dense("d", 94, 250_000_000_000);
    for objective in [
        Objective::OneStream,
        Objective::ManyStreams,
        Objective::LargestContext,
    ] {
        let [exact, found] = [&exact, &by_beam].map(|cluster| {
            let field = field(&model, cluster);
            let plan = field
                .place(objective, FULLY, usize::MAX, &Roofline)
                .unwrap()
                .unwrap();
            brute::cost(&field, &plan, objective)
        });
        assert!(
            found <= exact * 1.02,
            "{objective:?}: {found} instead of {exact}"
        );
    }
}

#[test]
fn an_unknown_speed_is_said() {
    let mut cluster = quad();
    cluster.nodes[2].machine.pools[0].bandwidth_gb_s = None;
    let model = dense("d", 80, 110_000_000_000);
    let field = field(&model, &cluster);
    let error = field
        .place(Objective::OneStream, FULLY, usize::MAX, &Roofline)
        .unwrap_err();
    assert!(error.to_string().contains("bandwidth"), "{error}");
}
