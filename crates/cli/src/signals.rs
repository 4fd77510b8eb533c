//! Signals that ask the program to end.

use std::io;

/// Ctrl-C and SIGTERM, caught from [`Signals::catch`] on.
#[derive(Debug)]
pub(crate) struct Signals {
    #[cfg(unix)]
    signals: signal_hook::iterator::Signals,
}

#[cfg(unix)]
impl Signals {
    pub(crate) fn catch() -> io::Result<Self> {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        Ok(Self {
            signals: signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?,
        })
    }

    /// Waits for one and names it.
    pub(crate) fn wait(mut self) -> &'static str {
        match self.signals.forever().next() {
            Some(signal_hook::consts::SIGINT) => "interrupted",
            Some(signal_hook::consts::SIGHUP) => "terminal closed",
            _ => "terminated",
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn catch() -> io::Result<Self> {
        Ok(Self {})
    }

    pub(crate) fn wait(self) -> &'static str {
        loop {
            std::thread::park();
        }
    }
}
