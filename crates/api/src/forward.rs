//! Requests for models that another process runs: they go there as they came, and the answer comes
//! back as it is.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody, to_bytes},
    extract::{Request, State},
    http::{
        HeaderName, HeaderValue, Method,
        header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING},
    },
    middleware::Next,
    response::Response,
};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    task::JoinSet,
    time::{Instant, Sleep},
};
use tokio_stream::Stream;

use crate::{
    Backend, BackendError, Connection, ModelInfo,
    error::ApiError,
    gateway::Gateway,
    metrics::{Metrics, Outcome},
    ollama, request,
    routes::{access, broken_off, refusal},
};

/// The routes whose requests mean a model.
const MODEL_ROUTES: [&str; 6] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/api/chat",
    "/api/generate",
    "/api/show",
];

/// Headers that are of one connection and not of the answer.
const HOP: [HeaderName; 3] = [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING];

/// The longest answer that is not a stream.
const ANSWER_BYTES: usize = 64 << 20;

/// All that must be known of a body to know where it goes.
#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    model: Value,
    /// The older name of Ollama's.
    #[serde(default)]
    name: Value,
}

/// Answers a request where its model is: here, or in another process.
pub(crate) async fn where_it_is<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path().to_owned();
    if request.method() != Method::POST || !MODEL_ROUTES.contains(&path.as_str()) {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    let body = match request::read(Request::from_parts(parts.clone(), body)).await {
        Ok(body) => body,
        Err(error) => return refusal(&path, &error),
    };
    let arrived = Instant::now();
    let limit = Limit(gateway.timeout.map(|limit| (limit, arrived + limit)));
    match find(&gateway, &path, &body, limit).await {
        Ok(Some(model)) if gateway.backend.is_elsewhere(&model.id) => {
            let order = Order {
                model: model.id,
                path,
                limit,
            };
            let ticket = Ticket::new(&gateway.metrics, &order);
            let answer = pass_on(&*gateway.backend, &order, body, ticket).await;
            answer.unwrap_or_else(|error| refusal(&order.path, &error))
        }
        // What is wrong with the request is said by whoever reads all of it.
        Ok(_) => {
            let answered = next.run(Request::from_parts(parts, body.into()));
            ARRIVED.scope(arrived, answered).await
        }
        Err(error) => refusal(&path, &error),
    }
}

tokio::task_local! {
    /// When the request that is being handled came.
    static ARRIVED: Instant;
}

/// When the request that is being handled came, however long its model had to be waited for.
pub(crate) fn arrived() -> Instant {
    ARRIVED
        .try_with(|at| *at)
        .unwrap_or_else(|_| Instant::now())
}

