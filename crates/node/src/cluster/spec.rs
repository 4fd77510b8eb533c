//! A model and how to run it, and what each node is told to do for that.

use std::net::SocketAddr;
use std::path::PathBuf;

use brigade_engine::scheduler::SchedulerConfig;
use brigade_gguf::{Layers, Source, check_stages};
use brigade_wire::StageParams;

use super::guards::Guards;
use crate::NodeError;
use crate::cache::Cache;
use crate::daemon::{Amount, Host};
use crate::listen::Listen;
use crate::worker::{NodeOrder, RunParams, Shard};

/// When somebody waits, an answer makes room after so many tokens: what has to be computed again
/// later is at most as much as what was new.
const PREEMPT_AFTER_TOKENS: u32 = 1024;

/// Who computes what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// One node runs the original file.
    Whole,
    /// One node for each layer range.
    Stages(Vec<Layers>),
    /// One node for each layer range serves llama.cpp's RPC.
    Rpc(Vec<Layers>),
}

/// A model and how to run it.
#[derive(Debug)]
pub struct ClusterSpec {
    /// The model.
    pub source: Source,
    /// What requests and messages call it.
    pub name: String,
    /// Who computes what.
    pub placement: Placement,
    /// Context of one sequence, in tokens.
    pub context_tokens: u32,
    /// How many sequences at once.
    pub sequences: u32,
    /// Prompt tokens of one step.
    pub chunk_tokens: u32,
    /// Whether prompts that begin alike share that part of the KV cache; only where the
    /// architecture's allows it ([`brigade_gguf::Architecture::kv_can_be_cut`]).
    pub keeps_prefixes: bool,
    /// The most tokens that are guessed ahead in an answer; 0 where the architecture does not
    /// allow it, as above.
    pub draft_tokens: u32,
    /// Threads of each stage; without it, as many as its node has cores.
    pub threads: Option<u32>,
    /// Where stage files are kept on this machine.
    pub cache: Cache,
    /// How the stages on this machine are connected; those of several machines always encrypt.
    pub links: Links,
}

/// Whether links between processes of one machine are encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Bare sockets.
    Plain,
    /// As between machines.
    Encrypted,
}

/// Where a stage of a cluster runs.
#[derive(Debug, Clone)]
pub struct Seat {
    /// The node.
    pub host: Host,
    /// The model's file there; without it, the one of the same path, or what can be had from
    /// elsewhere.
    pub model: Option<PathBuf>,
    /// Memory that its part takes there.
    pub needs: Vec<Amount>,
}

impl ClusterSpec {
    pub(super) fn scheduler(&self) -> SchedulerConfig {
        SchedulerConfig {
            stages: match &self.placement {
                Placement::Stages(ranges) => ranges.len() as u32,
                // One process stands for all: RPC runs its devices one after the other.
                Placement::Whole | Placement::Rpc(_) => 1,
            },
            sequences: self.sequences,
            context_tokens: self.context_tokens,
            chunk_tokens: self.chunk_tokens,
            waiting_limit: 64,
            keeps_prefixes: self.keeps_prefixes,
            preempt_after_tokens: PREEMPT_AFTER_TOKENS,
            draft_tokens: self.draft_tokens,
        }
    }

    /// Everything that all stages agree on.
    pub(super) fn run_params(&self) -> RunParams {
        RunParams {
            model: self.name.clone(),
            params: StageParams {
                context_tokens: self.context_tokens,
                sequences: self.sequences,
                batch_tokens: self.scheduler().batch_tokens(),
                flash_attention: true,
                draft_tokens: self.draft_tokens,
            },
            threads: self.threads,
        }
    }

    pub(super) fn orders(
        &self,
        guards: Option<&Guards>,
    ) -> Result<Vec<(String, NodeOrder)>, NodeError> {
        let name = |index: usize| format!("node-{}", index + 1);
        Ok(match &self.placement {
            Placement::Whole => vec![(name(0), self.whole(Vec::new(), None))],
            Placement::Stages(ranges) => {
                let shards = self.shards(ranges, guards)?.into_iter().enumerate();
                let order = |(index, shard)| {
                    let order = NodeOrder::Stage {
                        shard,
                        cache: self.cache.clone(),
                        listen: Listen::LOOPBACK,
                    };
                    (name(index), order)
                };
                shards.map(order).collect()
            }
            Placement::Rpc(ranges) => {
                let threads = self.threads;
                let order = |index| (name(index), NodeOrder::Rpc { threads });
                (0..ranges.len()).map(order).collect()
            }
        })
    }

    /// What each stage is told, with the model where it lies on this machine.
    pub(super) fn shards(
        &self,
        ranges: &[Layers],
        guards: Option<&Guards>,
    ) -> Result<Vec<Shard>, NodeError> {
        check_stages(self.source.header(), ranges)?;
        let identity = self.source.model().identity().to_hex().to_string();
        let shard = |(index, &layers): (usize, &Layers)| Shard {
            path: self.source.path().to_owned(),
            identity: identity.clone(),
            layers,
            run: self.run_params(),
            guard: guards.map(|guards| guards.stages[index].clone()),
            delivery: None,
        };
        Ok(ranges.iter().enumerate().map(shard).collect())
    }

    pub(super) fn whole(&self, rpc: Vec<(SocketAddr, u32)>, guards: Option<&Guards>) -> NodeOrder {
        NodeOrder::Whole {
            path: self.source.path().to_owned(),
            run: self.run_params(),
            rpc,
            guard: guards.map(|guards| guards.stages[0].clone()),
        }
    }
}
