//! The routes, from a request to a [`GenerationRequest`].

use std::{sync::Arc, time::SystemTime};

use axum::{
    Json, Router,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{Method, StatusCode, Uri},
    response::Response,
    routing::{get, post},
};
use serde::Serialize;

use crate::{
    Backend, ChatMessage, ChatTemplate, GenerationRequest, ModelInfo, Prompt,
    answer::{Kind, respond},
    error::ApiError,
    request::{self, ChatRequest, CompletionRequest, Options},
};

struct Gateway<B> {
    backend: Arc<B>,
    template: Option<Arc<ChatTemplate>>,
}

/// OpenAI's routes over a backend: `/v1/models`, `/v1/models/{id}`, `/v1/chat/completions` and
/// `/v1/completions`. Without a template, chat requests are refused.
pub fn router<B: Backend>(backend: Arc<B>, template: Option<ChatTemplate>) -> Router {
    Router::new()
        .route("/v1/models", get(models::<B>))
        // An id may have slashes.
        .route("/v1/models/{*id}", get(model::<B>))
        .route("/v1/chat/completions", post(chat::<B>))
        .route("/v1/completions", post(completions::<B>))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .with_state(Arc::new(Gateway {
            backend,
            template: template.map(Arc::new),
        }))
}

#[derive(Serialize)]
struct Model {
    id: String,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    /// Not OpenAI's; other servers of open models have it under this name.
    max_model_len: u32,
}

#[derive(Serialize)]
struct Models {
    object: &'static str,
    data: Vec<Model>,
}

impl From<ModelInfo> for Model {
    fn from(info: ModelInfo) -> Self {
        Self {
            id: info.id,
            object: "model",
            created: info.created,
            owned_by: "brigade",
            max_model_len: info.context_tokens,
        }
    }
}

async fn models<B: Backend>(State(gateway): State<Arc<Gateway<B>>>) -> Json<Models> {
    Json(Models {
        object: "list",
        data: gateway
            .backend
            .models()
            .into_iter()
            .map(Model::from)
            .collect(),
    })
}

async fn model<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Model>, ApiError> {
    // A name that is not UTF-8 is no model's.
    let id = id.map_or_else(|_| "\u{fffd}".to_owned(), |Path(id)| id);
    Ok(Json(gateway.find(Some(id))?.into()))
}

async fn chat<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    request: Request,
) -> Result<Response, ApiError> {
    let ChatRequest { options, messages } = ChatRequest::parse(&request::read(request).await?)?;
    let model = gateway.find(options.model.clone())?.id;
    let prompt = gateway.render(messages).await?;
    gateway
        .answer(model, Prompt::Rendered(prompt), options, Kind::Chat)
        .await
}

async fn completions<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    request: Request,
) -> Result<Response, ApiError> {
    let CompletionRequest { options, prompt } =
        CompletionRequest::parse(&request::read(request).await?)?;
    let model = gateway.find(options.model.clone())?.id;
    gateway
        .answer(model, Prompt::Raw(prompt), options, Kind::Completion)
        .await
}

async fn unknown_route(method: Method, uri: Uri) -> ApiError {
    ApiError::client(
        StatusCode::NOT_FOUND,
        Some("unknown_route"),
        format!("there is no {method} {}", uri.path()),
    )
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::client(
        StatusCode::METHOD_NOT_ALLOWED,
        Some("method_not_allowed"),
        format!("{} does not take {method}", uri.path()),
    )
}

impl<B: Backend> Gateway<B> {
    /// The model of that id, or the only one where a request names none.
    fn find(&self, asked: Option<String>) -> Result<ModelInfo, ApiError> {
        let mut models = self.backend.models();
        let Some(asked) = asked else {
            return match (models.pop(), models.len()) {
                (Some(only), 0) => Ok(only),
                _ => Err(ApiError::invalid("model", "model is required")),
            };
        };
        if let Some(index) = models.iter().position(|model| model.id == asked) {
            return Ok(models.swap_remove(index));
        }
        let ids: Vec<_> = models.into_iter().map(|model| model.id).collect();
        Err(ApiError::unknown_model(&asked, &ids))
    }

    /// Templates are somebody else's programs: they run where they hold up no other request.
    async fn render(&self, messages: Vec<ChatMessage>) -> Result<String, ApiError> {
        let template = self.template.clone().ok_or_else(|| {
            ApiError::client(
                StatusCode::BAD_REQUEST,
                Some("chat_template"),
                "the model has no chat template; use /v1/completions",
            )
        })?;
        let prompt =
            tokio::task::spawn_blocking(move || template.render(&messages, SystemTime::now()))
                .await
                .map_err(|error| ApiError::internal(format!("the chat template: {error}")))??;
        Ok(prompt)
    }

    async fn answer(
        &self,
        model: String,
        prompt: Prompt,
        options: Options,
        kind: Kind,
    ) -> Result<Response, ApiError> {
        let request = GenerationRequest {
            model,
            prompt,
            max_tokens: options.max_tokens,
            sampling: options.sampling,
            stop: options.stop,
        };
        respond(&*self.backend, request, kind, options.delivery).await
    }
}
