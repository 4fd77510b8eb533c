//! The `brigade` program from outside: real processes, real sockets, real models.
//!
//! Each test has a folder of its own for stage files, and fails if a process that it started is
//! left behind. The models and the Python with the clients come from the cache, which
//! `cargo xtask verify` fills. Processes are looked up in `/proc`, so these tests are for Linux.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails where it stands")]

mod bad_input;
mod bench;
mod calibrating;
mod client;
mod cluster;
mod delivery;
mod doctor;
mod failure;
mod gateway;
mod grammar;
mod keys;
mod lab;
mod limits;
mod machines;
mod models;
mod parity;
mod placement;
mod rpc;
mod run;
mod scheduling;
mod shutdown;
mod soak;
mod support;
mod timings;
mod wanted;
