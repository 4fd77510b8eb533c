//! llama.cpp's grammar sampler as a [`Constraint`].
//!
//! It aborts the process when it is told of a token that it does not allow, so none is passed on
//! before it was asked. Grammars are parsed here; whoever takes them from strangers first lets a
//! child process try ([`Vocabulary::check_grammar`](crate::Vocabulary::check_grammar)).

use std::ffi::CString;
use std::ptr::NonNull;
use std::rc::Rc;

use brigade_engine::Constraint;
use brigade_wire::Token;
use llama_cpp_sys_2 as sys;

use crate::{LlamaError, log, model::Model};

/// The rule that an answer matches.
const ROOT: &std::ffi::CStr = c"root";

/// Where an answer stands in a grammar.
#[derive(Debug)]
pub(crate) struct Grammar {
    sampler: NonNull<sys::llama_sampler>,
    /// The sampler points into its vocabulary.
    model: Rc<Model>,
}

impl Grammar {
    pub(crate) fn parse(model: &Rc<Model>, grammar: &str) -> Result<Self, LlamaError> {
        let refused = |reason: String| LlamaError::Grammar(reason);
        let text = CString::new(grammar).map_err(|_| refused("it holds a null byte".into()))?;
        // An empty one would allow everything.
        if grammar.trim().is_empty() {
            return Err(refused("it is empty".into()));
        }
        // SAFETY: the vocabulary is alive as long as the model, which the result keeps; both
        // strings are null-terminated and copied.
        let sampler =
            unsafe { sys::llama_sampler_init_grammar(model.vocab(), text.as_ptr(), ROOT.as_ptr()) };
        NonNull::new(sampler)
            .map(|sampler| Self {
                sampler,
                model: Rc::clone(model),
            })
            .ok_or_else(|| match log::take_errors() {
                // The parser writes its complaint to standard error and not to the log.
                reason if reason.is_empty() => refused("it does not parse".to_owned()),
                reason => refused(reason),
            })
    }

    fn apply(&self, candidates: &mut [sys::llama_token_data]) {
        let mut array = sys::llama_token_data_array {
            data: candidates.as_mut_ptr(),
            size: candidates.len(),
            selected: -1,
            sorted: false,
        };
        // SAFETY: the sampler is alive; the array has `size` tokens of the vocabulary, and the
        // grammar sampler changes their logits in place.
        unsafe { sys::llama_sampler_apply(self.sampler.as_ptr(), &raw mut array) };
    }
}

fn candidate(token: Token, logit: f32) -> sys::llama_token_data {
    sys::llama_token_data {
        id: token as sys::llama_token,
        logit,
        p: 0.0,
    }
}

impl Constraint for Grammar {
    fn allows(&self, token: Token) -> bool {
        // SAFETY: the vocabulary is alive.
        let tokens = unsafe { sys::llama_vocab_n_tokens(self.model.vocab()) };
        if !Token::try_from(tokens).is_ok_and(|tokens| token < tokens) {
            return false;
        }
        let mut one = [candidate(token, 0.0)];
        self.apply(&mut one);
        one[0].logit > f32::NEG_INFINITY
    }

    fn mask(&self, logits: &mut [f32]) {
        let mut candidates: Vec<_> = (0..)
            .zip(logits.iter())
            .filter(|(_, logit)| **logit > f32::NEG_INFINITY)
            .map(|(token, &logit)| candidate(token, logit))
            .collect();
        self.apply(&mut candidates);
        for candidate in candidates {
            logits[candidate.id as usize] = candidate.logit;
        }
    }

    fn accept(&mut self, token: Token) -> bool {
        let allowed = self.allows(token);
        if allowed {
            // SAFETY: the sampler is alive and allows this token of its vocabulary, without which
            // it would abort.
            unsafe { sys::llama_sampler_accept(self.sampler.as_ptr(), token as sys::llama_token) };
        }
        allowed
    }

    fn fork(&self) -> Box<dyn Constraint> {
        // SAFETY: the sampler is alive; a clone owns all that it has but the vocabulary, which the
        // model keeps alive. Cloning a grammar gives null only where there is no memory.
        let sampler = unsafe { sys::llama_sampler_clone(self.sampler.as_ptr()) };
        Box::new(Self {
            sampler: NonNull::new(sampler).expect("llama.cpp clones grammar samplers"),
            model: Rc::clone(&self.model),
        })
    }
}

impl Drop for Grammar {
    fn drop(&mut self) {
        // SAFETY: the sampler came from llama.cpp and is freed once, before its model.
        unsafe { sys::llama_sampler_free(self.sampler.as_ptr()) };
    }
}
