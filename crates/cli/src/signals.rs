//! Signals that ask the program to end.
//!
//! Until the program waits for one, a signal ends it at once: its child processes notice by
//! themselves that it is gone. While it waits, the first one is an orderly end and a second one,
//! from somebody who is tired of waiting, an immediate one.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;

/// Ctrl-C, SIGTERM and SIGHUP, caught from [`Signals::catch`] on.
#[derive(Debug)]
pub(crate) struct Signals {
    orderly: Arc<AtomicBool>,
    names: mpsc::Receiver<&'static str>,
}

impl Signals {
    pub(crate) fn catch() -> io::Result<Self> {
        let orderly = Arc::new(AtomicBool::new(false));
        let (sender, names) = mpsc::channel();
        listen(Arc::clone(&orderly), sender)?;
        Ok(Self { orderly, names })
    }

    /// Waits for a signal and names it.
    pub(crate) fn wait(&self) -> &'static str {
        self.orderly.store(true, Ordering::SeqCst);
        self.names.recv().unwrap_or("interrupted")
    }
}

#[cfg(unix)]
fn listen(orderly: Arc<AtomicBool>, names: mpsc::Sender<&'static str>) -> io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::spawn(move || {
        for signal in signals.forever() {
            if !orderly.swap(false, Ordering::SeqCst) {
                // The shell's convention for a process that a signal ended.
                std::process::exit(128 + signal);
            }
            let _ = names.send(match signal {
                SIGINT => "interrupted",
                SIGHUP => "terminal closed",
                _ => "terminated",
            });
        }
    });
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
fn listen(_orderly: Arc<AtomicBool>, names: mpsc::Sender<&'static str>) -> io::Result<()> {
    // Ctrl-C ends the process by itself; keep the channel open.
    std::mem::forget(names);
    Ok(())
}
