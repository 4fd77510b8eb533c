//! What requests owe each other: their time and their prompts.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Event, Lab, Scratch, Stream, chat, post, smollm2};

/// A prompt of at least so many tokens, since every word has one.
fn words(count: usize, first: &str) -> String {
    const WORDS: [&str; 8] = [
        "river", "stone", "cloud", "house", "light", "green", "seven", "door",
    ];
    let words = (0..count).map(|at| WORDS[(at * 5 + at / 7) % 8]);
    std::iter::once(first)
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn a_prompt_that_begins_alike_is_read_once_and_changes_no_bit() {
    // One thread each, so that an answer does not depend on its company.
    let args = ["--nodes", "2", "--threads", "1"];
    let lab = Lab::start(Scratch::new(), &smollm2(), &args);
    let extra = json!({"logprobs": true, "top_logprobs": 3});
    let ask = |question: &str| -> (u64, Value) {
        let (status, answer) = post(lab.api(), &chat(question, 12, &extra));
        assert_eq!(status, 200, "{answer}");
        let cached = &answer["usage"]["prompt_tokens_details"]["cached_tokens"];
        (cached.as_u64().unwrap(), answer["choices"][0].clone())
    };
    let text = words(200, "List:");
    let (cached, first) = ask(&text);
    assert_eq!(cached, 0);
    let (cached, again) = ask(&text);
    assert!(cached >= 192 && cached.is_multiple_of(64), "{cached}");
    // Every digit of every log-probability.
    assert_eq!(again, first);

    // The same beginning with another end, twice; between them its place is taken by others.
    let longer = format!("{text} What is the last word?");
    let (cached, first) = ask(&longer);
    assert!(cached >= 192, "{cached}");
    for other in ["One", "Two", "Three", "Four", "Five"] {
        assert_eq!(ask(&words(200, other)).0, 0, "{other}");
    }
    let (cached, again) = ask(&longer);
    assert_eq!(cached, 0, "the least recently used goes first");
    assert_eq!(again, first);
}

/// Reads an answer; the time of each token.
fn tokens(api: &str, seed: u64, begun: &Barrier, stop: &AtomicBool) -> Vec<Instant> {
    let extra = json!({"temperature": 1.0, "seed": seed});
    let stream = Stream::open(api, &chat("Tell me a very long story.", 1000, &extra));
    stream.some_text(8);
    begun.wait();
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        match stream.next() {
            Some(Event::Data(_)) => times.push(Instant::now()),
            Some(Event::Done) | None => break,
        }
    }
    times
}

/// The 99th percentile of the gaps between the tokens of three answers while a prompt of over
/// 2,048 tokens is read, as a part of a chunk's pass through both stages without company.
fn gap_beside_a_prompt(api: &str, attempt: u32) -> f64 {
    let read = |first: String, count: usize| {
        let start = Instant::now();
        let (status, answer) = post(api, &chat(&words(count, &first), 1, &json!({})));
        assert_eq!(status, 200, "{answer}");
        let tokens = answer["usage"]["prompt_tokens"].as_u64().unwrap();
        assert!(tokens >= count as u64, "{tokens} tokens");
        (start, start.elapsed(), tokens.div_ceil(64) as u32)
    };
    // Later chunks take longer, as they attend to more, and the longest gaps are beside them: so the
    // pass is that of a chunk of the second half. The stages are even: in twice the time in which
    // one chunk follows another.
    let (_, half, half_chunks) = read(format!("Half {attempt}"), 1024);
    let (_, whole, chunks) = read(format!("Alone {attempt}"), 2048);
    let pass = whole.saturating_sub(half) * 2 / (chunks - half_chunks);
    let (begun, stop) = (Barrier::new(4), AtomicBool::new(false));
    let (gaps, window) = thread::scope(|scope| {
        let streams: Vec<_> = (0..3)
            .map(|seed| {
                let (begun, stop) = (&begun, &stop);
                scope.spawn(move || tokens(api, seed, begun, stop))
            })
            .collect();
        begun.wait();
        let (start, took, _) = read(format!("Beside {attempt}"), 2048);
        stop.store(true, Ordering::Relaxed);
        let times: Vec<_> = streams.into_iter().map(|s| s.join().unwrap()).collect();
        (times, (start, start + took))
    });
    let mut gaps: Vec<Duration> = gaps
        .iter()
        .flat_map(|times| times.windows(2))
        .filter(|pair| window.0 < pair[1] && pair[0] < window.1)
        .map(|pair| pair[1] - pair[0])
        .collect();
    gaps.sort_unstable();
    assert!(gaps.len() >= 20, "{} gaps", gaps.len());
    let gap = gaps[(gaps.len() - 1) * 99 / 100];
    eprintln!(
        "a chunk's pass {pass:?}, p99 of {} gaps {gap:?}",
        gaps.len()
    );
    gap.as_secs_f64() / pass.as_secs_f64()
}

#[test]
fn a_long_prompt_delays_nobody_by_more_than_two_chunks() {
    let args = ["--nodes", "2", "--threads", "1", "--ctx", "4096"];
    let lab = Lab::start(Scratch::new(), &smollm2(), &args);
    // Other programs on this machine may disturb a measurement.
    let mut ratios = (0..3).map(|attempt| gap_beside_a_prompt(lab.api(), attempt));
    assert!(ratios.any(|ratio| ratio <= 2.0));
}
