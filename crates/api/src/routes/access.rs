//! Who may ask: keys, and web pages of other origins.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::Settings;
use crate::{ApiKeys, error::ApiError, metrics::Metrics};

/// Paths that tell nothing and that probes without a key ask.
const OPEN: &[&str] = &["/healthz", "/readyz"];

tokio::task_local! {
    /// Whose key came with the request that is being handled.
    static OWNER: Option<String>;
}

/// Whose key came with the request that is being handled; nobody's where keys are not asked for.
pub(crate) fn owner() -> Option<String> {
    OWNER.try_with(Clone::clone).unwrap_or_default()
}

/// The header with which a gateway says whose key it was.
pub(crate) const OWNER_HEADER: &str = "x-brigade-owner";

/// Takes another gateway's word.
pub(super) async fn believe(request: Request, next: Next) -> Response {
    let owner = request.headers().get(OWNER_HEADER);
    let owner = owner.and_then(|owner| std::str::from_utf8(owner.as_bytes()).ok());
    let owner = owner.map(ToOwned::to_owned);
    OWNER.scope(owner, next.run(request)).await
}

pub(super) struct Access {
    keys: Option<ApiKeys>,
    origins: Vec<String>,
    metrics: Arc<Metrics>,
}

impl Access {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            keys: settings.keys,
            origins: settings.cors_origins,
            metrics: settings.metrics,
        }
    }

    /// Lets a request with a known key through, and names its owner.
    fn owner(&self, request: &Request) -> Result<Option<String>, ApiError> {
        let Some(keys) = &self.keys else {
            return Ok(None);
        };
        if OPEN.contains(&request.uri().path()) {
            return Ok(None);
        }
        let key = key(request.headers()).ok_or_else(|| {
            ApiError::unauthorized("this server asks for a key: 'Authorization: Bearer KEY'")
        })?;
        keys.owner(key)
            .map(|owner| Some(owner.to_owned()))
            .ok_or_else(|| ApiError::unauthorized("the key is not known here"))
    }

    /// The origin, if it is one that may ask.
    fn origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok()?;
        self.origins
            .iter()
            .any(|allowed| allowed == text)
            .then(|| origin.clone())
    }
}

/// OpenAI's and Ollama's header, or Anthropic's.
fn key(headers: &HeaderMap) -> Option<&str> {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, key)| key.trim());
    bearer.or_else(|| headers.get("x-api-key")?.to_str().ok())
}

pub(super) async fn check(
    State(access): State<Arc<Access>>,
    request: Request,
    next: Next,
) -> Response {
    let origin = access.origin(request.headers());
    let preflight = origin.is_some()
        && request.method() == Method::OPTIONS
        && request
            .headers()
            .contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if preflight {
        StatusCode::NO_CONTENT.into_response()
    } else {
        match access.owner(&request) {
            Ok(owner) => {
                if let Some(owner) = &owner {
                    tracing::debug!(%owner, path = request.uri().path(), "request");
                }
                OWNER.scope(owner, next.run(request)).await
            }
            Err(error) => super::refusal(request.uri().path(), &error),
        }
    };
    if let Some(origin) = origin {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("origin"));
        if preflight {
            for (name, value) in [
                (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
                (
                    header::ACCESS_CONTROL_ALLOW_HEADERS,
                    "authorization, content-type, x-api-key, anthropic-version",
                ),
                (header::ACCESS_CONTROL_MAX_AGE, "600"),
            ] {
                headers.insert(name, HeaderValue::from_static(value));
            }
        }
    }
    access.metrics.response(response.status().as_u16());
    response
}
