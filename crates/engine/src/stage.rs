//! The stage: the one trait where a real model and a simulated one differ.

use brigade_wire::{KvOp, Span, Step, Token};

use crate::{Grammars, NoGrammars};

/// What goes into a stage: one row for each token of the step, spans in order.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// Token ids, for the first stage.
    Tokens(&'a [Token]),
    /// Hidden states `[tokens, hidden_size]`, for every other one.
    Hidden(&'a [f32]),
}

/// Why a stage could not do a step. After an error its KV cache is in doubt: the chain is
/// torn down and built again.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The coordinator and this stage do not agree on what the KV cache holds.
    #[error("sequence {seq} has {actual} tokens here, the step expects {expected}")]
    OutOfStep {
        /// The sequence.
        seq: u32,
        /// Tokens that it has here.
        actual: u32,
        /// Tokens that the step builds on.
        expected: u32,
    },
    /// The same, found by the digest of all sequences' lengths.
    #[error(
        "the KV cache here is not what the coordinator believes it is: a sequence is longer or \
         shorter (digest {actual:016x}, expected {expected:016x})"
    )]
    Diverged {
        /// Digest of the lengths here.
        actual: u64,
        /// Digest of the lengths that they should have.
        expected: u64,
    },
    /// A step outside the agreed parameters.
    #[error("bad step: {0}")]
    BadStep(String),
    /// The model computed logits that no token can be sampled from.
    #[error("unusable logits: {0}")]
    Logits(&'static str),
    /// An answer cannot keep to its grammar. Only its own sequence is in doubt.
    #[error("{0}")]
    Constraint(String),
    /// The engine below failed.
    #[error("{0}")]
    Engine(String),
}

/// A contiguous layer range of a model with its KV cache. One thread owns it.
pub trait Stage {
    /// Width of a hidden state, in floats.
    fn hidden_size(&self) -> usize;

    /// Tokens in the vocabulary, if this is the last stage.
    fn vocabulary(&self) -> Option<usize>;

    /// Applies a change of the KV cache.
    fn apply(&mut self, op: KvOp) -> Result<(), StageError>;

    /// Computes one step and replaces `output` by its result.
    ///
    /// `spans` are in ascending order of sequence and of equal length; each starts at the
    /// length that its sequence has here. `input` has one row a token. The output of the last
    /// stage is `[rows that the spans want, vocabulary]` logits ([`Span::logits_rows`]), that of any
    /// other `[tokens, hidden_size]` hidden states.
    fn forward(
        &mut self,
        spans: &[Span],
        input: Input<'_>,
        output: &mut Vec<f32>,
    ) -> Result<(), StageError>;

    /// Tokens of each sequence in the KV cache, by sequence.
    fn lengths(&self) -> &[u32];

    /// Forgets every sequence.
    fn clear(&mut self);

    /// Where the constraints of answers come from; only a last stage has any.
    fn grammars(&self) -> &dyn Grammars {
        &NoGrammars
    }
}

/// Applies a step's changes of the KV cache, and compares its digest where it has one.
pub fn apply_changes(stage: &mut impl Stage, step: &Step) -> Result<(), StageError> {
    for &op in &step.kv {
        stage.apply(op)?;
    }
    let Some(expected) = step.kv_digest else {
        return Ok(());
    };
    let actual = kv_digest(stage.lengths());
    if actual == expected {
        Ok(())
    } else {
        Err(StageError::Diverged { actual, expected })
    }
}

/// A digest of the lengths of all sequences (FNV-1a, 64 bits, a word at a time).
pub fn kv_digest(lengths: &[u32]) -> u64 {
    lengths
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |digest, &length| {
            (digest ^ u64::from(length)).wrapping_mul(0x100_0000_01b3)
        })
}
