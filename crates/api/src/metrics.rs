//! Counters for Prometheus, in its text format.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::{
    Load, Pipeline, StepTime,
    run::{Timing, Usage},
};

/// How a request that reached the model ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Failed,
    /// The client went away.
    Cancelled,
}

impl Outcome {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Upper bounds of the buckets, in seconds; one more has the rest.
const BOUNDS_S: [f64; 12] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 120.0,
];

#[derive(Debug, Default)]
struct Histogram {
    buckets: [AtomicU64; BOUNDS_S.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    fn add(&self, duration: Duration) {
        let seconds = duration.as_secs_f64();
        let bucket = BOUNDS_S.iter().position(|&bound| seconds <= bound);
        self.buckets[bucket.unwrap_or(BOUNDS_S.len())].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(duration.as_micros() as u64, Relaxed);
    }

    fn write(&self, text: &mut String, name: &str, help: &str) {
        head(text, name, "histogram", help);
        let mut count = 0;
        for (bucket, bound) in self.buckets.iter().zip(BOUNDS_S) {
            count += bucket.load(Relaxed);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
        }
        count += self.buckets[BOUNDS_S.len()].load(Relaxed);
        let sum_s = self.sum_us.load(Relaxed) as f64 / 1e6;
        let _ = writeln!(
            text,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {sum_s}\n{name}_count {count}"
        );
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

/// Counters for `/metrics`. They belong to a process and not to a model: routers that share them go
/// on where the ones before them ended.
#[derive(Debug, Default)]
pub struct Metrics {
    done: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    in_progress: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    responses: [AtomicU64; 5],
    passed_on: [AtomicU64; 3],
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
}

impl Metrics {
    /// A response with this status goes out.
    pub(crate) fn response(&self, status: u16) {
        if let Some(class) = usize::from(status / 100).checked_sub(1)
            && let Some(counter) = self.responses.get(class)
        {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// A request reached the model.
    pub(crate) fn begin(&self) {
        self.in_progress.fetch_add(1, Relaxed);
    }

    /// It is over.
    pub(crate) fn end(&self, outcome: Outcome, usage: Usage, timing: Timing) {
        self.in_progress.fetch_sub(1, Relaxed);
        self.counter(outcome).fetch_add(1, Relaxed);
        self.prompt_tokens
            .fetch_add(u64::from(usage.prompt_tokens), Relaxed);
        self.cached_tokens
            .fetch_add(u64::from(usage.cached_tokens), Relaxed);
        self.completion_tokens
            .fetch_add(u64::from(usage.completion_tokens), Relaxed);
        if outcome == Outcome::Done {
            self.queue.add(timing.queue);
            self.prefill.add(timing.prefill);
            self.decode.add(timing.decode);
        }
    }

    /// A request that was passed on to another process is over.
    pub(crate) fn passed_on(&self, outcome: Outcome) {
        self.passed_on[outcome as usize].fetch_add(1, Relaxed);
    }

    fn counter(&self, outcome: Outcome) -> &AtomicU64 {
        match outcome {
            Outcome::Done => &self.done,
            Outcome::Failed => &self.failed,
            Outcome::Cancelled => &self.cancelled,
        }
    }

    /// Everything in Prometheus' text format; without a load the backend can answer nothing.
    pub(crate) fn text(&self, load: Option<Load>, pipelines: &[(String, Pipeline)]) -> String {
        let mut text = String::new();
        let name = "brigade_http_responses_total";
        head(&mut text, name, "counter", "Responses by class of status.");
        for (class, counter) in (1..).zip(&self.responses) {
            let count = counter.load(Relaxed);
            let _ = writeln!(text, "{name}{{status=\"{class}xx\"}} {count}");
        }
        let name = "brigade_requests_total";
        head(
            &mut text,
            name,
            "counter",
            "Requests that reached the model, by how they ended.",
        );
        for outcome in [Outcome::Done, Outcome::Failed, Outcome::Cancelled] {
            let count = self.counter(outcome).load(Relaxed);
            let _ = writeln!(text, "{name}{{outcome=\"{}\"}} {count}", outcome.name());
        }
        let name = "brigade_requests_passed_on_total";
        head(
            &mut text,
            name,
            "counter",
            "Requests for models of other nodes, by how their answers ended; those nodes count the rest.",
        );
        for outcome in [Outcome::Done, Outcome::Failed, Outcome::Cancelled] {
            let count = self.passed_on[outcome as usize].load(Relaxed);
            let _ = writeln!(text, "{name}{{outcome=\"{}\"}} {count}", outcome.name());
        }
        let counters = [
            (
                "brigade_prompt_tokens_total",
                "Tokens of prompts.",
                &self.prompt_tokens,
            ),
            (
                "brigade_prompt_cached_tokens_total",
                "Those that were in the KV cache already.",
                &self.cached_tokens,
            ),
            (
                "brigade_completion_tokens_total",
                "Tokens of answers.",
                &self.completion_tokens,
            ),
        ];
        for (name, help, counter) in counters {
            head(&mut text, name, "counter", help);
            let _ = writeln!(text, "{name} {}", counter.load(Relaxed));
        }
        let gauges = [
            (
                "brigade_requests_in_progress",
                "Requests at the model now.",
                self.in_progress.load(Relaxed),
            ),
            (
                "brigade_up",
                "Whether the model can be reached.",
                u64::from(load.is_some()),
            ),
            (
                "brigade_sequences_waiting",
                "Choices that wait for a sequence.",
                load.map_or(0, |load| load.waiting as u64),
            ),
            (
                "brigade_sequences_active",
                "Choices that have one.",
                load.map_or(0, |load| load.active as u64),
            ),
        ];
        for (name, help, value) in gauges {
            head(&mut text, name, "gauge", help);
            let _ = writeln!(text, "{name} {value}");
        }
        for (name, help, histogram) in [
            (
                "brigade_queue_seconds",
                "How long completed requests waited for a sequence.",
                &self.queue,
            ),
            (
                "brigade_prefill_seconds",
                "From a sequence to the first token.",
                &self.prefill,
            ),
            (
                "brigade_decode_seconds",
                "From the first token to the last.",
                &self.decode,
            ),
        ] {
            histogram.write(&mut text, name, help);
        }
        write_pipelines(&mut text, pipelines);
        text
    }
}

/// One of the counts of a [`Pipeline`].
type Count = fn(&Pipeline) -> u64;

/// One of the numbers of a [`StepTime`].
type Part = fn(StepTime) -> f64;

fn write_pipelines(text: &mut String, pipelines: &[(String, Pipeline)]) {
    if pipelines.is_empty() {
        return;
    }
    let counts: [(&str, &str, &str, Count); 4] = [
        (
            "brigade_decode_steps_in_flight_max",
            "gauge",
            "Groups that decoding sequences are divided into.",
            |pipeline| pipeline.groups as u64,
        ),
        (
            "brigade_prefill_steps_in_flight_max",
            "gauge",
            "Chunks of prompts in flight beside them.",
            |pipeline| pipeline.chunks as u64,
        ),
        (
            "brigade_draft_tokens_total",
            "counter",
            "Tokens that were guessed and verified.",
            |pipeline| pipeline.drafted,
        ),
        (
            "brigade_draft_tokens_accepted_total",
            "counter",
            "Those of them that the model chose.",
            |pipeline| pipeline.accepted,
        ),
    ];
    for (name, kind, help, count) in counts {
        head(text, name, kind, help);
        for (model, pipeline) in pipelines {
            let model = escaped(model);
            let _ = writeln!(text, "{name}{{model=\"{model}\"}} {}", count(pipeline));
        }
    }
    let parts: [(&str, &str, Part); 2] = [
        (
            "brigade_step_fixed_seconds",
            "Measured time of a decode step, without what its tokens add.",
            |time| time.fixed_s,
        ),
        (
            "brigade_step_token_seconds",
            "What each token adds to it.",
            |time| time.token_s,
        ),
    ];
    for (name, help, part) in parts {
        head(text, name, "gauge", help);
        for (model, pipeline) in pipelines {
            let model = escaped(model);
            let stages = (1..).zip(&pipeline.stages);
            let stages = stages.map(|(stage, &time)| (format!("stage {stage}"), time));
            let links = pipeline.links.map(|links| ("links".to_owned(), links));
            for (at, time) in stages.chain(links) {
                let value = part(time);
                let _ = writeln!(text, "{name}{{model=\"{model}\",at=\"{at}\"}} {value}");
            }
        }
    }
}

/// A label's value.
fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once() {
        let metrics = Metrics::default();
        metrics.begin();
        assert!(
            metrics
                .text(None, &[])
                .contains("brigade_requests_in_progress 1")
        );
        let usage = Usage {
            prompt_tokens: 3,
            cached_tokens: 2,
            completion_tokens: 4,
        };
        let timing = Timing {
            queue: Duration::from_millis(7),
            prefill: Duration::from_secs(500),
            decode: Duration::ZERO,
        };
        metrics.end(Outcome::Done, usage, timing);
        metrics.passed_on(Outcome::Cancelled);
        metrics.response(200);
        metrics.response(0);
        let load = Load {
            waiting: 2,
            active: 1,
        };
        let time = StepTime {
            fixed_s: 0.25,
            token_s: 0.125,
        };
        let pipeline = Pipeline {
            groups: 3,
            chunks: 2,
            stages: vec![time; 2],
            links: Some(time),
            drafted: 9,
            accepted: 8,
        };
        let text = metrics.text(Some(load), &[("a \"b\"".to_owned(), pipeline)]);
        for line in [
            "brigade_requests_in_progress 0",
            "brigade_requests_total{outcome=\"done\"} 1",
            "brigade_requests_total{outcome=\"failed\"} 0",
            "brigade_prompt_tokens_total 3",
            "brigade_prompt_cached_tokens_total 2",
            "brigade_completion_tokens_total 4",
            "brigade_http_responses_total{status=\"2xx\"} 1",
            "brigade_requests_passed_on_total{outcome=\"cancelled\"} 1",
            "brigade_sequences_waiting 2",
            "brigade_up 1",
            "brigade_queue_seconds_bucket{le=\"0.005\"} 0",
            "brigade_queue_seconds_bucket{le=\"0.01\"} 1",
            "brigade_prefill_seconds_bucket{le=\"120\"} 0",
            "brigade_prefill_seconds_bucket{le=\"+Inf\"} 1",
            "brigade_queue_seconds_sum 0.007",
            r#"brigade_decode_steps_in_flight_max{model="a \"b\""} 3"#,
            r#"brigade_draft_tokens_total{model="a \"b\""} 9"#,
            r#"brigade_draft_tokens_accepted_total{model="a \"b\""} 8"#,
            r#"brigade_step_fixed_seconds{model="a \"b\"",at="stage 2"} 0.25"#,
            r#"brigade_step_token_seconds{model="a \"b\"",at="links"} 0.125"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }
}
