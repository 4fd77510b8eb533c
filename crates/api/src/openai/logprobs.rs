//! Log-probabilities, in the two shapes that OpenAI has for them.

use serde_json::{Map, Value, json};

use crate::{Likely, TokenLogprob};

fn text(token: &Likely) -> String {
    String::from_utf8_lossy(&token.bytes).into_owned()
}

/// Chat's shape.
pub(super) fn chat_logprobs(tokens: &[TokenLogprob]) -> Value {
    let likely = |token: &Likely| json!({"token": text(token), "logprob": token.logprob, "bytes": token.bytes});
    let content = tokens.iter().map(|token| {
        let mut value = likely(&token.token);
        value["top_logprobs"] = token.top.iter().map(likely).collect();
        value
    });
    json!({"content": content.collect::<Vec<_>>(), "refusal": null})
}

/// Where a token's text begins in the answer, in characters; for the older shape.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Offsets(usize);

impl Offsets {
    /// The older shape.
    pub(super) fn logprobs(&mut self, tokens: &[TokenLogprob]) -> Value {
        let mut offsets = Vec::with_capacity(tokens.len());
        for token in tokens {
            offsets.push(self.0);
            self.0 += text(&token.token).chars().count();
        }
        let top = tokens.iter().map(|token| {
            let likely = token.top.iter();
            likely
                .map(|likely| (text(likely), json!(likely.logprob)))
                .collect::<Map<_, _>>()
        });
        json!({
            "tokens": tokens.iter().map(|token| text(&token.token)).collect::<Vec<_>>(),
            "token_logprobs": tokens.iter().map(|token| token.token.logprob).collect::<Vec<_>>(),
            "top_logprobs": top.collect::<Vec<_>>(),
            "text_offset": offsets,
        })
    }
}
