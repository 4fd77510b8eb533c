//! What goes into the scheduler and what comes out.

use std::sync::Arc;

use brigade_wire::{SamplingParams, Token};

use super::timing::{Line, Plan};
use crate::sampling::InvalidSampling;

/// What the scheduler must know about the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SchedulerConfig {
    /// Stages of the chain, at least 1.
    pub stages: u32,
    /// Sequences that every stage holds at once, at least 1.
    pub sequences: u32,
    /// Context of one sequence, in tokens.
    pub context_tokens: u32,
    /// The most prompt tokens of one step, at least 1. 64 keeps other sequences' delay small.
    pub chunk_tokens: u32,
    /// How many requests may wait for a free sequence.
    pub waiting_limit: usize,
    /// After so many tokens of its answer a sequence may have to make room for a request that
    /// waits, and go on later; 0 for never.
    pub preempt_after_tokens: u32,
    /// Whether prompts that begin alike share that part of the KV cache. Only for models of
    /// which a sequence's KV cache can be cut anywhere and copied.
    pub keeps_prefixes: bool,
    /// The most tokens that are guessed ahead in an answer and verified in one step; 0 for never.
    /// Only for models of which a sequence's KV cache can be cut anywhere.
    pub draft_tokens: u32,
}

impl SchedulerConfig {
    /// The most tokens that a step can have: a chunk, or a token of every sequence, or a draft and
    /// the token before it.
    pub fn batch_tokens(&self) -> u32 {
        self.chunk_tokens
            .max(self.draft_tokens.saturating_add(1))
            .min(self.context_tokens)
            .max(self.sequences)
    }
}

/// A request's name, chosen by the caller, unique among those that are not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A prompt to answer.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its name.
    pub id: RequestId,
    /// Whose it is: users get equal shares of the sequences.
    pub user: u64,
    /// The prompt.
    pub prompt: Vec<Token>,
    /// The most tokens of the answer; the context may allow fewer.
    pub max_tokens: u32,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Tokens that end the answer, usually the model's end-of-generation tokens; none to always
    /// go on to the limit.
    pub stop_tokens: Arc<[Token]>,
    /// Return the logits of each token of the answer too.
    pub want_logits: bool,
}

/// Why a request was not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SubmitError {
    /// Nothing to continue.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// The prompt does not fit.
    #[error(
        "the prompt has {prompt_tokens} tokens, the context holds {context_tokens}: \
         shorten the prompt or load the model with a larger context"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Tokens of a sequence's context.
        context_tokens: u32,
    },
    /// More than a frame between stages holds.
    #[error(
        "a grammar may have {} bytes, logit_bias {} tokens and top_logprobs be {}",
        brigade_wire::MAX_GRAMMAR_BYTES,
        brigade_wire::MAX_LOGIT_BIAS,
        brigade_wire::MAX_TOP_LOGPROBS
    )]
    TooLarge,
    /// No answer is wanted.
    #[error("the request asks for an answer of 0 tokens")]
    NoTokens,
    /// A sampling parameter is out of range.
    #[error(transparent)]
    Sampling(#[from] InvalidSampling),
    /// As many requests wait as may.
    #[error("{waiting} requests are waiting already: try again later")]
    QueueFull {
        /// How many.
        waiting: usize,
    },
    /// A live request has this name.
    #[error("request {} is still being answered", .0.0)]
    Duplicate(RequestId),
}

/// A result that does not belong to the steps that were sent. The chain is in doubt:
/// [`fail_all`](super::Scheduler::fail_all), and build it again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Another step's turn, or none's.
    #[error("the chain answered step {actual}, expected {}", match .expected {
        Some(step) => step.to_string(),
        None => "nothing".to_owned(),
    })]
    UnexpectedStep {
        /// The step that the result names.
        actual: u64,
        /// The oldest step in flight.
        expected: Option<u64>,
    },
    /// The outputs are not those of the step's spans.
    #[error("the chain's answer to step {step} is for sequences {actual:?}, expected {expected:?}")]
    UnexpectedOutputs {
        /// The step.
        step: u64,
        /// Sequences that the result has outputs for.
        actual: Vec<u32>,
        /// Sequences that wanted a token.
        expected: Vec<u32>,
    },
}

/// Why an answer ended by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model chose a stop token.
    Stop,
    /// The answer has as many tokens as it may, or the context is full.
    Length,
}

/// A request whose prompt has begun to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    /// The request.
    pub request: RequestId,
    /// Tokens of its prompt that the KV cache held already.
    pub cached_tokens: u32,
}

/// What came of a result.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The next token of an answer.
    Token {
        /// The request.
        request: RequestId,
        /// The token; never a stop token.
        token: Token,
        /// Natural logarithm of its probability before penalties, temperature and filters.
        logprob: f32,
        /// Which row of the result's payload holds its logits, if the request wants them.
        logits_row: Option<usize>,
        /// The most likely tokens with the same, likeliest first, if the request wants them.
        top: Vec<(Token, f32)>,
    },
    /// An answer is complete.
    Finished {
        /// The request.
        request: RequestId,
        /// Why.
        reason: FinishReason,
    },
    /// An answer cannot go on, for a reason of its own.
    Failed {
        /// The request.
        request: RequestId,
        /// Why.
        reason: String,
    },
}

/// How busy the scheduler is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Requests without a sequence.
    pub waiting: usize,
    /// Requests with one.
    pub active: usize,
    /// Steps without a result.
    pub steps_in_flight: usize,
}

/// What steps take, and what follows from it.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// How many steps of each kind are in flight at most.
    pub plan: Plan,
    /// Each stage's time for a decode step; empty until something was measured.
    pub stages: Vec<Line>,
    /// The links' time for a step, all together, once one was alone in the chain.
    pub links: Option<Line>,
    /// Tokens of drafts that were verified.
    pub drafted: u64,
    /// Those of them that the model chose.
    pub accepted: u64,
}
