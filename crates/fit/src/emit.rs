//! The commands that run a plan with another engine, or why it cannot.
//!
//! Flags are those of llama.cpp's `common/arg.cpp` and `tools/rpc/README.md`, of exo's
//! `docs/api.md`, and of vLLM's "Parallelism and Scaling".

use std::fmt::Write;

use thiserror::Error;

use crate::cluster::{Cluster, Node};
use crate::machine::PoolKind;
use crate::memory::Load;
use crate::model::{Format, Model, Quantization};
use crate::placement::{Plan, PlanStage};

/// Engines that a plan can be written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
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
            Self::LlamaServer => "llama-server",
            Self::Exo => "exo",
            Self::Vllm => "vllm",
        }
    }

    /// The id of the catalog's runtime that says what it runs on.
    pub fn runtime(self) -> &'static str {
        match self {
            Self::LlamaServer => "llama.cpp-rpc",
            Self::Exo => "exo",
            Self::Vllm => "vllm",
        }
    }

    /// Its name for people.
    pub fn title(self) -> &'static str {
        match self {
            Self::LlamaServer => "llama.cpp",
            Self::Exo => "exo",
            Self::Vllm => "vLLM",
        }
    }

    /// The format of the files that it reads.
    pub fn format(self) -> Format {
        match self {
            Self::LlamaServer => Format::Gguf,
            Self::Exo => Format::Mlx,
            Self::Vllm => Format::Safetensors,
        }
    }
}

/// Why an engine cannot run a plan.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{} cannot run this plan: {reason}", engine.name())]
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
}

/// The commands, with a comment line where one needs a word; addresses and paths that nobody
/// gave stand in angle brackets or as a node's name.
pub fn emit(run: &Run, engine: Engine) -> Result<String, Cannot> {
    let commands = match engine {
        Engine::LlamaServer => llama_server(run),
        Engine::Exo => exo(run),
        Engine::Vllm => vllm(run),
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

fn exo(run: &Run) -> Result<String, String> {
    if run.quant.format != Format::Mlx {
        return Err(format!(
            "it reads MLX weights, and {} is not; choose an MLX quantization",
            run.quant.name
        ));
    }
    if let Some(node) = run.cluster.nodes.iter().find(|node| {
        let pools = &node.machine.pools;
        !pools.iter().all(|pool| pool.family.starts_with("apple"))
    }) {
        return Err(format!(
            "it computes on Apple silicon, and {} is none",
            node.machine.name
        ));
    }
    let nodes = run.plan.stages.len();
    let mut text = String::from(
        "# exo has no authentication: only on networks that you trust. It divides the layers itself,\n# by free memory, and downloads the whole model to every node.\n",
    );
    for node in &run.cluster.nodes {
        let _ = writeln!(
            text,
            "# on {} ({}), in exo's folder\nuv run exo",
            one_line(&node.name),
            one_line(&node.machine.name)
        );
    }
    let _ = writeln!(
        text,
        "# then on any of them; <model> is the MLX repository, such as mlx-community/...\ncurl -X POST http://localhost:52415/place_instance -H 'Content-Type: application/json' \\\n  -d '{{\"model_id\": \"<model>\", \"sharding\": \"Pipeline\", \"instance_meta\": \"MlxRing\", \"min_nodes\": {nodes}}}'"
    );
    Ok(text)
}

fn vllm(run: &Run) -> Result<String, String> {
    if run.quant.format != Format::Safetensors {
        return Err(format!(
            "it runs safetensors (16 bits, FP8, AWQ, GPTQ), and {} is {}; choose such a quantization",
            run.quant.name,
            match run.quant.format {
                Format::Gguf => "GGUF",
                Format::Mlx => "MLX",
                Format::Safetensors => "safetensors",
            }
        ));
    }
    let mut sizes = Vec::new();
    for stage in &run.plan.stages {
        let node = &run.cluster.nodes[stage.node];
        for part in &stage.packing.parts {
            let pool = &node.machine.pools[part.pool];
            if pool.family.starts_with("apple") || pool.kind == PoolKind::Ram {
                return Err(format!(
                    "it computes with CUDA or ROCm, and layers lie on {} of {}",
                    pool.device_name, node.name
                ));
            }
        }
        if stage.packing.experts_in_ram > 0 {
            return Err(format!("experts lie in system memory on {}", node.name));
        }
        sizes.push(stage.packing.parts.len());
    }
    let nodes = run.plan.stages.len();
    let gpus = sizes.first().copied().unwrap_or(0);
    if sizes.iter().any(|&size| size != gpus) {
        return Err("its nodes must have the same number of GPUs, and the plan's have not".into());
    }
    let mut text = String::new();
    if nodes > 1 {
        text.push_str(
            "# vLLM divides the layers evenly; Ray is neither encrypted nor authenticated.\n",
        );
        let head = &run.cluster.nodes[run.plan.stages[0].node].name;
        for (index, stage) in run.plan.stages.iter().enumerate() {
            let node = &run.cluster.nodes[stage.node];
            let line = format!("# on {} ({})", node.name, node.machine.name);
            let _ = writeln!(text, "{}", one_line(&line));
            let address = placeholder(&format!("address of {head}"), head);
            let _ = match index {
                0 => writeln!(text, "ray start --head --port=6379"),
                _ => writeln!(text, "ray start --address={}:6379", one_line(&address)),
            };
        }
        let _ = writeln!(text, "# then on {}", one_line(head));
    }
    let model = match run.model.repo.as_deref() {
        None => "<model>".to_owned(),
        Some(repo) if is_plain(repo) => repo.to_owned(),
        Some(repo) => quoted(&one_line(repo)),
    };
    let _ = write!(
        text,
        "vllm serve {model} --max-model-len {} --max-num-seqs {}",
        run.load.context,
        run.load.sequences.max(1)
    );
    if gpus > 1 {
        let _ = write!(text, " \\\n  --tensor-parallel-size {gpus}");
    }
    if nodes > 1 {
        let _ = write!(
            text,
            " \\\n  --pipeline-parallel-size {nodes} --distributed-executor-backend ray"
        );
    }
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests;
