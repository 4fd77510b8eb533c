//! Nodes that run one model together: processes on this machine, or daemons on several.

mod guards;
mod member;
mod obituary;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use brigade_engine::scheduler::SchedulerConfig;
use brigade_gguf::{Layers, Source, check_stages};
use brigade_wire::{Hop, StageParams};

use crate::NodeError;
use crate::chain::ChainSpec;
use crate::daemon::{Amount, Claim, Daemon, Host, Tunnel};
use crate::instance::Instance;
use crate::listen::Listen;
use crate::tokenizer::Tokenizer;
use crate::worker::{Job, Memory, NodeOrder, RunParams, Shard, StageReady};
use guards::Guards;
use member::{Member, Ready, Way};
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
    /// Whether prompts that begin alike share that part of the KV cache; only where the
    /// architecture's allows it ([`brigade_gguf::Architecture::kv_can_be_cut`]).
    pub keeps_prefixes: bool,
    /// Threads of each stage; without it, as many as its node has cores.
    pub threads: Option<u32>,
    /// Where stage files are kept on this machine.
    pub cache: PathBuf,
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

/// One node of a running cluster.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// The process of its stage or RPC server.
    pub stage_pid: u32,
    /// Its layers; llama.cpp does not tell where RPC puts which.
    pub layers: Option<Layers>,
    /// Bytes of its weights.
    pub bytes: Option<u64>,
    /// What llama.cpp allocated.
    pub memory: Option<Memory>,
}

/// When somebody waits, an answer makes room after so many tokens: what has to be computed again
/// later is at most as much as what was new.
const PREEMPT_AFTER_TOKENS: u32 = 1024;

/// A running model. Dropping it ends its processes.
#[derive(Debug)]
pub struct Cluster {
    /// To ask.
    pub instance: Instance,
    /// The nodes, in order of their layers.
    pub nodes: Vec<NodeInfo>,
    /// With [`Placement::Rpc`], the process that drives the servers.
    pub client: Option<NodeInfo>,
    ways: Vec<Arc<Mutex<Way>>>,
    /// To RPC servers on other nodes.
    _tunnels: Vec<Tunnel>,
    obituary: Arc<Obituary>,
}

/// What happens while a cluster starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// A node writes its stage file: bytes done, and in all.
    Slicing(String, u64, u64),
    /// A node gets its part of the model from elsewhere.
    Fetching {
        /// The node.
        node: String,
        /// Bytes that are there.
        done_bytes: u64,
        /// Bytes in all.
        total_bytes: u64,
        /// Of the last seconds.
        bytes_per_second: u64,
    },
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
            keeps_prefixes: self.keeps_prefixes,
            preempt_after_tokens: PREEMPT_AFTER_TOKENS,
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

    fn orders(&self, guards: Option<&Guards>) -> Result<Vec<(String, NodeOrder)>, NodeError> {
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
            Placement::Rpc(nodes) => {
                let threads = self.threads;
                let order = |index| (name(index), NodeOrder::Rpc { threads });
                (0..*nodes as usize).map(order).collect()
            }
        })
    }

    /// What each stage is told, with the model where it lies on this machine.
    fn shards(&self, ranges: &[Layers], guards: Option<&Guards>) -> Result<Vec<Shard>, NodeError> {
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

    fn whole(&self, rpc: Vec<SocketAddr>, guards: Option<&Guards>) -> NodeOrder {
        NodeOrder::Whole {
            path: self.source.path().to_owned(),
            run: self.run_params(),
            rpc,
            guard: guards.map(|guards| guards.stages[0].clone()),
        }
    }
}

impl Cluster {
    /// Starts all nodes, waits until every stage is loaded and builds the chain.
    pub fn start(
        spec: &ClusterSpec,
        tokenizer: &Tokenizer,
        progress: impl FnMut(Progress),
    ) -> Result<Self, NodeError> {
        let guards = match (&spec.placement, spec.links) {
            (Placement::Stages(ranges), Links::Encrypted) => Some(Guards::new(ranges.len())),
            _ => None,
        };
        // All of them load at the same time.
        let mut members = Vec::new();
        for (name, order) in spec.orders(guards.as_ref())? {
            members.push(Member::start(&name, &order)?);
        }
        Self::assemble(spec, tokenizer, members, guards, Ground::Here, progress)
    }

