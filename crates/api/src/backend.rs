//! What the HTTP side asks of whatever runs the model.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use brigade_wire::SamplingParams;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::ChatTemplate;

/// Runs models. The HTTP side only knows this.
pub trait Backend: Send + Sync + 'static {
    /// The models that can be asked for, now.
    fn models(&self) -> Vec<ModelInfo>;

    /// Whether another process runs one of them, to which [`connect`](Self::connect) leads.
    fn is_elsewhere(&self, _model: &str) -> bool {
        false
    }

    /// A connection to the API of the process that runs a model which is elsewhere.
    fn connect(
        &self,
        model: &str,
    ) -> impl Future<Output = Result<Connection, BackendError>> + Send {
        let error = BackendError::UnknownModel(model.to_owned());
        std::future::ready(Err(error))
    }

    /// A request for an answer names a model that is not among the [`models`](Self::models): it is
    /// once this has succeeded, which may take as long as loading it, or the error says why not.
    fn want(&self, model: &str) -> impl Future<Output = Result<(), BackendError>> + Send {
        let error = BackendError::UnknownModel(model.to_owned());
        std::future::ready(Err(error))
    }

    /// A model's template, where the models differ in it; otherwise the router's own holds.
    fn template(&self, _model: &str) -> Option<Arc<ChatTemplate>> {
        None
    }

    /// How busy it is, or why it can answer nothing now.
    fn load(&self) -> Result<Load, BackendError>;

    /// How the steps of each model are paced, by its id, where that is measured here.
    fn pipelines(&self) -> Vec<(String, Pipeline)> {
        Vec::new()
    }

    /// Tokenizes the prompt and queues it. Returns as soon as the request is accepted; an error
    /// here still becomes an HTTP status, one in [`Event::Failed`] may come too late for that.
    fn generate(
        &self,
        request: GenerationRequest,
    ) -> impl Future<Output = Result<Generation, BackendError>> + Send;
}

/// A connection to the API of a process that is trusted, and that trusts this one.
pub struct Connection {
    /// What people call its machine.
    pub node: String,
    /// HTTP's bytes.
    pub stream: BoxedStream,
}

/// A connection of any kind.
pub type BoxedStream = Box<dyn ByteStream>;

/// What a [`BoxedStream`] does.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for S {}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connection")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// How busy a backend is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Requests that wait for a sequence.
    pub waiting: usize,
    /// Requests that have one.
    pub active: usize,
}

/// How the steps of a chain of stages are paced.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Decode steps in flight at most.
    pub groups: usize,
    /// Chunks of prompts in flight at most, beside decoding sequences.
    pub chunks: usize,
    /// Each stage's time for a decode step, as measured.
    pub stages: Vec<StepTime>,
    /// The same for all links together.
    pub links: Option<StepTime>,
    /// Tokens of drafts that were verified.
    pub drafted: u64,
    /// Those of them that the model chose.
    pub accepted: u64,
}

/// A time that grows with the tokens of a step, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepTime {
    /// Whatever the step holds.
    pub fixed_s: f64,
    /// More for each token.
    pub token_s: f64,
}

/// A model that is being served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The name that requests use.
    pub id: String,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Longest prompt and answer together, in tokens.
    pub context_tokens: u32,
    /// What its file says of it.
    pub facts: ModelFacts,
}

/// What a model's file says of it, as far as clients ask.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelFacts {
    /// `general.architecture` of its header.
    pub architecture: String,
    /// Bytes of its file, or files.
    pub size_bytes: u64,
    /// Weights, counted.
    pub parameters: u64,
    /// The name of its quantization, where the header has one llama.cpp knows: `Q4_K_M`.
    pub quantization: Option<String>,
}

/// Text to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// Made by a chat template: special tokens stand in it by name and none may be added, not
    /// even the one that begins a text.
    Rendered(String),
    /// Written by a person: begins as the vocabulary says that a text begins.
    Raw(String),
}

/// One answer to generate. Every value has been checked.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationRequest {
    /// One of [`Backend::models`].
    pub model: String,
    /// What to continue.
    pub prompt: Prompt,
    /// Whose it is, where keys are asked for: users get equal shares.
    pub user: Option<String>,
    /// The most tokens to generate; without it, as many as the context holds.
    pub max_tokens: Option<u32>,
    /// How tokens are chosen; always has a seed.
    pub sampling: SamplingParams,
    /// The answer ends before the first of these; at most 16, none is empty.
    pub stop: Vec<String>,
    /// Control tokens, by their text, that stand in the answer's text: marks of tool calls.
    pub visible: Vec<&'static str>,
    /// Whether events have the log-probabilities of tokens.
    pub logprobs: bool,
}

