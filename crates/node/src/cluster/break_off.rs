//! Breaking off the start of a model from another thread.

use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::NodeError;

/// Breaks a start off; clones mean the same start.
#[derive(Debug, Clone, Default)]
pub struct BreakOff(Arc<Mutex<Start>>);

#[derive(Debug, Default)]
struct Start {
    broken: bool,
    /// The lifelines of what nodes do for it.
    lifelines: Vec<TcpStream>,
}

impl BreakOff {
    /// Ends what the nodes do for the start; whoever started it gets [`NodeError::BrokenOff`].
    pub fn now(&self) {
        let mut start = self.lock();
        start.broken = true;
        for lifeline in start.lifelines.drain(..) {
            // One that is closed already is what is wanted.
            let _ = lifeline.shutdown(Shutdown::Both);
        }
    }

    /// An error if it was broken off.
    pub fn check(&self) -> Result<(), NodeError> {
        if self.lock().broken {
            return Err(NodeError::BrokenOff);
        }
        Ok(())
    }

    /// A node does something for the start, for as long as this connection stands.
    pub(super) fn holds(&self, lifeline: TcpStream) -> Result<(), NodeError> {
        let mut start = self.lock();
        if start.broken {
            let _ = lifeline.shutdown(Shutdown::Both);
            return Err(NodeError::BrokenOff);
        }
        start.lifelines.push(lifeline);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Start> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
