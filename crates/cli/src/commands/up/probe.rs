//! What this machine is and what is free of it, told to the cluster.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use brigade_fit::catalog::Catalog;
use brigade_node::Daemon;

use crate::about::About;

/// Between two looks.
const AGAIN: Duration = Duration::from_secs(2);

/// Looks at this machine as long as the process lives; the first look takes some tenths of a
/// second, which nobody waits for.
pub(super) fn start(daemon: Arc<Daemon>, catalog: Arc<Catalog>) {
    thread::spawn(move || {
        let mut about = About::look(&catalog);
        let mut told: Option<About> = None;
        loop {
            about.refresh(&daemon.held(), daemon.cache(), daemon.home());
            if told.as_ref().is_none_or(|told| !told.is_like(&about)) {
                match serde_json::to_string(&about) {
                    Ok(text) => daemon.tell(text, about.limits(&catalog)),
                    Err(error) => tracing::error!(%error, "this machine cannot be described"),
                }
                told = Some(about.clone());
            }
            thread::sleep(AGAIN);
        }
    });
}
