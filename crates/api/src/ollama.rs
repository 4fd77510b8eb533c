//! Ollama's routes over the same core: `/api/chat`, `/api/generate`, `/api/tags`, `/api/ps`,
//! `/api/show` and `/api/version`.
//!
//! Sampling defaults are Ollama's (temperature 0.8, `top_k` 40, `top_p` 0.9), except that nothing
//! is penalised. Options that say how to use the machine are accepted without effect.

mod answer;
mod request;

use std::{sync::Arc, time::SystemTime};

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    Backend, ModelInfo, chat_template,
    error::ApiError,
    gateway::Gateway,
    request as body,
    run::{self, Run},
    stream,
    tools::Support,
};
use answer::{Answer, Kind};
use request::{GenerateRequest, Input};

fn error_value(error: &ApiError) -> Value {
    json!({"error": error.message()})
}

/// An error within a stream.
pub(crate) fn broken_off(error: &ApiError) -> String {
    format!("{}\n", error_value(error))
}

/// The response of an error.
pub(crate) fn refuse(error: &ApiError) -> Response {
    error.with_body(&error_value(error))
}

fn respond(result: Result<Response, ApiError>) -> Response {
    result.unwrap_or_else(|error| refuse(&error))
}

/// A time as Ollama writes it.
fn timestamp(time: SystemTime) -> String {
    chat_template::rfc3339(time)
}

pub(crate) async fn chat<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    request: Request,
) -> Response {
    let answered = async {
        let body = body::read(request).await?;
        let (mut request, streams) = request::chat(&body)?;
        request.options.model = Some(served(&gateway, request.options.model)?);
        let run = gateway.chat(request).await?;
        answer(run, Kind::Chat, streams).await
    };
    respond(answered.await)
}

pub(crate) async fn generate<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    request: Request,
) -> Response {
    let answered = async {
        let body = body::read(request).await?;
        let GenerateRequest {
            model,
            input,
            streams,
        } = request::generate(&body)?;
        let model = served(&gateway, model)?;
        let run = match input {
            Input::Nothing => {
                // How Ollama's clients ask for a model to be loaded, which it is.
                return Ok(Json(answer::loaded(&model)).into_response());
            }
            Input::Raw(mut request) => {
                request.options.model = Some(model);
                gateway.complete(*request).await?
            }
            Input::Chat(mut request) => {
                request.options.model = Some(model);
                gateway.chat(*request).await?
            }
        };
        answer(run, Kind::Generate, streams).await
    };
    respond(answered.await)
}

async fn answer(mut run: Run, kind: Kind, streams: bool) -> Result<Response, ApiError> {
    let mut answer = Answer::new(kind, run.model.clone());
    if streams {
        return Ok(stream::lines(answer, run));
    }
    let messages = run::collect(&mut run).await?;
    Ok(Json(answer.whole(&run, messages)).into_response())
}

/// The name of the model that is meant: Ollama's clients add `:latest`.
pub(crate) fn served<B: Backend>(
    gateway: &Gateway<B>,
    asked: Option<String>,
) -> Result<String, ApiError> {
    let Some(asked) = asked else {
        return Err(ApiError::invalid("model", "model is required"));
    };
    let found = gateway.find(Some(asked.clone()));
    let found = match (found, asked.strip_suffix(":latest")) {
        (Err(_), Some(name)) => gateway.find(Some(name.to_owned())),
        (found, _) => found,
    };
    Ok(found?.id)
}

fn details(model: &ModelInfo) -> Value {
    let parameters = model.facts.parameters as f64;
    let size = if parameters >= 1e9 {
        format!("{:.1}B", parameters / 1e9)
    } else {
        format!("{:.2}M", parameters / 1e6)
    };
    json!({
        "parent_model": "",
        "format": "gguf",
        "family": model.facts.architecture,
        "families": [model.facts.architecture],
        "parameter_size": size,
        "quantization_level": model.facts.quantization.as_deref().unwrap_or("unknown"),
    })
}

fn loaded_at(model: &ModelInfo) -> String {
    timestamp(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(model.created))
}

pub(crate) async fn tags<B: Backend>(State(gateway): State<Arc<Gateway<B>>>) -> Response {
    listed(&*gateway, |model, entry| {
        entry["modified_at"] = json!(loaded_at(model));
    })
}

/// What is loaded, which is all that is listed; nothing is unloaded by itself.
pub(crate) async fn ps<B: Backend>(State(gateway): State<Arc<Gateway<B>>>) -> Response {
    listed(&*gateway, |model, entry| {
        entry["expires_at"] = json!("9999-12-31T23:59:59Z");
        entry["size_vram"] = json!(model.facts.size_bytes);
        entry["context_length"] = json!(model.context_tokens);
    })
}

fn listed<B: Backend>(gateway: &Gateway<B>, add: impl Fn(&ModelInfo, &mut Value)) -> Response {
    let models = gateway.backend.models().into_iter().map(|model| {
        let mut entry = json!({
            "name": model.id,
            "model": model.id,
            "size": model.facts.size_bytes,
            "digest": "",
            "details": details(&model),
        });
        add(&model, &mut entry);
        entry
    });
    Json(json!({"models": models.collect::<Vec<_>>()})).into_response()
}

pub(crate) async fn show<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    request: Request,
) -> Response {
    let shown = async {
        let name = request::show(&body::read(request).await?)?;
        let id = served(&gateway, name)?;
        let model = gateway.find(Some(id))?;
        let mut capabilities = vec!["completion"];
        let of_model = gateway.template(&model.id);
        let mut template = "";
        if let Some(of_model) = &of_model {
            template = of_model.source();
            if matches!(of_model.tools(), Support::Calls(_)) {
                capabilities.push("tools");
            }
            if of_model.thinks() {
                capabilities.push("thinking");
            }
        }
        let mut facts = json!({
            "general.architecture": model.facts.architecture,
            "general.parameter_count": model.facts.parameters,
        });
        let context = format!("{}.context_length", model.facts.architecture);
        facts[context] = json!(model.context_tokens);
        Ok(Json(json!({
            "modelfile": "",
            "parameters": "",
            "template": template,
            "modified_at": loaded_at(&model),
            "details": details(&model),
            "model_info": facts,
            "capabilities": capabilities,
        }))
        .into_response())
    };
    respond(shown.await)
}

pub(crate) async fn version() -> Response {
    Json(json!({"version": env!("CARGO_PKG_VERSION")})).into_response()
}
