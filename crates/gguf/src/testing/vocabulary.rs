//! A `SentencePiece` vocabulary in which every text has tokens.

use crate::value::{Array, Value};
use crate::write::Builder;

/// Tokens of the smallest vocabulary: 3 special ones, a token for each byte, and 29 pieces of text.
pub const TOKENS: u32 = 3 + 256 + PIECES.len() as u32;

/// The chat template: each message as `role: content`, on a line of its own.
pub const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}";

const PIECES: [&str; 29] = [
    "\u{2581}",
    "a",
    "b",
    "c",
    "d",
    "e",
    "f",
    "g",
    "h",
    "i",
    "j",
    "k",
    "l",
    "m",
    "n",
    "o",
    "p",
    "q",
    "r",
    "s",
    "t",
    "u",
    "v",
    "w",
    "x",
    "y",
    "z",
    "th",
    "\u{2581}a",
];

// llama.cpp's kinds of token.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const BYTE: i32 = 6;

/// Sets a vocabulary of `count` tokens: those that texts need, and others.
pub(super) fn set(builder: &mut Builder<'_>, count: u32) {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    let mut kinds = vec![UNKNOWN, CONTROL, CONTROL];
    for byte in 0..=u8::MAX {
        tokens.push(format!("<0x{byte:02X}>"));
        kinds.push(BYTE);
    }
    let mut scores = vec![0.0; tokens.len()];
    for (rank, piece) in PIECES.iter().enumerate() {
        tokens.push((*piece).into());
        kinds.push(NORMAL);
        scores.push(-(rank as f32));
    }
    for number in TOKENS..count {
        tokens.push(format!("<more{number}>"));
        kinds.push(NORMAL);
        scores.push(-(number as f32));
    }
    builder.set("tokenizer.ggml.model", "llama".into());
    builder.set("tokenizer.ggml.pre", "default".into());
    for (key, array) in [
        ("tokens", Array::of_text(&tokens)),
        ("scores", Array::of_f32(&scores)),
        ("token_type", Array::of_i32(&kinds)),
    ] {
        builder.set(&format!("tokenizer.ggml.{key}"), Value::Array(array));
    }
    builder.set("tokenizer.ggml.unknown_token_id", Value::U32(0));
    builder.set("tokenizer.ggml.bos_token_id", Value::U32(1));
    builder.set("tokenizer.ggml.eos_token_id", Value::U32(2));
    builder.set("tokenizer.ggml.add_bos_token", Value::Bool(true));
    builder.set("tokenizer.chat_template", CHAT_TEMPLATE.into());
}
