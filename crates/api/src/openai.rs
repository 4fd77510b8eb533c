//! OpenAI's shapes of an answer: one object, or the chunks of a stream.

mod logprobs;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::{
    error::ApiError,
    request::random,
    run::{Finish, Message, Part, Run, Step, Usage},
    stream::{Dialect, Frame},
    tools::ToolCall,
};
use logprobs::{Offsets, chat_logprobs};

/// Names the program that answered, as OpenAI's `system_fingerprint` does.
const FINGERPRINT: &str = concat!("brigade-", env!("CARGO_PKG_VERSION"));

/// Which of OpenAI's two shapes an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Completion,
}

/// What stands the same in every chunk of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    kind: Kind,
    id: String,
    created: u64,
    model: String,
    sends_usage: bool,
    sends_logprobs: bool,
    /// By choice: calls told so far.
    calls: Vec<usize>,
    /// By choice: where the next token's text begins.
    offsets: Vec<Offsets>,
}

/// Seconds since 1970.
pub(crate) fn now_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn usage_value(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
    })
}

/// Not OpenAI's: where the time went, in milliseconds.
fn timing_value(run: &Run) -> Value {
    let ms = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e3;
    let (timing, phases) = run.account();
    let mut value = json!({
        "queue_ms": ms(timing.queue),
        "prefill_ms": ms(timing.prefill),
        "decode_ms": ms(timing.decode),
    });
    if let Some(phases) = phases {
        for (name, phase) in ["prefill", "decode"].into_iter().zip(phases) {
            value[name] = json!({
                "stages_ms": phase.stages.into_iter().map(ms).collect::<Vec<_>>(),
                "network_ms": ms(phase.network),
                "waiting_ms": ms(phase.waiting),
            });
        }
    }
    value
}

fn finish_name(finish: &Finish) -> &'static str {
    match finish {
        Finish::Stop | Finish::StopString(_) => "stop",
        Finish::Length => "length",
        Finish::ToolCalls => "tool_calls",
    }
}

fn call_value(call: &ToolCall) -> Value {
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": call.arguments},
    })
}

impl Answer {
    pub(crate) fn new(kind: Kind, run: &Run, sends_usage: bool, sends_logprobs: bool) -> Self {
        let prefix = match kind {
            Kind::Chat => "chatcmpl",
            Kind::Completion => "cmpl",
        };
        Self {
            kind,
            id: format!("{prefix}-{:016x}{:016x}", random(), random()),
            created: now_s(),
            model: run.model.clone(),
            sends_usage,
            sends_logprobs,
            calls: vec![0; run.choices()],
            offsets: vec![Offsets::default(); run.choices()],
        }
    }

    fn envelope(&self, object: &str, choices: &[Value]) -> Map<String, Value> {
        let object = match self.kind {
            Kind::Chat => object,
            Kind::Completion => "text_completion",
        };
        let mut envelope = Map::new();
        envelope.insert("id".to_owned(), json!(self.id));
        envelope.insert("object".to_owned(), json!(object));
        envelope.insert("created".to_owned(), json!(self.created));
        envelope.insert("model".to_owned(), json!(self.model));
        envelope.insert("system_fingerprint".to_owned(), json!(FINGERPRINT));
        envelope.insert("choices".to_owned(), json!(choices));
        envelope
    }

    /// The whole answer.
    pub(crate) fn whole(&mut self, run: &Run, messages: &[Message]) -> Value {
        let choices = messages.iter().enumerate();
        let choices = choices.map(|(index, message)| self.choice(index, message));
        let choices: Vec<Value> = choices.collect();
        let mut envelope = self.envelope("chat.completion", &choices);
        envelope.insert("usage".to_owned(), usage_value(run.usage()));
        envelope.insert("timings".to_owned(), timing_value(run));
        Value::Object(envelope)
    }

