//! What cannot work gets one clear sentence, soon, and leaves nothing behind.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::time::Instant;

use brigade_gguf::testing::TinyModel;

use crate::support::{GONE, Scratch, damaged, internlm2, text};

/// What `brigade` says on standard error when it fails, with the folder's path as `[DIR]`.
fn complaint(scratch: &Scratch, args: &[&str]) -> String {
    let start = Instant::now();
    let ended = scratch.run(args);
    assert!(
        start.elapsed() < GONE * 2,
        "{args:?} took {:?}",
        start.elapsed()
    );
    assert!(
        ended.code.is_some_and(|code| code != 0),
        "{args:?} ended with {:?}",
        ended.code
    );
    assert_eq!(ended.stdout, "", "{args:?}");
    let complaint = redacted(scratch, &ended.stderr);
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    complaint
}

/// With the folder's path as `[DIR]`, a model's hash as `[ID]`, and without the numbers that
/// systems give their errors.
fn redacted(scratch: &Scratch, stderr: &str) -> String {
    let folder = scratch.path("");
    // As the program sees it: the folder may have been named through a link.
    let real = folder.canonicalize().unwrap();
    let plain = |path: &Path| text(path).trim_end_matches('/').to_owned();
    let mut text = stderr
        .trim_end()
        .replace(&plain(&real), "[DIR]")
        .replace(&plain(&folder), "[DIR]");
    while let Some(start) = text.find(" (os error ") {
        let length = text[start..].find(')').unwrap() + 1;
        text.replace_range(start..start + length, "");
    }
    if let Some((_, rest)) = text.split_once("/cache/stages/") {
        let id = &rest[rest.find('-').unwrap() + 1..][..16];
        text = text.replace(id, "[ID]");
    }
    text
}

/// The lines for the same model, named to each command.
fn complaints(scratch: &Scratch, model: &str) -> String {
    let commands: [&[&str]; 3] = [
        &["run", model, "hi"],
        &[
            "lab",
            "--api",
            "127.0.0.1:0",
            "--nodes",
            "2",
            "--model",
            model,
        ],
        &["parity", model, "--stages", "2"],
    ];
    let [first, rest @ ..] = commands.map(|args| complaint(scratch, args));
    for other in rest {
        assert_eq!(other, first);
    }
    first
}

#[test]
fn a_file_that_is_no_model() {
    let scratch = Scratch::new();
    let tiny = TinyModel::llama(4).to_bytes();
    let write = |name: &str, bytes: &[u8]| fs::write(scratch.path(name), bytes).unwrap();
    write("text.gguf", b"hello, I am a text file");
    write("empty.gguf", b"");
    write("header.gguf", &tiny[..1000]);
    write("weights.gguf", &tiny[..tiny.len() - 5000]);
    write(
        "version.gguf",
        &[b"GGUF".as_slice(), &99u32.to_le_bytes(), &tiny[8..]].concat(),
    );
    let said = |name| complaints(&scratch, name);
    insta::assert_snapshot!(said("missing.gguf"), @"brigade: [DIR]/missing.gguf: cannot read: No such file or directory");
    insta::assert_snapshot!(said("."), @"brigade: [DIR]: not a regular file");
    insta::assert_snapshot!(said("text.gguf"), @"brigade: [DIR]/text.gguf: not a GGUF file");
    insta::assert_snapshot!(said("empty.gguf"), @"brigade: [DIR]/empty.gguf: not a GGUF file");
    insta::assert_snapshot!(said("header.gguf"), @"brigade: [DIR]/header.gguf: the file is truncated: it ends within the value of `tokenizer.ggml.tokens`; fetch it again");
    insta::assert_snapshot!(said("weights.gguf"), @"brigade: [DIR]/weights.gguf: the file is truncated: it ends within tensor `blk.3.ffn_down.weight`; fetch it again");
    insta::assert_snapshot!(said("version.gguf"), @"brigade: [DIR]/version.gguf: GGUF version 99 is not supported, only 2 and 3 are: convert the model again with a current llama.cpp");
}

