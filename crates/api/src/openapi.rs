//! The `OpenAPI` document at `/openapi.json`.

use axum::{
    http::{HeaderValue, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};

/// Tested against the routes and against what the parsers take.
pub(crate) const DOCUMENT: &str = include_str!("openapi.json");

pub(crate) fn document() -> Response {
    let text = DOCUMENT.replace(
        "\"{version}\"",
        concat!("\"", env!("CARGO_PKG_VERSION"), "\""),
    );
    let mut response = text.into_response();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