    fn choice(&mut self, index: usize, message: &Message) -> Value {
        let logprobs = match (self.sends_logprobs, self.kind) {
            (false, _) => Value::Null,
            (true, Kind::Chat) => chat_logprobs(&message.logprobs),
            (true, Kind::Completion) => self.offsets[index].logprobs(&message.logprobs),
        };
        let finish = message.finish.as_ref().map(finish_name);
        match self.kind {
            Kind::Completion => json!({
                "index": index,
                "text": message.text,
                "logprobs": logprobs,
                "finish_reason": finish,
            }),
            Kind::Chat => {
                // Where there are calls and no text, OpenAI has null.
                let content = if message.text.is_empty() && !message.calls.is_empty() {
                    Value::Null
                } else {
                    json!(message.text)
                };
                let mut body = json!({"role": "assistant", "content": content, "refusal": null});
                if !message.thought.is_empty() {
                    body["reasoning_content"] = json!(message.thought);
                }
                if !message.calls.is_empty() {
                    body["tool_calls"] = message.calls.iter().map(call_value).collect();
                }
                json!({
                    "index": index,
                    "message": body,
                    "logprobs": logprobs,
                    "finish_reason": finish,
                })
            }
        }
    }

    /// A chunk with one choice.
    fn chunk(
        &self,
        index: usize,
        body: (&str, Value),
        logprobs: Value,
        finish: Option<&Finish>,
    ) -> Map<String, Value> {
        let mut choice = json!({"index": index});
        choice[body.0] = body.1;
        choice["logprobs"] = logprobs;
        choice["finish_reason"] = json!(finish.map(finish_name));
        let mut chunk = self.envelope("chat.completion.chunk", &[choice]);
        if self.sends_usage {
            chunk.insert("usage".to_owned(), Value::Null);
        }
        chunk
    }

    fn body(&mut self, index: usize, part: Part) -> (&'static str, Value) {
        match (self.kind, part) {
            (Kind::Completion, Part::Text(text) | Part::Thought(text)) => ("text", json!(text)),
            (Kind::Completion, Part::Call(_)) => ("text", json!("")),
            (Kind::Chat, Part::Text(text)) => ("delta", json!({"content": text})),
            (Kind::Chat, Part::Thought(text)) => ("delta", json!({"reasoning_content": text})),
            (Kind::Chat, Part::Call(call)) => {
                let mut value = json!({"index": self.calls[index]});
                self.calls[index] += 1;
                if let (Some(into), Value::Object(from)) =
                    (value.as_object_mut(), call_value(&call))
                {
                    into.extend(from);
                }
                ("delta", json!({"tool_calls": [value]}))
            }
        }
    }
}

impl Dialect for Answer {
    fn open(&mut self, run: &Run) -> Vec<Frame> {
        if self.kind == Kind::Completion {
            return Vec::new();
        }
        let opening = |index| {
            let delta = json!({"role": "assistant", "content": ""});
            Frame::json(&self.chunk(index, ("delta", delta), Value::Null, None))
        };
        (0..run.choices()).map(opening).collect()
    }

    fn step(&mut self, run: &Run, step: Step) -> Vec<Frame> {
        match step {
            Step::More {
                index,
                mut parts,
                logprob,
            } => {
                if parts.is_empty() {
                    parts.push(Part::Text(String::new()));
                }
                let logprob: Vec<_> = logprob.into_iter().collect();
                let mut logprobs = match (logprob.is_empty(), self.kind) {
                    (true, _) => Value::Null,
                    (false, Kind::Chat) => chat_logprobs(&logprob),
                    (false, Kind::Completion) => self.offsets[index].logprobs(&logprob),
                };
                let frame = |part| {
                    let body = self.body(index, part);
                    Frame::json(&self.chunk(index, body, logprobs.take(), None))
                };
                parts.into_iter().map(frame).collect()
            }
            Step::Finished { index, finish } => {
                let body = match self.kind {
                    Kind::Chat => ("delta", json!({})),
                    Kind::Completion => ("text", json!("")),
                };
                let mut chunk = self.chunk(index, body, Value::Null, Some(&finish));
                if run.is_over() {
                    chunk.insert("timings".to_owned(), timing_value(run));
                }
                vec![Frame::json(&chunk)]
            }
        }
    }

    fn close(&mut self, run: &Run) -> Vec<Frame> {
        let mut frames = Vec::new();
        if self.sends_usage {
            let mut chunk = self.envelope("chat.completion.chunk", &[]);
            chunk.insert("usage".to_owned(), usage_value(run.usage()));
            frames.push(Frame::json(&chunk));
        }
        frames.push(Frame::text("[DONE]"));
        frames
    }

    fn error(&mut self, error: &ApiError) -> Frame {
        Frame::json(&error.body())
    }
}
