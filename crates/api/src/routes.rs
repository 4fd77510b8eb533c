//! The routes.

pub(crate) mod access;

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header::CONTENT_TYPE},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use serde_json::json;

use crate::{
    ApiKeys, Backend, ChatTemplate, ModelInfo, anthropic,
    error::ApiError,
    forward,
    gateway::Gateway,
    metrics::Metrics,
    ollama,
    openai::{Answer, Kind},
    openapi,
    request::{self, ChatRequest, CompletionRequest, Delivery, Options},
    run::{self, Run},
    stream,
};

/// What the operator decides, and what outlives a model.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Keys, one of which a request must bring; without any, everybody may ask.
    pub keys: Option<ApiKeys>,
    /// Origins of web pages that may ask, such as `https://chat.example`; none by default.
    pub cors_origins: Vec<String>,
    /// How long a request may take, from its arrival to the last token.
    pub timeout: Option<Duration>,
    /// Where it is counted what happens; clones of these settings share it.
    pub metrics: Arc<Metrics>,
}

type Route<B> = (Method, &'static str, MethodRouter<Arc<Gateway<B>>>);

/// Every route, as `(method, path, handler)`; [`openapi`] describes the same ones.
fn table<B: Backend>() -> Vec<Route<B>> {
    vec![
        (Method::GET, "/healthz", get(async || "ok\n")),
        (Method::GET, "/readyz", get(ready::<B>)),
        (Method::GET, "/metrics", get(metrics::<B>)),
        (
            Method::GET,
            "/openapi.json",
            get(async || openapi::document()),
        ),
        (Method::GET, "/v1/models", get(models::<B>)),
        (Method::GET, "/v1/models/{id}", get(model::<B>)),
        (Method::POST, "/v1/chat/completions", post(chat::<B>)),
        (Method::POST, "/v1/completions", post(completions::<B>)),
        (Method::POST, "/v1/messages", post(anthropic::messages::<B>)),
        (Method::POST, "/api/chat", post(ollama::chat::<B>)),
        (Method::POST, "/api/generate", post(ollama::generate::<B>)),
        (Method::GET, "/api/tags", get(ollama::tags::<B>)),
        (Method::GET, "/api/ps", get(ollama::ps::<B>)),
        (Method::POST, "/api/show", post(ollama::show::<B>)),
        (Method::GET, "/api/version", get(ollama::version)),
    ]
}

/// All routes over a backend: OpenAI's, Anthropic's `/v1/messages`, Ollama's `/api`, and those for
/// operators. Without a template, chat requests are refused.
pub fn router<B: Backend>(
    backend: Arc<B>,
    template: Option<ChatTemplate>,
    settings: Settings,
) -> Router {
    build(backend, template, settings, Door::Front)
}

/// The same for processes that are trusted, such as other nodes' gateways: they have checked the
/// key, and say whose it was. What is not here is not passed on a second time.
pub fn inner_router<B: Backend>(
    backend: Arc<B>,
    template: Option<ChatTemplate>,
    settings: Settings,
) -> Router {
    build(backend, template, settings, Door::Inner)
}

/// Where requests come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// From anybody.
    Front,
    /// From other gateways.
    Inner,
}

fn build<B: Backend>(
    backend: Arc<B>,
    template: Option<ChatTemplate>,
    settings: Settings,
    door: Door,
) -> Router {
    let gateway = Arc::new(Gateway {
        backend,
        template: template.map(Arc::new),
        metrics: Arc::clone(&settings.metrics),
        timeout: settings.timeout,
    });
    let mut router = Router::new();
    for (_, path, handler) in table::<B>() {
        // A model's id may have slashes.
        router = router.route(&path.replace("{id}", "{*id}"), handler);
    }
    router = router
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method);
    let router = match door {
        Door::Inner => router.layer(middleware::from_fn(access::believe)),
        Door::Front => {
            let forward =
                middleware::from_fn_with_state(Arc::clone(&gateway), forward::where_it_is::<B>);
            let access = Arc::new(access::Access::new(settings));
            router
                .layer(forward)
                .layer(middleware::from_fn_with_state(access, access::check))
        }
    };
    router.with_state(gateway)
}

