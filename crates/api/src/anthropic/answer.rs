//! Anthropic's shapes of an answer: one object, or events that open, fill and close blocks.

use serde_json::{Value, json};

use super::error_value;
use crate::{
    error::ApiError,
    request::random,
    run::{Finish, Message, Part, Run, Step},
    stream::{Dialect, Frame},
    tools::ToolCall,
};

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Thought,
}

#[derive(Debug)]
pub(super) struct Answer {
    id: String,
    model: String,
    shows_thoughts: bool,
    /// The block that is open.
    open: Option<Block>,
    /// Blocks begun.
    blocks: usize,
    finish: Option<Finish>,
}

fn input(call: &ToolCall) -> Value {
    // What the model wrote and is no JSON stays text.
    serde_json::from_str(&call.arguments).unwrap_or_else(|_| Value::String(call.arguments.clone()))
}

impl Answer {
    pub(super) fn new(model: String, shows_thoughts: bool) -> Self {
        Self {
            id: format!("msg_{:016x}{:016x}", random(), random()),
            model,
            shows_thoughts,
            open: None,
            blocks: 0,
            finish: None,
        }
    }

    fn message(&self, content: &[Value], usage: &Value) -> Value {
        let (reason, sequence) = self.stop();
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": sequence,
            "usage": usage,
        })
    }

    /// Why it ended, and the stop sequence that ended it.
    fn stop(&self) -> (Value, Value) {
        match &self.finish {
            None => (Value::Null, Value::Null),
            Some(Finish::Stop) => (json!("end_turn"), Value::Null),
            Some(Finish::StopString(stop)) => (json!("stop_sequence"), json!(stop)),
            Some(Finish::Length) => (json!("max_tokens"), Value::Null),
            Some(Finish::ToolCalls) => (json!("tool_use"), Value::Null),
        }
    }

    /// The whole answer.
    pub(super) fn whole(&mut self, run: &Run, messages: Vec<Message>) -> Value {
        let message = messages.into_iter().next().unwrap_or_default();
        self.finish = message.finish;
        let mut content = Vec::new();
        if self.shows_thoughts && !message.thought.is_empty() {
            content.push(json!({
                "type": "thinking",
                "thinking": message.thought,
                "signature": "",
            }));
        }
        if !message.text.is_empty() {
            content.push(json!({"type": "text", "text": message.text}));
        }
        for call in &message.calls {
            content.push(json!({
                "type": "tool_use",
                "id": call.id,
                "name": call.name,
                "input": input(call),
            }));
        }
        let usage = run.usage();
        self.message(
            &content,
            &json!({
                "input_tokens": usage.prompt_tokens,
                "output_tokens": usage.completion_tokens,
            }),
        )
    }

    fn close_block(&mut self, frames: &mut Vec<Frame>) {
        if self.open.take().is_some() {
            frames.push(block_stop(self.blocks - 1));
        }
    }

    /// More of a block, which is opened where another or none is.
    fn fill(&mut self, block: Block, text: &str, frames: &mut Vec<Frame>) {
        let (start, kind, name) = match block {
            Block::Text => (json!({"type": "text", "text": ""}), "text_delta", "text"),
            Block::Thought => (
                json!({"type": "thinking", "thinking": "", "signature": ""}),
                "thinking_delta",
                "thinking",
            ),
        };
        if self.open != Some(block) {
            self.close_block(frames);
            frames.push(block_start(self.blocks, &start));
            self.blocks += 1;
            self.open = Some(block);
        }
        let mut delta = json!({"type": kind});
        delta[name] = json!(text);
        frames.push(block_delta(self.blocks - 1, &delta));
    }

    fn call(&mut self, call: &ToolCall, frames: &mut Vec<Frame>) {
        self.close_block(frames);
        let index = self.blocks;
        self.blocks += 1;
        let start = json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}});
        frames.push(block_start(index, &start));
        let delta = json!({"type": "input_json_delta", "partial_json": call.arguments});
        frames.push(block_delta(index, &delta));
        frames.push(block_stop(index));
    }
}

fn block_start(index: usize, block: &Value) -> Frame {
    Frame::named(
        "content_block_start",
        &json!({"type": "content_block_start", "index": index, "content_block": block}),
    )
}

fn block_delta(index: usize, delta: &Value) -> Frame {
    Frame::named(
        "content_block_delta",
        &json!({"type": "content_block_delta", "index": index, "delta": delta}),
    )
}

fn block_stop(index: usize) -> Frame {
    Frame::named(
        "content_block_stop",
        &json!({"type": "content_block_stop", "index": index}),
    )
}

impl Dialect for Answer {
    fn open(&mut self, run: &Run) -> Vec<Frame> {
        let usage = json!({"input_tokens": run.usage().prompt_tokens, "output_tokens": 0});
        let message = self.message(&[], &usage);
        vec![Frame::named(
            "message_start",
            &json!({"type": "message_start", "message": message}),
        )]
    }

    fn step(&mut self, _: &Run, step: Step) -> Vec<Frame> {
        let mut frames = Vec::new();
        match step {
            Step::More { parts, .. } => {
                for part in parts {
                    match part {
                        Part::Text(text) => self.fill(Block::Text, &text, &mut frames),
                        Part::Thought(text) if self.shows_thoughts => {
                            self.fill(Block::Thought, &text, &mut frames);
                        }
                        Part::Thought(_) => {}
                        Part::Call(call) => self.call(&call, &mut frames),
                    }
                }
            }
            Step::Finished { finish, .. } => self.finish = Some(finish),
        }
        frames
    }

    fn close(&mut self, run: &Run) -> Vec<Frame> {
        let mut frames = Vec::new();
        self.close_block(&mut frames);
        let (reason, sequence) = self.stop();
        frames.push(Frame::named(
            "message_delta",
            &json!({
                "type": "message_delta",
                "delta": {"stop_reason": reason, "stop_sequence": sequence},
                "usage": {"output_tokens": run.usage().completion_tokens},
            }),
        ));
        frames.push(Frame::named(
            "message_stop",
            &json!({"type": "message_stop"}),
        ));
        frames
    }

    fn error(&mut self, error: &ApiError) -> Frame {
        Frame::named("error", &error_value(error))
    }
}