    /// The same with a stage on each of these nodes of a cluster, in order of layers, or with an RPC
    /// server on each.
    ///
    /// It coordinates the instance: when it is dropped, the nodes end their stages.
    pub fn start_on(
        daemon: &Daemon,
        seats: &[Seat],
        spec: &ClusterSpec,
        tokenizer: &Tokenizer,
        progress: impl FnMut(Progress),
    ) -> Result<Self, NodeError> {
        let (guards, jobs) = match &spec.placement {
            Placement::Stages(ranges) if ranges.len() == seats.len() => {
                let guards = Guards::new(ranges.len());
                let shards = spec.shards(ranges, Some(&guards))?.into_iter();
                let job = |(shard, seat): (Shard, &Seat)| {
                    // Whoever names a path for a node means that file and no other.
                    Job::Stage(Box::new(match &seat.model {
                        Some(path) => Shard {
                            path: path.clone(),
                            ..shard
                        },
                        None => Shard {
                            delivery: Some(Box::new(daemon.offer(&spec.source))),
                            ..shard
                        },
                    }))
                };
                let jobs: Vec<_> = shards.zip(seats).map(job).collect();
                (guards, jobs)
            }
            // Its client reads the weights itself.
            Placement::Rpc(_) if spec.source.is_hollow() => {
                return Err(brigade_gguf::GgufError::Hollow.into());
            }
            Placement::Rpc(nodes) if *nodes as usize == seats.len() => {
                let threads = spec.threads;
                let jobs = seats.iter().map(|_| Job::Rpc { threads }).collect();
                // Its client, which stands for all stages, runs here.
                (Guards::new(1), jobs)
            }
            _ => {
                return Err(NodeError::Chain(
                    "a cluster needs a part of the model for each node".to_owned(),
                ));
            }
        };
        let mut members = Vec::new();
        for (seat, job) in seats.iter().zip(jobs) {
            let claim = Claim {
                model: spec.name.clone(),
                amounts: seat.needs.clone(),
            };
            members.push(Member::ask(daemon, &seat.host, job, claim)?);
        }
        let ground = Ground::Cluster(daemon, seats);
        Self::assemble(spec, tokenizer, members, Some(guards), ground, progress)
    }

    /// Waits for the members, and makes an instance of them.
    fn assemble(
        spec: &ClusterSpec,
        tokenizer: &Tokenizer,
        mut members: Vec<Member>,
        guards: Option<Guards>,
        ground: Ground<'_>,
        mut progress: impl FnMut(Progress),
    ) -> Result<Self, NodeError> {
        let mut stages = Vec::new();
        let mut servers = Vec::new();
        let mut tunnels = Vec::new();
        for (index, member) in members.iter_mut().enumerate() {
            match member.ready(&mut progress)? {
                Ready::Stage(stage) => stages.push(stage),
                Ready::Rpc(address) => {
                    let (address, tunnel) = ground.lead(index, address)?;
                    servers.push(address);
                    tunnels.extend(tunnel);
                }
            }
        }
        let nodes: Vec<_> = members.iter().map(|member| member.info.clone()).collect();
        let mut client = None;
        if !servers.is_empty() {
            let mut member = Member::start("client", &spec.whole(servers, guards.as_ref()))?;
            if let Ready::Stage(stage) = member.ready(&mut progress)? {
                stages.push(stage);
            }
            client = Some(member.info.clone());
            members.push(member);
        }

        let route = match &client {
            // It runs here, whoever has its servers.
            Some(_) => Route::here(&stages),
            None => ground.route(&stages)?,
        };
        let obituary = Arc::new(Obituary::default());
        let explaining = Arc::clone(&obituary);
        let instance = Instance::open(
            &chain_spec(spec, &stages, guards, &route)?,
            spec.scheduler(),
            Arc::clone(tokenizer.facts()),
            move |reason| {
                let how = explaining.within(DIAGNOSIS).unwrap_or(reason);
                // A link may break while all processes live.
                explaining.write(&how);
                how
            },
        )?;
        let watch = |member: Member| {
            let (obituary, instance) = (Arc::clone(&obituary), instance.watcher());
            // RPC's client aborts when a server dies: then the server's death says more.
            let is_client = client
                .as_ref()
                .is_some_and(|own| own.name == member.info.name);
            member.watch(move |how| {
                let servers = is_client.then(|| obituary.within(DIAGNOSIS / 2)).flatten();
                let how = servers.as_deref().unwrap_or(how);
                obituary.write(how);
                instance.fail(how);
            })
        };
        Ok(Self {
            ways: members.into_iter().map(watch).collect(),
            instance,
            nodes,
            client,
            _tunnels: tunnels,
            obituary,
        })
    }

