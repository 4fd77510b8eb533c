//! Whole against staged, bit for bit.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use brigade_gguf::GgmlType;
use brigade_gguf::testing::{TOKENS, TinyModel};
use serde_json::{Value, json};

use crate::support::{Ended, Scratch, gemma3, smollm2, text};

fn compare(scratch: &Scratch, model: &Path, args: &[&str]) -> (Ended, Value) {
    let mut all = vec!["parity", text(model), "--json"];
    all.extend(args);
    let ended = scratch.run(&all);
    let report = serde_json::from_str(&ended.stdout)
        .unwrap_or_else(|_| panic!("{all:?} gave no report: {}", ended.stderr));
    (ended, report)
}

/// Compares, and fails unless everything is equal.
fn equal(scratch: &Scratch, model: &Path, args: &[&str]) -> Value {
    let (ended, report) = compare(scratch, model, args);
    assert_eq!(ended.code, Some(0), "{args:?}: {report}");
    assert_eq!(report["schema"], "brigade.parity/1");
    assert_eq!(report["equal_logits"], true, "{args:?}");
    assert_eq!(report["max_abs_diff"], 0.0, "{args:?}");
    assert_eq!(report["tokens_equal"], true, "{args:?}");
    for side in ["whole", "staged"] {
        for speed in ["prefill_tok_s", "decode_tok_s"] {
            assert!(report[side][speed].as_f64().unwrap() > 0.0, "{report}");
        }
    }
    report
}

#[test]
fn smollm2_in_2_3_4_7_and_30_stages() {
    let scratch = Scratch::new();
    for stages in [2, 3, 4, 7, 30] {
        let count = stages.to_string();
        let report = equal(
            &scratch,
            &smollm2(),
            &["--stages", &count, "--prompt-tokens", "40", "--tokens", "8"],
        );
        assert_eq!(report["stages"].as_array().unwrap().len(), stages);
        assert_eq!(report["tokens"].as_array().unwrap().len(), 8);
    }
}

#[test]
fn encrypted_links_change_no_bit() {
    let scratch = Scratch::new();
    for (model, stages) in [(smollm2(), "4"), (gemma3(), "3")] {
        let args = ["--encrypted", "--stages", stages];
        equal(
            &scratch,
            &model,
            &[&args[..], &["--prompt-tokens", "40", "--tokens", "8"]].concat(),
        );
    }
}

#[test]
fn gemma3_at_any_cut() {
    let scratch = Scratch::new();
    for (cuts, stages) in [
        ("5,11", json!([[0, 5], [5, 11], [11, 18]])),
        ("1,17", json!([[0, 1], [1, 17], [17, 18]])),
    ] {
        let report = equal(
            &scratch,
            &gemma3(),
            &["--cuts", cuts, "--prompt-tokens", "24", "--tokens", "6"],
        );
        assert_eq!(report["stages"], stages);
    }
}

/// 70 tokens of prompt in chunks of 16: the last one is not full, and the windows of the tiny
/// Gemma slide.
const CHUNKED: [&str; 6] = ["--prompt-tokens", "70", "--chunk", "16", "--tokens", "20"];

fn equal_at(model: &TinyModel, cuts: &[&str]) {
    let scratch = Scratch::new();
    let path = scratch.tiny("tiny.gguf", model);
    for cut in cuts {
        let mut args = vec!["--cuts", cut];
        args.extend(CHUNKED);
        equal(&scratch, &path, &args);
    }
}

#[test]
fn dense_llama() {
    equal_at(&TinyModel::llama(5), &["2", "1,2,3,4"]);
    equal_at(&TinyModel::llama(5).untied(), &["1,4"]);
    let without = TinyModel::llama(4).untied().without_rope_freqs();
    equal_at(&without.weights(GgmlType::Q8_0), &["2"]);
}

#[test]
fn mixture_of_experts() {
    equal_at(&TinyModel::llama_moe(4), &["1,3", "1,2,3"]);
}

#[test]
fn sliding_window() {
    // Layer 5 alone attends to everything: 5,6 makes it a stage of its own.
    equal_at(&TinyModel::gemma3(7), &["3", "5,6", "1,2,3,4,5,6"]);
}

#[test]
fn several_threads() {
    let scratch = Scratch::new();
    let path = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    equal(&scratch, &path, &["--stages", "2", "--threads", "2"]);
}

#[test]
fn a_model_in_parts() {
    let scratch = Scratch::new();
    fs::create_dir(scratch.path("parts")).unwrap();
    let parts = TinyModel::llama(4)
        .write_parts(&scratch.path("parts"), "tiny", 3)
        .unwrap();
    equal(&scratch, &parts[0], &["--stages", "3"]);
}

#[test]
fn logits_are_dumped() {
    let scratch = Scratch::new();
    let path = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let dump = scratch.path("logits");
    let args = [
        "--stages",
        "2",
        "--tokens",
        "9",
        "--dump-logits",
        text(&dump),
    ];
    let report = equal(&scratch, &path, &args);

    let bytes = fs::read(&dump).unwrap();
    assert_eq!(bytes.len(), 9 * TOKENS as usize * size_of::<f32>());
    let (values, _) = bytes.as_chunks::<4>();
    let logits: Vec<f32> = values
        .iter()
        .map(|value| f32::from_le_bytes(*value))
        .collect();
    let most_likely: Vec<usize> = logits
        .chunks(TOKENS as usize)
        .map(|row| {
            (0..row.len())
                .max_by(|&a, &b| row[a].total_cmp(&row[b]))
                .unwrap()
        })
        .collect();
    assert_eq!(report["tokens"], json!(most_likely));
}

/// The comparison can fail: one weight of a stage is changed behind the program's back.
#[test]
fn a_difference_is_seen() {
    let scratch = Scratch::new();
    let path = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let args = ["--stages", "2", "--tokens", "4"];
    equal(&scratch, &path, &args);

    let folder = fs::read_dir(scratch.cache().join("stages")).unwrap().next();
    let stage = folder.unwrap().unwrap().path().join("2-4.gguf");
    let file = File::options().write(true).open(&stage).unwrap();
    let metadata = file.metadata().unwrap();
    // The file's last tensor is a matrix of the last layer.
    file.write_all_at(&3.0f32.to_le_bytes(), metadata.len() - 64)
        .unwrap();
    file.set_modified(metadata.modified().unwrap()).unwrap();

    let (ended, report) = compare(&scratch, &path, &args);
    assert_eq!(ended.code, Some(1), "{report}");
    assert_eq!(report["equal_logits"], false);
    assert!(report["max_abs_diff"].as_f64().unwrap() > 0.0);
    let mut plain = vec!["parity", text(&path)];
    plain.extend(args);
    let ended = scratch.run(&plain);
    assert_eq!(ended.code, Some(1), "{}", ended.stdout);
}

#[test]
fn the_sentence_for_people() {
    let scratch = Scratch::new();
    let path = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let ended = scratch.run(&["parity", text(&path), "--stages", "2", "--tokens", "4"]);
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let first = ended.stdout.lines().next().unwrap();
    insta::assert_snapshot!(first, @"parity: whole and 2 stages (0..2, 2..4) over 64 prompt and 4 generated tokens: equal, bit for bit");
}
