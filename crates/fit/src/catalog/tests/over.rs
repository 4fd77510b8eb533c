//! Files over the embedded ones, and what is said of bad ones.

use std::collections::BTreeMap;

use super::super::measurements;
use super::{Catalog, catalog};
use crate::error::FitError;
use crate::evidence::Evidence;
use crate::speed::SpeedModel;
use crate::verdict::{Ask, assess};

fn over(file: &str, text: &str) -> Result<Catalog, FitError> {
    Catalog::from_files(&BTreeMap::from([(file.to_owned(), text.to_owned())]))
}

#[test]
fn an_entry_over_another_takes_its_place() {
    let entry = r#"
[[device]]
id = "rtx-3090"
name = "my RTX 3090"
family = "nvidia-consumer"
memory_gib = 24
bandwidth_gb_s = 900
source = "my own measurement"
date = "2026-11-24"
confidence = "high"

[[machine]]
id = "my-box"
name = "My box"
device = "cpu-ddr4-3200-2ch"
gpus = ["rtx-3090"]
memory_gib = [48]
links = ["10gbe"]
source = "my desk"
date = "2026-11-24"
"#;
    let (old, new) = (
        catalog(),
        over("hardware.toml", entry).expect("it is sound"),
    );
    assert_eq!(old.devices.len(), new.devices.len());
    assert_eq!(
        new.device("rtx-3090").and_then(|own| own.bandwidth_gb_s),
        Some(900.0)
    );
    assert_eq!(
        new.cluster("my-box").expect("it is new").nodes[0]
            .machine
            .pools
            .len(),
        2
    );
    let other = new.combo("dual-rtx-3090").expect("a combo");
    assert_eq!(
        other.cluster.nodes[0].machine.pools[0].device_name,
        "my RTX 3090"
    );
}

#[test]
fn a_bad_entry_is_named_with_its_line_and_field() {
    let device = |extra: &str| {
        format!(
            "\n[[device]]\nid = \"x\"\nname = \"X\"\nfamily = \"apple\"\nbandwidth_gb_s = 100\nsource = \"a page\"\ndate = \"2026-11\"\nconfidence = \"low\"\n{extra}"
        )
    };
    let cases = [
        ("hardware.toml", device("memroy_gib = 3\n"), 10, "memroy_gib", "unknown field"),
        ("hardware.toml", device("").replace("100", "\"fast\""), 6, "bandwidth_gb_s", "invalid type"),
        ("hardware.toml", device("").replace("100", "-5"), 6, "bandwidth_gb_s", "plausible"),
        ("hardware.toml", device("").replace("name = \"X\"\n", ""), 2, "name", "missing field"),
        ("hardware.toml", device("").replace("apple", "aple"), 5, "family", "apple"),
        ("hardware.toml", device("").replace("2026-11", "today"), 8, "date", "no day"),
        ("hardware.toml", device("").replace("a page", " "), 7, "source", "empty"),
        ("hardware.toml", device("").replace("\"x\"", "\"X y\""), 3, "id", "no id"),
        ("hardware.toml", device("") + &device(""), 12, "id", "twice"),
        ("hardware.toml", "\n[[device]\n".to_owned(), 2, "syntax", ""),
        (
            "combos.toml",
            "[[combo]]\nid = \"a\"\ntitle = \"A\"\nrole = \"r\"\ntopology = \"t\"\nmachines = \"2x rtx-3909\"\nsources = [\"s\"]\ndate = \"2026-11\"\n".to_owned(),
            1,
            "machines",
            "rtx-3090",
        ),
        ("measurements.csv", "id,model\nm1,x\n".to_owned(), 1, "header", "lacks the columns params_b, "),
    ];
    for (file, text, line, field, part) in cases.into_iter().chain(overheads()) {
        let error = over(file, &text).expect_err("it is bad");
        let FitError::Catalog {
            file: named,
            line: at,
            field: own,
            reason,
        } = &error
        else {
            panic!("{error:?}");
        };
        assert_eq!(
            (named.as_str(), *at, own.as_str()),
            (file, line, field),
            "{error}"
        );
        assert!(reason.contains(part), "{error}");
    }
}

/// Bad entries of `overheads.toml`.
fn overheads() -> Vec<(&'static str, String, usize, &'static str, &'static str)> {
    let entry = "\n[[overhead]]\nid = \"mine\"\nfamilies = [\"apple\"]\nmib = 700\nevidence = \"measured\"\nsource = \"my desk\"\ndate = \"2026-11\"\n";
    let with = |old: &str, new: &str| entry.replace(old, new);
    let file = "overheads.toml";
    vec![
        (file, "\nall sorts\n".to_owned(), 2, "syntax", ""),
        (file, with("mib", "mb"), 5, "mb", "unknown field"),
        (file, with("700", "\"much\""), 5, "mib", "invalid type"),
        (file, with("700", "0"), 5, "mib", "plausible"),
        (file, with("\"apple\"", "\"aple\""), 4, "families", "apple"),
        (file, with("\"apple\"", ""), 4, "families", "no family"),
        (file, with("my desk", " "), 7, "source", "empty"),
        (file, with("2026-11", "lately"), 8, "date", "no day"),
        (file, format!("{entry}{entry}"), 11, "id", "twice"),
    ]
}

