//! What a measured row says, in the terms of the formulas; or which fact it lacks.
//!
//! A row's own columns win; then the catalog's model of that name; then a model that is known by
//! name only; then what the name itself says.

use super::chips::{Chip, Chips};
use super::names::{self, Facts, Names};
use super::weights::Weights;
use crate::catalog::Catalog;
use crate::catalog::measurements::Measurement;
use crate::model::Quantization;
use crate::program::Program;
use crate::speed::classes::{Engine, Family};
use crate::speed::interval::Class;
use crate::speed::quants::QuantClass;
use crate::speed::quants::{self, Quant};
use crate::speed::sum::{Factors, Sum};
use crate::speed::{decode, prefill};

const GIB: f64 = 1_073_741_824.0;

/// Of a GPU's memory, what the driver and the display keep, in 10⁹ bytes.
const RESERVED_GB: f64 = 0.8;

/// What a runtime allocates beside weights and cache on each GPU, in 10⁹ bytes.
const BUFFERS_GB: f64 = 0.4;

/// Tokens of context that a cache is taken to be made for where a row says nothing.
const CONTEXT: f64 = 2048.0;

/// Of a GPU's memory, the share from which on a model is tight.
const TIGHT: f64 = 0.85;

/// A hop's link, in milliseconds: published rows name it loosely, and over TCP the catalog's cables
/// are 0.1 to 0.3.
const HOP_LINK_MS: f64 = 0.3;

/// From this size on, in 10⁹ parameters, an unknown model may as well be a mixture of experts.
const EITHER_B: f64 = 20.0;

/// A row in the terms of the formulas.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Features {
    pub(crate) chip: Chip,
    pub(crate) engine: Engine,
    pub(crate) quant: Quant,
    pub(crate) facts: Facts,
    /// Whether the row states the size of the file.
    pub(crate) sized: bool,
    pub(crate) gpus: f64,
    /// Tokens of context at the start.
    pub(crate) context: f64,
    /// Tokens in the cache on average while the answer is made.
    pub(crate) depth: f64,
    pub(crate) decode: decode::Amounts,
    /// Milliseconds a token on links between nodes.
    pub(crate) link_ms: f64,
    pub(crate) decode_class: Class,
    /// What a token of the prompt takes, and how many it has; an error names what is missing.
    pub(crate) prefill: Result<(prefill::Amounts, f64), String>,
    pub(crate) prefill_class: Class,
}

impl Features {
    /// The next token, as a sum.
    pub(crate) fn decode_sum(&self) -> Sum {
        let mut sum = self.decode.sum();
        sum.add(self.link_ms, Factors::ONE);
        sum
    }

    /// A token of the prompt, as a sum.
    pub(crate) fn prefill_sum(&self) -> Option<Sum> {
        let (amounts, tokens) = self.prefill.as_ref().ok()?;
        Some(amounts.on(self.gpus, *tokens))
    }

    /// Bytes that a token reads of weights, in 10⁹.
    pub(crate) fn read_gb(&self) -> f64 {
        self.decode.dense_gb + self.decode.expert_gb
    }
}

/// What a row is about: ids of the catalog.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) device: Option<String>,
    pub(crate) model: Option<String>,
}

