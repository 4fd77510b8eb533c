//! Reading a body: its type, its length.

use std::time::Duration;

use axum::{
    extract::Request,
    http::{
        HeaderMap, StatusCode,
        header::{CONTENT_TYPE, ORIGIN},
    },
};
use tokio_stream::StreamExt;

use crate::error::ApiError;

/// The longest body that is accepted.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// How long a body may take to come, so that a slow sender does not hold a connection for ever.
const MAX_TIME: Duration = Duration::from_secs(60);

/// How much of a longer one is read and dropped. A client that is still sending when the
/// connection closes sees a broken pipe instead of the answer that says why.
const MAX_DRAINED_BYTES: usize = 64 * 1024 * 1024;

/// The body of a JSON request.
pub(crate) async fn read(request: Request) -> Result<Vec<u8>, ApiError> {
    let json = may_be_json(request.headers());
    tokio::time::timeout(MAX_TIME, collect(request, json))
        .await
        .map_err(|_| {
            ApiError::client(
                StatusCode::REQUEST_TIMEOUT,
                Some("request_timeout"),
                format!("the body did not come within {} s", MAX_TIME.as_secs()),
            )
        })?
}

async fn collect(request: Request, json: bool) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let mut length = 0;
    let mut stream = request.into_body().into_data_stream();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::bad_request(format!("the body could not be read: {error}"))
        })?;
        length += chunk.len();
        if length > MAX_DRAINED_BYTES {
            break;
        }
        if length <= MAX_BYTES && json {
            bytes.extend_from_slice(&chunk);
        }
    }
    if !json {
        return Err(ApiError::client(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Some("unsupported_media_type"),
            "the header 'content-type: application/json' is missing",
        ));
    }
    if length > MAX_BYTES {
        return Err(ApiError::client(
            StatusCode::PAYLOAD_TOO_LARGE,
            Some("request_too_large"),
            format!("the body must have at most {MAX_BYTES} bytes"),
        ));
    }
    Ok(bytes)
}

/// Whether the body is JSON: said, or by a program that says nothing of it, as `curl -d` does. A web
/// page must say it, because browsers ask before they send that to another origin.
fn may_be_json(headers: &HeaderMap) -> bool {
    let from_page = headers.contains_key(ORIGIN);
    let Some(content_type) = headers.get(CONTENT_TYPE) else {
        return !from_page;
    };
    let content_type = content_type.to_str().unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let is = |name| essence.eq_ignore_ascii_case(name);
    is("application/json") || (!from_page && is("application/x-www-form-urlencoded"))
}
