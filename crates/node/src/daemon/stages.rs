//! A stage, or an RPC server, that runs here for a coordinator elsewhere: a node process as commands
//! have them, whose reports go over the link, and which ends with it.

use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use brigade_wire::frame::send_value;
use brigade_wire::{FrameError, NodeKey};

use super::memory::{Claim, Ticket};
use super::message::{Answer, Refusal};
use super::state::State;
use super::{Shared, delivering};
use crate::child::{self, ChildProcess};
use crate::link::Link;
use crate::worker::{Job, NodeOrder, NodeReport};

/// Memory of this machine that a stage has, until this is dropped.
struct Reservation<'a> {
    shared: &'a Shared,
    ticket: Ticket,
}

impl<'a> Reservation<'a> {
    fn new(shared: &'a Shared, coordinator: NodeKey, claim: &Claim) -> Result<Self, Refusal> {
        let mut state = shared.lock();
        let name = name_of(&state, coordinator);
        let ticket = state.memory.reserve(&name, claim)?;
        state.news();
        drop(state);
        // Who waits for the node to be needed.
        shared.changed.notify_all();
        Ok(Self { shared, ticket })
    }

    fn loaded(&self) {
        let mut state = self.shared.lock();
        state.memory.loaded(self.ticket);
        state.news();
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.memory.release(self.ticket);
        state.news();
        drop(state);
        self.shared.changed.notify_all();
    }
}

/// What a coordinator is called in the ledger.
fn name_of(state: &State, coordinator: NodeKey) -> String {
    let member = state.members.get(coordinator);
    member.map_or_else(String::new, |member| member.name.clone())
}

/// The RPC servers that a coordinator has here for a model have their weights.
pub(super) fn filled(shared: &Shared, coordinator: NodeKey, model: &str) {
    let mut state = shared.lock();
    let name = name_of(&state, coordinator);
    state.memory.filled(&name, model);
    state.news();
}

/// Runs a stage until it or the coordinator is gone.
pub(super) fn serve(
    shared: &Arc<Shared>,
    mut link: Link,
    coordinator: NodeKey,
    job: Job,
    claim: &Claim,
) -> Result<(), FrameError> {
    let reservation = match Reservation::new(shared, coordinator, claim) {
        Ok(reservation) => reservation,
        Err(refusal) => {
            tracing::warn!(id = %coordinator.id(), reason = %refusal, "refused");
            return send_value(&mut link, &Answer::Refused(refusal));
        }
    };
    let socket = link.socket().try_clone()?;
    shared.lock().peer(coordinator).bind(&socket)?;
    let result = run(shared, &mut link, coordinator, job, &reservation);
    // A coordinator that sees the end of the connection may count on the memory.
    drop(reservation);
    // What is bound stays open otherwise.
    let _ = socket.shutdown(Shutdown::Both);
    result
}

/// What runs for a coordinator, from its order to its end.
#[derive(Debug, Default)]
struct Errand {
    /// Nobody needs it any more.
    over: AtomicBool,
    process: Mutex<Option<ChildProcess>>,
}

impl Errand {
    /// Ends with this connection.
    fn of(socket: TcpStream) -> Arc<Self> {
        let errand = Arc::new(Self::default());
        let watched = Arc::clone(&errand);
        thread::spawn(move || {
            // The coordinator has nothing more to say: whatever comes is the end.
            let _ = socket.peek(&mut [0]);
            watched.over.store(true, Ordering::Release);
            if let Some(process) = &mut *watched.process() {
                // Also one that hangs: whoever let go of it counts on its memory.
                process.end();
            }
        });
        errand
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    fn process(&self) -> MutexGuard<'_, Option<ChildProcess>> {
        self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn run(
    shared: &Shared,
    link: &mut Link,
    coordinator: NodeKey,
    job: Job,
    reservation: &Reservation<'_>,
) -> Result<(), FrameError> {
    let socket = link.socket().try_clone()?;
    socket.set_read_timeout(None)?;
    send_value(link, &Answer::Granted)?;
    let what = match &job {
        Job::Stage(part) => format!("the stage of layers {}", part.layers),
        Job::Rpc { .. } => "the RPC server".to_owned(),
    };
    let errand = Errand::of(socket);
    // What was brought stays here until all is over.
    let (order, _leases) = match job {
        Job::Stage(part) => {
            let is_over = || errand.is_over();
            match delivering::bring(shared, link, coordinator, *part, &is_over) {
                Ok((brought, leases)) => {
                    let order = NodeOrder::Stage {
                        shard: brought,
                        cache: shared.delivery.cache(),
                        listen: shared.chain_listen(),
                    };
                    (order, leases)
                }
                Err(error) => return send_value(link, &NodeReport::Failed(error.to_string())),
            }
        }
        Job::Rpc { threads } => (NodeOrder::Rpc { threads }, Default::default()),
    };
    let started = child::spawn("node", "the node process").and_then(|(mut process, reports)| {
        process.order(&order)?;
        Ok((process, reports))
    });
    let mut reports = match started {
        Ok((mut process, reports)) => {
            let mut place = errand.process();
            if errand.is_over() {
                process.release();
            }
            *place = Some(process);
            reports
        }
        Err(error) => return send_value(link, &NodeReport::Failed(error.to_string())),
    };
    tracing::info!(coordinator = %coordinator.id(), "{what} starts");
    let mut server = None;
    let result = loop {
        let report = match reports.read::<NodeReport>() {
            Ok(Some(report)) => report,
            Ok(None) => {
                let gone = errand.process().as_mut().map(ChildProcess::gone);
                let how = gone.map_or_else(String::new, |gone| gone.to_string());
                break send_value(link, &NodeReport::Gone(how));
            }
            Err(error) => NodeReport::Failed(error.to_string()),
        };
        if let NodeReport::Rpc { address, .. } = report {
            server = Some(address.port());
            shared.lock().peer(coordinator).servers.push(address.port());
        }
        if matches!(report, NodeReport::Stage { .. }) {
            reservation.loaded();
        }
        if let Err(error) = send_value(link, &report) {
            break Err(error);
        }
    };
    // Ends it, if it has not ended by itself.
    drop(errand.process().take());
    if let Some(port) = server {
        let mut state = shared.lock();
        let servers = &mut state.peer(coordinator).servers;
        servers.retain(|known| *known != port);
    }
    tracing::info!("{what} has ended");
    result
}