fn model_value(info: &ModelInfo) -> serde_json::Value {
    json!({
        "id": info.id,
        "object": "model",
        "created": info.created,
        "owned_by": "brigade",
        // Not OpenAI's; other servers of open models have it under this name.
        "max_model_len": info.context_tokens,
    })
}

async fn models<B: Backend>(State(gateway): State<Arc<Gateway<B>>>) -> Response {
    let models = gateway.backend.models();
    let models = models.iter().map(model_value);
    Json(json!({"object": "list", "data": models.collect::<Vec<_>>()})).into_response()
}

async fn model<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Response, ApiError> {
    // A name that is not UTF-8 is no model's.
    let id = id.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id);
    Ok(Json(model_value(&gateway.find(Some(id))?)).into_response())
}

async fn chat<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    request: Request,
) -> Result<Response, ApiError> {
    let request = ChatRequest::parse(&request::read(request).await?)?;
    let shape = Shape::of(Kind::Chat, &request.options);
    answer(gateway.chat(request).await?, shape).await
}

async fn completions<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    request: Request,
) -> Result<Response, ApiError> {
    let request = CompletionRequest::parse(&request::read(request).await?)?;
    let shape = Shape::of(Kind::Completion, &request.options);
    answer(gateway.complete(request).await?, shape).await
}

struct Shape {
    kind: Kind,
    delivery: Delivery,
    logprobs: bool,
}

impl Shape {
    fn of(kind: Kind, options: &Options) -> Self {
        Self {
            kind,
            delivery: options.delivery,
            logprobs: options.logprobs,
        }
    }
}

async fn answer(mut run: Run, shape: Shape) -> Result<Response, ApiError> {
    let sends_usage = shape.delivery == Delivery::StreamWithUsage;
    let mut answer = Answer::new(shape.kind, &run, sends_usage, shape.logprobs);
    if shape.delivery != Delivery::Whole {
        return Ok(stream::events(answer, run));
    }
    let messages = run::collect(&mut run).await?;
    Ok(Json(answer.whole(&run, &messages)).into_response())
}

/// 200 where a request would be taken, 503 where it would not.
async fn ready<B: Backend>(State(gateway): State<Arc<Gateway<B>>>) -> Response {
    match gateway.backend.load() {
        Ok(load) => Json(json!({"waiting": load.waiting, "active": load.active})).into_response(),
        Err(error) => {
            let error = ApiError::from(error);
            error.unlogged(&error.body())
        }
    }
}

async fn metrics<B: Backend>(State(gateway): State<Arc<Gateway<B>>>) -> Response {
    let mut response = gateway
        .metrics
        .text(gateway.backend.load().ok(), &gateway.backend.pipelines())
        .into_response();
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

/// An error as the dialect of a path has it, within a stream.
pub(crate) fn broken_off(path: &str, error: &ApiError) -> String {
    if path.starts_with("/api/") {
        ollama::broken_off(error)
    } else if path == "/v1/messages" {
        anthropic::broken_off(error)
    } else {
        let body = serde_json::to_string(&error.body()).expect("strings always serialize");
        format!("data: {body}\n\n")
    }
}

/// An error as the dialect of a path has it.
pub(crate) fn refusal(path: &str, error: &ApiError) -> Response {
    if path.starts_with("/api/") {
        ollama::refuse(error)
    } else if path == "/v1/messages" {
        anthropic::refuse(error)
    } else {
        error.with_body(&error.body())
    }
}

async fn unknown_route(method: Method, uri: Uri) -> Response {
    let error = ApiError::client(
        StatusCode::NOT_FOUND,
        Some("unknown_route"),
        format!("there is no {method} {}", uri.path()),
    );
    refusal(uri.path(), &error)
}

async fn wrong_method(method: Method, uri: Uri) -> Response {
    let error = ApiError::client(
        StatusCode::METHOD_NOT_ALLOWED,
        Some("method_not_allowed"),
        format!("{} does not take {method}", uri.path()),
    );
    refusal(uri.path(), &error)
}

#[cfg(test)]
mod tests;