/// Reads rows.
pub(crate) struct Reader<'a> {
    catalog: &'a Catalog,
    chips: Chips<'a>,
    names: Names<'a>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(catalog: &'a Catalog) -> Self {
        Self {
            catalog,
            chips: Chips::new(&catalog.devices),
            names: Names::new(catalog),
        }
    }

    /// What a row is about, as far as it can be told, also where it lacks what a prediction needs.
    pub(crate) fn about(&self, row: &Measurement) -> About {
        let cpu = has(&row.runtime, "cpu");
        let chip = self.chips.find(&row.machine, cpu, row.bandwidth_gb_s);
        About {
            device: chip.ok().and_then(|chip| chip.device),
            model: self.names.find(&row.model).and_then(|facts| facts.model),
        }
    }

    /// What a row says of a tensor split over nodes: the chip, the model, and the bits of its weights.
    pub(crate) fn tensor(&self, row: &Measurement) -> Option<(About, Quant)> {
        let split = row.split.as_deref()?.to_lowercase();
        if row.nodes <= 1 || split != "tensor" {
            return None;
        }
        let chip = self.chips.find(&row.machine, false, row.bandwidth_gb_s);
        let quant = quant(row, engine(row, &chip.ok()?)).ok()?;
        Some((self.about(row), quant))
    }

    /// The row's features; an error names the missing fact.
    pub(crate) fn read(&self, row: &Measurement) -> Result<Features, String> {
        let hops = split(row)?;
        let cpu = has(&row.runtime, "cpu");
        let chip = self.chips.find(&row.machine, cpu, row.bandwidth_gb_s)?;
        let engine = engine(row, &chip);
        let family = if engine == Engine::Cpu {
            Family::Cpu
        } else {
            chip.family
        };
        let bandwidth = row.bandwidth_gb_s.or(chip.bandwidth_gb_s);
        let bandwidth =
            bandwidth.ok_or("mem_bandwidth_gbs: not stated, and the catalog has none")?;
        let facts = self.facts(row)?;
        let quant = quant(row, engine)?;
        let weights = self
            .weights(&facts, quant)
            .unwrap_or_else(|| Weights::estimated(&facts, quant, engine));
        let weights = weights.scaled(row.file_size_gib.map(|gib| gib * GIB / 1e9));
        let gpus = f64::from(row.gpus.unwrap_or(1).max(1));
        let context = f64::from(row.context.unwrap_or(0));
        let shader = chip.fp32_tflops.filter(|_| engine != Engine::Cpu);
        let (spilled, tight) = fills(&facts, &weights, family, row, gpus);
        let spilled = if hops > 0.0 { 0.0 } else { spilled };
        let decode = decode::Amounts {
            family,
            engine,
            quant: quant.class,
            bandwidth_gb_s: bandwidth,
            fp32_tflops: shader.unwrap_or_else(|| family.assumed_fp32_tflops(bandwidth)),
            dense_gb: weights.dense,
            expert_gb: weights.experts,
            spilled,
            active_b: facts.active_b,
            kv_gb: facts.kv_gb(depth(row, context)),
            layers: facts.layers,
            moe: facts.moe,
            recurrent: facts.recurrent,
            handovers: gpus - 1.0,
            sampled: 1.0,
            vocab: facts.vocab.unwrap_or(128_000.0),
        };
        Ok(Features {
            sized: row.file_size_gib.is_some(),
            decode_class: Class::of_decode(tight, facts.moe, row.file_size_gib.is_some()),
            prefill_class: Class::of_prefill(family, gpus > 1.0),
            prefill: prefill_of(row, &chip, &decode, &facts, weights.file, context),
            link_ms: hops * (HOP_LINK_MS + self.catalog.hop_software_ms(program(row, engine))),
            quant,
            engine,
            gpus,
            context,
            depth: depth(row, context),
            decode,
            chip: Chip { family, ..chip },
            facts,
        })
    }

    /// Weights by the tensors of a model of the catalog, where it has the quantization.
    fn weights(&self, facts: &Facts, quant: Quant) -> Option<Weights> {
        let id = facts.model.as_ref()?;
        let model = self.catalog.models.iter().find(|model| model.id == *id)?;
        let is = |own: &&Quantization| quants::parse(&own.name) == Some(quant);
        Some(Weights::of_tensors(model, model.quants.iter().find(is)?))
    }

    fn facts(&self, row: &Measurement) -> Result<Facts, String> {
        let known = self.names.find(&row.model);
        let stated = names::stated(&row.model);
        let of_row = row.params_b;
        let params = of_row
            .or(known.as_ref().map(|known| known.params_b))
            .or(stated.params_b);
        let params =
            params.ok_or("params_b: the name states none, and the model is not in the catalog")?;
        let active = row
            .active_params_b
            .or(known.as_ref().map(|known| known.active_b))
            .or(stated.active_b)
            .or((params < EITHER_B).then_some(params));
        let active = active.ok_or_else(|| {
            format!("active_params_b: whether this model of {params}B is dense is stated nowhere")
        })?;
        let Some(known) = known else {
            return Ok(names::by_size(params, active));
        };
        if of_row.is_none() {
            return Ok(known);
        }
        Ok(Facts {
            params_b: params,
            active_b: active,
            moe: known.moe && active < 0.75 * params,
            ..known
        })
    }
}

/// Hops between nodes, the token's way back among them: none on one node; a tensor split is not
/// predicted.
fn split(row: &Measurement) -> Result<f64, String> {
    if row.nodes <= 1 {
        return Ok(0.0);
    }
    let split = row.split.as_deref().unwrap_or("unknown").to_lowercase();
    if split.contains("tensor") || split.contains("expert") || split.contains("vocab") {
        return Err("split: tensor parallel is not predicted, published evidence only".into());
    }
    if split == "pipeline" || split == "layer" || split == "layer(rpc)" {
        return Ok(f64::from(row.nodes));
    }
    Err(format!(
        "split: '{split}' does not say how layers are divided"
    ))
}

/// The program of a pipeline over nodes.
fn program(row: &Measurement, engine: Engine) -> Program {
    if has(&row.runtime, "brigade") {
        Program::Brigade
    } else if engine == Engine::Mlx {
        Program::Exo
    } else if engine == Engine::Vllm {
        Program::Vllm
    } else {
        Program::LlamaRpc
    }
}

/// Whether a text has a word or part in it, in any case.
fn has(text: &str, part: &str) -> bool {
    text.to_lowercase().contains(part)
}

