//! Ollama's shapes of an answer: one object, or an object on each line.

use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};

use super::timestamp;
use crate::{
    error::ApiError,
    run::{Finish, Message, Part, Run, Step},
    stream::{Dialect, Frame},
    tools::ToolCall,
};

/// Which route answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Chat,
    Generate,
}

#[derive(Debug)]
pub(super) struct Answer {
    kind: Kind,
    model: String,
    finish: Option<Finish>,
}

/// The answer to a request without a prompt.
pub(super) fn loaded(model: &str) -> Value {
    json!({
        "model": model,
        "created_at": timestamp(SystemTime::now()),
        "response": "",
        "done": true,
        "done_reason": "load",
    })
}

fn call_value(call: &ToolCall) -> Value {
    // What the model wrote and is no JSON stays text.
    let arguments = serde_json::from_str(&call.arguments)
        .unwrap_or_else(|_| Value::String(call.arguments.clone()));
    json!({"function": {"name": call.name, "arguments": arguments}})
}

impl Answer {
    pub(super) fn new(kind: Kind, model: String) -> Self {
        Self {
            kind,
            model,
            finish: None,
        }
    }

    /// One object with a piece of the answer.
    fn object(&self, text: &str, thought: &str, calls: &[ToolCall]) -> Map<String, Value> {
        let mut object = Map::new();
        object.insert("model".to_owned(), json!(self.model));
        object.insert("created_at".to_owned(), json!(timestamp(SystemTime::now())));
        match self.kind {
            Kind::Chat => {
                let mut message = json!({"role": "assistant", "content": text});
                if !thought.is_empty() {
                    message["thinking"] = json!(thought);
                }
                if !calls.is_empty() {
                    message["tool_calls"] = calls.iter().map(call_value).collect();
                }
                object.insert("message".to_owned(), message);
            }
            Kind::Generate => {
                object.insert("response".to_owned(), json!(text));
                if !thought.is_empty() {
                    object.insert("thinking".to_owned(), json!(thought));
                }
            }
        }
        object.insert("done".to_owned(), json!(false));
        object
    }

    fn end(&self, object: &mut Map<String, Value>, run: &Run) {
        let reason = match self.finish {
            Some(Finish::Length) => "length",
            _ => "stop",
        };
        let (usage, timing) = (run.usage(), run.timing());
        let ns = |duration: Duration| json!(duration.as_nanos() as u64);
        let total = timing.queue + timing.prefill + timing.decode;
        for (name, value) in [
            ("done", json!(true)),
            ("done_reason", json!(reason)),
            ("total_duration", ns(total)),
            // The model is there already; the total has the wait in the queue.
            ("load_duration", json!(0)),
            ("prompt_eval_count", json!(usage.prompt_tokens)),
            ("prompt_eval_duration", ns(timing.prefill)),
            ("eval_count", json!(usage.completion_tokens)),
            ("eval_duration", ns(timing.decode)),
        ] {
            object.insert(name.to_owned(), value);
        }
    }

    /// The whole answer.
    pub(super) fn whole(&mut self, run: &Run, messages: Vec<Message>) -> Value {
        let message = messages.into_iter().next().unwrap_or_default();
        self.finish = message.finish;
        let mut object = self.object(&message.text, &message.thought, &message.calls);
        self.end(&mut object, run);
        Value::Object(object)
    }
}

impl Dialect for Answer {
    fn open(&mut self, _: &Run) -> Vec<Frame> {
        Vec::new()
    }

    fn step(&mut self, _: &Run, step: Step) -> Vec<Frame> {
        match step {
            Step::More { parts, .. } => {
                let frame = |part| {
                    Frame::json(&match part {
                        Part::Text(text) => self.object(&text, "", &[]),
                        Part::Thought(text) => self.object("", &text, &[]),
                        Part::Call(call) => self.object("", "", &[call]),
                    })
                };
                parts.into_iter().map(frame).collect()
            }
            Step::Finished { finish, .. } => {
                self.finish = Some(finish);
                Vec::new()
            }
        }
    }

    fn close(&mut self, run: &Run) -> Vec<Frame> {
        let mut object = self.object("", "", &[]);
        self.end(&mut object, run);
        vec![Frame::json(&object)]
    }

    fn error(&mut self, error: &ApiError) -> Frame {
        Frame::json(&super::error_value(error))
    }
}
