//! A stage that runs here for a coordinator elsewhere: a node process as the lab has them, whose
//! reports go over the link, and which ends with it.

use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use brigade_wire::frame::send_value;
use brigade_wire::{FrameError, NodeKey};

use super::Shared;
use super::message::Answer;
use crate::child;
use crate::link::Link;
use crate::worker::{NodeOrder, NodeReport, Shard};

/// Runs a stage until it or the coordinator is gone. The process lives as long as this thread.
pub(super) fn serve(
    shared: &Arc<Shared>,
    mut link: Link,
    coordinator: NodeKey,
    order: Shard,
) -> Result<(), FrameError> {
    let socket = link.socket().try_clone()?;
    shared.lock().peer(coordinator).bind(&socket)?;
    let result = run(shared, &mut link, coordinator, order);
    // What is bound stays open otherwise.
    let _ = socket.shutdown(Shutdown::Both);
    result
}

fn run(
    shared: &Shared,
    link: &mut Link,
    coordinator: NodeKey,
    order: Shard,
) -> Result<(), FrameError> {
    let socket = link.socket().try_clone()?;
    socket.set_read_timeout(None)?;
    send_value(link, &Answer::Stage)?;
    let layers = order.layers;
    let order = NodeOrder::Stage {
        shard: order,
        cache: shared.cache.clone(),
        bind: shared.address.ip(),
    };
    let started = child::spawn("node", "the node process").and_then(|(mut process, reports)| {
        process.order(&order)?;
        Ok((process, reports))
    });
    let (process, mut reports) = match started {
        Ok(started) => started,
        Err(error) => return send_value(link, &NodeReport::Failed(error.to_string())),
    };
    tracing::info!(%layers, coordinator = %coordinator.id(), "a stage starts");
    let process = Arc::new(Mutex::new(process));
    let watched = Arc::clone(&process);
    thread::spawn(move || {
        // The coordinator has nothing more to say: whatever comes is the end.
        let _ = socket.peek(&mut [0]);
        let mut process = watched.lock().unwrap_or_else(PoisonError::into_inner);
        process.release();
    });
    let result = loop {
        let report = match reports.read::<NodeReport>() {
            Ok(Some(report)) => report,
            Ok(None) => {
                let mut process = process.lock().unwrap_or_else(PoisonError::into_inner);
                let gone = NodeReport::Gone(process.gone().to_string());
                break send_value(link, &gone);
            }
            Err(error) => NodeReport::Failed(error.to_string()),
        };
        if let Err(error) = send_value(link, &report) {
            break Err(error);
        }
    };
    // Wakes the watcher, whoever was first.
    let _ = link.socket().shutdown(Shutdown::Both);
    process.lock().unwrap_or_else(PoisonError::into_inner).end();
    tracing::info!(%layers, "the stage has ended");
    result
}
