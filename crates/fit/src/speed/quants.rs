//! Quantizations as people write them.

use crate::model::Quantization;

/// Kinds of quantizations that have an efficiency of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuantClass {
    /// 16 bits or more, unquantized.
    F16,
    /// 8 bits: `Q8_0`, MLX 8-bit, FP8, MXFP8.
    Q8,
    /// `Q6_K`, MLX 6-bit.
    Q6,
    /// `Q5_K`, `Q5_0`, MLX 5-bit.
    Q5,
    /// `Q4_K`, IQ4.
    Q4K,
    /// `Q4_0`, `Q4_1`.
    Q40,
    /// `Q3_K`, IQ3.
    Q3,
    /// 1 and 2 bits.
    Q2,
    /// MXFP4 of gpt-oss.
    Mxfp4,
    /// MXFP4 experts in MLX.
    MlxMxfp4,
    /// NVFP4.
    Nvfp4,
    /// MLX 4-bit.
    Mlx4,
    /// MLX 3-bit.
    Mlx3,
    /// 4-bit integers of AWQ, GPTQ and compressed tensors.
    Int4,
}

impl QuantClass {
    /// Of a quantization of a model: by its name, or else by its bits.
    pub fn of(quant: &Quantization) -> Self {
        if let Some(known) = parse(&quant.name) {
            return known.class;
        }
        match quant.bits_per_weight {
            bits if bits < 3.1 => Self::Q2,
            bits if bits < 4.0 => Self::Q3,
            bits if bits < 5.4 => Self::Q4K,
            bits if bits < 6.2 => Self::Q5,
            bits if bits < 7.5 => Self::Q6,
            bits if bits < 12.0 => Self::Q8,
            _ => Self::F16,
        }
    }

    /// Its name in files and output.
    pub fn name(self) -> &'static str {
        match self {
            Self::F16 => "16-bit",
            Self::Q8 => "8-bit",
            Self::Q6 => "6-bit",
            Self::Q5 => "5-bit",
            Self::Q4K => "Q4_K",
            Self::Q40 => "Q4_0",
            Self::Q3 => "3-bit",
            Self::Q2 => "2-bit",
            Self::Mxfp4 => "MXFP4",
            Self::MlxMxfp4 => "MXFP4 (MLX)",
            Self::Nvfp4 => "NVFP4",
            Self::Mlx4 => "4-bit (MLX)",
            Self::Mlx3 => "3-bit (MLX)",
            Self::Int4 => "INT4",
        }
    }
}

/// A quantization that a row states.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Quant {
    pub(crate) class: QuantClass,
    /// Bits a weight, but for the head.
    pub(crate) body_bits: f64,
    /// Bits a weight of the head.
    pub(crate) head_bits: f64,
}

