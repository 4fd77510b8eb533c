//! `brigade bench`.

use serde_json::Value;

use crate::support::{Scratch, smollm2, text};

/// Both peers and the stages answer, several streams at once, and every speed is one.
#[test]
fn stages_one_process_and_rpc_in_one_run() {
    let scratch = Scratch::new();
    let model = smollm2();
    let ended = scratch.run(&[
        "bench",
        text(&model),
        "--stages=2",
        "--streams=3",
        "--rpc",
        "--rounds=1",
        "--pairs=1",
        "--prompt-tokens=20",
        "--tokens=8",
        "--json",
    ]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    for kind in ["decode", "prefill"] {
        for side in ["whole", "rpc", "stages"] {
            let speed = json[kind][side]["tok_s"]["median"].as_f64().unwrap();
            assert!(speed > 1.0, "{kind} {side}: {json}");
        }
        for side in ["whole", "rpc"] {
            let ratio = json[kind][side]["stages_ratio"]["median"].as_f64().unwrap();
            assert!(ratio > 0.0, "{kind} {side}: {json}");
        }
    }
}

/// A stage is cut and copied in turns, and nothing is left of either.
#[test]
fn slicing_against_cp() {
    let scratch = Scratch::new();
    let model = smollm2();
    let ended = scratch.run(&["bench", text(&model), "--slice", "--pairs=2", "--json"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let json: Value = serde_json::from_str(&ended.stdout).unwrap();
    // Half of its layers.
    let bytes = json["bytes"].as_u64().unwrap();
    assert!((20_000_000..60_000_000).contains(&bytes), "{json}");
    for number in ["slice_gb_s", "cp_gb_s", "ratio"] {
        assert!(json[number]["median"].as_f64().unwrap() > 0.0, "{json}");
    }
    assert_eq!(std::fs::read_dir(scratch.cache()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let scratch = Scratch::new();
    let model = smollm2();
    for (wrong, reason) in [
        (&["--streams=0"][..], "at least 1"),
        (&["--cores=0", "--whole-cores=2"], "--whole-cores"),
        (&["--cores=4096"], "cores 0 to"),
        (&["--peers", "--stages=2"], "cannot be used with"),
        (&["--slice", "--stages=2"], "cannot be used with"),
        (&["--slice", "--pairs=0"], "at least 1"),
    ] {
        let ended = scratch.run(&[&["bench", text(&model)], wrong].concat());
        assert_ne!(ended.code, Some(0), "{wrong:?}");
        assert!(ended.stderr.contains(reason), "{wrong:?}: {}", ended.stderr);
    }
}
