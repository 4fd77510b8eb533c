//! The lint of the embedded catalog.

mod over;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::hardware::FAMILIES;
use super::read::{is_date, is_kebab};
use super::*;
use crate::evidence::Evidence;
use crate::machine::PoolKind;
use crate::speed::classes::Family;

fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> =
        LazyLock::new(|| Catalog::embedded().expect("the embedded catalog is sound"));
    &CATALOG
}

#[test]
fn it_has_what_people_ask_for() {
    let catalog = catalog();
    let gpus = catalog
        .devices
        .iter()
        .filter(|device| device.is_gpu())
        .count();
    assert!(gpus >= 60, "{gpus} GPUs");
    assert!(
        catalog.machines.len() >= 60,
        "{} machines",
        catalog.machines.len()
    );
    assert!(
        catalog.combos.len() >= 14,
        "{} combos",
        catalog.combos.len()
    );
    for id in [
        "quad-mac-mini-m4-pro-64gb",
        "single-mac-studio-m3-ultra-512gb",
        "dual-mac-studio-m3-ultra-512gb",
        "quad-mac-studio-m3-ultra-512gb",
        "dual-rtx-3090",
        "dual-dgx-spark",
        "quad-strix-halo-128gb",
        "mac-studio-m3-ultra-256gb-dual-rtx-3090",
    ] {
        assert!(catalog.combo(id).is_some(), "{id}");
    }
    assert!(catalog.runtimes.len() >= 12 && catalog.failures.len() >= 17);
}

#[test]
fn ids_are_unique_over_all_that_can_be_named() {
    let catalog = catalog();
    let machines = catalog.machines.iter().map(|sold| &sold.machine.id);
    let devices = catalog.devices.iter().map(|device| &device.id);
    let combos = catalog.combos.iter().map(|combo| &combo.cluster.id);
    let mut seen = BTreeSet::new();
    for id in machines.chain(devices).chain(combos) {
        assert!(is_kebab(id), "{id}");
        assert!(seen.insert(id.clone()), "{id} names two things");
    }
}

#[test]
fn every_value_has_a_source_and_a_day() {
    let catalog = catalog();
    let devices = catalog
        .devices
        .iter()
        .map(|own| (&own.id, &own.source, &own.date));
    let machines = catalog
        .machines
        .iter()
        .map(|own| (&own.machine.id, &own.source, &own.date));
    let limits = catalog
        .limits
        .iter()
        .map(|own| (&own.id, &own.source, &own.date));
    let links = catalog
        .links
        .iter()
        .map(|own| (&own.link.id, &own.link.source, &own.date));
    let models = catalog
        .models
        .iter()
        .map(|own| (&own.id, &own.source, &own.date));
    let overheads = catalog
        .overheads
        .iter()
        .map(|own| (&own.id, &own.source, &own.date));
    let runtimes = catalog
        .runtimes
        .iter()
        .map(|own| (&own.id, &own.source, &own.date));
    let failures = catalog
        .failures
        .iter()
        .map(|own| (&own.id, &own.source, &own.date));
    let mixes = catalog
        .mixes
        .iter()
        .map(|own| (&own.name, &own.source, &own.date));
    let combos = catalog.combos.iter().flat_map(|own| {
        let sources = own.sources.iter();
        sources.map(|source| (&own.cluster.id, source, &own.date))
    });
    let all = devices
        .chain(machines)
        .chain(limits)
        .chain(overheads)
        .chain(links)
        .chain(models)
        .chain(runtimes)
        .chain(failures)
        .chain(mixes)
        .chain(combos);
    for (id, source, date) in all {
        assert!(
            has_place(source),
            "{id}: '{source}' is no name with a place"
        );
        assert!(is_date(date), "{id}: {date}");
    }
    let named = catalog.named.iter().map(|own| (&own.id, &own.source));
    let rows = catalog
        .measurements
        .iter()
        .map(|own| (&own.id, &own.source));
    let sizes = catalog.models.iter().flat_map(|model| {
        let quants = model.quants.iter();
        quants.map(|quant| (&model.id, &quant.source))
    });
    for (id, source) in named.chain(rows).chain(sizes) {
        assert!(
            has_place(source),
            "{id}: '{source}' is no name with a place"
        );
    }
    assert!(is_date(&catalog.date()));
}