/// Names with their class and bits: of the body, as the mixes of 7 to 70 B models come out, and of
/// the head.
const NAMES: [(&str, QuantClass, f64, f64); 75] = {
    use QuantClass::{F16, Int4, Mxfp4, Nvfp4, Q2, Q3, Q4K, Q5, Q6, Q8, Q40};
    [
        ("F32", F16, 32.0, 32.0),
        ("FP32", F16, 32.0, 32.0),
        ("BF16", F16, 16.0, 16.0),
        ("F16", F16, 16.0, 16.0),
        ("FP16", F16, 16.0, 16.0),
        ("16BIT", F16, 16.0, 16.0),
        ("Q8_0", Q8, 8.5, 8.5),
        ("Q8_1", Q8, 9.0, 9.0),
        ("Q8_K", Q8, 8.5, 8.5),
        ("Q8_K_XL", Q8, 8.7, 16.0),
        ("Q8", Q8, 8.5, 8.5),
        ("8BIT", Q8, 8.5, 8.5),
        ("INT8", Q8, 8.1, 16.0),
        ("W8A8", Q8, 8.1, 16.0),
        ("FP8", Q8, 8.0, 16.0),
        ("F8", Q8, 8.0, 16.0),
        ("MXFP8", Q8, 8.25, 8.25),
        ("Q6_K", Q6, 6.56, 6.56),
        ("Q6_K_L", Q6, 6.56, 8.5),
        ("Q6_K_XL", Q6, 6.8, 8.5),
        ("Q6", Q6, 6.56, 6.56),
        ("6BIT", Q6, 6.5, 6.5),
        ("Q5_0", Q5, 5.55, 6.56),
        ("Q5_1", Q5, 6.0, 6.56),
        ("Q5_K", Q5, 5.68, 6.56),
        ("Q5_K_S", Q5, 5.52, 6.56),
        ("Q5_K_M", Q5, 5.68, 6.56),
        ("Q5_K_L", Q5, 5.68, 8.5),
        ("Q5_K_XL", Q5, 5.75, 6.56),
        ("Q5", Q5, 5.68, 6.56),
        ("5BIT", Q5, 5.5, 5.5),
        ("Q4_0", Q40, 4.55, 6.56),
        ("Q4_1", Q40, 5.0, 6.56),
        ("Q4_K", Q4K, 4.8, 6.56),
        ("Q4K", Q4K, 4.8, 6.56),
        ("Q4_K_S", Q4K, 4.58, 6.56),
        ("Q4_K_M", Q4K, 4.8, 6.56),
        ("Q4_K_L", Q4K, 4.8, 8.5),
        ("Q4_K_XL", Q4K, 4.9, 6.56),
        ("IQ4_NL", Q4K, 4.5, 6.56),
        ("IQ4_XS", Q4K, 4.5, 6.56),
        ("IQ4", Q4K, 4.5, 6.56),
        ("Q4", Q4K, 4.8, 6.56),
        ("MXFP4", Mxfp4, 4.25, 8.5),
        ("NVFP4", Nvfp4, 4.5, 16.0),
        ("FP4", Nvfp4, 4.5, 16.0),
        ("INT4", Int4, 4.25, 16.0),
        ("W4A16", Int4, 4.25, 16.0),
        ("AWQ", Int4, 4.25, 16.0),
        ("GPTQ", Int4, 4.25, 16.0),
        ("Q3_K", Q3, 3.91, 6.56),
        ("Q3_K_S", Q3, 3.5, 6.56),
        ("Q3_K_M", Q3, 3.91, 6.56),
        ("Q3_K_L", Q3, 4.27, 6.56),
        ("Q3_K_XL", Q3, 4.0, 6.56),
        ("IQ3_XXS", Q3, 3.06, 6.56),
        ("IQ3_XS", Q3, 3.3, 6.56),
        ("IQ3_S", Q3, 3.44, 6.56),
        ("IQ3_M", Q3, 3.66, 6.56),
        ("Q3", Q3, 3.91, 6.56),
        ("IQ2XXS", Q2, 2.75, 8.5),
        ("Q2K", Q2, 2.75, 8.5),
        ("Q2_K", Q2, 2.96, 6.56),
        ("Q2_K_S", Q2, 2.8, 6.56),
        ("Q2_K_L", Q2, 2.96, 8.5),
        ("Q2_K_XL", Q2, 3.1, 6.56),
        ("IQ2_XXS", Q2, 2.2, 5.5),
        ("IQ2_XS", Q2, 2.4, 5.5),
        ("IQ2_S", Q2, 2.5, 5.5),
        ("IQ2_M", Q2, 2.7, 5.5),
        ("Q2", Q2, 2.75, 8.5),
        ("IQ1_S", Q2, 1.6, 5.5),
        ("IQ1_M", Q2, 1.8, 5.5),
        ("TQ1_0", Q2, 1.7, 6.56),
        ("TQ2_0", Q2, 2.1, 6.56),
    ]
};

/// The quantization that a text names, if it does: a column, or the name of a model or file.
pub(crate) fn parse(text: &str) -> Option<Quant> {
    let words = words(text);
    let mut found: Option<Quant> = None;
    for (at, word) in words.iter().enumerate() {
        // "fp16 KV" is about the cache.
        if words.get(at + 1).is_some_and(|next| next == "KV") {
            continue;
        }
        let Some(quant) = of_word(word, words.get(at + 1)) else {
            continue;
        };
        match &mut found {
            None => found = Some(quant),
            // "Q4_K_M-fp16": the head in 16 bits.
            Some(known) if quant.class == QuantClass::F16 => {
                known.head_bits = known.head_bits.max(quant.head_bits);
            }
            // "MXFP4-Q8": experts in MXFP4, the rest in MLX's 8 bits.
            Some(known) if known.class == QuantClass::Mxfp4 && quant.class == QuantClass::Q8 => {
                known.class = QuantClass::MlxMxfp4;
            }
            // "8bit-MXFP8", "AWQ-int4": the first says enough.
            Some(_) => {}
        }
    }
    found
}

