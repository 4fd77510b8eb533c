//! The commands that run a plan with Brigade or another engine, or why it cannot.
//!
//! Flags are those of `brigade load --help`, of llama.cpp's `common/arg.cpp` and
//! `tools/rpc/README.md`, of exo's `docs/api.md`, and of vLLM's "Parallelism and Scaling".

mod brigade;
mod exo;
mod vllm;

use thiserror::Error;

use crate::cluster::{Cluster, Node};
use crate::machine::PoolKind;
use crate::memory::Load;
use crate::model::{Format, Model, Quantization};
use crate::placement::{Plan, PlanStage};

/// Engines that a plan can be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Brigade itself.
    Brigade,
    /// llama.cpp's server, with its RPC servers where there are several nodes.
    LlamaServer,
    /// exo, on Macs.
    Exo,
    /// vLLM, on GPUs of NVIDIA or AMD.
    Vllm,
}

impl Engine {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Brigade => "brigade",
            Self::LlamaServer => "llama-server",
            Self::Exo => "exo",
            Self::Vllm => "vllm",
        }
    }

    /// The id of the catalog's runtime that says what it runs on.
    pub fn runtime(self) -> &'static str {
        match self {
            Self::Brigade => "brigade",
            Self::LlamaServer => "llama.cpp-rpc",
            Self::Exo => "exo",
            Self::Vllm => "vllm",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::Brigade => "Brigade",
            Self::LlamaServer => "llama.cpp",
            Self::Exo => "exo",
            Self::Vllm => "vLLM",
        }
    }

    /// The format of the files that it reads.
    pub fn format(self) -> Format {
        match self {
            Self::Brigade | Self::LlamaServer => Format::Gguf,
            Self::Exo => Format::Mlx,
            Self::Vllm => Format::Safetensors,
        }
    }
}

/// Why an engine cannot run a plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{} cannot run this plan: {reason}", engine.title())]
pub struct Cannot {
    /// The engine.
    pub engine: Engine,
    /// What it lacks, and what would do.
    pub reason: String,
}

/// What is to run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The model.
    pub model: &'a Model,
    /// In this quantization.
    pub quant: &'a Quantization,
    /// On these machines.
    pub cluster: &'a Cluster,
    /// Divided so.
    pub plan: &'a Plan,
    /// With this context and cache.
    pub load: Load,
    /// What its weights were named by, where that was a file or an address and no catalog's name.
    pub named: Option<&'a str>,
    /// Whether its nodes run already.
    pub nodes: Nodes,
}

/// The daemons of Brigade's nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    /// They are to be started, each under its name in the plan.
    ToStart,
    /// They are one cluster already.
    Up,
}

/// The commands, with a comment line where one needs a word; addresses and paths that nobody
/// gave stand in angle brackets or as a node's name.
pub fn emit(run: &Run, engine: Engine) -> Result<String, Cannot> {
    let commands = match engine {
        Engine::Brigade => brigade::commands(run),
        Engine::LlamaServer => llama_server(run),
        Engine::Exo => exo::commands(run),
        Engine::Vllm => vllm::commands(run),
    };
    commands.map_err(|reason| Cannot { engine, reason })
}

/// The port of llama.cpp's `rpc-server`.
const RPC_PORT: u16 = 50052;

