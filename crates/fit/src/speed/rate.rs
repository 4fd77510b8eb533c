//! What a number of tokens a second is about.

/// What a number of tokens a second is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// Tokens that are generated.
    Decode,
    /// Tokens of a prompt.
    Prefill,
}
