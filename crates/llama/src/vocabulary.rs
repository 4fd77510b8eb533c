//! The vocabulary: text to tokens and back.

use std::ffi::CString;
use std::path::Path;
use std::ptr::NonNull;
use std::rc::Rc;

use brigade_engine::Constraint;
use brigade_wire::Token;
use llama_cpp_sys_2 as sys;

use crate::{LlamaError, grammar::Grammar, initialize, log, model::Model};

/// A model of which only the header was loaded.
///
/// Tokenizing sees text from strangers and llama.cpp may abort on it: run it in a child process.
#[derive(Debug)]
pub struct Vocabulary {
    model: Rc<Model>,
}

impl Vocabulary {
    /// Loads the vocabulary of a GGUF file; its tensors are not read.
    pub fn load(path: &Path) -> Result<Self, LlamaError> {
        initialize();
        let c_path = c_path(path)?;
        // SAFETY: the parameters are llama.cpp's defaults with one flag changed, and the path is
        // a valid C string that outlives the call.
        let model = unsafe {
            let mut params = sys::llama_model_default_params();
            params.vocab_only = true;
            params.load_mode = sys::LLAMA_LOAD_MODE_NONE;
            sys::llama_model_load_from_file(c_path.as_ptr(), params)
        };
        let model = NonNull::new(model).ok_or_else(|| LlamaError::Load {
            path: path.to_owned(),
            reason: log::take_errors(),
        })?;
        Ok(Self {
            model: Rc::new(Model(model)),
        })
    }

    fn vocab(&self) -> *const sys::llama_vocab {
        self.model.vocab()
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        // SAFETY: the vocabulary is alive.
        let count = unsafe { sys::llama_vocab_n_tokens(self.vocab()) };
        usize::try_from(count).unwrap_or(0)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Turns text into tokens. With `special`, the text of control tokens such as `<|im_end|>`
    /// becomes these tokens, and the tokens that the model expects at the start are added where
    /// the text does not bring them: text from a chat template brings its own.
    pub fn tokenize(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
    ) -> Result<Vec<Token>, LlamaError> {
        let length = i32::try_from(text.len()).map_err(|_| LlamaError::TextTooLong(text.len()))?;
        let mut tokens: Vec<sys::llama_token> = vec![0; text.len() + 2];
        loop {
            // SAFETY: `text` has `length` bytes and `tokens` room for the count that is passed;
            // the vocabulary is alive.
            let count = unsafe {
                sys::llama_tokenize(
                    self.vocab(),
                    text.as_ptr().cast(),
                    length,
                    tokens.as_mut_ptr(),
                    i32::try_from(tokens.len()).unwrap_or(i32::MAX),
                    add_special,
                    parse_special,
                )
            };
            match usize::try_from(count) {
                Ok(count) => {
                    tokens.truncate(count);
                    return Ok(tokens.into_iter().map(|token| token as Token).collect());
                }
                Err(_) if count == i32::MIN => return Err(LlamaError::TextTooLong(text.len())),
                // A negative count is the room that is needed.
                Err(_) => tokens.resize(count.unsigned_abs() as usize, 0),
            }
        }
    }

    /// The bytes that a token stands for in running text; empty for control tokens, unless
    /// `special` asks for their text.
    pub fn piece(&self, token: Token, special: bool) -> Vec<u8> {
        let mut bytes = vec![0u8; 32];
        loop {
            // SAFETY: `bytes` has the length that is passed; an unknown token gives 0.
            let count = unsafe {
                sys::llama_token_to_piece(
                    self.vocab(),
                    token as sys::llama_token,
                    bytes.as_mut_ptr().cast(),
                    bytes.len() as i32,
                    0,
                    special,
                )
            };
            if let Ok(count) = usize::try_from(count) {
                bytes.truncate(count);
                return bytes;
            }
            bytes.resize(count.unsigned_abs() as usize, 0);
        }
    }

    /// Tries a grammar: parses it and asks which tokens may begin.
    ///
    /// Fails if it is none, or if no token begins it.
    pub fn check_grammar(&self, grammar: &str) -> Result<(), LlamaError> {
        let grammar = Grammar::parse(&self.model, grammar)?;
        let mut logits = vec![0.0; self.len()];
        grammar.mask(&mut logits);
        if logits.iter().all(|&logit| logit == f32::NEG_INFINITY) {
            return Err(LlamaError::Grammar("no token begins it".to_owned()));
        }
        Ok(())
    }

    /// The token that begins a text, if the model has one.
    pub fn bos(&self) -> Option<Token> {
        // SAFETY: the vocabulary is alive.
        Token::try_from(unsafe { sys::llama_vocab_bos(self.vocab()) }).ok()
    }

    /// The token that ends a text, if the model has one.
    pub fn eos(&self) -> Option<Token> {
        // SAFETY: the vocabulary is alive.
        Token::try_from(unsafe { sys::llama_vocab_eos(self.vocab()) }).ok()
    }

    /// Every token after which the model has nothing more to say.
    pub fn end_of_generation(&self) -> Vec<Token> {
        (0..self.len() as i32)
            // SAFETY: the vocabulary is alive and the token within it.
            .filter(|&token| unsafe { sys::llama_vocab_is_eog(self.vocab(), token) })
            .map(|token| token as Token)
            .collect()
    }
}

pub(crate) fn c_path(path: &Path) -> Result<CString, LlamaError> {
    CString::new(path.as_os_str().as_encoded_bytes()).map_err(|_| LlamaError::Path(path.to_owned()))
}