fn llama_server(run: &Run) -> Result<String, String> {
    if run.quant.format != Format::Gguf {
        return Err(format!(
            "it reads GGUF, and {} is not; choose a GGUF quantization",
            run.quant.name
        ));
    }
    // llama.cpp puts the devices of RPC servers before its own, so the last stage is where
    // llama-server runs.
    let [others @ .., main] = &run.plan.stages[..] else {
        return Err("the plan is empty".into());
    };
    let node = |stage: &PlanStage| &run.cluster.nodes[stage.node];
    let division = Division::of(run)?;
    let mut text = String::new();
    let mut say = |line: &str| {
        text.push_str(&one_line(line));
        text.push('\n');
    };
    if !others.is_empty() {
        say(
            "# llama.cpp's RPC is neither encrypted nor authenticated: only on links that you trust.",
        );
    }
    let mut servers = Vec::new();
    for stage in others {
        let Node { name, machine } = node(stage);
        say(&format!("# on {name} ({})", machine.name));
        say(&format!(
            "rpc-server --host {} --port {RPC_PORT} --cache",
            placeholder(&format!("address of {name}"), name)
        ));
        servers.push(format!("<address of {name}>:{RPC_PORT}"));
    }
    let Node { name, machine } = node(main);
    say(&format!("# on {name} ({})", machine.name));
    let file = format!("{}-{}.gguf", run.model.id, run.quant.name);
    say(&format!(
        "llama-server --model {} \\",
        placeholder(&file, &file)
    ));
    if !servers.is_empty() {
        say(&format!("  --rpc {} \\", quoted(&servers.join(","))));
    }
    if division.devices.len() > 1 {
        let shares: Vec<String> = division.devices.iter().map(usize::to_string).collect();
        say(&format!(
            "  --split-mode layer --tensor-split {} \\",
            shares.join(",")
        ));
    }
    let sequences = run.load.sequences.max(1);
    say(&format!(
        "  --n-gpu-layers {} --ctx-size {} --parallel {sequences} --ubatch-size {} \\",
        division.devices.iter().sum::<usize>(),
        u64::from(run.load.context) * u64::from(sequences),
        run.load.micro_batch,
    ));
    let kv = run.load.kv_type.name();
    let apart = match division.experts_in_ram {
        0 => String::new(),
        layers => format!(" --n-cpu-moe {layers}"),
    };
    say(&format!(
        "  --flash-attn on --cache-type-k {kv} --cache-type-v {kv}{apart}"
    ));
    Ok(text)
}

/// Whether a shell takes a name as it stands.
fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '/' | '-');
    !name.is_empty() && !name.starts_with('-') && name.chars().all(plain)
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What the reader puts in: in angle brackets, and quoted where the name in it is not plain.
fn placeholder(text: &str, name: &str) -> String {
    let text = format!("<{text}>");
    if is_plain(name) { text } else { quoted(&text) }
}

/// A line of commands that a name cannot end.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A plan in llama.cpp's terms.
struct Division {
    /// Layers of each device that is not the main host's CPU, in order. The head counts as one
    /// more layer, on the last device.
    devices: Vec<usize>,
    /// Layers whose experts the main host's CPU has, from the first on.
    experts_in_ram: u32,
}

impl Division {
    fn of(run: &Run) -> Result<Self, String> {
        let alone = run.plan.stages.len() == 1;
        let mut division = Self {
            devices: Vec::new(),
            experts_in_ram: 0,
        };
        for (index, stage) in run.plan.stages.iter().enumerate() {
            let Node { name, machine } = &run.cluster.nodes[stage.node];
            let gpus = machine.pools.iter().any(|pool| pool.kind != PoolKind::Ram);
            if stage.packing.experts_in_ram > 0 && !alone {
                return Err(format!(
                    "on {name} experts lie in system memory, and --n-cpu-moe counts layers of the whole model on the main host"
                ));
            }
            division.experts_in_ram += stage.packing.experts_in_ram;
            for part in &stage.packing.parts {
                let ram = machine.pools[part.pool].kind == PoolKind::Ram;
                if ram && gpus && !alone {
                    return Err(format!(
                        "on {name} layers lie in system memory beside a GPU, which an rpc-server does not offer"
                    ));
                }
                if ram && !gpus && !alone && index + 1 == run.plan.stages.len() {
                    return Err(format!(
                        "{name} has no GPU, and llama-server gives the last layers to GPUs and RPC servers; order the nodes so that it is not last"
                    ));
                }
                // On the main host the layers that no device has are the CPU's, the first ones.
                if !(ram && alone) {
                    division.devices.push(part.layers.len());
                }
            }
        }
        if let Some(last) = division.devices.last_mut() {
            *last += 1;
        }
        Ok(division)
    }
}

#[cfg(test)]
mod tests;
