//! What this machine is and what is free of it, told to the cluster.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use brigade_fit::catalog::Catalog;
use brigade_node::Daemon;

use super::calibrating::{Calibrate, Calibrating};
use crate::about::About;

/// Between two looks.
const AGAIN: Duration = Duration::from_secs(2);

/// Looks between two at the GPUs, which need a process.
const GPUS_AGAIN: usize = 30;

/// Looks at this machine as long as the process lives; the first look takes some tenths of a
/// second, which nobody waits for.
pub(super) fn start(daemon: Arc<Daemon>, catalog: Arc<Catalog>, calibrate: Calibrate) {
    thread::spawn(move || {
        let mut about = About::look(&catalog);
        let mut told: Option<About> = None;
        let mut calibrating = Calibrating::new(calibrate);
        for look in 0_usize.. {
            if look > 0 && look.is_multiple_of(GPUS_AGAIN) {
                about.look_at_gpus(&daemon.held(), &catalog);
            }
            about.refresh(&daemon.held(), daemon.cache(), daemon.home());
            about.calibrating = calibrating.look(&about, &daemon);
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
