//! Signals that ask the program to end.
//!
//! The first one is for whoever waits for it, to end in order; the second one, from somebody who
//! is tired of waiting, ends the program at once. Child processes notice either by themselves. A
//! closed terminal (SIGHUP) is left to do what it does, so that `nohup` works.

use std::io;
use std::sync::mpsc;

/// Ctrl-C and SIGTERM, caught from [`Signals::catch`] on.
#[derive(Debug)]
pub(crate) struct Signals {
    names: mpsc::Receiver<&'static str>,
}

impl Signals {
    pub(crate) fn catch() -> io::Result<Self> {
        let (sender, names) = mpsc::channel();
        listen(sender)?;
        Ok(Self { names })
    }

    /// Waits for the first and names it.
    pub(crate) fn wait(&self) -> &'static str {
        self.names.recv().unwrap_or("interrupted")
    }
}

#[cfg(unix)]
fn listen(names: mpsc::Sender<&'static str>) -> io::Result<()> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM])?;
    std::thread::spawn(move || {
        let mut signals = signals.forever();
        let _ = names.send(match signals.next() {
            Some(SIGINT) => "interrupted",
            _ => "terminated",
        });
        if let Some(signal) = signals.next() {
            // The shell's convention for a process that a signal ended.
            std::process::exit(128 + signal);
        }
    });
    Ok(())
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on Unix")]
fn listen(names: mpsc::Sender<&'static str>) -> io::Result<()> {
    // Ctrl-C ends the process by itself; keep the channel open.
    std::mem::forget(names);
    Ok(())
}
