//! Scenarios as data: `tests/scenarios/*.toml`, one file each, unknown keys refused.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::*;
use crate::verdict::{Ask, Detail, assess, plan};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Scenario {
    /// What it shows.
    about: String,
    model: ModelFacts,
    /// In order; their names are what `links` and `expect` say.
    nodes: Vec<NodeFacts>,
    /// The same between all, or those that there are.
    link: Option<LinkFacts>,
    #[serde(default)]
    links: Vec<PairFacts>,
    ask: AskFacts,
    expect: Expected,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelFacts {
    layers: u32,
    weights_gb: f64,
    #[serde(default)]
    experts: bool,
    architecture: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeFacts {
    name: String,
    unified_gib: Option<u64>,
    #[serde(default)]
    gpus_gib: Vec<u64>,
    ram_gib: Option<u64>,
    /// Of the unified memory or the GPUs.
    gb_s: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkFacts {
    ms: f64,
    gb_s: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PairFacts {
    between: [String; 2],
    ms: f64,
    gb_s: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskFacts {
    objective: Option<String>,
    context: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    tier: String,
    /// Node and layers, in the order of the layers.
    stages: Vec<(String, u32)>,
    /// Layers whose experts lie in system memory, by node.
    #[serde(default)]
    experts_in_ram: BTreeMap<String, u32>,
}

fn read(text: &str) -> Scenario {
    toml::from_str(text).unwrap()
}

fn the_cluster(scenario: &Scenario) -> Cluster {
    let machines = scenario.nodes.iter().map(|node| {
        let mut pools = Vec::new();
        pools.extend(
            node.unified_gib
                .map(|gib| pool(PoolKind::Unified, gib, node.gb_s)),
        );
        let gpus = node.gpus_gib.iter();
        pools.extend(gpus.map(|&gib| pool(PoolKind::Vram, gib, node.gb_s)));
        pools.extend(node.ram_gib.map(|gib| pool(PoolKind::Ram, gib, 60.0)));
        machine(&node.name, pools)
    });
    let machines: Vec<Machine> = machines.collect();
    let count = machines.len();
    let at = |name: &String| {
        let mut nodes = scenario.nodes.iter();
        nodes.position(|node| node.name == *name).unwrap()
    };
    let links = match &scenario.link {
        Some(of) => Links::Uniform(link("l", of.ms, of.gb_s)),
        None if scenario.links.is_empty() => Links::Unnamed,
        None => {
            let mut pairs = vec![vec![None; count]; count];
            for pair in &scenario.links {
                let (a, b) = (at(&pair.between[0]), at(&pair.between[1]));
                let both = link("l", pair.ms, pair.gb_s);
                pairs[a][b] = Some(both.clone());
                pairs[b][a] = Some(both);
            }
            Links::Pairs(pairs)
        }
    };
    let mut all = cluster(machines, links);
    for (node, facts) in all.nodes.iter_mut().zip(&scenario.nodes) {
        node.name.clone_from(&facts.name);
    }
    all
}

fn the_model(facts: &ModelFacts) -> Model {
    let bytes = (facts.weights_gb * 1e9) as u64;
    let mut model = if facts.experts {
        moe("m", facts.layers, bytes)
    } else {
        dense("m", facts.layers, bytes)
    };
    if let Some(architecture) = &facts.architecture {
        model.architecture.clone_from(architecture);
    }
    model
}

fn check(text: &str) {
    let scenario = read(text);
    let (model, cluster) = (the_model(&scenario.model), the_cluster(&scenario));
    let ask = Ask {
        context: scenario.ask.context,
        objective: scenario.ask.objective.as_deref().map(|name| match name {
            "one-stream" => Objective::OneStream,
            "many-streams" => Objective::ManyStreams,
            "largest-context" => Objective::LargestContext,
            other => panic!("no objective is called {other}"),
        }),
        detail: Detail::Brief,
        ..Ask::default()
    };
    let verdict = assess(&model, &cluster, &ask, &Roofline).unwrap();
    assert_eq!(
        verdict.tier.name(),
        scenario.expect.tier,
        "{}: {:#?}",
        scenario.about,
        verdict.reasons
    );
    let plan = plan(&model, &cluster, &ask, &Roofline).unwrap();
    let stages = plan.map_or(Vec::new(), |plan| plan.stages);
    let name = |stage: &PlanStage| cluster.nodes[stage.node].name.clone();
    let found: Vec<(String, u32)> = stages
        .iter()
        .map(|stage| (name(stage), stage.layers.len() as u32))
        .collect();
    assert_eq!(found, scenario.expect.stages, "{}", scenario.about);
    for stage in &stages {
        let expected = scenario.expect.experts_in_ram.get(&name(stage));
        assert_eq!(
            stage.packing.experts_in_ram,
            *expected.unwrap_or(&0),
            "{}",
            scenario.about
        );
    }
}

macro_rules! scenarios {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            check(include_str!(concat!("../../../tests/scenarios/", stringify!($name), ".toml")));
        })*

        #[test]
        fn each_file_is_run() {
            let names = [$(stringify!($name)),*];
            let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
            for file in std::fs::read_dir(folder).unwrap() {
                let name = file.unwrap().file_name().into_string().unwrap();
                let name = name.strip_suffix(".toml").unwrap();
                assert!(names.contains(&name), "{name}");
            }
        }
    };
}

scenarios! {
    one_node_is_enough
    fast_and_slow
    left_out_where_slow
    a_ring_of_cables
    experts_beside_a_gpu
    left_out_behind_a_slow_link
    on_the_period
    too_large
}

#[test]
fn an_unknown_key_is_refused() {
    let text = include_str!("../../../tests/scenarios/too_large.toml");
    assert!(toml::from_str::<Scenario>(&text.replace("layers =", "layer =")).is_err());
}
