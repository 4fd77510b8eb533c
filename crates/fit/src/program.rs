//! The programs that pipelines are planned for.

use crate::model::{Format, Model};

/// A program that runs layer ranges on several nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// Brigade's own stages.
    Brigade,
    /// llama.cpp's RPC servers.
    LlamaRpc,
    /// exo, on Macs.
    Exo,
    /// vLLM, on GPUs of NVIDIA or AMD.
    Vllm,
}

impl Program {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Brigade, Self::LlamaRpc, Self::Exo, Self::Vllm];

    /// What runs a model in this format over several nodes: Brigade where it can.
    pub fn of_pipeline(model: &Model, format: Format) -> Self {
        match format {
            Format::Gguf if Self::is_staged(model) => Self::Brigade,
            Format::Gguf => Self::LlamaRpc,
            Format::Mlx => Self::Exo,
            Format::Safetensors => Self::Vllm,
        }
    }

    /// Whether Brigade cuts models of this architecture into stages.
    fn is_staged(model: &Model) -> bool {
        brigade_gguf::Architecture::supported().any(|name| name == model.architecture)
    }

    /// Its id among the catalog's runtimes.
    pub fn id(self) -> &'static str {
        match self {
            Self::Brigade => "brigade",
            Self::LlamaRpc => "llama.cpp-rpc",
            Self::Exo => "exo",
            Self::Vllm => "vllm",
        }
    }
}
