//! A machine whose addresses change: a lease that is renewed with another one, a cable that is
//! plugged in.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::Shared;
use crate::interfaces::{self, interfaces};

/// How often the interfaces are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// Tells the cluster where this node is, whenever that changes, until the daemon stops.
pub(super) fn run(shared: &Arc<Shared>) {
    while !shared.stops() {
        match interfaces() {
            Ok(now) if now != shared.lock().interfaces => move_to(shared, now),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "the interfaces cannot be read"),
        }
        let waited = shared.changed.wait_timeout(shared.lock(), LOOK);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }
}

fn move_to(shared: &Arc<Shared>, interfaces: Vec<interfaces::Interface>) {
    let mut state = shared.lock();
    state.interfaces = interfaces;
    let addresses = shared.addresses(&state);
    if state
        .members
        .renew(shared.own().public(), &shared.name, &addresses)
    {
        tracing::info!(?addresses, "this machine's addresses have changed");
        if let Err(error) = shared.keep(&state) {
            tracing::error!(%error, "the table of members cannot be written");
        }
    }
    drop(state);
    shared.keep_dialing();
    shared.changed.notify_all();
}