/// An accepted request.
#[derive(Debug)]
pub struct Generation {
    /// Tokens of the prompt.
    pub prompt_tokens: u32,
    /// Where its time goes, if that is measured.
    pub account: Option<Account>,
    /// What happens, ending with [`Event::Done`] or [`Event::Failed`]. Dropping the receiver
    /// cancels the generation.
    pub events: UnboundedReceiver<Event>,
}

/// Tells where a generation's time went until now, also when it is over.
pub struct Account(Box<dyn Fn() -> Spent + Send + Sync>);

impl Account {
    /// `spent` is asked when somebody wants to know.
    pub fn new(spent: impl Fn() -> Spent + Send + Sync + 'static) -> Self {
        Self(Box::new(spent))
    }

    pub(crate) fn spent(&self) -> Spent {
        (self.0)()
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_tuple("Account").field(&self.spent()).finish()
    }
}

/// Where a generation's time went on the chain of stages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spent {
    /// Until the first token.
    pub prefill: PhaseSpent,
    /// From there on.
    pub decode: PhaseSpent,
    /// When the prompt began to be read, as whoever measured it saw it: the event may come later.
    pub began: Option<Instant>,
    /// When the first token was there.
    pub answered: Option<Instant>,
}

/// A part of [`Spent`]. What is missing to the time that passed was spent waiting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PhaseSpent {
    /// Computing, on each stage.
    pub stages: Vec<Duration>,
    /// On the links between them.
    pub network: Duration,
}

/// Something that happened to a generation.
#[derive(Debug)]
pub enum Event {
    /// It waits no longer: the prompt is being read.
    Started {
        /// Tokens of the prompt that were known already and need not be read.
        cached_tokens: u32,
    },
    /// More of the answer: whole characters, and nothing that may still become a stop string.
    Text {
        /// The piece.
        text: String,
        /// Tokens generated so far.
        tokens: u32,
        /// The token that brought it, if log-probabilities are wanted.
        logprob: Option<TokenLogprob>,
    },
    /// The answer is complete.
    Done {
        /// Why it ends here.
        reason: FinishReason,
        /// All tokens generated.
        completion_tokens: u32,
    },
    /// There will be no more of it.
    Failed(BackendError),
}

/// A token of an answer and how likely it was, before bias, penalties, grammar, temperature and
/// filters.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token itself.
    pub token: Likely,
    /// The most likely ones in its place, likeliest first; as many as were asked for.
    pub top: Vec<Likely>,
}

/// A token with its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Likely {
    /// The bytes that it stands for, the text of control tokens included.
    pub bytes: Vec<u8>,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it.
    Stop,
    /// This stop string was found.
    StopString(String),
    /// `max_tokens` or the context was reached.
    Length,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// The prompt leaves no room for an answer.
    #[error(
        "the prompt has {}, the context holds {context_tokens} with the answer; shorten the prompt",
        match .prompt_tokens {
            Some(tokens) => format!("{tokens} tokens"),
            None => "too many tokens".to_owned(),
        }
    )]
    ContextExceeded {
        /// Tokens of the prompt, where they were counted.
        prompt_tokens: Option<u32>,
        /// Tokens that the context holds.
        context_tokens: u32,
    },
    /// The queue is full.
    #[error("{queued} requests are waiting and no more fit; try again in {retry_after_s} s")]
    Busy {
        /// Requests in the queue.
        queued: usize,
        /// When to try again.
        retry_after_s: u32,
    },
    /// The model cannot be reached now, for instance because a stage died.
    #[error("{0}")]
    Unavailable(String),
    /// The model is not served, or no longer.
    #[error("model '{0}' is not loaded: `brigade load` loads one")]
    UnknownModel(String),
    /// The model is there and not loaded, and would not be at ease where it could run.
    #[error("model '{model}' is not loaded, and not for this request either: {verdict}")]
    DoesNotFit {
        /// The name that the request used.
        model: String,
        /// What the planner says.
        verdict: String,
    },
    /// The request cannot be done, and the client has to change it.
    #[error("{0}")]
    Invalid(String),
    /// A fault on this side.
    #[error("{0}")]
    Internal(String),
}
