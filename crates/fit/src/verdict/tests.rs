mod properties;

use super::*;
use crate::FitError;
use crate::cluster::{Cluster, Links};
use crate::machine::PoolKind;
use crate::model::{Attention, Model};
use crate::placement::fixtures::*;

fn full() -> Ask {
    Ask {
        detail: Detail::Full,
        ..Ask::default()
    }
}

fn verdict(model: &Model, cluster: &Cluster, ask: &Ask) -> Verdict {
    assess(model, cluster, ask, &Roofline).unwrap()
}

/// 235 B parameters in 94 layers of 128 experts, about 110 GB at Q4.
fn two_hundred_billion() -> Model {
    let mut model = moe("qwen3-235b-a22b", 94, 110_000_000_000);
    for layer in &mut model.layers {
        layer.attention = Attention::Full {
            kv_heads: 4,
            key_dim: 128,
            value_dim: 128,
        };
    }
    model.hidden = 4096;
    model.max_context = 40_960;
    model
}

#[test]
fn a_200_b_model_at_q4_is_comfortable_with_25_to_30_gb_a_node() {
    let verdict = verdict(&two_hundred_billion(), &quad(), &full());
    assert_eq!(verdict.tier, Tier::Comfortable, "{:#?}", verdict.reasons);
    assert_eq!(verdict.ledger.len(), 4);
    for node in &verdict.ledger {
        let held = node.pools[0].working_set_bytes;
        assert!(
            (25e9..=30e9).contains(&(held as f64)),
            "{held} on {}",
            node.node
        );
        assert!((25e9..=30e9).contains(&(node.disk_bytes as f64)));
    }
    let used = verdict.utilization.unwrap();
    assert!((0.55..0.65).contains(&used), "{used}");
    assert!(verdict.binding_node.is_some());
}

#[test]
fn a_70_b_model_at_4_bit_is_comfortable() {
    let model = dense("llama-3.3-70b", 80, 40_600_000_000);
    let verdict = verdict(&model, &quad(), &full());
    assert_eq!(verdict.tier, Tier::Comfortable, "{verdict:#?}");
    assert_eq!(verdict.alternatives[0].split, Split::OneNode);
    let splits: Vec<&str> = verdict.alternatives.iter().map(|way| &*way.name).collect();
    assert_eq!(
        splits,
        [
            "one node, mac-mini-m4-pro-64gb",
            "4 replicas, one a node",
            "pipeline over 2 nodes",
            "pipeline over 3 nodes",
            "pipeline over 4 nodes",
            "tensor parallel over 2 nodes",
            "tensor parallel over 4 nodes",
        ]
    );
    let rate = |at: usize| verdict.alternatives[at].decode_tok_s.unwrap().mid;
    assert!(
        rate(0) > rate(2) && rate(2) > rate(4),
        "each node makes one stream slower"
    );
}

#[test]
fn a_model_over_the_limit_is_not_practical_and_says_what_would_help() {
    let model = dense("huge", 100, 400_000_000_000);
    let verdict = verdict(&model, &quad(), &full());
    assert_eq!(verdict.tier, Tier::NotPractical);
    assert_eq!(verdict.max_context, None);
    assert_eq!(verdict.decode_tok_s, None);
    assert!(verdict.utilization.unwrap() > 1.0);
    assert!(
        verdict
            .reasons
            .iter()
            .any(|reason| reason.contains("exceed the limit"))
    );
}

#[test]
fn a_borderline_model_says_which_context_to_cap_at() {
    let model = dense("tight", 100, 196_000_000_000);
    let tight = verdict(&model, &quad(), &full());
    assert_eq!(tight.tier, Tier::Borderline, "{:#?}", tight.reasons);
    let most = tight.max_context.unwrap();
    assert!(most < model.max_context);
    assert!(
        tight
            .reasons
            .iter()
            .any(|reason| reason.contains("cap the context")),
        "{:#?}",
        tight.reasons
    );
    // What fits is really the largest.
    let at = |context| {
        let ask = Ask {
            context,
            ..Ask::default()
        };
        verdict(&model, &quad(), &ask).ledger.iter().all(|node| {
            node.pools
                .iter()
                .all(|pool| pool.working_set_bytes <= pool.limit_bytes)
        })
    };
    assert!(at(most) && !at(most + 256));
    let says = |word: &str| tight.changes.iter().any(|change| change.contains(word));
    assert!(
        says("KV cache the largest context is"),
        "{:#?}",
        tight.changes
    );
    assert!(
        says("Without node-1 it no longer fits"),
        "{:#?}",
        tight.changes
    );
}

