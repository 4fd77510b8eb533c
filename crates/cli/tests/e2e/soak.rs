//! 64 clients at once, some of which leave in the middle: no error, no wrong answer, no growth of
//! memory. Some seconds in an ordinary test run; for a longer one:
//!
//! ```text
//! BRIGADE_SOAK_SECONDS=600 cargo test --release -p brigade -- soak:: --nocapture
//! ```

use std::collections::HashMap;
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{
    Event, GONE, Lab, Scratch, Stream, chat, metric, resident, smollm2, wait_until,
};

const CLIENTS: u64 = 64;

/// Answers after which everything has been used that is used again and again.
const WARM: u64 = CLIENTS / 4;

/// How long memory is looked at from then on, where `BRIGADE_SOAK_SECONDS` says nothing.
const USUAL: Duration = Duration::from_secs(3);

/// The median of the memory in the last third of that time may be so much above the one in the
/// first. Allocators give out what they have in another order each time, which is worth a few MB
/// in some hundred; what each request loses goes beyond it in minutes.
const MOST_GROWTH: f64 = 0.02;

/// Within seconds one step of an allocator (8 MiB at once, seen) looks like a leak. Steps come to an
/// end, leaks do not: memory that grows in so many looks, one after the other, has no other reason.
const LOOKS: usize = 5;

/// What the clients saw together.
#[derive(Debug, Default)]
struct Seen {
    complete: AtomicU64,
    tokens: AtomicU64,
    left: AtomicU64,
    /// The answer to each question that has one answer only.
    answers: Mutex<HashMap<u64, String>>,
}

/// One of some questions of different lengths, and whether it has one answer only.
fn question(number: u64) -> (Value, bool) {
    let topics = ["the sea", "a clock", "two friends", "the city of Rome"];
    let topic = topics[number as usize % topics.len()];
    let (content, extra) = match number % 10 {
        0 => (
            format!("{} What was that?", format!("I like {topic}. ").repeat(8)),
            json!({"logprobs": true, "top_logprobs": 2}),
        ),
        1 => (
            format!("An object of {topic}."),
            json!({"response_format": {"type": "json_object"}}),
        ),
        2..5 => (
            format!("A word for {topic}?"),
            json!({"temperature": 1.2, "top_p": 0.9, "presence_penalty": 0.5}),
        ),
        5..8 => (format!("Tell me about {topic}."), json!({})),
        _ => (format!("{topic}!"), json!({"stop": [".", "\n"]})),
    };
    let mut body = chat(&content, 2 + number as u32 % 9, &extra);
    // Without a message of its own the model's template adds a long one.
    body["messages"] = json!([{"role": "system", "content": ""}, body["messages"][0]]);
    body["stream_options"] = json!({"include_usage": true});
    (body, !(2..5).contains(&(number % 10)))
}

/// Asks one question after the other until it is enough.
fn client(api: &str, client: u64, over: &AtomicBool, seen: &Seen) {
    for round in 0.. {
        if over.load(Relaxed) {
            return;
        }
        let number = (client * 7 + round) % 40;
        let (body, has_one_answer) = question(number);
        let stream = Stream::open(api, &body);
        if (client + round).is_multiple_of(8) {
            // After the role, and perhaps a token.
            stream.next();
            if round.is_multiple_of(2) {
                stream.next();
            }
            stream.connection.shutdown(Shutdown::Both).unwrap();
            seen.left.fetch_add(1, Relaxed);
            continue;
        }
        let events = stream.rest();
        assert_eq!(events.last(), Some(&Event::Done), "{number}: {events:?}");
        let chunks = events.iter().filter_map(|event| match event {
            Event::Data(chunk) => Some(chunk),
            Event::Done => None,
        });
        let finish = chunks
            .clone()
            .find_map(|chunk| chunk["choices"][0]["finish_reason"].as_str());
        assert!(
            matches!(finish, Some("stop" | "length")),
            "{number}: {events:?}"
        );
        let tokens = chunks
            .clone()
            .find_map(|chunk| chunk["usage"]["completion_tokens"].as_u64());
        seen.tokens.fetch_add(tokens.unwrap(), Relaxed);
        seen.complete.fetch_add(1, Relaxed);
        if has_one_answer {
            let text: String = events.iter().map(Event::text).collect();
            let mut answers = seen.answers.lock().unwrap();
            let first = answers.entry(number).or_insert_with(|| text.clone());
            assert_eq!(*first, text, "{number} has another answer than before");
        }
    }
}

fn median(samples: &[u64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2] as f64
}

/// Looks at the memory of processes for so long, a hundred times.
///
/// Returns by how much the last third is above the first.
fn growth(pids: &[u32], length: Duration, works: impl Fn() -> bool) -> f64 {
    let (begun, mut samples) = (Instant::now(), Vec::new());
    while begun.elapsed() < length && works() {
        samples.push(resident(pids));
        thread::sleep(length / 100);
    }
    let third = samples.len() / 3;
    let early = median(&samples[..third]);
    let late = median(&samples[samples.len() - third..]);
    let growth = late / early - 1.0;
    eprintln!(
        "{} s: resident {:.1} MB in the first third, {:.1} MB in the last ({:+.2} %)",
        length.as_secs(),
        early / 1e6,
        late / 1e6,
        growth * 100.0
    );
    growth
}

#[test]
fn sixty_four_clients_get_every_answer_and_memory_does_not_grow() {
    let seconds = std::env::var("BRIGADE_SOAK_SECONDS").ok();
    let (length, looks) = seconds.map_or((USUAL, LOOKS), |seconds| {
        (Duration::from_secs(seconds.parse().unwrap()), 1)
    });
    // One thread each, so that an answer does not depend on its company.
    let args = ["--nodes", "2", "--threads", "1"];
    let lab = Lab::start(Scratch::new(), &smollm2(), &args);
    let (api, seen, over) = (lab.api(), Seen::default(), AtomicBool::new(false));
    let pids = lab.scratch.processes();
    let grew = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (seen, over) = (&seen, &over);
                scope.spawn(move || client(api, number, over, seen))
            })
            .collect();
        let all_work = || clients.iter().all(|client| !client.is_finished());
        while seen.complete.load(Relaxed) < WARM && all_work() {
            thread::sleep(Duration::from_millis(10));
        }
        let grew = (0..looks).all(|_| growth(&pids, length, all_work) > MOST_GROWTH);
        over.store(true, Relaxed);
        grew
    });
    assert_eq!(lab.scratch.processes(), pids, "no process was replaced");
    wait_until("the sequences of those who left are free", GONE, || {
        metric(api, "brigade_sequences_active") + metric(api, "brigade_sequences_waiting") == 0
    });
    let count = |outcome| {
        metric(
            api,
            &format!("brigade_requests_total{{outcome=\"{outcome}\"}}"),
        )
    };
    let [complete, tokens, left] =
        [&seen.complete, &seen.tokens, &seen.left].map(|n| n.load(Relaxed));
    assert_eq!(count("failed"), 0);
    // Who leaves may do so after the last token.
    assert_eq!(count("done") + count("cancelled"), complete + left);
    assert!(left > 0 && complete >= WARM, "{seen:?}");

    eprintln!("{complete} answers of {tokens} tokens, {left} clients left");
    assert!(!grew, "memory kept growing");
    lab.end(crate::support::Signal::TERM);
}
