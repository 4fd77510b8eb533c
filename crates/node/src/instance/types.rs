//! What is asked of an instance, what comes of it, and where the time of it goes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use brigade_engine::ledger::Spent;
use brigade_engine::scheduler::FinishReason;
use brigade_wire::{SamplingParams, Token};

/// A prompt to answer.
#[derive(Debug, Clone)]
pub struct Prompt {
    /// Its tokens.
    pub tokens: Vec<Token>,
    /// The most tokens of the answer; the context may allow fewer.
    pub max_tokens: u32,
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// What the tokens that end a text do.
    pub end: End,
    /// Return the logits of each token.
    pub want_logits: bool,
    /// Whose it is: users get equal shares of the sequences.
    pub user: u64,
    /// Control tokens whose text stands in the answer's text, such as marks of tool calls.
    pub visible: Vec<Token>,
}

impl Prompt {
    /// The most likely continuation, without stop strings.
    pub fn greedy(tokens: Vec<Token>, max_tokens: u32, end: End) -> Self {
        Self {
            tokens,
            max_tokens,
            sampling: SamplingParams::default(),
            stop: Vec::new(),
            end,
            want_logits: false,
            user: 0,
            visible: Vec::new(),
        }
    }
}

/// What a token after which the model has nothing more to say does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It ends the answer.
    Respected,
    /// Nothing: the answer goes on to its limit, for measurements.
    Ignored,
}

/// What becomes of a prompt.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// It waits no longer: its prompt is being read.
    Started {
        /// Tokens of the prompt that the KV cache held already.
        cached_tokens: u32,
    },
    /// The next token of the answer.
    Token {
        /// The token.
        token: Token,
        /// Natural logarithm of its probability before bias, penalties, grammar, temperature and
        /// filters.
        logprob: f32,
        /// The most likely tokens with the same, likeliest first, if wanted.
        top: Vec<(Token, f32)>,
        /// Text that may be shown now; empty while a character or a stop string may be incomplete.
        text: String,
        /// Its logits, if wanted.
        logits: Option<Vec<f32>>,
    },
    /// The answer is complete.
    Done {
        /// Text that was held back.
        text: String,
        /// The stop string that ended it, if one did.
        stop: Option<String>,
        /// Why.
        reason: FinishReason,
    },
    /// There will be no more: the chain broke.
    Failed(String),
    /// There will be no more, for a reason of this prompt alone.
    Refused(String),
}

/// Where an answer's time goes; it can be read while the answer is made, and afterwards.
#[derive(Debug, Clone)]
pub struct Account {
    spent: Arc<Mutex<Spent>>,
    /// Where the scheduler's time begins.
    begin: Instant,
}

impl Account {
    pub(super) fn new(begin: Instant) -> Self {
        Self {
            spent: Arc::default(),
            begin,
        }
    }

    /// A moment that [`Spent`] names.
    pub fn moment(&self, us: u64) -> Instant {
        self.begin + Duration::from_micros(us)
    }

    /// What was spent until now.
    pub fn spent(&self) -> Spent {
        self.lock().clone()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Spent> {
        self.spent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