/// The model that a body means, if it can be told.
async fn find<B: Backend>(
    gateway: &Gateway<B>,
    path: &str,
    body: &[u8],
    limit: Limit,
) -> Result<Option<ModelInfo>, ApiError> {
    let Ok(Named { model, name }) = serde_json::from_slice(body) else {
        return Ok(None);
    };
    let asked = match (model, name) {
        (Value::String(asked), _) => Some(asked),
        (Value::Null, Value::String(asked)) if path == "/api/show" => Some(asked),
        (Value::Null, _) => None,
        _ => return Ok(None),
    };
    let look = || {
        if path.starts_with("/api/") {
            let id = ollama::served(gateway, asked.clone())?;
            return gateway.find(Some(id));
        }
        gateway.find(asked.clone())
    };
    let Some(asked) = &asked else {
        return Ok(look().ok());
    };
    if let Ok(found) = look() {
        return Ok(Some(found));
    }
    let asked = match asked.strip_suffix(":latest") {
        Some(name) if path.starts_with("/api/") => name,
        _ => asked,
    };
    if path == "/api/show" {
        // Who looks at a model does not need it.
        return Ok(None);
    }
    match limit.keep(gateway.backend.want(asked)).await? {
        Ok(()) => look().map(Some),
        Err(BackendError::UnknownModel(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A request that goes elsewhere.
struct Order {
    model: String,
    path: String,
    limit: Limit,
}

/// How long a request may take, and until when that is.
#[derive(Clone, Copy)]
struct Limit(Option<(Duration, Instant)>);

impl Limit {
    /// Waits for something that must come in time.
    async fn keep<T>(self, what: impl Future<Output = T>) -> Result<T, ApiError> {
        let Some((limit, until)) = self.0 else {
            return Ok(what.await);
        };
        let in_time = tokio::time::timeout_at(until, what).await;
        in_time.map_err(|_| ApiError::timeout(limit))
    }
}

/// Counts and logs a request that is passed on, once it is over.
struct Ticket {
    metrics: Arc<Metrics>,
    model: String,
    node: String,
    status: u16,
    arrived: Instant,
    outcome: Outcome,
}

impl Ticket {
    fn new(metrics: &Arc<Metrics>, order: &Order) -> Self {
        Self {
            metrics: Arc::clone(metrics),
            model: order.model.clone(),
            node: String::new(),
            status: 0,
            arrived: Instant::now(),
            outcome: Outcome::Cancelled,
        }
    }

    fn fail(&mut self, error: ApiError) -> ApiError {
        self.outcome = Outcome::Failed;
        error
    }

    /// The other process, or the way to it, is gone.
    fn lost(&mut self) -> ApiError {
        let error = BackendError::Unavailable(format!(
            "{}, which runs {}, is gone: try again",
            self.node, self.model
        ));
        self.fail(error.into())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.metrics.passed_on(self.outcome);
        tracing::info!(
            model = %self.model,
            node = %self.node,
            outcome = self.outcome.name(),
            status = self.status,
            total_ms = self.arrived.elapsed().as_secs_f64() * 1e3,
            "request passed on"
        );
    }
}

async fn pass_on(
    backend: &impl Backend,
    order: &Order,
    body: Vec<u8>,
    mut ticket: Ticket,
) -> Result<Response, ApiError> {
    let connected = order.limit.keep(backend.connect(&order.model)).await;
    let connected = connected.and_then(|connection| connection.map_err(ApiError::from));
    let Connection { node, stream } = connected.map_err(|error| ticket.fail(error))?;
    ticket.node = node;
    let begun = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = begun.map_err(|_| ticket.lost())?;
    // Ends the connection, and by that the work, when the client is gone and this is dropped.
    let mut connections = JoinSet::new();
    connections.spawn(async {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a request's connection broke");
        }
    });
    // A client's key is for this gateway alone.
    let mut request = hyper::Request::post(&order.path)
        .header(HOST, "brigade")
        .header(CONTENT_TYPE, "application/json");
    if let Some(owner) = access::owner()
        && let Ok(owner) = HeaderValue::from_bytes(owner.as_bytes())
    {
        request = request.header(access::OWNER_HEADER, owner);
    }
    let request = request
        .body(Body::from(body))
        .map_err(|error| ticket.fail(ApiError::internal(error.to_string())))?;
    let answered = order.limit.keep(sender.send_request(request)).await;
    let answered = answered.map_err(|error| ticket.fail(error))?;
    let (mut parts, answer) = answered.map_err(|_| ticket.lost())?.into_parts();
    for name in HOP {
        parts.headers.remove(name);
    }
    ticket.status = parts.status.as_u16();
    let kind = parts.headers.get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_events = kind.is_some_and(|kind| kind.starts_with(b"text/event-stream"));
    if is_events || kind.is_some_and(|kind| kind.starts_with(b"application/x-ndjson")) {
        let until = order.limit.0;
        let rest = Rest {
            answer: Body::new(answer),
            line: Vec::new(),
            path: order.path.clone(),
            is_events,
            deadline: until
                .map(|(limit, until)| (limit, Box::pin(tokio::time::sleep_until(until)))),
            over: false,
            ticket,
            _connections: connections,
        };
        return Ok(Response::from_parts(parts, Body::from_stream(rest)));
    }
    let whole = order
        .limit
        .keep(to_bytes(Body::new(answer), ANSWER_BYTES))
        .await;
    let whole = whole.map_err(|error| ticket.fail(error))?;
    let whole = whole.map_err(|_| ticket.lost())?;
    ticket.outcome = Outcome::Done;
    Ok(Response::from_parts(parts, Body::from(whole)))
}

/// The rest of a stream, line by line, so that an error in its midst breaks no event in two.
struct Rest {
    answer: Body,
    /// A line that is not complete.
    line: Vec<u8>,
    path: String,
    is_events: bool,
    deadline: Option<(Duration, Pin<Box<Sleep>>)>,
    over: bool,
    ticket: Ticket,
    _connections: JoinSet<()>,
}

impl Rest {
    /// What has come to its end with this data.
    fn complete(&mut self, data: &[u8]) -> Option<Bytes> {
        let Some(end) = data.iter().rposition(|&byte| byte == b'\n') else {
            self.line.extend_from_slice(data);
            return None;
        };
        let mut lines = std::mem::take(&mut self.line);
        lines.extend_from_slice(&data[..=end]);
        self.line.extend_from_slice(&data[end + 1..]);
        Some(lines.into())
    }

    /// The last event instead of what is missing.
    fn break_off(&mut self, error: &ApiError) -> Bytes {
        tracing::error!(?error, "answer broken off");
        self.over = true;
        // An event that had begun ends here.
        let end = if self.is_events { "\n" } else { "" };
        (end.to_owned() + &broken_off(&self.path, error)).into()
    }
}

impl Stream for Rest {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.over {
                return Poll::Ready(None);
            }
            if let Some((limit, sleep)) = &mut this.deadline
                && sleep.as_mut().poll(context).is_ready()
            {
                let error = this.ticket.fail(ApiError::timeout(*limit));
                return Poll::Ready(Some(Ok(this.break_off(&error))));
            }
            let Poll::Ready(frame) = Pin::new(&mut this.answer).poll_frame(context) else {
                return Poll::Pending;
            };
            match frame {
                Some(Ok(frame)) => {
                    let data = frame.into_data().ok();
                    if let Some(lines) = data.and_then(|data| this.complete(&data)) {
                        return Poll::Ready(Some(Ok(lines)));
                    }
                }
                Some(Err(_)) => {
                    let error = this.ticket.lost();
                    return Poll::Ready(Some(Ok(this.break_off(&error))));
                }
                None => {
                    this.over = true;
                    this.ticket.outcome = Outcome::Done;
                    let last = std::mem::take(&mut this.line);
                    return Poll::Ready((!last.is_empty()).then(|| Ok(last.into())));
                }
            }
        }
    }
}