#[test]
fn what_a_runtime_takes_is_read_from_a_folder_too() {
    let entry = |id: &str| {
        format!(
            "[[overhead]]\nid = \"{id}\"\nfamilies = [\"apple\"]\nmib = 4096\nevidence = \"measured\"\nsource = \"my desk\"\ndate = \"2026-11\"\n"
        )
    };
    let runtime = |catalog: &Catalog| {
        let cluster = catalog.cluster("mac-mini-m4-pro-64gb").expect("it is sold");
        let model = catalog.model("llama-3.1-8b").expect("it is known");
        let speed = SpeedModel::new(catalog);
        let verdict = assess(model, &cluster, &Ask::default(), &speed).expect("an answer");
        let pool = &verdict.ledger[0].pools[0];
        let sum: u64 = pool.items.iter().map(|item| item.bytes).sum();
        assert_eq!(sum, pool.working_set_bytes);
        let mut items = pool.items.iter();
        items
            .find(|item| item.item == "runtime")
            .expect("an item")
            .bytes
            >> 20
    };
    assert_eq!(runtime(catalog()), 512);
    for id in ["metal", "my-own"] {
        let over = over("overheads.toml", &entry(id)).expect("it is sound");
        assert_eq!(runtime(&over), 4096, "{id}");
        let gpu = over.pool("rtx-3090", None).expect("a GPU is a pool");
        assert_eq!(gpu.runtime_bytes, 457 << 20, "{id}");
    }
}

#[test]
fn a_dangling_name_gives_the_nearest() {
    let text = "[[machine]]\nid = \"y\"\nname = \"Y\"\ndevice = \"m4-pro-21\"\nmemory_gib = [64]\nlinks = []\nsource = \"page\"\ndate = \"2026-11\"\n";
    let error = over("hardware.toml", text)
        .expect_err("no such chip")
        .to_string();
    assert!(
        error.starts_with("hardware.toml:1: device: ") && error.contains("m4-pro-20"),
        "{error}"
    );
    let error = over("hardwear.toml", "")
        .expect_err("no such file")
        .to_string();
    assert!(error.contains("hardware.toml"), "{error}");
    assert!(over("README.md", "about").is_ok());
}

#[test]
fn columns_of_measurements_are_typed() {
    let header = include_str!("../../../../../catalog/measurements.csv")
        .lines()
        .next()
        .expect("a header");
    let row =
        "z1,M,7,7,Q4,4.0,box,1,24,546/614,,none,none,llamacpp,8192.0,,,tg128,12.5,community,here,";
    let rows =
        measurements::read(&format!("{header}\n{row}\n"), "f.csv", &[]).expect("it is sound");
    assert_eq!(
        (rows[0].nodes, rows[0].context, rows[0].bandwidth_gb_s),
        (1, Some(8192), None)
    );
    assert_eq!(rows[0].evidence, Evidence::Community);
    let dos =
        measurements::read(&format!("{header}\r\n{row}\r\n"), "f.csv", &[]).expect("it is sound");
    assert_eq!((rows[0].line, dos[0].line), (2, 2));
    for (from, to, field) in [
        ("12.5", "fast", "tg_tok_s"),
        ("12.5", "-1", "tg_tok_s"),
        (",7,7,", ",7,NaN,", "active_params_b"),
        ("8192.0", "1.5", "context"),
        (",M,", ",,", "model"),
        ("12.5", "1e300", "tg_tok_s"),
        ("12.5", "0.0009", "tg_tok_s"),
        ("12.5", "inf", "tg_tok_s"),
        (",,,tg128", ",pp512,1e-9,tg128", "pp_tok_s"),
        (",,,tg128", ",pp512,1e8,tg128", "pp_tok_s"),
        (",7,7,", ",1e300,7,", "params_b"),
        (",4.0,", ",1e300,", "file_size_gib"),
        (",1,24,", ",0,24,", "gpu_count_per_node"),
        (",1,24,", ",1,1e30,", "memory_gb_per_node"),
        ("546/614", "1e300", "mem_bandwidth_gbs"),
        ("546/614,,", "546,0,", "nodes"),
        ("546/614,,", "546,1e6,", "nodes"),
        ("8192.0", "4e9", "context"),
    ] {
        let text = format!("{header}\n{}\n", row.replace(from, to));
        let error = measurements::read(&text, "f.csv", &[])
            .expect_err("it is bad")
            .to_string();
        assert!(error.starts_with(&format!("f.csv:2: {field}: ")), "{error}");
    }
}

#[test]
fn absurd_factors_of_speed_are_refused_by_line() {
    let text = include_str!("../../../../../catalog/speed.toml");
    let line = |needle: &str| text.lines().position(|line| line == needle).unwrap_or(0) + 1;
    assert!(over("speed.toml", text).is_ok());
    for absurd in ["nan", "inf", "0.0", "-1.0", "1e308"] {
        for field in ["value", "factor", "median_ape"] {
            if field == "median_ape" && absurd == "0.0" {
                continue;
            }
            let first = format!("{field} = ");
            let old = text.lines().find(|line| line.starts_with(&first));
            let old = old.expect("it is there");
            let new = text.replacen(old, &format!("{field} = {absurd}"), 1);
            let error = over("speed.toml", &new)
                .expect_err("it is absurd")
                .to_string();
            let start = format!("speed.toml:{}: {field}: ", line(old));
            assert!(error.starts_with(&start), "{error}");
        }
    }
}