fn engine(row: &Measurement, chip: &Chip) -> Engine {
    let runtime = row.runtime.to_lowercase();
    let has = |part: &str| runtime.contains(part);
    if has("may 2024") {
        return if chip.family.is_apple() {
            Engine::Metal2024
        } else {
            Engine::Cuda2024
        };
    }
    let mlx_build = (has("ollama") || has("lm studio")) && row.model.to_lowercase().contains("mlx");
    if has("cpu") || chip.family == Family::Cpu {
        Engine::Cpu
    } else if has("ds4") {
        Engine::Ds4
    } else if has("vllm") || has("sglang") || has("tensorrt") || has("trt-llm") || has("aphrodite")
    {
        Engine::Vllm
    } else if has("exo") || has("mlx") || mlx_build {
        Engine::Mlx
    } else if has("vulkan") && !has("best") {
        Engine::Vulkan
    } else {
        Engine::Llama
    }
}

fn quant(row: &Measurement, engine: Engine) -> Result<Quant, String> {
    let mut found = match &row.quant {
        Some(stated) => quants::parse(stated),
        None => quants::parse(&row.model),
    };
    if found.is_none() && row.quant.is_none() && has(&row.runtime, "ollama") {
        // Without a tag ollama fetches Q4_K_M, or 4 bits of MLX.
        found = quants::parse(if engine == Engine::Mlx {
            "4bit"
        } else {
            "Q4_K_M"
        });
    }
    let found = found.ok_or("quant: stated neither in its column nor in the model's name")?;
    let four_bits = matches!(found.class, QuantClass::Q4K | QuantClass::Mlx4);
    if four_bits && names::normal(&row.model).contains("gpt-oss") {
        // Its experts are MXFP4 in every file.
        return quants::parse("MXFP4").ok_or_else(|| "quant".into());
    }
    Ok(found)
}

/// The share of the weights that does not fit the GPUs, and whether there is little room.
fn fills(
    facts: &Facts,
    weights: &Weights,
    family: Family,
    row: &Measurement,
    gpus: f64,
) -> (f64, bool) {
    let Some(gib) = row.memory_gb.filter(|_| family.is_discrete()) else {
        return (0.0, false);
    };
    let memory_gb = gib * GIB / 1e9;
    let need = weights.file + facts.kv_gb(CONTEXT) + BUFFERS_GB * gpus;
    let over = need - (memory_gb - RESERVED_GB * gpus);
    let spilled = (over / weights.file).clamp(0.0, 1.0);
    (spilled, spilled > 0.0 || weights.file > TIGHT * memory_gb)
}

/// Tokens in the cache on average while the answer is made: "tg128", "300 tok".
fn depth(row: &Measurement, context: f64) -> f64 {
    let test = row.decode_test.as_deref().unwrap_or_default();
    let (length, prompt) = match (number_after(test, "tg"), number_before(test, " tok")) {
        (Some(length), _) => (length, 0.0),
        // A question of some words stands before.
        (None, Some(length)) => (length, 50.0),
        (None, None) => (256.0, 50.0),
    };
    context + length / 2.0 + prompt
}

fn prefill_of(
    row: &Measurement,
    chip: &Chip,
    decode: &decode::Amounts,
    facts: &Facts,
    file_gb: f64,
    context: f64,
) -> Result<(prefill::Amounts, f64), String> {
    if row.nodes > 1 {
        return Err("prefill over several nodes is not predicted".into());
    }
    let accelerated = has(&row.machine, "neural")
        || has(&row.runtime, "neural")
        || has(&row.runtime, "tensor api");
    let fp16 = match chip.family {
        family if family.is_apple() && !accelerated => chip.fp32_tflops,
        Family::Cpu => None,
        _ if decode.engine == Engine::Cpu => None,
        _ => chip.fp16_tflops,
    };
    let fp16_tflops = fp16.ok_or("fp16_tflops: the catalog has none for this machine")?;
    let test = row.prefill_test.as_deref().unwrap_or_default();
    let tokens = number_after(test, "pp")
        .filter(|n| *n >= 1.0)
        .unwrap_or(2048.0);
    let batch = tokens.min(prefill::MICRO_BATCH);
    let hidden = facts.hidden.unwrap_or(4096.0);
    let amounts = prefill::Amounts {
        family: decode.family,
        engine: decode.engine,
        quant: decode.quant,
        bandwidth_gb_s: decode.bandwidth_gb_s,
        fp16_tflops,
        gflop: 2.0 * facts.active_b,
        attention_gflop: 4.0 * facts.layers * hidden * (tokens / 2.0 + context) / 1e9,
        weight_gb: file_gb / batch,
        layers: facts.layers / batch,
        moe: facts.moe,
    };
    Ok((amounts, tokens))
}

/// The number after a word, as in "pp512".
fn number_after(text: &str, word: &str) -> Option<f64> {
    text.match_indices(word).find_map(|(at, _)| {
        let rest = &text[at + word.len()..];
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        rest[..end].parse().ok()
    })
}

/// The number before a word, as in "300 tok".
fn number_before(text: &str, word: &str) -> Option<f64> {
    let (before, _) = text.split_once(word)?;
    let start = before
        .rfind(|c: char| !c.is_ascii_digit())
        .map_or(0, |at| at + 1);
    before.get(start..)?.parse().ok()
}