#[test]
fn a_better_tier_is_found_by_assessing_again() {
    let mut model = dense("m", 100, 149_000_000_000);
    model.quants.push(quant(
        "Q3_K_M",
        3.9,
        vec![
            crate::model::LayerBytes {
                dense: 1_400_000_000,
                experts: 0
            };
            100
        ],
        1_000_000_000,
    ));
    let ask = Ask {
        context: 32_768,
        ..full()
    };
    let tight = verdict(&model, &quad(), &ask);
    assert_eq!(tight.tier, Tier::Borderline, "{:?}", tight.utilization);
    for says in [
        "Q3_K_M (142 GB, below 4 bits",
        "tokens of context it is comfortable",
        "q8_0 KV cache it is comfortable",
        "one more mac-mini",
        "wired_limit_mb=57344",
        "Without node-1",
    ] {
        assert!(
            tight.changes.iter().any(|change| change.contains(says)),
            "{says}: {:#?}",
            tight.changes
        );
    }
    let slow = cluster(vec![mac(64); 4], Links::Uniform(link("wifi", 3.0, 0.05)));
    let ask = Ask {
        links: vec![tb5()],
        ..full()
    };
    let faster = verdict(&two_hundred_billion(), &slow, &ask);
    assert!(
        faster
            .changes
            .iter()
            .any(|change| change.starts_with("Over tb5 it decodes")),
        "{:#?}",
        faster.changes
    );
}

#[test]
fn what_is_missing_is_named() {
    let mut model = dense("m", 32, 5_000_000_000);
    model.missing = vec!["number of KV heads".into()];
    let unknown = verdict(&model, &quad(), &full());
    assert_eq!(unknown.tier, Tier::Unknown);
    assert!(unknown.reasons[0].contains("number of KV heads"));

    let mut none = dense("m", 32, 5_000_000_000);
    none.quants.clear();
    assert_eq!(verdict(&none, &quad(), &full()).tier, Tier::Unknown);

    let mut unnamed = quad();
    unnamed.links = Links::Unnamed;
    let large = verdict(&two_hundred_billion(), &unnamed, &full());
    assert_eq!(large.tier, Tier::Unknown);
    assert!(
        large.reasons.iter().any(|reason| reason.contains("link")),
        "{:?}",
        large.reasons
    );

    let mut slow = quad();
    for node in &mut slow.nodes {
        node.machine.pools[0].bandwidth_gb_s = None;
    }
    let fits = verdict(&two_hundred_billion(), &slow, &full());
    assert_eq!(fits.tier, Tier::Comfortable);
    assert_eq!(fits.decode_tok_s, None);
    assert!(
        fits.reasons
            .iter()
            .any(|reason| reason.contains("bandwidth"))
    );
}