/// Capital words; underscores and dots stay within.
fn words(text: &str) -> Vec<String> {
    let upper = text.to_uppercase();
    let upper = upper.strip_suffix(".GGUF").unwrap_or(&upper);
    upper
        .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// What a word, or its end after an underscore, names; "4-bit" is two words.
fn of_word(word: &str, next: Option<&String>) -> Option<Quant> {
    let bits = match word
        .strip_suffix("BIT")
        .or_else(|| word.strip_suffix("BITS"))
    {
        Some(bits) if !bits.is_empty() => Some(bits),
        _ => next
            .filter(|next| *next == "BIT" || *next == "BITS")
            .map(|_| word),
    };
    match bits {
        // MLX: groups of 64 with a 16-bit scale and bias.
        Some("3") => return Some(quant(QuantClass::Mlx3, 3.5, 3.5)),
        Some("4") => return Some(quant(QuantClass::Mlx4, 4.5, 4.5)),
        Some(number @ ("5" | "6" | "8" | "16")) => return named(&format!("{number}BIT")),
        _ => {}
    }
    let starts = word.match_indices('_').map(|(at, _)| at + 1);
    std::iter::once(0)
        .chain(starts)
        .find_map(|start| named(&word[start..]))
}

fn named(word: &str) -> Option<Quant> {
    let (_, class, body, head) = NAMES.iter().find(|(name, ..)| *name == word)?;
    Some(quant(*class, *body, *head))
}

fn quant(class: QuantClass, body_bits: f64, head_bits: f64) -> Quant {
    Quant {
        class,
        body_bits,
        head_bits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        use QuantClass::{
            F16, Int4, Mlx3, Mlx4, MlxMxfp4, Mxfp4, Nvfp4, Q2, Q3, Q4K, Q5, Q6, Q8, Q40,
        };
        for (text, class, body, head) in [
            ("Q4_K_M", Q4K, 4.8, 6.56),
            ("phi-4-Q4_K_M.gguf", Q4K, 4.8, 6.56),
            ("gemma-2-9b-it-Q4_K_M-fp16.gguf", Q4K, 4.8, 16.0),
            ("some_model_Q5_K_S", Q5, 5.52, 6.56),
            ("qwen3.6:27b-mtp-q4_K_M", Q4K, 4.8, 6.56),
            ("Qwen3.6-27B-MTP-GGUF:UD-Q4_K_XL", Q4K, 4.9, 6.56),
            ("UD-Q4_K routed Q4K", Q4K, 4.8, 6.56),
            ("Q4 (ollama/llama.cpp default)", Q4K, 4.8, 6.56),
            ("i1-IQ3_M", Q3, 3.66, 6.56),
            ("IQ2XXS/Q2_K", Q2, 2.75, 8.5),
            ("q2 (IQ2XXS/Q2K/Q8)", Q2, 2.75, 8.5),
            ("MXFP4-Q8 (MLX)", MlxMxfp4, 4.25, 8.5),
            ("gpt-oss-20b-MXFP4-Q4", Mxfp4, 4.25, 8.5),
            ("8bit-MXFP8 (MLX)", Q8, 8.5, 8.5),
            ("8bit?", Q8, 8.5, 8.5),
            ("4bit (MLX)", Mlx4, 4.5, 4.5),
            ("Yi-1.5-9B-Chat-4bit", Mlx4, 4.5, 4.5),
            ("mlx 4-bit", Mlx4, 4.5, 4.5),
            ("mlx-3bit", Mlx3, 3.5, 3.5),
            ("6-bit", Q6, 6.5, 6.5),
            ("Llama-3.3-70B NVFP4", Nvfp4, 4.5, 16.0),
            ("AWQ-INT4", Int4, 4.25, 16.0),
            ("bf16", F16, 16.0, 16.0),
            ("Q4_0", Q40, 4.55, 6.56),
            ("FP8", Q8, 8.0, 16.0),
        ] {
            assert_eq!(parse(text), Some(quant(class, body, head)), "{text}");
        }
        for text in [
            "",
            "(reporter: 63 GB weights, fp16 KV)",
            "Llama-3-8B",
            "qwen3:8b",
            "phi-4",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
