//! The messages of an instance's ring.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::NodeKey;

/// A token id of the model's vocabulary.
pub type Token = u32;

/// A slot in every stage's KV cache; the same number on each of them.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct SeqId(pub u32);

/// Numbers the steps of one connection, from 0 without gaps.
#[derive(
    Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct StepId(pub u64);

/// What every stage of an instance must agree on before the first step, because llama.cpp's
/// choice of KV cells and the last bits of its results depend on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageParams {
    /// Context of one sequence, in tokens.
    pub context_tokens: u32,
    /// How many sequences a stage holds at once.
    pub sequences: u32,
    /// The most tokens of one step (llama.cpp's `n_batch` and `n_ubatch`).
    pub batch_tokens: u32,
    /// Flash attention; never llama.cpp's `auto`, which may choose differently on each stage.
    pub flash_attention: bool,
    /// The longest draft that the last stage verifies in one step, in tokens; 0 for none.
    pub draft_tokens: u32,
}

/// Where the next connection of a chain goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// The address, as the side that connects sees it.
    #[serde(with = "crate::scoped")]
    pub address: SocketAddr,
    /// The key that whoever answers there must prove; without one the connection is not encrypted.
    pub key: Option<NodeKey>,
}

/// The first message on a connection, passed on from stage to stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Build of llama.cpp; stages of one instance run one build.
    pub build: String,
    /// Name of the model, for error messages.
    pub model: String,
    /// Width of a hidden state, in floats.
    pub hidden_size: u32,
    /// Parameters that all stages share.
    pub params: StageParams,
    /// Index in the chain of the stage that reads this message.
    pub stage: u32,
    /// The stages that follow the reader, then the coordinator's return address.
    pub route: Vec<Hop>,
    /// Proves to the coordinator that the returning connection belongs to this chain.
    pub session: u64,
}

/// A change of the KV cache, applied before the tokens of the step that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KvOp {
    /// Forget positions `[from, ..)` of a sequence; from 0 it also forgets its sampling state.
    Remove {
        /// The sequence.
        seq: SeqId,
        /// First position that goes.
        from: u32,
    },
    /// Let `to`, an empty sequence, share all positions of `from`.
    Copy {
        /// The sequence that is copied.
        from: SeqId,
        /// The sequence that receives.
        to: SeqId,
    },
}

/// How the last stage turns logits into a token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SamplingParams {
    /// 0 takes the most likely token; otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the most likely tokens whose probabilities reach this sum; 1 keeps all.
    pub top_p: f32,
    /// Drop tokens less likely than this fraction of the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of tokens seen before; 1 is neutral.
    pub repetition_penalty: f32,
    /// Subtracted once for a token that the answer holds (OpenAI's `presence_penalty`).
    pub presence_penalty: f32,
    /// Subtracted for each time that the answer holds a token (OpenAI's `frequency_penalty`).
    pub frequency_penalty: f32,
    /// With the token's position, all of the request's randomness.
    pub seed: u64,
    /// Added to the logits of these tokens before everything else (OpenAI's `logit_bias`).
    pub logit_bias: Vec<(Token, f32)>,
    /// How many of the most likely tokens [`Output::top`] tells.
    pub top_logprobs: u32,
    /// A grammar in llama.cpp's notation (GBNF) with the rule `root`, which the answer keeps to.
    pub grammar: Option<String>,
}

impl Default for SamplingParams {
    /// Greedy and without penalties.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            seed: 0,
            logit_bias: Vec::new(),
            top_logprobs: 0,
            grammar: None,
        }
    }
}

/// What the last stage does after a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Want {
    /// Nothing: more of the prompt follows.
    Nothing,
    /// Sample a token from the logits of the span's last row.
    Token,
    /// The same, and return those logits too.
    TokenAndLogits,
    /// All tokens but the first are a draft: sample after each of them, as long as the token that
    /// is chosen is the next one of the draft.
    Verify,
}

/// Consecutive tokens of one sequence within a step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// The sequence.
    pub seq: SeqId,
    /// Position of the first token, which is the length that the sequence must have on every
    /// stage; a stage that disagrees has failed.
    pub position: u32,
    /// The tokens; every stage gets them, for sampling penalties and embedding look-up.
    pub tokens: Vec<Token>,
    /// What to do after the last of them.
    pub want: Want,
    /// Set on a sequence's first span.
    pub sampling: Option<SamplingParams>,
    /// How many of the sequence's tokens, counted from 0, are its prompt; set with `sampling`.
    pub prompt_tokens: u32,
}

impl Span {
    /// Rows of logits that the last stage computes for it.
    pub fn logits_rows(&self) -> usize {
        match self.want {
            Want::Nothing => 0,
            Want::Token | Want::TokenAndLogits => 1,
            Want::Verify => self.tokens.len(),
        }
    }
}

/// One pass through the chain. Spans are in ascending order of sequence and all of one length.
/// Between stages the frame's payload holds the hidden states, `[tokens, hidden_size]` f32.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its number.
    pub id: StepId,
    /// Changes of the KV cache before it.
    pub kv: Vec<KvOp>,
    /// Now and then: a digest of every sequence's length after these changes. A stage that finds
    /// another one has failed.
    pub kv_digest: Option<u64>,
    /// What it computes; may be empty when only the KV cache changes.
    pub spans: Vec<Span>,
    /// How long each stage before this one took to compute it, in microseconds.
    pub compute_us: Vec<u32>,
}

impl Step {
    /// Tokens in all spans.
    pub fn token_count(&self) -> usize {
        self.spans.iter().map(|span| span.tokens.len()).sum()
    }
}

/// What came of one span that wanted a token.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The sequence.
    pub seq: SeqId,
    /// The sampled token; it is not in the KV cache yet.
    pub token: Token,
    /// Natural logarithm of the token's probability before bias, penalties, grammar, temperature
    /// and filters.
    pub logprob: f32,
    /// The most likely tokens with the same, likeliest first, where the sequence wants them.
    pub top: Vec<(Token, f32)>,
    /// Why no token could be chosen for this sequence alone; `token` then means nothing.
    pub fault: Option<String>,
}

/// The last stage's answer to a step, in the order of its spans. The frame's payload holds the
/// logits that were asked for, `[spans that want them, vocabulary]` f32.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StepResult {
    /// The step's number.
    pub id: StepId,
    /// One for each span that wanted a token; for a draft one for each token that was chosen.
    pub outputs: Vec<Output>,
    /// How long each stage took to compute the step, in microseconds.
    pub compute_us: Vec<u32>,
}

/// Why a stage turned a connection down, or gave up on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("stage {stage}: {reason}")]
pub struct WireError {
    /// Index in the chain.
    pub stage: u32,
    /// A sentence for a person.
    pub reason: String,
}

/// Everything that can stand in a frame's head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// Opens a connection.
    Hello(Hello),
    /// The chain from the sender to the coordinator stands.
    Accepted,
    /// It does not, or no longer does.
    Failed(WireError),
    /// First on the last stage's connection to the coordinator: the session of the [`Hello`].
    Return(u64),
    /// One pass; payload: hidden states.
    Step(Step),
    /// Its result; payload: logits.
    Result(StepResult),
}
