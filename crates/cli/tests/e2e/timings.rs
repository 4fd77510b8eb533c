//! Where a request's time went: what the answer, the log and `/metrics` say of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{GONE, Lab, Scratch, chat, measure, post, smollm2, wait_until};

/// What a step's way over the lab's one shaped link takes, there and back.
const ROUND_TRIP_MS: f64 = 20.0;

fn ms(timings: &Value, name: &str) -> f64 {
    timings[name].as_f64().unwrap()
}

/// What the stages and the links had of a phase, and the time of the stages.
fn divided(timings: &Value, name: &str) -> (f64, f64, f64) {
    let phase = &timings[name];
    let stages: Vec<f64> = serde_json::from_value(phase["stages_ms"].clone()).unwrap();
    assert_eq!(stages.len(), 2, "{timings}");
    assert!(stages.iter().all(|&stage| stage > 0.0), "{timings}");
    let computed = stages.iter().sum();
    (computed, ms(phase, "network_ms"), ms(phase, "waiting_ms"))
}

#[test]
fn each_request_is_told_where_its_time_went() {
    let scratch = Scratch::logging("error,brigade_api=info");
    let link = format!("rtt={ROUND_TRIP_MS}ms");
    let args = ["--nodes", "2", "--threads", "1", "--link", &link];
    let lab = Lab::start(scratch, &smollm2(), &args);
    let tokens = 16;
    let begun = Instant::now();
    let (status, answer) = post(lab.api(), &chat("Count to forty.", tokens, &json!({})));
    let took_ms = begun.elapsed().as_secs_f64() * 1e3;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["usage"]["completion_tokens"], tokens);
    let timings = &answer["timings"];

    // All of the time is there, but for the client's own connection.
    let sum: f64 = ["queue_ms", "prefill_ms", "decode_ms"]
        .iter()
        .map(|name| ms(timings, name))
        .sum();
    assert!(sum <= took_ms, "{sum} of {took_ms}: {timings}");
    assert!(
        took_ms - sum <= 0.1 * took_ms,
        "{sum} of {took_ms}: {timings}"
    );

    // And so it is within each phase: no more was charged than passed.
    for name in ["prefill", "decode"] {
        let (computed, network, waiting) = divided(timings, name);
        let whole = ms(timings, &format!("{name}_ms"));
        let sum = computed + network + waiting;
        assert!((sum - whole).abs() <= 0.01 * whole, "{name}: {timings}");
    }
    // Nobody else was there, so nearly nothing was waiting; each token crossed the link twice.
    let (_, network, waiting) = divided(timings, "decode");
    let crossed = f64::from(tokens - 1) * ROUND_TRIP_MS;
    assert!(network >= 0.99 * crossed, "{network} of {crossed}");
    assert!(waiting <= 0.1 * ms(timings, "decode_ms"), "{timings}");

    let fields = [
        "outcome=\"done\"",
        "queue_ms=",
        "decode_network_ms=",
        "decode_stages_ms=[",
    ];
    wait_until("the request is logged", GONE, || {
        let said = lab.stderr();
        let mut lines = said.lines();
        lines.any(|line| fields.iter().all(|field| line.contains(field)))
    });
    let label = r#"model="SmolLM2-135M-Instruct.Q4_1""#;
    for at in ["stage 1", "stage 2", "links"] {
        let seconds = |of: &str| {
            let name = format!(r#"brigade_step_{of}_seconds{{{label},at="{at}"}}"#);
            Duration::from_secs_f64(measure(lab.api(), &name))
        };
        let fixed = seconds("fixed");
        assert!(fixed + seconds("token") > Duration::ZERO, "{at}");
        let is_network = at == "links";
        let crossing = Duration::from_secs_f64(0.99 * ROUND_TRIP_MS / 1e3);
        assert_eq!(fixed >= crossing, is_network, "{at}: {fixed:?}");
    }
}
