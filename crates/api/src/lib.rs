//! The HTTP side of Brigade: the routes of OpenAI, Anthropic and Ollama, and the model's chat
//! template.
//!
//! This crate knows a trait, [`Backend`], and nothing of nodes, stages or llama.cpp. A request
//! goes through it like this:
//!
//! 1. The body is read up to a limit, parsed, and every parameter is checked (`request`, `ollama`,
//!    `anthropic`). What would change the answer and is not supported is refused by name; nothing
//!    is silently ignored.
//! 2. A conversation becomes one prompt by the model's own [`ChatTemplate`]; `/v1/completions`
//!    takes the prompt as it is. What the answer must look like becomes a grammar (`grammar`,
//!    `tools`).
//! 3. [`Backend::generate`] gives a stream of [`Event`]s for each choice. `run` makes parts of
//!    them: thoughts, text, calls of tools.
//! 4. The dialect that was asked tells the parts (`openai`, `anthropic`, `ollama`), as one JSON
//!    object or as a stream (`stream`).
//!
//! A request for a model of another process goes there as it came, and its answer comes back as it is
//! (`forward`): what a gateway adds is the check of the key, the time limit, and an error in the
//! client's dialect where the other process is gone.
//!
//! Invariants:
//!
//! - A client that goes away drops the [`Generation`]'s receiver, and that is how a backend learns
//!   that nobody wants the rest.
//! - Every refusal and failure is the dialect's error object. Once a stream has begun, a failure is an
//!   event with that object and the stream ends without `[DONE]`; it never just stops.
//! - A request is `application/json` or refused, so that a web page of another origin cannot send
//!   one without the browser asking first.
//!
//! Defaults are OpenAI's: `temperature` 1, `top_p` 1, no penalties, for `/v1/completions`
//! `max_tokens` 16, and a random seed. `developer` messages are given to the template as `system`,
//! the parts of a message are joined by line ends.

mod anthropic;
mod backend;
mod chat_template;
mod error;
mod forward;
mod gateway;
mod grammar;
mod keys;
mod marks;
mod metrics;
mod ollama;
mod openai;
mod openapi;
mod reasoning;
mod request;
mod routes;
mod run;
mod serve;
mod stream;
mod tools;

pub use backend::{
    Account, Backend, BackendError, BoxedStream, ByteStream, Connection, Event, FinishReason,
    Generation, GenerationRequest, Likely, Load, ModelFacts, ModelInfo, PhaseSpent, Pipeline,
    Prompt, Spent, StepTime, TokenLogprob,
};
pub use chat_template::{ChatMessage, ChatTemplate, Role, TemplateError, TemplateFacts, ToolCalls};
pub use keys::{ApiKeys, KeyFileError, new_key};
pub use metrics::Metrics;
pub use routes::{Settings, inner_router, router};
pub use serve::{serve, serve_inside};