#[test]
fn a_part_that_is_missing() {
    let scratch = Scratch::new();
    let parts = TinyModel::llama(4)
        .write_parts(&scratch.path(""), "tiny", 3)
        .unwrap();
    fs::remove_file(&parts[1]).unwrap();
    insta::assert_snapshot!(complaints(&scratch, "tiny-00001-of-00003.gguf"), @"brigade: part 2 of 3 of this model is missing: [DIR]/tiny-00002-of-00003.gguf");
}

/// Without a demo model the lab says how to get one.
#[test]
fn no_demo_model() {
    let scratch = Scratch::new();
    insta::assert_snapshot!(complaint(&scratch, &["lab", "--once", "hi"]), @"brigade: the demo model is not at [DIR]/cache/models/SmolLM2-135M-Instruct.Q4_1.gguf; `cargo demo` fetches it, or name a model");
}

#[test]
fn stages_that_cannot_be() {
    let scratch = Scratch::new();
    scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let parity = |args: &[&str]| complaint(&scratch, &[&["parity", "tiny.gguf"], args].concat());
    insta::assert_snapshot!(parity(&["--stages", "5"]), @"brigade: 5 stages are more than the model's 4 layers");
    insta::assert_snapshot!(parity(&["--stages", "0"]), @"brigade: a model needs at least one stage");
    insta::assert_snapshot!(parity(&["--cuts", "4"]), @"brigade: a cut at 4 is out of range: the model has 4 layers, so cuts are from 1 to 3");
    insta::assert_snapshot!(parity(&["--cuts", "0,2"]), @"brigade: a cut at 0 is out of range: the model has 4 layers, so cuts are from 1 to 3");
    insta::assert_snapshot!(parity(&["--cuts", "3,1"]), @"brigade: the cuts must ascend: 1 follows 3");
    insta::assert_snapshot!(parity(&["--cuts", "2,2"]), @"brigade: the cuts must ascend: 2 follows 2");
    insta::assert_snapshot!(parity(&["--cuts", "2", "--stages", "3"]), @"brigade: --cuts makes 2 stages of it, --stages says 3");
    let lab = |nodes| {
        let model = ["lab", "--api", "127.0.0.1:0", "--model", "tiny.gguf"];
        complaint(&scratch, &[&model[..], &["--nodes", nodes]].concat())
    };
    insta::assert_snapshot!(lab("5"), @"brigade: 5 stages are more than the model's 4 layers");
    insta::assert_snapshot!(lab("0"), @"brigade: a model needs at least one node");
    // Nothing was written.
    assert!(!scratch.cache().exists());
}

#[test]
fn architectures_that_stages_refuse() {
    let scratch = Scratch::new();
    internlm2(&scratch.path("internlm2.gguf"));
    scratch.tiny("gemma3.gguf", &TinyModel::gemma3(62));
    let lab = |model, engine: &[&str]| {
        let args = [
            "lab",
            "--api",
            "127.0.0.1:0",
            "--nodes",
            "2",
            "--model",
            model,
        ];
        complaint(&scratch, &[&args[..], engine].concat())
    };
    let parity = |model| complaint(&scratch, &["parity", model, "--stages", "2"]);
    insta::assert_snapshot!(lab("internlm2.gguf", &["--engine", "stages"]), @"brigade: stages do not support the architecture `internlm2` yet: the `llama-rpc` engine runs it");
    insta::assert_snapshot!(parity("internlm2.gguf"), @"brigade: stages do not support the architecture `internlm2` yet: the `llama-rpc` engine runs it");
    insta::assert_snapshot!(parity("gemma3.gguf"), @"brigade: stages do not support gemma3 with 62 layers in a model, because its attention scale derives from that number: the `llama-rpc` engine runs it");
    insta::assert_snapshot!(lab("gemma3.gguf", &["--engine", "stages"]), @"brigade: stages do not support gemma3 with 62 layers in a model, because its attention scale derives from that number: the `llama-rpc` engine runs it");
    assert!(!scratch.cache().exists());
}

