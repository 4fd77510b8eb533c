//! Nodes that run one model together: processes on this machine, or daemons on several.

mod break_off;
mod ground;
mod guards;
mod member;
mod obituary;
mod spec;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use brigade_gguf::Layers;
use brigade_wire::Hop;

use crate::NodeError;
use crate::chain::ChainSpec;
use crate::daemon::{Claim, Daemon, Tunnel};
use crate::instance::Instance;
use crate::tokenizer::Tokenizer;
use crate::worker::{Job, Memory, Shard, StageReady};
use ground::{Ground, Route};
use guards::Guards;
use member::{Member, Ready, Watched};
use obituary::Obituary;

pub use break_off::BreakOff;
pub use spec::{ClusterSpec, Links, Placement, Seat};

/// How long the watchers of the processes may take to say which of them broke the chain.
const DIAGNOSIS: Duration = Duration::from_millis(500);

/// One node of a running cluster.
#[derive(Debug, Clone)]
pub struct NodeInfo {
    /// Its name.
    pub name: String,
    /// The process of its stage or RPC server.
    pub stage_pid: u32,
    /// Its layers.
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
    members: Vec<Watched>,
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
    /// It coordinates the instance: when it is dropped, the nodes end their stages. Another thread
    /// may break the start off.
    pub fn start_on(
        daemon: &Daemon,
        seats: &[Seat],
        spec: &ClusterSpec,
        tokenizer: &Tokenizer,
        break_off: &BreakOff,
        progress: impl FnMut(Progress),
    ) -> Result<Self, NodeError> {
        let started = Self::begin_on(daemon, seats, spec, tokenizer, break_off, progress);
        // Whatever its end looked like from here.
        started.or_else(|error| break_off.check().and(Err(error)))
    }

    fn begin_on(
        daemon: &Daemon,
        seats: &[Seat],
        spec: &ClusterSpec,
        tokenizer: &Tokenizer,
        break_off: &BreakOff,
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
            Placement::Rpc(ranges) if ranges.len() == seats.len() => {
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
            members.push(Member::ask(daemon, &seat.host, job, claim, break_off)?);
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
                    let Placement::Rpc(ranges) = &spec.placement else {
                        return Err(NodeError::Chain("an RPC server among stages".to_owned()));
                    };
                    member.info.layers = Some(ranges[index]);
                    servers.push((address, ranges[index].len()));
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
            ground.filled(&spec.name);
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
            members: members.into_iter().map(watch).collect(),
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
        for member in &self.members {
            member.release();
        }
        for member in &self.members {
            member.end();
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
