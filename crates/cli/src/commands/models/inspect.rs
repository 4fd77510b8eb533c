//! What a model is, as its headers tell.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use brigade_api::{TemplateFacts, ToolCalls};
use brigade_gguf::{GgufError, Header, Layers, Model, check_stages};
use serde::Serialize;

use crate::model::{self, Engine, Headers};
use crate::output;

/// What a model is.
#[derive(Debug, Serialize)]
pub(super) struct Facts {
    schema: &'static str,
    name: String,
    /// Where its first file lies.
    place: String,
    files: usize,
    bytes: u64,
    architecture: String,
    parameters: u64,
    layers: u32,
    hidden_size: Option<u32>,
    context_tokens: Option<u32>,
    experts: Option<Experts>,
    tensors: Vec<Group>,
    quantization: Quantization,
    chat_template: Option<Template>,
    licence: Option<String>,
    /// Layers before which it can be cut.
    cuts: Vec<u32>,
    engine: Engine,
    /// Why that engine.
    why: String,
}

#[derive(Debug, Serialize)]
struct Experts {
    count: u32,
    /// Of these, a token.
    used: Option<u32>,
}

/// Tensors that do the same.
#[derive(Debug, Serialize)]
struct Group {
    kind: &'static str,
    tensors: u32,
    bytes: u64,
    /// Tensors by their type.
    types: BTreeMap<&'static str, u32>,
}

#[derive(Debug, Serialize)]
struct Quantization {
    /// What the file says of itself.
    named: Option<String>,
    bits_per_weight: f64,
    mix: Vec<Share>,
}

/// Tensors of one type.
#[derive(Debug, Serialize)]
struct Share {
    r#type: &'static str,
    tensors: u32,
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Template {
    family: Option<&'static str>,
    /// Whether calls of tools are read.
    tools: &'static str,
    thinks: bool,
}

impl Facts {
    pub(super) fn of(headers: &Headers) -> Result<Self, GgufError> {
        let model = &headers.model;
        let header = model.header();
        let architecture = header.architecture()?;
        let layers = header.block_count()?;
        let parameters = parameters(model);
        let own = |suffix: &str| header.get_u32(&format!("{architecture}.{suffix}"));
        let (cuts, engine, why) = cuts(header, layers);
        let experts = own("expert_count").filter(|count| *count > 0);
        Ok(Self {
            schema: "brigade.model/1",
            name: headers.name.clone(),
            place: headers.place.clone(),
            files: model.parts().len(),
            bytes: model.file_bytes(),
            architecture: architecture.to_owned(),
            parameters,
            layers,
            hidden_size: own("embedding_length"),
            context_tokens: own("context_length"),
            experts: experts.map(|count| Experts {
                count,
                used: own("expert_used_count"),
            }),
            tensors: kinds(model),
            quantization: Quantization {
                named: header
                    .get_u32("general.file_type")
                    .and_then(model::file_type)
                    .map(str::to_owned),
                bits_per_weight: model.tensor_bytes() as f64 * 8.0 / parameters.max(1) as f64,
                mix: mix(model),
            },
            chat_template: header.chat_template().map(template),
            licence: licence(header),
            cuts,
            engine,
            why,
        })
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let mut text = format!("{}  {}\n\n", self.name, self.place);
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "{name:<14} {value}");
        };
        let files = match self.files {
            1 => String::new(),
            files => format!(" in {files} files"),
        };
        line("size", &format!("{}{files}", output::bytes(self.bytes)));
        let experts = self.experts.as_ref().map_or_else(String::new, |experts| {
            let used = experts
                .used
                .map_or_else(String::new, |used| format!(", {used} a token"));
            format!(", {} experts{used}", experts.count)
        });
        line("architecture", &format!("{}{experts}", self.architecture));
        line(
            "parameters",
            &format!("{:.2} B", self.parameters as f64 / 1e9),
        );
        line("layers", &self.layers.to_string());
        let number = |value: Option<u32>| {
            value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
        };
        line("hidden size", &number(self.hidden_size));
        line(
            "context",
            &format!("{} tokens", number(self.context_tokens)),
        );
        let Quantization {
            named,
            bits_per_weight,
            mix,
        } = &self.quantization;
        let shares = mix.iter().map(|share| {
            let percent = share.bytes as f64 * 100.0 / self.tensor_bytes().max(1) as f64;
            format!("{} {percent:.1} %", share.r#type)
        });
        let shares: Vec<_> = shares.collect();
        let named = named.as_deref().unwrap_or("not named");
        line(
            "quantization",
            &format!(
                "{named}, {bits_per_weight:.2} bits a weight: {}",
                shares.join(", ")
            ),
        );
        line(
            "chat template",
            &self
                .chat_template
                .as_ref()
                .map_or_else(|| "no".to_owned(), Template::text),
        );
        line("licence", self.licence.as_deref().unwrap_or("not named"));
        line("engine", &format!("{}: {}", engine(self.engine), self.why));
        line("cuts", &self.cuts_text());
        let _ = writeln!(
            text,
            "\n{:<18} {:>7} {:>10}  types",
            "tensors", "count", "size"
        );
        for kind in &self.tensors {
            let types: Vec<_> = kind
                .types
                .iter()
                .map(|(name, count)| format!("{name} {count}"))
                .collect();
            let (name, size) = (kind.kind, output::bytes(kind.bytes));
            let _ = writeln!(
                text,
                "{name:<18} {:>7} {size:>10}  {}",
                kind.tensors,
                types.join(", ")
            );
        }
        text
    }