#[test]
fn a_context_that_is_too_short_or_too_long() {
    let scratch = Scratch::new();
    scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let long = "word ".repeat(200);
    let run = |args: &[&str]| complaint(&scratch, &[&["run", "tiny.gguf"], args].concat());
    insta::assert_snapshot!(run(&[&long]), @"brigade: the prompt has 1018 tokens, the context holds 512: shorten the prompt or load the model with a larger context");
    insta::assert_snapshot!(run(&["hi", "--ctx", "0"]), @"brigade: a context of 0 tokens holds nothing");
    insta::assert_snapshot!(run(&["hi", "--ctx", "513"]), @"brigade: the model was made for a context of 512 tokens, 513 were asked for");
    let parity = [
        "parity",
        "tiny.gguf",
        "--stages",
        "2",
        "--prompt-tokens",
        "500",
    ];
    insta::assert_snapshot!(complaint(&scratch, &parity), @"brigade: the model was made for a context of 512 tokens, 531 were asked for");

    // The lab says where its nodes are first.
    let lab = [
        "lab",
        "--nodes",
        "2",
        "--model",
        "tiny.gguf",
        "--once",
        &long,
    ];
    let ended = scratch.run(&lab);
    assert_eq!(ended.code, Some(1));
    insta::assert_snapshot!(ended.stderr.lines().last().unwrap(), @"brigade: the prompt has 1018 tokens, the context holds 512: shorten the prompt or load the model with a larger context");
}

