//! What happens between a request and its tokens, without sockets, clocks or llama.cpp.
//!
//! - [`Stage`]: a layer range that turns tokens or hidden states into hidden states or logits.
//!   `brigade-llama` implements it on llama.cpp, [`sim`] on arithmetic, for tests.
//! - [`scheduler`]: decides what the next step through the chain computes.
//! - [`ledger`]: where the time of each request went.
//! - [`sampling`]: turns logits into a token; the last stage runs it.
//! - [`Constraint`]: what may be sampled at all, by a grammar.
//! - [`text`]: turns token pieces into UTF-8 text and finds stop strings.

mod constraint;
pub mod ledger;
pub mod sampling;
pub mod scheduler;
pub mod sim;
mod stage;
pub mod text;

pub use constraint::{Constraint, Grammars, NoGrammars};
pub use stage::{Input, Stage, StageError, apply_changes, kv_digest};
