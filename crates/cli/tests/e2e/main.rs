//! The `brigade` program from outside: real processes, real sockets, real models.
//!
//! Each test has a folder of its own for stage files, and fails if a process that it started is
//! left behind. The models and the Python with the `openai` client come from the cache, which
//! `cargo xtask verify` fills.

#![cfg(unix)]

mod bad_input;
mod client;
mod failure;
mod lab;
mod parity;
mod rpc;
mod run;
mod shutdown;
mod support;
