//! One node of a running model, from its start to its end.

use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

use brigade_wire::FrameError;
use brigade_wire::frame::receive_value;

use super::{BreakOff, NodeInfo, Progress};
use crate::NodeError;
use crate::child::{self, ChildProcess, Reports};
use crate::daemon::{Claim, Daemon, Host};
use crate::link::Link;
use crate::worker::{Job, NodeOrder, NodeReport, StageReady};

/// The most bytes of a report.
const REPORT_LIMIT: u32 = 64 * 1024;

/// How long a daemon may take to end what ran there: what a child of its may take, and a bit.
const GRACE: Duration = Duration::from_secs(3);

/// A node that has its order.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) info: NodeInfo,
    way: Way,
    reports: Source,
}

/// A node whose end is waited for.
#[derive(Debug)]
pub(super) struct Watched {
    way: Arc<Mutex<Way>>,
    /// Says nothing, and ends when nothing is left of what ran there.
    ended: mpsc::Receiver<()>,
}

/// To let go of a node.
#[derive(Debug)]
enum Way {
    /// It is a child process.
    Child(ChildProcess),
    /// It belongs to a daemon, at the other end of this connection.
    Daemon { name: String, socket: TcpStream },
}

/// Where its reports come from.
#[derive(Debug)]
enum Source {
    Child(Reports),
    Daemon(Box<Link>),
}

/// What a node offers when it is ready.
#[derive(Debug)]
pub(super) enum Ready {
    Stage(StageReady),
    Rpc(SocketAddr),
}

impl Way {
    /// An error that says that the node is gone, and what is known of its end.
    fn gone(&mut self) -> NodeError {
        match self {
            Self::Child(process) => process.gone(),
            Self::Daemon { name, .. } => NodeError::ChildGone {
                name: name.clone(),
                how: "the connection to it is closed".to_owned(),
            },
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Child(process) => process.name(),
            Self::Daemon { name, .. } => name,
        }
    }

    /// Tells it to end, without waiting for that.
    fn release(&mut self) {
        match self {
            Self::Child(process) => process.release(),
            // It closes the other direction when nothing is left of what ran there. One that is
            // closed already is what is wanted.
            Self::Daemon { socket, .. } => drop(socket.shutdown(Shutdown::Write)),
        }
    }

    /// Sees to its end as far as that can be done from here.
    fn end(&mut self) {
        match self {
            Self::Child(process) => process.end(),
            Self::Daemon { socket, .. } => drop(socket.shutdown(Shutdown::Both)),
        }
    }
}

impl Watched {
    /// Tells the node to end what runs there, without waiting for that.
    pub(super) fn release(&self) {
        lock(&self.way).release();
    }

    /// Waits until that has ended, and its memory is free.
    pub(super) fn end(&self) {
        self.release();
        // A child is waited for below.
        let waits = matches!(*lock(&self.way), Way::Daemon { .. });
        if waits {
            let _ = self.ended.recv_timeout(GRACE);
        }
        lock(&self.way).end();
    }
}

impl Drop for Way {
    /// The daemon holds the same socket, so closing it would not be enough.
    fn drop(&mut self) {
        if let Self::Daemon { .. } = self {
            self.end();
        }
    }
}

impl Source {
    fn read(&mut self, name: &str) -> Result<Option<NodeReport>, NodeError> {
        let link = match self {
            Self::Child(reports) => return reports.read(),
            Self::Daemon(link) => link,
        };
        match receive_value(link, REPORT_LIMIT) {
            Ok(report) => Ok(Some(report)),
            Err(FrameError::Closed | FrameError::Io(_)) => Ok(None),
            Err(error) => Err(NodeError::Protocol {
                name: name.to_owned(),
                reason: error.to_string(),
            }),
        }
    }
}

