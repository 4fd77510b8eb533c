//! Nodes on this machine that run one model together.

mod member;
mod obituary;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brigade_engine::scheduler::SchedulerConfig;
use brigade_gguf::{Layers, Source, check_stages};
use brigade_wire::{Hop, StageParams};

use crate::NodeError;
use crate::chain::ChainSpec;
use crate::child::ChildProcess;
use crate::instance::Instance;
use crate::tokenizer::Tokenizer;
use crate::worker::{Memory, NodeOrder, RpcOrder, RunParams, Shard, StageReady};
use member::{Member, Ready};
use obituary::Obituary;

/// How long the watchers of the processes may take to say which of them broke the chain.
const DIAGNOSIS: Duration = Duration::from_millis(500);

/// Who computes what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    /// One node runs the original file.
    Whole,
    /// One node for each layer range.
    Stages(Vec<Layers>),
    /// This many nodes serve llama.cpp's RPC, which spreads the model over them by itself.
    Rpc(u32),
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
    /// Threads of each stage.
    pub threads: u32,
    /// Where stage files are kept.
    pub cache: PathBuf,
}

/// One node of a running cluster.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// The process of its stage or RPC server.
    pub stage_pid: u32,
    /// Its layers; llama.cpp does not tell where RPC puts which.
    pub layers: Option<Layers>,
    /// Bytes of its weights.
    pub bytes: Option<u64>,
    /// What llama.cpp allocated.
    pub memory: Option<Memory>,
}

/// A running model. Dropping it ends its processes.
#[derive(Debug)]
pub struct Cluster {
    /// To ask.
    pub instance: Instance,
    /// The nodes, in order of their layers.
    pub nodes: Vec<NodeInfo>,
    /// With [`Placement::Rpc`], the process that drives the servers.
    pub client: Option<NodeInfo>,
    processes: Vec<Arc<Mutex<ChildProcess>>>,
    obituary: Arc<Obituary>,
}

/// What happens while a cluster starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A node writes its stage file: bytes done, and in all.
    Slicing(String, u64, u64),
    /// A node is ready.
    Ready(String),
}

impl ClusterSpec {
    fn scheduler(&self) -> SchedulerConfig {
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
        }
    }

    /// Everything that all stages agree on.
    fn run_params(&self) -> RunParams {
        RunParams {
            model: self.name.clone(),
            params: StageParams {
                context_tokens: self.context_tokens,
                sequences: self.sequences,
                batch_tokens: self.scheduler().batch_tokens(),
                flash_attention: true,
            },
            threads: self.threads,
        }
    }

    fn orders(&self) -> Result<Vec<(String, NodeOrder)>, NodeError> {
        let name = |index: usize| format!("node-{}", index + 1);
        Ok(match &self.placement {
            Placement::Whole => vec![(name(0), self.whole(Vec::new()))],
            Placement::Stages(ranges) => {
                check_stages(self.source.header(), ranges)?;
                let order = |(index, &layers): (usize, &Layers)| {
                    let shard = Shard {
                        path: self.source.path().to_owned(),
                        layers,
                        cache: self.stage_dir(),
                        run: self.run_params(),
                    };
                    (name(index), NodeOrder::Stage(shard))
                };
                ranges.iter().enumerate().map(order).collect()
            }
            Placement::Rpc(nodes) => {
                let threads = self.threads;
                let order = |index| (name(index), NodeOrder::Rpc(RpcOrder { threads }));
                (0..*nodes as usize).map(order).collect()
            }
        })
    }

    /// A folder for this model's stage files, readable by name. It is another one for every state
    /// of every file: a stage that is about to be loaded is never written again by somebody else.
    fn stage_dir(&self) -> PathBuf {
        let mut identity = blake3::Hasher::new();
        identity.update(self.source.model().identity().as_bytes());
        for file in self.source.files() {
            identity.update(file.path.as_os_str().as_encoded_bytes());
            identity.update(&file.stamp.bytes.to_le_bytes());
            identity.update(&file.stamp.modified_ns.to_le_bytes());
        }
        let identity = identity.finalize().to_hex();
        // File names may have 255 bytes; a character of UTF-8 takes up to 4.
        let name: String = self.name.chars().take(40).collect();
        let folder = format!("{name}-{}", &identity[..16]);
        self.cache.join("stages").join(folder)
    }

    fn whole(&self, rpc: Vec<SocketAddr>) -> NodeOrder {
        NodeOrder::Whole {
            path: self.source.path().to_owned(),
            run: self.run_params(),
            rpc,
        }
    }
}

impl Cluster {
    /// Starts all nodes, waits until every stage is loaded and builds the chain.
    ///
    /// Call it from a thread that lives as long as the cluster, see [`child::spawn`](crate::child).
    pub fn start(
        spec: &ClusterSpec,
        tokenizer: &Tokenizer,
        mut progress: impl FnMut(Progress),
    ) -> Result<Self, NodeError> {
        // All of them load at the same time.
        let mut members = Vec::new();
        for (name, order) in spec.orders()? {
            members.push(Member::start(&name, &order)?);
        }
        let mut stages = Vec::new();
        let mut servers = Vec::new();
        for member in &mut members {
            match member.ready(&mut progress)? {
                Ready::Stage(stage) => stages.push(stage),
                Ready::Rpc(address) => servers.push(address),
            }
        }
        let nodes: Vec<_> = members.iter().map(|member| member.info.clone()).collect();
        let mut client = None;
        if !servers.is_empty() {
            let mut member = Member::start("client", &spec.whole(servers))?;
            if let Ready::Stage(stage) = member.ready(&mut progress)? {
                stages.push(stage);
            }
            client = Some(member.info.clone());
            members.push(member);
        }

        let obituary = Arc::new(Obituary::default());
        let explaining = Arc::clone(&obituary);
        let instance = Instance::open(
            &chain_spec(spec, &stages)?,
            spec.scheduler(),
            Arc::clone(tokenizer.facts()),
            move |reason| explaining.within(DIAGNOSIS).unwrap_or(reason),
        )?;
        let watch = |member: Member| {
            let (obituary, instance) = (Arc::clone(&obituary), instance.watcher());
            member.watch(move |how| {
                obituary.write(how);
                instance.fail(how);
            })
        };
        Ok(Self {
            processes: members.into_iter().map(watch).collect(),
            instance,
            nodes,
            client,
            obituary,
        })
    }

    /// Something that waits for the first death of a process and says what happened, or gives
    /// `None` when the cluster is shut down.
    pub fn death(&self) -> impl FnOnce() -> Option<String> + Send + 'static {
        let obituary = Arc::clone(&self.obituary);
        move || obituary.wait()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.obituary.close();
        self.instance.fail("the cluster was shut down");
        // All lifelines first, so that the processes end side by side.
        for process in &self.processes {
            member::lock(process).release();
        }
        for process in &self.processes {
            member::lock(process).end();
        }
    }
}

fn chain_spec(spec: &ClusterSpec, stages: &[StageReady]) -> Result<ChainSpec, NodeError> {
    let (Some(first), Some(last)) = (stages.first(), stages.last()) else {
        return Err(NodeError::Chain("there is no stage".to_owned()));
    };
    Ok(ChainSpec {
        build: first.build.clone(),
        model: spec.name.clone(),
        hidden_size: first.hidden_size,
        vocabulary: last
            .vocabulary
            .ok_or_else(|| NodeError::Chain("the last stage has no head".to_owned()))?,
        params: spec.run_params().params,
        stages: stages
            .iter()
            .map(|stage| Hop {
                address: stage.address,
                key: None,
            })
            .collect(),
        bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
        guard: None,
    })
}
