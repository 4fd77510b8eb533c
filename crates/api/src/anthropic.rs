//! Anthropic's `/v1/messages` over the same core.

mod answer;
mod request;

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use crate::{
    Backend,
    error::ApiError,
    gateway::Gateway,
    request::{self as body, Delivery},
    run, stream,
};
use answer::Answer;

/// Anthropic's error object.
fn error_value(error: &ApiError) -> Value {
    let kind = match error.status().as_u16() {
        401 => "authentication_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        500.. => "api_error",
        _ => "invalid_request_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": error.message()}})
}

/// An error within a stream.
pub(crate) fn broken_off(error: &ApiError) -> String {
    format!("event: error\ndata: {}\n\n", error_value(error))
}

/// The response of an error.
pub(crate) fn refuse(error: &ApiError) -> Response {
    error.with_body(&error_value(error))
}

pub(crate) async fn messages<B: Backend>(
    State(gateway): State<Arc<Gateway<B>>>,
    request: Request,
) -> Response {
    let answered = async {
        let request = request::parse(&body::read(request).await?)?;
        let (shows_thoughts, chat) = (request.shows_thoughts, request.chat);
        let streams = chat.options.delivery != Delivery::Whole;
        let mut run = gateway.chat(chat).await?;
        let mut answer = Answer::new(run.model.clone(), shows_thoughts);
        if streams {
            return Ok(stream::events(answer, run));
        }
        let messages = run::collect(&mut run).await?;
        Ok(Json(answer.whole(&run, messages)).into_response())
    };
    answered
        .await
        .unwrap_or_else(|error: ApiError| refuse(&error))
}