impl Member {
    /// Starts a node process on this machine and tells it what to do.
    pub(super) fn start(name: &str, order: &NodeOrder) -> Result<Self, NodeError> {
        let (mut process, reports) = child::spawn("node", name)?;
        process.order(order)?;
        let layers = match order {
            NodeOrder::Stage { shard, .. } => Some(shard.layers),
            NodeOrder::Whole { .. } | NodeOrder::Rpc { .. } => None,
        };
        Ok(Self {
            info: NodeInfo {
                name: name.to_owned(),
                stage_pid: 0,
                layers,
                bytes: None,
                memory: None,
            },
            way: Way::Child(process),
            reports: Source::Child(reports),
        })
    }

    /// Asks a node of the cluster to run something.
    pub(super) fn ask(
        daemon: &Daemon,
        host: &Host,
        job: Job,
        claim: Claim,
        break_off: &BreakOff,
    ) -> Result<Self, NodeError> {
        let layers = match &job {
            Job::Stage(shard) => Some(shard.layers),
            Job::Rpc { .. } => None,
        };
        break_off.check()?;
        let link = daemon.run_on(host, job, claim)?;
        let socket = || {
            let socket = link.socket().try_clone();
            socket.map_err(|error| NodeError::Peer {
                node: host.name.clone(),
                error: error.into(),
            })
        };
        break_off.holds(socket()?)?;
        let socket = socket()?;
        let name = host.name.clone();
        Ok(Self {
            info: NodeInfo {
                name: name.clone(),
                stage_pid: 0,
                layers,
                bytes: None,
                memory: None,
            },
            way: Way::Daemon { name, socket },
            reports: Source::Daemon(Box::new(link)),
        })
    }

    /// Waits until it can be used.
    pub(super) fn ready(
        &mut self,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Ready, NodeError> {
        let name = &self.info.name;
        let ready = loop {
            match self.reports.read(name)? {
                Some(NodeReport::Slicing(done, total)) => {
                    progress(Progress::Slicing(name.clone(), done, total));
                }
                Some(NodeReport::Fetching(done_bytes, total_bytes, bytes_per_second)) => {
                    progress(Progress::Fetching {
                        node: name.clone(),
                        done_bytes,
                        total_bytes,
                        bytes_per_second,
                    });
                }
                Some(NodeReport::Stage { pid, bytes, ready }) => {
                    self.info.stage_pid = pid;
                    self.info.bytes = Some(bytes);
                    self.info.memory = Some(ready.memory);
                    break Ready::Stage(ready);
                }
                Some(NodeReport::Rpc { pid, address }) => {
                    self.info.stage_pid = pid;
                    break Ready::Rpc(address);
                }
                Some(NodeReport::Failed(reason) | NodeReport::Gone(reason)) => {
                    return Err(NodeError::Refused {
                        name: name.clone(),
                        reason,
                    });
                }
                None => return Err(self.way.gone()),
            }
        };
        progress(Progress::Ready(self.info.name.clone()));
        Ok(ready)
    }

    /// Calls `dead` with how it went when the node or its stage ends, which is then reaped.
    pub(super) fn watch(self, dead: impl FnOnce(&str) + Send + 'static) -> Watched {
        let way = Arc::new(Mutex::new(self.way));
        let (watched, mut reports) = (Arc::clone(&way), self.reports);
        let (ends, ended) = mpsc::channel();
        thread::spawn(move || {
            dead(&end(&watched, &mut reports));
            // A daemon frees the memory after its last word, and closes then.
            while let Ok(Some(_)) = reports.read("a node") {}
            drop::<mpsc::Sender<()>>(ends);
        });
        Watched { way, ended }
    }
}

/// Waits for the end of a node or its stage; returns what it was.
fn end(way: &Mutex<Way>, reports: &mut Source) -> String {
    let name = lock(way).name().to_owned();
    loop {
        match reports.read(&name) {
            Ok(Some(NodeReport::Gone(how))) => return format!("{name} lost its stage: {how}"),
            Ok(Some(_)) => {}
            // Asking how it went also reaps it.
            Ok(None) => return lock(way).gone().to_string(),
            Err(error) => return error.to_string(),
        }
    }
}

fn lock(way: &Mutex<Way>) -> MutexGuard<'_, Way> {
    way.lock().unwrap_or_else(PoisonError::into_inner)
}
