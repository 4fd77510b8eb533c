//! Traffic through the scheduler and simulated chains, in virtual time.

#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

mod day;
mod drafts;
mod properties;
mod speed;
mod world;