#[test]
fn values_that_make_no_sense() {
    let scratch = Scratch::new();
    scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let run = |args: &[&str]| complaint(&scratch, &[&["run", "tiny.gguf"], args].concat());
    insta::assert_snapshot!(run(&[" "]), @"brigade: the prompt is empty");
    insta::assert_snapshot!(run(&["hi", "--temperature", "nan"]), @"brigade: temperature is NaN, it must be 0 or more");
    insta::assert_snapshot!(run(&["hi", "--top-p", "7"]), @"brigade: top_p is 7, it must be from 0 to 1");
    insta::assert_snapshot!(run(&["hi", "--max-tokens", "0"]), @"brigade: --max-tokens must be at least 1");
    insta::assert_snapshot!(run(&["hi", "--repetition-penalty", "0"]), @"brigade: repetition_penalty is 0, it must be more than 0");
    let parity = |args: &[&str]| {
        complaint(
            &scratch,
            &[&["parity", "tiny.gguf", "--stages", "2"], args].concat(),
        )
    };
    insta::assert_snapshot!(parity(&["--chunk", "0"]), @"brigade: --chunk must be at least 1");
    insta::assert_snapshot!(parity(&["--tokens", "0"]), @"brigade: --tokens must be at least 1");
    insta::assert_snapshot!(parity(&["--prompt", ""]), @"brigade: the prompt's text makes no tokens");
    insta::assert_snapshot!(parity(&["--dump-logits", "missing/logits"]), @"brigade: cannot write logits to missing/logits: No such file or directory");
    // Refused by the parser of arguments, in its own words.
    for args in [
        ["run", "tiny.gguf", "hi", "--threads", "0"],
        ["lab", "--model", "tiny.gguf", "--threads", "0"],
        ["parity", "tiny.gguf", "--cuts", "1", "--stages=x"],
    ] {
        let ended = scratch.run(&args);
        assert_eq!(ended.code, Some(2));
        assert!(
            ended.stderr.starts_with("error: invalid value"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn addresses_that_cannot_be_listened_at() {
    let scratch = Scratch::new();
    scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let lab = |api: &str| complaint(&scratch, &["lab", "--model", "tiny.gguf", "--api", api]);
    insta::assert_snapshot!(lab("0.0.0.0:8811"), @"brigade: without keys the API listens on loopback only: use 127.0.0.1:8811, or make a key with `brigade key` and name its file with --api-key-file");
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    insta::assert_snapshot!(lab(&address).replace(&address, "[ADDRESS]"), @"brigade: cannot listen at [ADDRESS]; choose another port with --api, 0 for any: Address already in use");
    assert!(!scratch.cache().exists());
}

/// Only the node with the last layers finds out, when llama.cpp loads its stage.
#[test]
fn a_stage_that_does_not_load() {
    let scratch = Scratch::new();
    damaged(&scratch.path("damaged.gguf"));
    let lab = [
        "lab",
        "--api",
        "127.0.0.1:0",
        "--nodes",
        "4",
        "--model",
        "damaged.gguf",
    ];
    let first_part = |args: &[&str]| {
        let complaint = complaint(&scratch, args);
        assert!(
            complaint.contains("ffn_norm.weight' not found"),
            "{complaint}"
        );
        complaint
            .split_inclusive(".gguf:")
            .next()
            .unwrap()
            .to_owned()
    };
    insta::assert_snapshot!(first_part(&lab), @"brigade: node-4: the stage of layers 3..4: llama.cpp cannot load [DIR]/cache/stages/damaged-[ID]/3-4.gguf:");
    insta::assert_snapshot!(first_part(&["run", "damaged.gguf", "hi"]), @"brigade: node-1: the whole model's process: llama.cpp cannot load [DIR]/damaged.gguf:");
    // The whole side comes first.
    let parity = ["parity", "damaged.gguf", "--stages", "2"];
    insta::assert_snapshot!(first_part(&parity), @"brigade: node-1: the whole model's process: llama.cpp cannot load [DIR]/damaged.gguf:");
}

/// A stage file that was damaged on disk is written again.
#[test]
fn a_stage_file_that_was_damaged() {
    let scratch = Scratch::new();
    scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let once = [
        "lab",
        "--nodes",
        "2",
        "--model",
        "tiny.gguf",
        "--once",
        "hi",
        "--max-tokens",
        "4",
    ];
    let first = scratch.run(&once);
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    let folder = fs::read_dir(scratch.cache().join("stages")).unwrap().next();
    let stage = folder.unwrap().unwrap().path().join("2-4.gguf");
    let length = fs::metadata(&stage).unwrap().len();
    File::options()
        .write(true)
        .open(&stage)
        .unwrap()
        .set_len(length / 2)
        .unwrap();
    let again = scratch.run(&once);
    assert_eq!((again.code, again.stdout), (Some(0), first.stdout));
    assert_eq!(fs::metadata(&stage).unwrap().len(), length);
}

/// Folders that cannot be written to, here because a file is in their place.
#[test]
fn a_cache_that_cannot_be_written() {
    let scratch = Scratch::new();
    scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    fs::write(scratch.cache(), "").unwrap();
    let lab = [
        "lab",
        "--api",
        "127.0.0.1:0",
        "--nodes",
        "2",
        "--model",
        "tiny.gguf",
    ];
    insta::assert_snapshot!(complaint(&scratch, &lab), @"brigade: node-1: [DIR]/cache/stages/tiny-[ID]: cannot write: Not a directory");
}

#[test]
fn more_threads_than_cores() {
    let scratch = Scratch::new();
    scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    for command in [
        &["run", "tiny.gguf", "hi", "--threads", "4096"][..],
        &[
            "lab",
            "--model",
            "tiny.gguf",
            "--once",
            "hi",
            "--threads",
            "4096",
        ],
        &[
            "parity",
            "tiny.gguf",
            "--stages",
            "2",
            "--threads",
            "4096",
            "--prompt-tokens",
            "8",
        ],
    ] {
        let said = complaint(&scratch, command);
        assert!(said.contains("4096 threads are more than the"), "{said}");
    }
}

#[test]
fn a_name_that_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let scratch = Scratch::new();
    let plain = scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let odd = plain.with_file_name(std::ffi::OsStr::from_bytes(b"bad\xff.gguf"));
    fs::rename(&plain, &odd).unwrap();
    let mut command = scratch.command(&["run"]);
    command.arg(&odd).arg("hi");
    let ended = scratch.finish(command, "");
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("is not UTF-8"), "{}", ended.stderr);
}

/// Fewer tokens of context than sequences.
#[test]
fn a_context_of_one_token() {
    let scratch = Scratch::new();
    scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let lab = ["lab", "--model", "tiny.gguf", "--ctx", "1", "--once", "hi"];
    let said = complaint_after_notes(&scratch, &lab);
    assert!(
        said.ends_with(
            "the context holds 1: shorten the prompt or load the model with a larger context"
        ),
        "{said}"
    );
}

/// The last line on standard error of a command that fails.
fn complaint_after_notes(scratch: &Scratch, args: &[&str]) -> String {
    let ended = scratch.run(args);
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    ended.stderr.lines().last().unwrap_or_default().to_owned()
}
