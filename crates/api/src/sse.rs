//! An answer as server-sent events.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::response::sse::{Event as SseEvent, KeepAlive};
use serde::Serialize;
use tokio_stream::Stream;

use crate::{
    Event, Generation,
    answer::{Answer, Usage, cut_off},
    error::ApiError,
};

/// How often a comment is sent while there is nothing else, so that proxies keep the connection
/// and a client that is gone is noticed during a long prefill.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(crate) fn keep_alive() -> KeepAlive {
    KeepAlive::new().interval(KEEP_ALIVE)
}

/// Turns a generation's events into chunks. Dropping it cancels the generation.
pub(crate) struct AnswerStream {
    answer: Answer,
    generation: Generation,
    /// Made and not sent.
    pending: VecDeque<String>,
    ended: bool,
}

impl AnswerStream {
    pub(crate) fn new(answer: Answer, generation: Generation) -> Self {
        let pending = answer.opening().iter().map(json).collect();
        Self {
            answer,
            generation,
            pending,
            ended: false,
        }
    }

    fn push(&mut self, event: Option<Event>) {
        let chunk = match event {
            Some(Event::Text { text, .. }) => json(&self.answer.text(&text)),
            Some(Event::Done {
                reason,
                completion_tokens,
            }) => {
                self.pending.push_back(json(&self.answer.finish(reason)));
                if self.answer.sends_usage() {
                    let usage = Usage::new(self.generation.prompt_tokens, completion_tokens);
                    self.pending.push_back(json(&self.answer.usage(usage)));
                }
                self.ended = true;
                "[DONE]".to_owned()
            }
            Some(Event::Failed(error)) => self.fail(&error.into()),
            None => self.fail(&cut_off()),
        };
        self.pending.push_back(chunk);
    }

    fn fail(&mut self, error: &ApiError) -> String {
        tracing::error!(error = ?error, "answer broken off");
        self.ended = true;
        json(&error.body())
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("strings and numbers always serialize")
}

impl Stream for AnswerStream {
    type Item = Result<SseEvent, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(data) = self.pending.pop_front() {
                return Poll::Ready(Some(Ok(SseEvent::default().data(data))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match self.generation.events.poll_recv(context) {
                Poll::Ready(event) => self.push(event),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
