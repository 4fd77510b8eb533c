//! Tests of the crate through its public face.

#![expect(clippy::unwrap_used, reason = "helpers of tests may, as tests may")]

mod cuts;
mod header;
mod round_trip;
mod slice;
mod source;
mod store;
