use super::*;
use crate::catalog::Catalog;
use crate::cluster::{Cluster, Links};
use crate::evidence::Evidence;
use crate::model::Attention;
use crate::placement::fixtures::*;
use crate::speed::SpeedModel;
use crate::verdict::{Detail, assess};

fn ways(model: &Model, cluster: &Cluster, context: u32) -> Verdict {
    let ask = Ask {
        context,
        detail: Detail::Full,
        ..Ask::default()
    };
    assess(model, cluster, &ask, &Roofline).unwrap()
}

fn find<'a>(verdict: &'a Verdict, name: &str) -> Option<&'a Alternative> {
    verdict
        .alternatives
        .iter()
        .find(|way| way.name.contains(name))
}

#[test]
fn replicas_of_what_fits_a_node_serve_more_streams_than_a_pipeline() {
    let verdict = ways(&dense("m", 80, 30_000_000_000), &quad(), 2048);
    let last = |name: &str| {
        let way = find(&verdict, name).unwrap();
        assert!(way.fits);
        way.streams
            .iter()
            .find(|(streams, _)| *streams == 16)
            .unwrap()
            .1
            .mid
    };
    assert!(last("replicas") > last("one node"));
    assert!(
        last("pipeline over 4") > last("one node"),
        "four stages hold four groups"
    );
}

#[test]
fn a_mixture_of_experts_gains_less_from_a_batch_than_a_dense_model() {
    let gain = |model: &Model| {
        let verdict = ways(model, &quad(), 2048);
        let streams = &find(&verdict, "one node").unwrap().streams;
        streams[2].1.mid / streams[0].1.mid
    };
    let (dense, experts) = (dense("d", 40, 20_000_000_000), moe("e", 40, 20_000_000_000));
    assert!(
        gain(&dense) > gain(&experts),
        "{} {}",
        gain(&dense),
        gain(&experts)
    );
    assert!(gain(&experts) > 1.0);
}

#[test]
fn tensor_parallel_needs_rdma_equal_macs_and_heads_that_divide() {
    let model = dense("m", 80, 40_000_000_000);
    assert!(find(&ways(&model, &quad(), 8192), "tensor").is_some());
    let tcp = cluster(vec![mac(64); 4], Links::Uniform(link("10gbe", 0.3, 1.1)));
    assert!(find(&ways(&model, &tcp, 8192), "tensor").is_none());
    let uneven = cluster(vec![mac(64), mac(48)], Links::Uniform(tb5()));
    assert!(find(&ways(&model, &uneven, 8192), "tensor").is_none());
    let mut odd = model.clone();
    for layer in &mut odd.layers {
        layer.attention = Attention::Full {
            kv_heads: 2,
            key_dim: 128,
            value_dim: 128,
        };
    }
    let verdict = ways(&odd, &quad(), 8192);
    assert!(find(&verdict, "tensor parallel over 2").is_some());
    assert!(find(&verdict, "tensor parallel over 4").is_none());
}

#[test]
fn published_evidence_is_used_for_the_machines_it_is_about() {
    let model = dense("m", 80, 40_000_000_000);
    let mini = ways(&model, &quad(), 8192);
    let way = find(&mini, "tensor parallel over 2").unwrap();
    assert_eq!(way.decode_tok_s, None);
    assert!(way.note.contains("no measurement"));

    let mut studios = quad();
    for node in &mut studios.nodes {
        node.machine.pools[0].device = "m3-ultra-80".into();
    }
    let ultra = ways(&model, &studios, 8192);
    let one = find(&ultra, "one node").unwrap().decode_tok_s.unwrap().mid;
    let two = find(&ultra, "tensor parallel over 2").unwrap();
    assert!(two.note.contains(TENSOR_SOURCE));
    let gain = two.decode_tok_s.unwrap().mid / one;
    assert!((gain - 1.3).abs() < 1e-9, "{gain}");
}

#[test]
fn a_measured_tensor_split_wins() {
    let catalog = Catalog::embedded().unwrap();
    let speed = SpeedModel::new(&catalog);
    let model = catalog.model("qwen3-235b-a22b").unwrap();
    let studios = catalog.cluster("quad-mac-studio-m3-ultra-512gb").unwrap();
    let ask = Ask {
        quant: Some("mlx-8bit".into()),
        detail: Detail::Full,
        ..Ask::default()
    };
    let verdict = assess(model, &studios, &ask, &speed).unwrap();
    for (name, row) in [("over 2 nodes", "m0293"), ("over 4 nodes", "m0294")] {
        let way = find(&verdict, &format!("tensor parallel {name}")).unwrap();
        let measured = catalog.measurements.iter().find(|known| known.id == row);
        let rate = way.decode_tok_s.unwrap();
        assert!((rate.mid - measured.unwrap().decode_tok_s.unwrap()).abs() < 1e-9);
        assert_eq!(rate.evidence, Evidence::MeasuredNear);
        assert!(way.note.contains(row), "{}", way.note);
    }
}

#[test]
fn several_gpus_of_one_host_are_a_tensor_parallel_alternative() {
    let rig = cluster(vec![rig(2, 64)], Links::Unnamed);
    let verdict = ways(&dense("m", 80, 38_000_000_000), &rig, 8192);
    let way = find(&verdict, "2 GPUs").unwrap();
    assert!(way.fits && way.decode_tok_s.is_none());
}

#[test]
fn numbers_of_nodes_stay_few() {
    assert_eq!(counts(1), [0; 0]);
    assert_eq!(counts(4), [2, 3, 4]);
    assert_eq!(counts(64), [2, 3, 4, 5, 6, 7, 8, 16, 32, 64]);
}