/// Whether a source says where to look: an address, a file, a number of an issue, or a name in three
/// words or more, such as `vendor spec sheet`.
fn has_place(source: &str) -> bool {
    let is_place = |word: &str| {
        let word = word.trim_matches(|c: char| !c.is_alphanumeric() && c != '#' && c != '/');
        let number = word.strip_prefix('#').unwrap_or_default();
        word.contains('/')
            || word.trim_end_matches('.').contains('.')
            || (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let words = || source.split_whitespace();
    let is_word = |word: &&str| word.bytes().any(|byte| byte.is_ascii_alphanumeric());
    words().any(is_place) || words().filter(is_word).count() >= 3
}

#[test]
fn a_source_is_a_name_with_a_place() {
    for good in [
        "https://docs.ollama.com/gpu",
        "llama.cpp #4167",
        "vendor spec sheet",
        "antirez/ds4 pull request 1036",
        "its config.json",
    ] {
        assert!(has_place(good), "{good}");
    }
    for bad in [
        "",
        "unknown",
        "a page",
        "- - - -",
        "vLLM documentation",
        "seen.",
    ] {
        assert!(!has_place(bad), "{bad}");
    }
}

#[test]
fn speeds_of_devices_are_plausible() {
    for device in &catalog().devices {
        let bandwidth = device.bandwidth_gb_s.unwrap_or(100.0);
        assert!((10.0..=10_000.0).contains(&bandwidth), "{}", device.id);
        // Operations for each byte: no chip so far is outside.
        if let Some(tflops) = device.fp16_tflops {
            let ratio = tflops * 1e3 / bandwidth;
            assert!((15.0..=700.0).contains(&ratio), "{}: {ratio}", device.id);
        }
        if let (Some(half), Some(single)) = (device.fp16_tflops, device.fp32_tflops) {
            assert!((0.9..=32.0).contains(&(half / single)), "{}", device.id);
        }
    }
}

/// What is assumed where it is not stated grows with the bandwidth, as it does with graphics memory:
/// of stacked memory that is several times too much.
#[test]
fn chips_with_stacked_memory_state_their_32_bit_throughput() {
    for device in &catalog().devices {
        let family = Family::of(&device.family, &device.id);
        let stacked = matches!(family, Family::NvidiaHbm | Family::AmdHbm);
        assert!(
            !stacked || device.fp32_tflops.is_some(),
            "{} needs fp32_tflops",
            device.id
        );
    }
}

/// A program sees two GPUs with 64 GB each on an MI250X, and a part of the memory of a GB10 or an
/// Orin; Strix Halo keeps as much for its OS in every size.
#[test]
fn a_memory_is_what_a_program_sees() {
    let catalog = catalog();
    let card = catalog.cluster("2x mi250x").expect("a card");
    let pools = &card.nodes[0].machine.pools;
    assert_eq!(pools.len(), 2);
    for pool in pools {
        assert_eq!(pool.memory_bytes, 64 << 30);
        assert_eq!(pool.bandwidth_gb_s, Some(1638.0));
    }
    assert_eq!(catalog.cluster("gb200").expect("a GPU").nodes.len(), 1);
    let orin = catalog.machine("jetson-agx-orin-64gb").expect("it is sold");
    let orin = &orin.machine.pools[0];
    assert_eq!(orin.limit_bytes, 60_826 << 20);
    assert!(orin.limit_reason.contains("61.4 of 64 GiB"));
    for (gib, usable_mib) in [(64, 46_464), (96, 79_232), (128, 112_000)] {
        let id = format!("strix-halo-{gib}gb");
        let halo = &catalog.machine(&id).expect("it is sold").machine.pools[0];
        assert!(
            halo.limit_bytes.abs_diff(usable_mib << 20) < 1 << 20,
            "{id}"
        );
        assert!(halo.limit_reason.contains("half of the memory otherwise"));
    }
}

#[test]
fn every_pool_has_a_limit_with_its_reason() {
    let catalog = catalog();
    for sold in &catalog.machines {
        assert!(!sold.machine.pools.is_empty(), "{}", sold.machine.id);
        for pool in &sold.machine.pools {
            let share = pool.limit_bytes as f64 / pool.memory_bytes as f64;
            let id = &sold.machine.id;
            assert!((0.45..=1.0).contains(&share), "{id}: {share}");
            assert!(pool.limit_reason.len() > 20, "{id}");
            assert!(FAMILIES.contains(&pool.family.as_str()), "{id}");
        }
    }
    for gpu in catalog.devices.iter().filter(|device| device.is_gpu()) {
        let pool = catalog.pool(&gpu.id, None).expect("a GPU is a pool");
        assert_eq!(pool.kind, PoolKind::Vram, "{}", gpu.id);
        assert!(pool.limit_bytes > pool.memory_bytes * 9 / 10, "{}", gpu.id);
    }
}

#[test]
fn every_family_has_an_overhead() {
    let catalog = catalog();
    for family in FAMILIES {
        let named = |overhead: &&Overhead| overhead.families.iter().any(|name| name == family);
        assert_eq!(
            catalog.overheads.iter().filter(named).count(),
            1,
            "{family}"
        );
    }
    for overhead in &catalog.overheads {
        assert!((16..=1024).contains(&overhead.mib), "{overhead:?}");
    }
}

#[test]
fn a_pool_says_what_is_doubtful_about_its_device() {
    let catalog = catalog();
    let note = |id: &str| {
        let pool = catalog.pool(id, Some(32 << 30)).expect("it has a limit");
        pool.note.unwrap_or_default()
    };
    assert!(note("mi250x").contains("two GPUs with 64 GB"));
    assert_eq!(note("rtx-3090"), "");
    assert_eq!(
        note("radeon-890m"),
        "its bandwidth and throughput are stated by one page only"
    );
    assert!(!note("cpu").contains("one page"), "it states none");
}

#[test]
fn the_reference_combo_has_its_memory() {
    let catalog = catalog();
    let combo = catalog
        .combo("quad-mac-mini-m4-pro-64gb")
        .expect("the reference combo");
    assert_eq!(combo.cluster.nodes.len(), 4);
    assert_eq!(combo.cluster.total_bytes(), 256 << 30);
    let limit: u64 = combo
        .cluster
        .nodes
        .iter()
        .flat_map(|node| &node.machine.pools)
        .map(|pool| pool.limit_bytes)
        .sum();
    assert_eq!(limit, 4 * 53_084 * (1 << 20), "about 207 GiB");
    let link = combo.cluster.link(0, 3).expect("a link");
    assert_eq!(link.id, "tb5");
    assert!(link.rdma.is_some());
}

#[test]
fn limits_take_the_nearest_smaller_size_that_was_seen() {
    let catalog = catalog();
    let mib = |gib: u64| catalog.limit("apple", "", gib << 30).expect("a limit").0 >> 20;
    assert_eq!(mib(24), 18_186);
    assert_eq!(mib(64), 53_084);
    assert_eq!(mib(512), 475_136);
    assert_eq!(mib(96), 53_084 * 96 / 64);
    assert_eq!(mib(256), 110_100 * 2);
    let (_, reason) = catalog.limit("apple", "", 96 << 30).expect("a limit");
    assert!(reason.contains("no value was found for 96 GiB"), "{reason}");
    let (_, reason) = catalog.limit("apple", "", 64 << 30).expect("a limit");
    assert!(!reason.contains("no value"), "{reason}");
    let (bytes, _) = catalog
        .limit("nvidia-consumer", "rtx-3090", 24 << 30)
        .expect("a limit");
    assert_eq!(bytes >> 20, 24_268);
    assert_eq!(
        catalog.limit("cpu", "", 8 << 30).expect("a limit").0,
        6 << 30
    );
    let (bytes, _) = catalog.limit("cpu", "", 100 << 30).expect("a limit");
    assert!(bytes.abs_diff(90 << 30) < 1 << 20);
    assert!(catalog.limit("abacus", "", 1 << 30).is_none());
}

#[test]
fn a_wired_limit_replaces_the_default_and_stays_within_the_memory() {
    let catalog = catalog();
    let machine = catalog
        .machine("mac-mini-m4-pro-64gb")
        .expect("it is sold")
        .machine
        .clone();
    let raised = machine.clone().with_wired_limit(60_000);
    assert_eq!(raised.pools[0].limit_bytes, 60_000 << 20);
    assert!(raised.pools[0].limit_reason.contains("60000"));
    assert_eq!(
        machine.with_wired_limit(u64::MAX).pools[0].limit_bytes,
        64 << 30
    );
}

#[test]
fn failures_are_those_of_the_machines() {
    let catalog = catalog();
    let ids = |combo: &str| -> BTreeSet<&str> {
        let cluster = &catalog.combo(combo).expect(combo).cluster;
        catalog
            .failures_for(cluster)
            .iter()
            .map(|failure| failure.id.as_str())
            .collect()
    };
    let minis = ids("quad-mac-mini-m4-pro-64gb");
    assert!(minis.contains("rdma-cabling") && minis.contains("paging-cliff"));
    assert!(!minis.contains("pcie-pool"));
    let gpus = ids("dual-rtx-3090");
    assert!(gpus.contains("pcie-pool") && gpus.contains("swa-kv"));
    assert!(!gpus.contains("wired-limit") && !gpus.contains("pipeline-no-speedup"));
    assert!(!ids("dual-macbook-pro-m5-max-128gb").contains("rdma-cabling"));
    assert!(!ids("quad-mac-mini-m1-16gb").contains("rdma-setup"));
}

#[test]
fn conditions_name_what_there_is() {
    let catalog = catalog();
    for failure in &catalog.failures {
        let own = &failure.applies_to;
        for family in &own.families {
            assert!(
                FAMILIES.contains(&family.as_str()),
                "{}: {family}",
                failure.id
            );
        }
        for id in &own.runtimes {
            let known = catalog.runtimes.iter().any(|runtime| runtime.id == *id);
            assert!(known, "{}: {id}", failure.id);
        }
        for prefix in &own.machines {
            let mut machines = catalog.machines.iter();
            let known = machines.any(|sold| sold.machine.id.starts_with(prefix.as_str()));
            assert!(known, "{}: {prefix}", failure.id);
        }
    }
}

#[test]
fn runtimes_say_why_not() {
    let catalog = catalog();
    let fit = |combo: &str, id: &str| {
        let cluster = &catalog.combo(combo).expect(combo).cluster;
        let fits = catalog.runtimes_for(cluster);
        fits.into_iter().find(|fit| fit.id == id).expect(id)
    };
    assert!(fit("quad-mac-mini-m4-pro-64gb", "brigade").can);
    assert!(fit("quad-mac-mini-m4-pro-64gb", "exo").can);
    let vllm = fit("quad-mac-mini-m4-pro-64gb", "vllm");
    assert!(
        !vllm.can && vllm.reason.contains("no backend for Apple M4 Pro"),
        "{}",
        vllm.reason
    );
    let ollama = fit("dual-dgx-spark", "ollama");
    assert!(
        !ollama.can && ollama.reason.contains("one machine"),
        "{}",
        ollama.reason
    );
    assert!(!fit("home-mixed-desk", "mlx-lm").can);
    assert!(fit("dual-rtx-3090", "vllm").can);
    assert!(fit("dual-rtx-3090", "brigade").splits == [crate::verdict::Split::OneNode]);
}

#[test]
fn measurements_are_whole_and_every_kind_of_source_is_known() {
    let catalog = catalog();
    assert!(catalog.measurements.len() >= 560 && catalog.wrong.len() >= 10);
    let first = &catalog.measurements[0];
    assert_eq!((first.id.as_str(), first.line), ("m0001", 2));
    assert_eq!(first.file_size_gib, Some(3.56));
    assert_eq!(first.decode_tok_s, Some(14.15));
    assert_eq!(first.evidence, Evidence::Measured);
    assert_eq!(first.link, None);
    let tiers: BTreeSet<&str> = catalog
        .measurements
        .iter()
        .map(|row| row.source_tier.as_str())
        .collect();
    assert!(tiers.len() >= 11);
    for tier in tiers {
        assert!(evidence::tier(&catalog.sources, tier).is_some(), "{tier}");
    }
    for row in &catalog.measurements {
        assert!(
            row.decode_tok_s.or(row.prefill_tok_s).is_some(),
            "{}",
            row.id
        );
        assert!((1..=64).contains(&row.nodes), "{}", row.id);
    }
}

/// A dense model reads all of its file for each token.
#[test]
fn no_measured_row_is_faster_than_its_memory() {
    for row in &catalog().measurements {
        let (Some(size), Some(bandwidth), Some(speed), Some(all), Some(active)) = (
            row.file_size_gib,
            row.bandwidth_gb_s,
            row.decode_tok_s,
            row.params_b,
            row.active_params_b,
        ) else {
            continue;
        };
        let read_gb_s = size * 1.073_741_824 * active / all * speed;
        let most = bandwidth * f64::from(row.nodes) * 1.05;
        assert!(
            read_gb_s <= most,
            "{}: reads {read_gb_s:.0} of {bandwidth} GB/s",
            row.id
        );
    }
}
