//! The first death among a cluster's processes, for whoever only saw a connection break; or that
//! break, where no process died.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

#[derive(Debug, Default)]
pub(super) struct Obituary {
    end: Mutex<Option<End>>,
    written: Condvar,
}

#[derive(Debug, Clone)]
enum End {
    /// A process died; how.
    Death(String),
    /// The processes were told to end.
    ShutDown,
}

impl Obituary {
    /// Writes down how a process died, if it is the first.
    pub(super) fn write(&self, how: &str) {
        self.set(End::Death(how.to_owned()));
    }

    /// From now on processes end because they shall.
    pub(super) fn close(&self) {
        self.set(End::ShutDown);
    }

    /// Waits for the first death; `None` when there was a shut-down before any.
    pub(super) fn wait(&self) -> Option<String> {
        let end = self
            .written
            .wait_while(self.lock(), |end| end.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        text(end.as_ref())
    }

    /// The first death, if it is known in so much time.
    pub(super) fn within(&self, limit: Duration) -> Option<String> {
        let (end, _) = self
            .written
            .wait_timeout_while(self.lock(), limit, |end| end.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        text(end.as_ref())
    }

    fn set(&self, end: End) {
        self.lock().get_or_insert(end);
        self.written.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Option<End>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(end: Option<&End>) -> Option<String> {
    match end {
        Some(End::Death(how)) => Some(how.clone()),
        Some(End::ShutDown) | None => None,
    }
}
