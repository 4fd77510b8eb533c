//! What may be sampled at all: an answer that keeps to a grammar.

use std::fmt::Debug;

use brigade_wire::Token;

use crate::StageError;

/// Where an answer stands in a grammar.
///
/// Tokens that end an answer are allowed where the grammar may end.
pub trait Constraint: Debug {
    /// Whether this token may come next.
    fn allows(&self, token: Token) -> bool;

    /// Sets the logits of all tokens that may not come next to minus infinity.
    fn mask(&self, logits: &mut [f32]);

    /// Moves on by a token, or leaves everything as it is and returns false if it may not come.
    fn accept(&mut self, token: Token) -> bool;

    /// A copy that goes its own way.
    fn fork(&self) -> Box<dyn Constraint>;
}

impl Clone for Box<dyn Constraint> {
    fn clone(&self) -> Self {
        self.fork()
    }
}

/// Makes constraints from grammars; the vocabulary belongs to the last stage.
pub trait Grammars {
    /// The beginning of an answer that keeps to this grammar.
    ///
    /// Fails if the grammar is none, or if there are no grammars here.
    fn constraint(&self, grammar: &str) -> Result<Box<dyn Constraint>, StageError>;
}

/// For stages without a vocabulary: refuses every grammar.
#[derive(Debug, Clone, Copy)]
pub struct NoGrammars;

impl Grammars for NoGrammars {
    fn constraint(&self, _: &str) -> Result<Box<dyn Constraint>, StageError> {
        Err(StageError::Constraint(
            "this stage has no grammars".to_owned(),
        ))
    }
}
