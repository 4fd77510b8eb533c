//! An answer as a stream, in any dialect.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{
        IntoResponse, Response,
        sse::{Event as SseEvent, KeepAlive, Sse},
    },
};
use serde::Serialize;
use tokio_stream::{Stream, StreamExt};

use crate::{
    error::ApiError,
    run::{Run, Step},
};

/// How often a comment is sent while there is nothing else, so that proxies keep the connection
/// and a client that is gone is noticed during a long prefill.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A piece of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The event's name, where the dialect has names.
    pub(crate) event: Option<&'static str>,
    pub(crate) data: String,
}

impl Frame {
    pub(crate) fn text(data: impl Into<String>) -> Self {
        Self {
            event: None,
            data: data.into(),
        }
    }

    pub(crate) fn json(value: &impl Serialize) -> Self {
        Self::text(serde_json::to_string(value).expect("strings and numbers always serialize"))
    }

    pub(crate) fn named(event: &'static str, value: &impl Serialize) -> Self {
        Self {
            event: Some(event),
            ..Self::json(value)
        }
    }
}

/// How an answer is told in pieces.
pub(crate) trait Dialect: Send + Unpin + 'static {
    /// Before anything has come.
    fn open(&mut self, run: &Run) -> Vec<Frame>;
    /// What happened.
    fn step(&mut self, run: &Run, step: Step) -> Vec<Frame>;
    /// After every choice is complete.
    fn close(&mut self, run: &Run) -> Vec<Frame>;
    /// Instead of the rest.
    fn error(&mut self, error: &ApiError) -> Frame;
}

/// Turns a run into frames. Dropping it cancels the run.
struct Frames<D> {
    dialect: D,
    run: Run,
    /// Made and not sent.
    pending: VecDeque<Frame>,
    ended: bool,
}

impl<D: Dialect> Frames<D> {
    fn new(mut dialect: D, run: Run) -> Self {
        Self {
            pending: dialect.open(&run).into(),
            dialect,
            run,
            ended: false,
        }
    }
}

impl<D: Dialect> Stream for Frames<D> {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        let this = &mut *self;
        loop {
            if let Some(frame) = this.pending.pop_front() {
                return Poll::Ready(Some(frame));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let frames = match Pin::new(&mut this.run).poll_next(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(step))) => this.dialect.step(&this.run, step),
                Poll::Ready(Some(Err(error))) => {
                    tracing::error!(error = ?error, "answer broken off");
                    this.ended = true;
                    vec![this.dialect.error(&error)]
                }
                Poll::Ready(None) => {
                    this.ended = true;
                    this.dialect.close(&this.run)
                }
            };
            this.pending.extend(frames);
        }
    }
}

/// Server-sent events.
pub(crate) fn events(dialect: impl Dialect, run: Run) -> Response {
    let events = Frames::new(dialect, run).map(|frame| {
        let event = match frame.event {
            Some(name) => SseEvent::default().event(name),
            None => SseEvent::default(),
        };
        Ok::<_, Infallible>(event.data(frame.data))
    });
    Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response()
}

/// A JSON object on each line.
pub(crate) fn lines(dialect: impl Dialect, run: Run) -> Response {
    let lines = Frames::new(dialect, run).map(|frame| Ok::<_, Infallible>(frame.data + "\n"));
    let mut response = Body::from_stream(lines).into_response();
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-ndjson"),
    );
    response
}