#[test]
fn an_unknown_quantization_gets_the_nearest_names() {
    let ask = Ask {
        quant: Some("Q4_K_S".into()),
        ..Ask::default()
    };
    let error = assess(&dense("m", 32, 5_000_000_000), &quad(), &ask, &Roofline).unwrap_err();
    assert!(
        matches!(
            error,
            FitError::UnknownName {
                kind: "quantization",
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("Q4_K_M"), "{error}");
}

#[test]
fn below_4_bits_only_where_asked_and_marked() {
    let mut model = dense("m", 100, 250_000_000_000);
    let smaller: Vec<_> = model.quants[0]
        .weights
        .layers
        .iter()
        .map(|layer| {
            let mut layer = *layer;
            layer.dense = layer.dense * 6 / 10;
            layer
        })
        .collect();
    model
        .quants
        .push(quant("Q2_K", 2.7, smaller, 1_000_000_000));
    let usual = verdict(&model, &quad(), &full());
    assert_eq!(usual.quant, "Q4_K_M");
    assert_eq!(usual.tier, Tier::NotPractical);
    assert!(
        usual
            .changes
            .iter()
            .any(|change| change.contains("Q2_K") && change.contains("below 4 bits")),
        "{:#?}",
        usual.changes
    );
    let ask = Ask {
        quant: Some("q2_k".into()),
        ..full()
    };
    let asked = verdict(&model, &quad(), &ask);
    assert_eq!(asked.quant, "Q2_K");
    assert!(
        asked
            .reasons
            .iter()
            .any(|reason| reason.contains("below the 4"))
    );
}

#[test]
fn the_smallest_production_quantization_is_one_that_the_machines_read() {
    let mut model = dense("m", 32, 8_000_000_000);
    let mut mlx = dense("m", 32, 7_000_000_000).quants.remove(0);
    mlx.name = "mlx-4bit".into();
    mlx.format = Format::Mlx;
    model.production.push(mlx.name.clone());
    model.quants.push(mlx);
    assert_eq!(verdict(&model, &quad(), &full()).quant, "mlx-4bit");
    let rig = cluster(vec![rig(1, 64)], Links::Unnamed);
    assert_eq!(verdict(&model, &rig, &full()).quant, "Q4_K_M");
    model.quants.remove(0);
    let unread = verdict(&model, &rig, &full());
    assert_eq!(unread.tier, Tier::Unknown);
    assert!(
        unread.reasons[0].contains("no runtime of these machines reads"),
        "{:?}",
        unread.reasons
    );
}

#[test]
fn a_gpu_that_spills_states_its_price() {
    let cluster = cluster(vec![rig(1, 192)], Links::Unnamed);
    let verdict = verdict(&moe("m", 48, 70_000_000_000), &cluster, &full());
    assert_eq!(verdict.tier, Tier::Comfortable, "{:#?}", verdict.reasons);
    assert_eq!(verdict.ledger[0].pools.len(), 2);
    let says = |word: &str| verdict.reasons.iter().any(|reason| reason.contains(word));
    assert!(
        says("experts") && says("Its price"),
        "{:#?}",
        verdict.reasons
    );
}

#[test]
fn an_objective_is_followed() {
    let model = two_hundred_billion();
    let ask = |objective| Ask {
        objective: Some(objective),
        ..full()
    };
    let stream = verdict(&model, &quad(), &ask(Objective::OneStream));
    let used = |verdict: &Verdict| {
        verdict
            .ledger
            .iter()
            .filter(|node| !node.pools.is_empty())
            .count()
    };
    assert_eq!(used(&stream), 3, "a fourth node would only add a hop");
    let room = verdict(&model, &quad(), &ask(Objective::LargestContext));
    assert_eq!(used(&room), 4);
    assert!(stream.decode_tok_s.unwrap().mid > room.decode_tok_s.unwrap().mid);
    // Over a slow link the fourth node costs enough to speak of.
    let mut slow = quad();
    if let Links::Uniform(link) = &mut slow.links {
        link.latency_ms = 3.0;
    }
    let room = verdict(&model, &slow, &ask(Objective::LargestContext));
    assert!(
        room.reasons
            .iter()
            .any(|reason| reason.contains("Fewer nodes are faster")),
        "{:#?}",
        room.reasons
    );
    // More than any context asked for, on all sorts of nodes.
    let mut mixed = quad();
    mixed.nodes[1].machine = rig(2, 64);
    mixed.nodes[3].machine.pools = vec![pool(PoolKind::Ram, 128, 80.0)];
    for objective in [
        Objective::OneStream,
        Objective::ManyStreams,
        Objective::LargestContext,
    ] {
        let verdict = verdict(&model, &mixed, &ask(objective));
        assert_eq!(
            verdict.tier,
            Tier::Comfortable,
            "{objective:?} {:#?}",
            verdict.reasons
        );
    }
}

#[test]
fn streams_are_a_curve_that_memory_ends() {
    let verdict = verdict(&two_hundred_billion(), &quad(), &full());
    let pipeline = &verdict.alternatives[0];
    assert_eq!(pipeline.split, Split::Pipeline);
    let streams = &pipeline.streams;
    assert!(streams.len() > 2, "{streams:?}");
    assert!(
        streams
            .windows(2)
            .all(|pair| pair[1].1.mid >= pair[0].1.mid * 0.99),
        "{streams:?}"
    );
    let longest = Ask {
        context: 40_960,
        ..full()
    };
    let fewer = &self::verdict(&two_hundred_billion(), &quad(), &longest).alternatives[0].streams;
    assert!(
        fewer.len() < streams.len(),
        "longer caches leave room for fewer"
    );
}
