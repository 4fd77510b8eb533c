//! The HTTP surface over a fake backend, and chat templates against Jinja2.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod access;
mod answers;
mod anthropic;
mod choices;
mod fake;
mod gateway;
mod ollama;
mod openapi;
mod pair;
mod refusals;
mod socket;
mod templates;
mod tools;
