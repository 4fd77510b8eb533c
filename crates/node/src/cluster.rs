//! Nodes on this machine that run one model together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use brigade_engine::scheduler::SchedulerConfig;
use brigade_gguf::{Layers, Source, check_stages};
use brigade_wire::StageParams;

use crate::NodeError;
use crate::chain::ChainSpec;
use crate::child::{self, ChildProcess, Reports};
use crate::instance::Instance;
use crate::tokenizer::Tokenizer;
use crate::worker::{Memory, NodeOrder, NodeReport, RpcOrder, RunParams, Shard, StageReady};

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
    /// Call it from a thread that lives as long as the cluster, see [`child::spawn`].
    pub fn start(
        spec: &ClusterSpec,
        tokenizer: &Tokenizer,
        mut progress: impl FnMut(Progress),
    ) -> Result<Self, NodeError> {
        // All of them load at the same time.
        let mut started = Vec::new();
        for (name, order) in spec.orders()? {
            started.push((start_node(&name, &order)?, order));
        }
        let mut processes = Vec::new();
        let mut readings = Vec::new();
        let mut nodes = Vec::new();
        let mut readies = Vec::new();
        let mut servers = Vec::new();
        for ((process, mut reports), order) in started {
            let mut info = NodeInfo {
                name: process.name().to_owned(),
                pid: process.pid(),
                stage_pid: 0,
                layers: None,
                bytes: None,
                memory: None,
            };
            if let NodeOrder::Stage(shard) = &order {
                info.layers = Some(shard.layers);
            }
            let process = match await_ready(process, &mut reports, &mut info, &mut progress)? {
                (process, Ready::Stage(ready)) => {
                    readies.push(ready);
                    process
                }
                (process, Ready::Rpc(address)) => {
                    servers.push(address);
                    process
                }
            };
            if matches!(order, NodeOrder::Whole { .. }) {
                info.layers = Some(Layers::new(0, spec.source.header().block_count()?));
            }
            progress(Progress::Ready(info.name.clone()));
            nodes.push(info);
            processes.push(process);
            readings.push(reports);
        }
        let client = if servers.is_empty() {
            None
        } else {
            let (process, mut reports) = start_node("the RPC client", &spec.whole(servers))?;
            let mut info = NodeInfo {
                name: "client".to_owned(),
                pid: process.pid(),
                stage_pid: 0,
                layers: None,
                bytes: None,
                memory: None,
            };
            let (process, ready) = await_ready(process, &mut reports, &mut info, &mut progress)?;
            if let Ready::Stage(ready) = ready {
                readies.push(ready);
            }
            processes.push(process);
            readings.push(reports);
            Some(info)
        };

        let obituary = Arc::new(Obituary::default());
        let explaining = Arc::clone(&obituary);
        let instance = Instance::open(
            &chain_spec(spec, &readies)?,
            spec.scheduler(),
            Arc::clone(tokenizer.facts()),
            move |reason| explaining.wait().unwrap_or(reason),
        )?;
        let processes: Vec<_> = processes
            .into_iter()
            .map(|process| Arc::new(Mutex::new(process)))
            .collect();
        for (reports, process) in readings.into_iter().zip(&processes) {
            let (process, obituary) = (Arc::clone(process), Arc::clone(&obituary));
            let watched = instance.watcher();
            thread::spawn(move || {
                let reason = watch(reports, &process);
                obituary.write(&reason);
                watched.fail(&reason);
            });
        }
        Ok(Self {
            instance,
            nodes,
            client,
            processes,
            obituary,
        })
    }
}

impl Cluster {
    /// Something that waits for the first death of a process and returns what happened.
    pub fn death(&self) -> impl FnOnce() -> String + Send + 'static {
        let obituary = Arc::clone(&self.obituary);
        move || obituary.read()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.instance.fail("the cluster was shut down");
        // All lifelines first, so that the processes end side by side.
        for process in &self.processes {
            lock(process).release();
        }
        for process in &self.processes {
            lock(process).end();
        }
    }
}

fn start_node(name: &str, order: &NodeOrder) -> Result<(ChildProcess, Reports), NodeError> {
    let (mut process, reports) = child::spawn("node", name, &[])?;
    process.order(order)?;
    Ok((process, reports))
}

enum Ready {
    Stage(StageReady),
    Rpc(SocketAddr),
}

fn await_ready(
    mut process: ChildProcess,
    reports: &mut Reports,
    info: &mut NodeInfo,
    progress: &mut impl FnMut(Progress),
) -> Result<(ChildProcess, Ready), NodeError> {
    loop {
        match reports.read()? {
            Some(NodeReport::Slicing(done, total)) => {
                progress(Progress::Slicing(info.name.clone(), done, total));
            }
            Some(NodeReport::Stage { pid, bytes, ready }) => {
                info.stage_pid = pid;
                info.bytes = Some(bytes);
                info.memory = Some(ready.memory);
                return Ok((process, Ready::Stage(ready)));
            }
            Some(NodeReport::Rpc { pid, address }) => {
                info.stage_pid = pid;
                return Ok((process, Ready::Rpc(address)));
            }
            Some(NodeReport::Failed(reason) | NodeReport::Gone(reason)) => {
                return Err(NodeError::Refused {
                    name: info.name.clone(),
                    reason,
                });
            }
            None => return Err(process.gone()),
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
        stages: stages.iter().map(|stage| stage.address).collect(),
    })
}

/// Waits for the end of a node or its stage; returns what it was.
fn watch(mut reports: Reports, process: &Mutex<ChildProcess>) -> String {
    loop {
        match reports.read() {
            Ok(Some(NodeReport::Gone(how))) => {
                return format!("{} lost its stage: {how}", lock(process).name());
            }
            Ok(Some(_)) => {}
            // Asking how it went also reaps it.
            Ok(None) => return lock(process).gone().to_string(),
            Err(error) => return error.to_string(),
        }
    }
}

fn lock(process: &Mutex<ChildProcess>) -> MutexGuard<'_, ChildProcess> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The first death among the processes, for whoever only saw a connection break.
#[derive(Debug, Default)]
struct Obituary {
    text: Mutex<Option<String>>,
    written: Condvar,
}

impl Obituary {
    fn write(&self, reason: &str) {
        let mut text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        text.get_or_insert_with(|| reason.to_owned());
        self.written.notify_all();
    }

    fn read(&self) -> String {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        self.written
            .wait_while(text, |text| text.is_none())
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
            .unwrap_or_default()
    }

    fn wait(&self) -> Option<String> {
        let text = self.text.lock().unwrap_or_else(PoisonError::into_inner);
        let (text, _) = self
            .written
            .wait_timeout_while(text, DIAGNOSIS, |text| text.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        text.clone()
    }
}
