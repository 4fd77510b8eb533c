//! `brigade run`.

use brigade_gguf::testing::TinyModel;

use crate::support::{Ended, Scratch, smollm2, text};

const QUESTION: &str = "What is the capital of France?";

fn run(scratch: &Scratch, args: &[&str]) -> Ended {
    let model = smollm2();
    let first = ["run", text(&model), "--ctx", "512", "--max-tokens", "16"];
    let ended = scratch.run(&[&first[..], args].concat());
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended
}

#[test]
fn the_answer_alone_is_on_standard_output() {
    let scratch = Scratch::new();
    let first = run(&scratch, &[QUESTION, "--temperature", "0"]);
    assert!(first.stdout.len() > 2 && first.stdout.ends_with('\n'));
    assert!(!first.stdout.contains("tok/s"), "{}", first.stdout);
    let summary = first.stderr.trim_end();
    let words: Vec<&str> = summary.split(' ').collect();
    assert_eq!(
        &words[1..6],
        ["prompt", "tokens,", "first", "token", "after"],
        "{summary}"
    );
    assert!(
        summary.ends_with("tok/s") && !summary.contains('\n'),
        "{summary}"
    );

    let again = run(&scratch, &[QUESTION, "--temperature", "0"]);
    assert_eq!(again.stdout, first.stdout);
    // Nothing is cut for a single node.
    assert!(!scratch.cache().join("stages").exists());

    let model = smollm2();
    let args = [
        "run",
        text(&model),
        "--ctx",
        "512",
        "--max-tokens",
        "16",
        "--temperature",
        "0",
    ];
    let piped = scratch.finish(scratch.command(&args), QUESTION);
    assert_eq!(piped.stdout, first.stdout);
}

#[test]
fn a_seed_repeats_an_answer() {
    let scratch = Scratch::new();
    let hot = |seed| {
        run(
            &scratch,
            &[QUESTION, "--temperature", "1.5", "--seed", seed],
        )
        .stdout
    };
    let first = hot("7");
    assert_eq!(hot("7"), first);
    assert_ne!(hot("8"), first);
}

/// Whether guesses pay or not, the model chooses every token.
#[test]
fn an_answer_is_the_same_with_drafts() {
    let scratch = Scratch::new();
    scratch.tiny("tiny.gguf", &TinyModel::llama(4));
    let answer = |options: &[&str]| {
        let again = "say it again and again and again and again, ";
        let args = [
            "run",
            "tiny.gguf",
            &again.repeat(3),
            "--temperature=0",
            "--max-tokens=100",
        ];
        let ended = scratch.run(&[&args[..], options].concat());
        assert_eq!(ended.code, Some(0), "{}", ended.stderr);
        ended.stdout
    };
    assert_eq!(answer(&["--draft=6"]), answer(&[]));

    scratch.tiny("gemma3.gguf", &TinyModel::gemma3(6));
    let refused = scratch.run(&["run", "gemma3.gguf", "Hello", "--draft=6"]);
    assert_eq!(refused.code, Some(1));
    assert!(
        refused.stderr.contains("--draft does not work with gemma3"),
        "{}",
        refused.stderr
    );
}

#[test]
fn a_reader_that_leaves_is_no_failure() {
    let scratch = Scratch::new();
    let model = smollm2();
    let args = [
        "run",
        text(&model),
        QUESTION,
        "--ctx",
        "512",
        "--max-tokens",
        "16",
    ];
    let mut child = scratch.command(&args).spawn().unwrap();
    drop(child.stdout.take());
    drop(child.stderr.take());
    child.wait().unwrap();
    scratch.assert_nothing_runs();
}