    /// Something that waits for the first death of a process or break of the chain and says what
    /// happened, or gives `None` when the cluster is shut down.
    pub fn death(&self) -> impl FnOnce() -> Option<String> + Send + use<> {
        let obituary = Arc::clone(&self.obituary);
        move || obituary.wait()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.obituary.close();
        self.instance.fail("the cluster was shut down");
        // All lifelines first, so that the processes end side by side.
        for way in &self.ways {
            member::lock(way).release();
        }
        for way in &self.ways {
            member::lock(way).end();
        }
    }
}

/// Where the ends of a chain find each other: each as the one before sees it.
#[derive(Debug)]
struct Route {
    /// The stages.
    stages: Vec<SocketAddr>,
    /// Where the coordinator listens.
    listen: Listen,
    /// The coordinator, as the last stage sees it; without the port.
    back: SocketAddr,
}

/// Where the members of a running model are.
#[derive(Debug, Clone, Copy)]
enum Ground<'a> {
    /// All of them on this machine.
    Here,
    /// On nodes of a cluster.
    Cluster(&'a Daemon, &'a [Seat]),
}

impl Ground<'_> {
    /// The address by which a member's RPC server is reached from here.
    fn lead(
        self,
        member: usize,
        address: SocketAddr,
    ) -> Result<(SocketAddr, Option<Tunnel>), NodeError> {
        match self {
            Self::Cluster(daemon, seats) if !daemon.is_own(&seats[member].host) => {
                let tunnel = daemon.tunnel(&seats[member].host, address.port())?;
                Ok((tunnel.address, Some(tunnel)))
            }
            _ => Ok((address, None)),
        }
    }

    /// Where the chain's ends find each other: in a cluster by the ways that its nodes use between
    /// each other now.
    fn route(self, ready: &[StageReady]) -> Result<Route, NodeError> {
        let Self::Cluster(daemon, seats) = self else {
            return Ok(Route::here(ready));
        };
        let here = daemon.here();
        let mut from = &here;
        let mut stages = Vec::new();
        for (seat, ready) in seats.iter().zip(ready) {
            let mut address = daemon.route(from, &seat.host)?;
            address.set_port(ready.address.port());
            stages.push(address);
            from = &seat.host;
        }
        Ok(Route {
            stages,
            listen: daemon.chain_listen(),
            back: daemon.route(from, &here)?,
        })
    }
}

impl Route {
    /// Between processes of this machine.
    fn here(ready: &[StageReady]) -> Self {
        let listen = Listen::LOOPBACK;
        Self {
            stages: ready.iter().map(|stage| stage.address).collect(),
            listen,
            back: SocketAddr::new(listen.ip, 0),
        }
    }
}

fn chain_spec(
    spec: &ClusterSpec,
    stages: &[StageReady],
    guards: Option<Guards>,
    route: &Route,
) -> Result<ChainSpec, NodeError> {
    let (Some(first), Some(last)) = (stages.first(), stages.last()) else {
        return Err(NodeError::Chain("there is no stage".to_owned()));
    };
    let hop = |(index, &address): (usize, &SocketAddr)| Hop {
        address,
        key: guards
            .as_ref()
            .map(|guards| guards.stages[index].own.public()),
    };
    Ok(ChainSpec {
        build: first.build.clone(),
        model: spec.name.clone(),
        hidden_size: first.hidden_size,
        vocabulary: last
            .vocabulary
            .ok_or_else(|| NodeError::Chain("the last stage has no head".to_owned()))?,
        params: spec.run_params().params,
        stages: route.stages.iter().enumerate().map(hop).collect(),
        listen: route.listen,
        back: route.back,
        guard: guards.map(|guards| guards.coordinator),
    })
}
