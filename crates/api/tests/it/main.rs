//! The HTTP surface over a fake backend, and chat templates against Jinja2.

#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod answers;
mod fake;
mod refusals;
mod socket;
mod templates;
