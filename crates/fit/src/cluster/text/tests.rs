use std::sync::LazyLock;

use proptest::prelude::*;

use crate::catalog::Catalog;
use crate::cluster::{Cluster, Links};
use crate::error::FitError;
use crate::machine::PoolKind;

fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> =
        LazyLock::new(|| Catalog::embedded().expect("the embedded catalog is sound"));
    &CATALOG
}

fn read(text: &str) -> Cluster {
    catalog()
        .cluster(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    catalog().cluster(text).expect_err(text).to_string()
}

/// Nodes, pools of the first node and the id of the link between the first two.
fn shape(text: &str) -> (usize, usize, Option<String>) {
    let cluster = read(text);
    let link = cluster.link(0, 1).map(|link| link.id.clone());
    (
        cluster.nodes.len(),
        cluster.nodes[0].machine.pools.len(),
        link,
    )
}

#[test]
fn machines_are_read() {
    let some = |id: &str| Some(id.to_owned());
    for (text, expected) in [
        ("mac-mini-m4-pro-64gb", (1, 1, None)),
        ("4x mac-mini-m4-pro-64gb, link=tb5", (4, 1, some("tb5"))),
        (
            "4 × Mac mini M4 Pro 64 GB , LINK = Thunderbolt 5",
            (4, 1, some("tb5")),
        ),
        ("2X MAC-MINI-M4-PRO-48GB,link=10gbe", (2, 1, some("10gbe"))),
        (
            "mac-studio-m3-ultra-256gb + 2x rtx-3090, link=10gbe",
            (2, 1, some("10gbe")),
        ),
        ("2x rtx-3090", (1, 2, None)),
        ("2x NVIDIA GeForce RTX 3090, ram=64gb", (1, 3, None)),
        (
            "2x rtx-3090, ram=64 GiB, cpu=cpu-ddr4-3200-2ch",
            (1, 3, None),
        ),
        ("rtx-3090 + rtx-3090, link=25gbe", (2, 1, some("25gbe"))),
        ("quad-mac-mini-m4-pro-64gb", (4, 1, some("tb5"))),
        (
            "Quad Mac mini M4 Pro 64GB, link=10gbe",
            (4, 1, some("10gbe")),
        ),
        ("dgx-spark", (1, 1, None)),
        ("2x mac-mini-m4-pro-64gb", (2, 1, None)),
        // A cable is as fast as the older end: the M4 mini has Thunderbolt 4.
        ("2x mac-mini-m4-32gb, link=tb5", (2, 1, some("tb4"))),
        ("home-mixed-desk", (3, 1, some("tb5"))),
    ] {
        assert_eq!(shape(text), expected, "{text}");
    }
}

#[test]
fn options_without_commas() {
    for (text, same) in [
        (
            "4x mac-mini-m4-pro-64gb link=tb5",
            "4x mac-mini-m4-pro-64gb, link=tb5",
        ),
        (
            "2x rtx-3090 ram=64gb cpu = ryzen-9-9950x",
            "2x rtx-3090, ram=64gb, cpu=ryzen-9-9950x",
        ),
        (
            "2x rtx-3090 ram=64 GiB, cpu=ryzen-9-9950x",
            "2x rtx-3090, ram=64gb, cpu=ryzen-9-9950x",
        ),
        (
            "rtx-4090 + rtx-3090 link=Thunderbolt 5 ram=32gb",
            "rtx-4090 + rtx-3090, link=tb5, ram=32gb",
        ),
        (
            "quad-mac-mini-m4-pro-64gb link=10gbe wired=60000",
            "quad-mac-mini-m4-pro-64gb, link=10gbe, wired=60000",
        ),
    ] {
        let (text, same) = (read(text), read(same));
        assert_eq!((text.nodes, text.links), (same.nodes, same.links));
    }
    for (text, part) in [
        ("2x mac-mini-m4-pro-64gb lnik=tb5", "did you mean link=tb5?"),
        ("2x mac-mini-m4-pro-64gb link=tb6", "tb5"),
        (
            "rtx-4090 ram=64gb + rtx-3090 link=10gbe",
            "after all machines",
        ),
        ("rtx-4090 ram=", "whole number"),
        ("rtx-4090 ram=64gb ram=32gb", "twice"),
    ] {
        let error = error(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn counts_as_people_write_them() {
    let two = read("2x rtx-3090");
    for text in [
        "2 rtx-3090",
        "rtx-3090 x2",
        "RTX 3090 x2",
        "RTX 3090 × 2",
        "rtx-3090 *2",
        "3090x2",
        "2 3090",
        "two rtx 3090",
        "Two  RTX 3090",
    ] {
        assert_eq!(read(text).nodes, two.nodes, "{text}");
    }
    for (text, nodes, pools) in [
        ("4 mac-mini-m4-pro-64gb", 4, 1),
        ("mac-mini-m4-pro-64gb x4", 4, 1),
        ("four mac mini m4 pro 64 gb", 4, 1),
        ("64 GB Mac mini M4 Pro", 1, 1),
        ("7900 XTX x2", 1, 2),
        ("2 7900 xtx", 1, 2),
        ("4090", 1, 1),
        ("3090 ti", 1, 1),
        ("2 rtx-3090 + rtx-4090 x3", 2, 2),
    ] {
        let (own_nodes, own_pools, _) = shape(text);
        assert_eq!((own_nodes, own_pools), (nodes, pools), "{text}");
    }
    for (text, part) in [
        ("0 rtx-3090", "1 to 64"),
        ("65 rtx-3090", "1 to 64"),
        ("rtx-3090 x0", "1 to 64"),
        ("rtx-3090 x999999999999999999999", "1 to 64"),
        ("2 rtx-3909", "rtx-3090"),
        ("rtx-3909 x2", "rtx-3090"),
        ("2x rtx-3090 x2", "rtx-3090"),
    ] {
        let error = error(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

/// Who knows the chip and not the machine is told machines with it.
#[test]
fn names_of_chips() {
    for text in [
        "ryzen-ai-max-395",
        "2x ryzen-ai-max-395",
        "Ryzen AI Max+ 395",
        "AMD Ryzen AI Max+ 395 128GB + rtx-3090",
        "8060S",
        "gfx1151",
        "ryzen-ai-max",
        "ryzen-ai-max-365",
    ] {
        let error = error(text);
        assert!(error.contains("strix-halo-"), "{text}: {error}");
    }
    assert!(error("gb10").contains("dgx-spark"));
    assert!(error("cpu").contains("ram=64gb, cpu=cpu"));
    assert!(error("m1-7").contains("the catalog has none with it"));
    // The plus of a Mac's Max joins.
    assert_eq!(read("macbook-pro-m4-max-128gb+ 2x rtx-3090").nodes.len(), 2);
}

#[test]
fn names_of_nodes_and_hosts() {
    let cluster = read("mac-mini-m4-pro-64gb + 2x rtx-3090, ram=64gb, link=10gbe");
    let names: Vec<(&str, &str)> = cluster
        .nodes
        .iter()
        .map(|node| (node.name.as_str(), node.machine.id.as_str()))
        .collect();
    assert_eq!(
        names,
        [
            ("node-1", "mac-mini-m4-pro-64gb"),
            ("node-2", "2x-rtx-3090")
        ]
    );
    assert_eq!(
        cluster.name,
        "Mac mini M4 Pro 64 GB + 2x NVIDIA RTX 3090 with 64 GB RAM, 10 Gbit/s Ethernet"
    );
    assert_eq!(
        cluster.id,
        "mac-mini-m4-pro-64gb + 2x rtx-3090, ram=64gb, link=10gbe"
    );
    let kinds: Vec<PoolKind> = cluster.nodes[1]
        .machine
        .pools
        .iter()
        .map(|pool| pool.kind)
        .collect();
    assert_eq!(kinds, [PoolKind::Vram, PoolKind::Vram, PoolKind::Ram]);
}

#[test]
fn several_nodes_without_a_link_have_an_unnamed_one() {
    assert_eq!(read("2x mac-mini-m4-pro-64gb").links, Links::Unnamed);
    assert_eq!(read("mac-mini-m4-pro-64gb, link=tb5").links, Links::Unnamed);
}

#[test]
fn rdma_needs_both_ends() {
    let macs = read("2x mac-mini-m4-pro-64gb, link=tb5");
    assert!(macs.link(0, 1).is_some_and(|link| link.rdma.is_some()));
    let many = read("5x mac-mini-m4-pro-64gb, link=tb5");
    assert!(many.link(0, 1).is_some_and(|link| link.rdma.is_none()));
    let mixed = read("mac-mini-m4-pro-64gb + rtx-3090, link=tb5");
    assert!(
        mixed
            .link(0, 1)
            .is_some_and(|link| link.id == "tb5" && link.rdma.is_none())
    );
    let old = read("2x mac-mini-m4-pro-64gb + mac-mini-m1-16gb, link=tb5");
    assert!(old.link(0, 1).is_some_and(|link| link.rdma.is_some()));
    assert!(
        old.link(0, 2)
            .is_some_and(|link| link.id == "tb3" && link.rdma.is_none())
    );
}

#[test]
fn a_wired_limit_is_for_macs() {
    let cluster = read("2x mac-mini-m4-pro-64gb, link=tb5, wired=60000");
    assert_eq!(cluster.nodes[1].machine.pools[0].limit_bytes, 60_000 << 20);
    let combo = read("quad-mac-mini-m4-pro-64gb, wired=60000mb");
    assert_eq!(combo.nodes[3].machine.pools[0].limit_bytes, 60_000 << 20);
    assert!(error("rtx-3090, wired=1000").contains("only a Mac"));
    let most = read("mac-mini-m4-pro-64gb, wired=63488");
    assert_eq!(most.nodes[0].machine.pools[0].limit_bytes, 62 << 30);
    for text in [
        "mac-mini-m4-pro-64gb, wired=99999",
        "mac-mini-m4-pro-64gb + mac-studio-m3-ultra-256gb, wired=63489",
        "quad-mac-mini-m4-pro-64gb, wired=65536",
    ] {
        let error = error(text);
        assert!(error.contains("at most wired=63488"), "{error}");
    }
}

#[test]
fn a_typo_gets_the_nearest_names() {
    for (text, near) in [
        ("4x mac-mini-m4-pro-46gb, link=tb5", "mac-mini-m4-pro-64gb"),
        ("2x rtx-3909", "rtx-3090"),
        ("quad-mac-mini-m4-por-64gb", "quad-mac-mini-m4-pro-64gb"),
        ("2x mac-mini-m4-pro-64gb, link=tb6", "tb5"),
        (
            "2x mac-mini-m4-pro-64gb, lnik=tb5",
            "did you mean link=tb5?",
        ),
        ("mac-mini-m4-pro", "which memory size? mac-mini-m4-pro-24gb"),
        ("m4-pro-20", "mac-mini-m4-pro-"),
        ("rtx-3090, ram=64gb, cpu=ryzen-9-9950", "ryzen-9-9950x"),
    ] {
        let error = error(text);
        assert!(error.contains(near), "{text}: {error}");
    }
    let h100 = catalog().cluster("h100");
    let Err(FitError::UnknownName { nearest, .. }) = h100 else {
        panic!("H100 is two GPUs: {h100:?}");
    };
    assert!(nearest.contains(&"h100-pcie".to_owned()) && nearest.contains(&"h100-sxm".to_owned()));
}

#[test]
fn words_that_mean_one_thing() {
    for (text, expected) in [
        ("2x4090", "rtx-4090"),
        ("4090", "rtx-4090"),
        ("3090 ti", "rtx-3090-ti"),
        ("RTX 3090Ti", "rtx-3090-ti"),
        ("nvidia geforce rtx 4090 24gb", "rtx-4090"),
        ("rx 7900xtx", "rx-7900-xtx"),
        ("7900 XTX", "rx-7900-xtx"),
        ("m2 ultra 192gb", "m2-ultra-76"),
        ("64 GB Mac mini M4 Pro", "m4-pro-20"),
        ("MacBook Pro M3 Max 36GB", "m3-max-30"),
    ] {
        let cluster = read(text);
        assert_eq!(cluster.nodes[0].machine.pools[0].device, expected, "{text}");
    }
    for (text, near) in [
        ("a100 80gb", "a100-sxm-80gb"),
        ("a100 80gb", "a100-pcie-80gb"),
        ("4060 ti", "rtx-4060-ti-8gb"),
        ("MacBook Pro M3 Max 40GB", "macbook-pro-m3-max-"),
        ("nvidia geforce rtx 4090 32gb", "rtx-4090"),
    ] {
        let error = error(text);
        assert!(
            error.contains("did you mean") && error.contains(near),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_combo_is_read_by_its_title() {
    for combo in &catalog().combos {
        let title = combo.cluster.name.replace("x ", "× ");
        let read = catalog().cluster(&title);
        assert_eq!(
            read.map(|own| own.nodes),
            Ok(combo.cluster.nodes.clone()),
            "{title}"
        );
    }
}

#[test]
fn what_a_text_leaves_out() {
    let hint = |text: &str| read(text).left_out().join(" ");
    assert!(hint("2x mac-mini-m4-pro-64gb").contains("link=10gbe"));
    assert!(hint("rtx-4090 + rtx-3090").contains("link=10gbe"));
    assert!(hint("rtx-4090, ram=96gb").contains("cpu=ID"));
    for text in [
        "rtx-4090",
        "2x mac-mini-m4-pro-64gb, link=tb5",
        "home-mixed-desk",
    ] {
        assert_eq!(hint(text), "", "{text}");
    }
}

#[test]
fn nonsense_is_refused_with_a_hint() {
    for (text, part) in [
        ("", "a machine is expected"),
        ("4x", "a machine is expected"),
        ("mac-mini-m4-pro-64gb +", "a machine is expected"),
        ("0x rtx-3090", "1 to 64"),
        ("65x rtx-3090", "1 to 64"),
        ("99999999999999999999999x rtx-3090", "1 to 64"),
        ("64x mac-mini-m4-pro-64gb + rtx-3090", "64 nodes at most"),
        ("2x rtx-3090, ram=0", "whole number"),
        ("2x rtx-3090, ram=lots", "whole number"),
        ("2x rtx-3090, ram=64gb, ram=32gb", "twice"),
        ("2x rtx-3090, cpu=cpu", "needs ram"),
        ("mac-mini-m4-pro-64gb, ram=64gb", "only a host of GPUs"),
        ("2x mac-mini-m4-pro-64gb, tb5", "link=ID"),
        ("2x mac-mini-m4-pro-64gb, link=nvlink", "one host"),
    ] {
        let error = error(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn every_machine_gpu_and_combo_is_read_by_its_own_id() {
    let catalog = catalog();
    for sold in &catalog.machines {
        let cluster = catalog.cluster(&sold.machine.id).expect(&sold.machine.id);
        assert_eq!(cluster.nodes[0].machine, sold.machine);
    }
    for gpu in catalog.devices.iter().filter(|device| device.is_gpu()) {
        let cluster = catalog.cluster(&gpu.id).expect(&gpu.id);
        assert_eq!(cluster.nodes[0].machine.pools[0].device, gpu.id);
        let by_name = catalog.cluster(&gpu.name).expect(&gpu.name);
        assert_eq!(by_name.nodes[0].machine.pools[0].device, gpu.id);
    }
    for combo in &catalog.combos {
        assert_eq!(
            catalog.cluster(&combo.cluster.id).as_ref(),
            Ok(&combo.cluster)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        let _ = catalog().cluster(&text);
    }

    #[test]
    fn what_looks_like_machines_is_read_or_refused(
        parts in proptest::collection::vec(
            prop_oneof![
                Just("4x"), Just("mac-mini-m4-pro-64gb"), Just("rtx-3090"), Just("+"), Just(","),
                Just("link=tb5"), Just("ram=64gb"), Just("="), Just("×"), Just(" "), Just("99x"),
                Just("two "), Just(" x2"), Just("Max+ 395"), Just("2 "),
            ],
            0..12,
        ),
    ) {
        if let Ok(cluster) = catalog().cluster(&parts.concat()) {
            prop_assert!((1..=64).contains(&cluster.nodes.len()));
            for node in &cluster.nodes {
                for pool in &node.machine.pools {
                    prop_assert!(pool.limit_bytes <= pool.memory_bytes);
                }
            }
        }
    }

    /// However a count is written and options are divided, the machines are the same.
    #[test]
    fn spellings_mean_the_same(
        machine in 0_usize..1000,
        count in 1_usize..=8,
        form in 0_usize..8,
        comma in prop_oneof![Just(","), Just(" "), Just(" , "), Just("  ")],
        link in prop_oneof![Just("10gbe"), Just("tb5"), Just("1gbe")],
    ) {
        let catalog = catalog();
        let gpus = catalog.devices.iter().filter(|device| device.is_gpu());
        let machines = catalog.machines.iter().map(|sold| sold.machine.id.as_str());
        let ids: Vec<&str> = machines.chain(gpus.map(|gpu| gpu.id.as_str())).collect();
        let id = ids[machine % ids.len()];
        let word = ["one", "two", "three", "four", "five", "six", "seven", "eight"][count - 1];
        let spelled = match form {
            0 => format!("{count} {id}"),
            1 => format!("{word} {id}"),
            2 => format!("{id} x{count}"),
            3 => format!("{id} × {count}"),
            4 => format!("{count}×{id}"),
            5 => format!("{count} * {id}"),
            6 => format!("{} X{count}", id.to_uppercase()),
            _ => format!("{}  {id}", word.to_uppercase()),
        };
        let usual = read(&format!("{count}x {id}, link={link}"));
        let other = read(&format!("{spelled}{comma}link={link}"));
        prop_assert_eq!(usual.nodes, other.nodes);
        prop_assert_eq!(usual.links, other.links);
    }
}
