//! OpenAI's error object and the HTTP status that goes with it.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::{BackendError, TemplateError};

/// Why a request gets no answer, as the client sees it.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    detail: Detail,
    retry_after_s: Option<u32>,
}

/// The `error` member of the body.
#[derive(Debug, Serialize)]
struct Detail {
    message: String,
    #[serde(rename = "type")]
    kind: &'static str,
    param: Option<String>,
    code: Option<&'static str>,
}

#[derive(Serialize)]
pub(crate) struct Body<'a> {
    error: &'a Detail,
}

impl ApiError {
    fn new(
        status: StatusCode,
        kind: &'static str,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            detail: Detail {
                message: message.into(),
                kind,
                param: None,
                code,
            },
            retry_after_s: None,
        }
    }

    /// 400 without a parameter.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::client(StatusCode::BAD_REQUEST, None, message)
    }

    /// 400: the parameter has a value that it cannot have.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::client(StatusCode::BAD_REQUEST, Some("invalid_value"), message).with_param(param)
    }

    /// 400: the parameter is known, and this server cannot do what it asks.
    pub(crate) fn unsupported(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::client(
            StatusCode::BAD_REQUEST,
            Some("unsupported_parameter"),
            message,
        )
        .with_param(param)
    }

    /// 400: nobody knows the parameter.
    pub(crate) fn unknown_parameter(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self::client(StatusCode::BAD_REQUEST, Some("unknown_parameter"), message).with_param(param)
    }

    /// Any status of the client's making.
    pub(crate) fn client(
        status: StatusCode,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(status, "invalid_request_error", code, message)
    }

    /// 500.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "server_error",
            Some("internal_error"),
            message,
        )
    }

    /// 504: it took longer than the server lets a request take.
    pub(crate) fn timeout(limit: Duration) -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "server_error",
            Some("timeout"),
            format!("the request took longer than {} s", limit.as_secs_f64()),
        )
    }

    /// 401.
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "authentication_error",
            Some("invalid_api_key"),
            message,
        )
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    pub(crate) fn message(&self) -> &str {
        &self.detail.message
    }

    /// 404 for a model, naming those that there are.
    pub(crate) fn unknown_model(asked: &str, served: &[String]) -> Self {
        let served = match served {
            [] => "no model is".to_owned(),
            ids => ids.join(", "),
        };
        Self::client(
            StatusCode::NOT_FOUND,
            Some("model_not_found"),
            format!("model '{asked}' is not loaded; loaded: {served}. `brigade load` loads one"),
        )
        .with_param("model")
    }

    pub(crate) fn with_param(mut self, param: impl Into<String>) -> Self {
        self.detail.param = Some(param.into());
        self
    }

    /// The error object, for a body or an event.
    pub(crate) fn body(&self) -> Body<'_> {
        Body {
            error: &self.detail,
        }
    }
}

impl From<BackendError> for ApiError {
    fn from(error: BackendError) -> Self {
        let message = error.to_string();
        match error {
            BackendError::ContextExceeded { .. } => Self::client(
                StatusCode::BAD_REQUEST,
                Some("context_length_exceeded"),
                message,
            ),
            BackendError::Busy { retry_after_s, .. } => Self {
                retry_after_s: Some(retry_after_s),
                ..Self::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "rate_limit_error",
                    Some("rate_limit_exceeded"),
                    message,
                )
            },
            BackendError::Unavailable(_) => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "server_error",
                Some("unavailable"),
                message,
            ),
            BackendError::UnknownModel(_) | BackendError::DoesNotFit { .. } => {
                Self::client(StatusCode::NOT_FOUND, Some("model_not_found"), message)
                    .with_param("model")
            }
            BackendError::Invalid(_) => Self::bad_request(message),
            BackendError::Internal(_) => Self::internal(message),
        }
    }
}

impl From<TemplateError> for ApiError {
    fn from(error: TemplateError) -> Self {
        Self::client(
            StatusCode::BAD_REQUEST,
            Some("chat_template"),
            error.to_string(),
        )
        .with_param("messages")
    }
}

impl ApiError {
    /// The response with a body of the caller's dialect.
    pub(crate) fn with_body(&self, body: &impl Serialize) -> Response {
        if self.status.is_server_error() {
            tracing::error!(status = self.status.as_u16(), error = %self.detail.message, "request failed");
        } else {
            tracing::debug!(status = self.status.as_u16(), error = %self.detail.message, "request refused");
        }
        self.unlogged(body)
    }

    /// The same where an error is an answer like any other.
    pub(crate) fn unlogged(&self, body: &impl Serialize) -> Response {
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.with_body(&self.body())
    }
}
