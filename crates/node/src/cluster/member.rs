//! One node process of a cluster, from its start to its end.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::{NodeInfo, Progress};
use crate::NodeError;
use crate::child::{self, ChildProcess, Reports};
use crate::worker::{NodeOrder, NodeReport, StageReady};

/// A node that has its order.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) info: NodeInfo,
    process: ChildProcess,
    reports: Reports,
}

/// What a node offers when it is ready.
#[derive(Debug)]
pub(super) enum Ready {
    Stage(StageReady),
    Rpc(SocketAddr),
}

impl Member {
    /// Starts a node and tells it what to do.
    pub(super) fn start(name: &str, order: &NodeOrder) -> Result<Self, NodeError> {
        let (mut process, reports) = child::spawn("node", name)?;
        process.order(order)?;
        let layers = match order {
            NodeOrder::Stage(shard) => Some(shard.layers),
            NodeOrder::Whole { .. } | NodeOrder::Rpc(_) => None,
        };
        Ok(Self {
            info: NodeInfo {
                name: name.to_owned(),
                pid: process.pid(),
                stage_pid: 0,
                layers,
                bytes: None,
                memory: None,
            },
            process,
            reports,
        })
    }

    /// Waits until it can be used.
    pub(super) fn ready(
        &mut self,
        progress: &mut impl FnMut(Progress),
    ) -> Result<Ready, NodeError> {
        let name = &self.info.name;
        let ready = loop {
            match self.reports.read()? {
                Some(NodeReport::Slicing(done, total)) => {
                    progress(Progress::Slicing(name.clone(), done, total));
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
                None => return Err(self.process.gone()),
            }
        };
        progress(Progress::Ready(self.info.name.clone()));
        Ok(ready)
    }

    /// Calls `dead` with how it went when the node or its stage ends. Returns the process, which
    /// is then reaped.
    pub(super) fn watch(
        self,
        dead: impl FnOnce(&str) + Send + 'static,
    ) -> Arc<Mutex<ChildProcess>> {
        let process = Arc::new(Mutex::new(self.process));
        let (watched, mut reports) = (Arc::clone(&process), self.reports);
        thread::spawn(move || dead(&end(&watched, &mut reports)));
        process
    }
}

/// Waits for the end of a node or its stage; returns what it was.
fn end(process: &Mutex<ChildProcess>, reports: &mut Reports) -> String {
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

pub(super) fn lock(process: &Mutex<ChildProcess>) -> MutexGuard<'_, ChildProcess> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}