    fn tensor_bytes(&self) -> u64 {
        self.tensors.iter().map(|kind| kind.bytes).sum()
    }

    fn cuts_text(&self) -> String {
        match self.cuts.len() as u32 {
            0 => "none".to_owned(),
            all if all + 1 == self.layers => format!("before any layer from 1 to {all}"),
            _ => {
                let cuts: Vec<_> = self.cuts.iter().map(u32::to_string).collect();
                format!("before the layers {}", cuts.join(", "))
            }
        }
    }
}

impl Template {
    fn text(&self) -> String {
        let family = self.family.unwrap_or("of no known family");
        let thinks = if self.thinks { ", thinks aloud" } else { "" };
        let tools = match self.tools {
            "read" => ", tools",
            "unread" => ", tools in a form that is not read",
            _ => "",
        };
        format!("{family}{tools}{thinks}")
    }
}

fn template(source: &str) -> Template {
    let facts = TemplateFacts::of(source);
    Template {
        family: facts.family,
        tools: match facts.tools {
            ToolCalls::Read => "read",
            ToolCalls::Unread => "unread",
            ToolCalls::None => "none",
        },
        thinks: facts.thinks,
    }
}

fn engine(engine: Engine) -> &'static str {
    match engine {
        Engine::Stages => "stages",
        Engine::LlamaRpc => "llama-rpc",
    }
}

fn parameters(model: &Model) -> u64 {
    let elements = model
        .tensors()
        .map(|tensor| tensor.info.dims().iter().product::<u64>());
    elements.sum()
}

fn licence(header: &Header) -> Option<String> {
    let text = |key| {
        header
            .get_str(key)
            .map(str::trim)
            .filter(|text| !text.is_empty())
    };
    let name = text("general.license.name").or_else(|| text("general.license"));
    match (name, text("general.license.link")) {
        (Some(name), Some(link)) => Some(format!("{name} ({link})")),
        (one, other) => one.or(other).map(str::to_owned),
    }
}

/// Where it can be cut in two, and the engine that follows.
fn cuts(header: &Header, layers: u32) -> (Vec<u32>, Engine, String) {
    let mut refusal = None;
    let mut cuts = Vec::new();
    for cut in 1..layers {
        match check_stages(header, &[Layers::new(0, cut), Layers::new(cut, layers)]) {
            Ok(()) => cuts.push(cut),
            Err(error) => refusal = Some(error),
        }
    }
    match refusal {
        Some(error) if cuts.is_empty() => (cuts, Engine::LlamaRpc, error.to_string()),
        _ => (
            cuts,
            Engine::Stages,
            "they support this architecture".to_owned(),
        ),
    }
}

/// Types of tensors, those with the most bytes first.
fn mix(model: &Model) -> Vec<Share> {
    let mut shares: Vec<Share> = Vec::new();
    for tensor in model.tensors() {
        let r#type = tensor.info.ggml_type().name();
        let index = shares.iter().position(|share| share.r#type == r#type);
        let index = index.unwrap_or_else(|| {
            shares.push(Share {
                r#type,
                tensors: 0,
                bytes: 0,
            });
            shares.len() - 1
        });
        shares[index].tensors += 1;
        shares[index].bytes += tensor.info.bytes();
    }
    shares.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    shares
}

/// Tensors by what they do, in a model's order.
fn kinds(model: &Model) -> Vec<Group> {
    const ORDER: [&str; 8] = [
        "embedding",
        "attention",
        "feed-forward",
        "experts",
        "recurrent",
        "norms",
        "head",
        "other",
    ];
    let empty = |kind| Group {
        kind,
        tensors: 0,
        bytes: 0,
        types: BTreeMap::new(),
    };
    let mut kinds = ORDER.map(empty);
    for tensor in model.tensors() {
        let kind = kind(tensor.info.name());
        if let Some(found) = kinds.iter_mut().find(|known| known.kind == kind) {
            found.tensors += 1;
            found.bytes += tensor.info.bytes();
            *found
                .types
                .entry(tensor.info.ggml_type().name())
                .or_default() += 1;
        }
    }
    kinds.into_iter().filter(|kind| kind.tensors > 0).collect()
}

/// What a tensor does, by the names that llama.cpp gives.
fn kind(name: &str) -> &'static str {
    let Some(name) = name
        .strip_prefix("blk.")
        .and_then(|rest| rest.split_once('.'))
    else {
        return match name {
            name if name.contains("norm") => "norms",
            name if name.starts_with("output") => "head",
            name if name.contains("embd") => "embedding",
            _ => "other",
        };
    };
    match name.1 {
        name if name.contains("norm") => "norms",
        name if name.starts_with("attn") => "attention",
        name if name.contains("_exps") || name.contains("_shexp") || name.contains("gate_inp") => {
            "experts"
        }
        name if name.starts_with("ffn") => "feed-forward",
        name if ["ssm", "time_mix", "channel_mix", "shortconv"]
            .iter()
            .any(|start| name.starts_with(start)) =>
        {
            "recurrent"
        }
        _ => "other",
    }
}

#[cfg(test)]
mod tests;
