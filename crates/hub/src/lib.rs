//! Names of models, wherever they lie, and files on web servers, read by byte range.
//!
//! The way of a name: [`ModelRef`] says what was typed: a path, `hf:owner/repo:QUANT@revision`
//! `ollama:name:tag` or a URL. What other programs have fetched is used where it lies
//! ([`Caches`]); else [`Client::resolve`] finds the files of a repository or a URL, and reads their
//! headers only, so that a model of 400 GB is judged for a few megabytes. [`RangeReader`] then gets any range
//! of a file, checked against the size and the version that were seen first.
//!
//! What answers is a stranger. Every wait has an end, no answer is read further than what was
//! asked for, and a server that would send a whole file is refused. A token goes to the hub that
//! it is for and nowhere else, whatever redirects say.
//!
//! Nothing here reads the environment: [`Settings`] are the caller's.

mod caches;
mod client;
mod error;
mod header;
mod pick;
mod range;
mod reference;
mod repo;
mod resolve;
#[cfg(feature = "testing")]
pub mod testing;
pub mod url;

pub use caches::{Caches, Kept, OllamaModel, Program};
pub use client::{Client, HUGGING_FACE, Patience, Settings};
pub use error::{FetchError, HubError};
pub use range::RangeReader;
pub use reference::{HubRef, ModelRef, ParseRefError, quantization_in};
pub use resolve::{Location, RemoteFile, Resolved};
