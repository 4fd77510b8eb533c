//! Measures this machine without being asked, where nobody has: while nothing runs on the node, and
//! broken off at once when something shall.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use brigade_node::Daemon;

use crate::about::{About, Calibrations};
use crate::calibrator::Measuring;
use crate::this_machine::Facts;

/// Whether a node measures its machine by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calibrate {
    /// When nothing runs on it.
    WhenIdle,
    Never,
}

/// Looks at a node in a row at which nothing ran on it before it measures: whoever starts a node
/// often loads a model next.
const IDLE_LOOKS: usize = 2;

/// The same after a measurement that came to nothing, because something else kept the machine busy:
/// ten minutes.
const LATER_LOOKS: usize = 300;

/// How often it is seen whether the measurement is done.
const AGAIN: Duration = Duration::from_millis(200);

/// What became of a measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It is kept.
    Kept,
    /// It came to nothing.
    Failed,
    /// Something was to run on the node.
    BrokenOff,
}

/// The measurement of a node, if one is needed.
#[derive(Debug)]
pub(super) struct Calibrating {
    when: Calibrate,
    idle_looks: usize,
    /// So many are needed.
    needed_looks: usize,
    running: Option<JoinHandle<End>>,
}

impl Calibrating {
    pub(super) fn new(when: Calibrate) -> Self {
        Self {
            when,
            idle_looks: 0,
            needed_looks: IDLE_LOOKS,
            running: None,
        }
    }

    /// Begins to measure if it is time to; called at every look at the machine. Returns whether a
    /// measurement is under way.
    pub(super) fn look(&mut self, about: &About, daemon: &Arc<Daemon>) -> bool {
        if let Some(running) = self.running.take_if(|running| running.is_finished()) {
            self.idle_looks = 0;
            match running.join().unwrap_or(End::Failed) {
                End::Kept => self.when = Calibrate::Never,
                End::Failed => self.needed_looks = LATER_LOOKS,
                End::BrokenOff => self.needed_looks = IDLE_LOOKS,
            }
        }
        self.idle_looks = if daemon.is_busy() {
            0
        } else {
            self.idle_looks + 1
        };
        if self.when == Calibrate::WhenIdle
            && self.running.is_none()
            && self.idle_looks >= self.needed_looks
            && about.calibration(None).is_none()
        {
            let (facts, daemon) = (about.facts.clone(), Arc::clone(daemon));
            self.running = Some(thread::spawn(move || measure(&facts, &daemon)));
        }
        self.running.is_some()
    }
}

fn measure(facts: &Facts, daemon: &Daemon) -> End {
    tracing::info!("measuring this machine, some ten seconds: nobody has with this build");
    let measured = Measuring::start(facts.cores as u32).and_then(|mut measuring| {
        loop {
            if daemon.wait_until_busy(AGAIN) {
                return Ok(None);
            }
            if let Some(calibration) = measuring.poll()? {
                return Ok(Some(calibration));
            }
        }
    });
    let kept = measured.and_then(|measured| {
        let kept = measured.map(|measured| Calibrations::keep(daemon.home(), facts, &measured));
        kept.transpose()
    });
    match kept {
        Ok(Some(())) => {
            tracing::info!("this machine is measured; the planner uses it");
            End::Kept
        }
        Ok(None) => {
            tracing::info!("measuring is broken off: the node is needed");
            End::BrokenOff
        }
        Err(error) => {
            tracing::warn!(error = format!("{error:#}"), "this machine is not measured");
            End::Failed
        }
    }
}
