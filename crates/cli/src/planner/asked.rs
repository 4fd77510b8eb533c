//! How a model is asked to run.

use brigade_fit::memory::KvType;
use brigade_fit::model::{Format, Model};
use brigade_fit::placement::Objective;
use brigade_fit::verdict::{Ask, Detail, USUAL_CONTEXT};

use crate::output;

/// How a model is asked to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Asked {
    /// Context of one sequence, in tokens, such as 32768, 32k or 1m [default: 8192, or the model's
    /// own, if smaller]
    #[arg(long, value_name = "N", value_parser = tokens)]
    pub(crate) context: Option<u32>,
    #[arg(
        long,
        value_name = "Q",
        help = "Quantization, such as Q4_K_M, Q8_0 or mlx-4bit [default: the smallest of at least 4 bits a weight]"
    )]
    pub(crate) quant: Option<String>,
    /// Only quantizations of this format; Brigade itself runs GGUF
    #[arg(long, value_enum, value_name = "FORMAT")]
    pub(crate) format: Option<InFormat>,
    /// Type of keys and values in the cache
    #[arg(long, value_enum, ignore_case = true, default_value_t = Kv::F16, value_name = "TYPE")]
    pub(crate) kv_type: Kv,
    /// Answers at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) streams: u32,
    /// Of the limit, the part in percent that the cluster itself was measured to cost on these
    /// machines, 0 to 50 [default: 12.5, unmeasured]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) cluster_cost: Option<f64>,
}

impl Asked {
    /// The question, with what it is to be best at.
    pub(crate) fn ask(&self, objective: Option<Objective>, detail: Detail) -> Ask {
        Ask {
            context: self.context.unwrap_or(USUAL_CONTEXT),
            sequences: self.streams,
            kv_type: self.kv_type.into(),
            quant: self.quant.clone(),
            format: self.format.map(Into::into),
            objective,
            measured: self.cluster_cost,
            detail,
            ..Ask::default()
        }
    }

    /// Says so where the model's own context is smaller than what was asked for.
    pub(crate) fn note_cut(&self, model: &Model) {
        let own = model.max_context;
        if let Some(asked) = self.context.filter(|asked| own > 0 && *asked > own) {
            output::note(&format!(
                "{} was made for a context of {own} tokens: {asked} are cut to that",
                model.name
            ));
        }
    }
}

/// A number of tokens; `32k` is 32768, `1m` 1048576.
fn tokens(text: &str) -> Result<u32, String> {
    let lower = text.trim().to_ascii_lowercase();
    let units = [('k', 1 << 10), ('m', 1 << 20)];
    let with = units
        .iter()
        .find_map(|(letter, unit)| Some((lower.strip_suffix(*letter)?, *unit)));
    let (number, unit) = with.unwrap_or((&lower, 1));
    let read: u32 = number
        .trim()
        .parse()
        .map_err(|_| "a whole number of tokens is expected, such as 32768, 32k or 1m".to_owned())?;
    match read.checked_mul(unit) {
        Some(tokens) if tokens > 0 => Ok(tokens),
        _ => Err(format!("{read} is not in 1..{}", u32::MAX / unit)),
    }
}

/// A share in percent, with or without its sign, as a fraction.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.trim().trim_end_matches('%').trim_end().parse::<f64>();
    let most = 50.0;
    match number {
        Ok(number) if (0.0..=most).contains(&number) => Ok(number / 100.0),
        _ => Err(format!(
            "a number from 0 to {most} is expected, such as 4.5"
        )),
    }
}

/// [`Format`] on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum InFormat {
    Gguf,
    Mlx,
    Safetensors,
}

impl From<InFormat> for Format {
    fn from(format: InFormat) -> Self {
        match format {
            InFormat::Gguf => Self::Gguf,
            InFormat::Mlx => Self::Mlx,
            InFormat::Safetensors => Self::Safetensors,
        }
    }
}

/// [`KvType`] on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Kv {
    F16,
    #[value(name = "q8_0")]
    Q8,
    #[value(name = "q4_0")]
    Q4,
}

impl From<Kv> for KvType {
    fn from(kv: Kv) -> Self {
        match kv {
            Kv::F16 => Self::F16,
            Kv::Q8 => Self::Q8_0,
            Kv::Q4 => Self::Q4_0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts() {
        for (text, expected) in [
            ("8192", 8192),
            ("32k", 32_768),
            ("128K", 131_072),
            ("1m", 1_048_576),
            ("2M", 2_097_152),
        ] {
            assert_eq!(tokens(text), Ok(expected), "{text}");
        }
        for text in [
            "0",
            "0k",
            "k",
            "m",
            "-1",
            "1.5k",
            "4294967295k",
            "4096m",
            "1km",
            "32g",
        ] {
            assert!(tokens(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_in_percent() {
        for (text, expected) in [("0", 0.0), ("12.5", 0.125), ("50 %", 0.5), ("4%", 0.04)] {
            assert_eq!(percent(text), Ok(expected), "{text}");
        }
        for text in ["", "%", "-1", "50.1", "nan", "inf", "0,5", "x"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }
}
