//! Signals that ask the program to end.
//!
//! The first one is for whoever waits for it, to end in order; the second one, from somebody who
//! is tired of waiting, ends the program at once. Child processes notice either by themselves. A
//! closed terminal (SIGHUP) is left to do what it does, so that `nohup` works.

use std::io;
use std::sync::mpsc;

#[cfg(unix)]
use signal_hook::consts::{SIGINT, SIGTERM};

/// Numbers without a meaning, where there are no signals.
#[cfg(not(unix))]
const SIGINT: i32 = 2;
#[cfg(not(unix))]
const SIGTERM: i32 = 15;

/// Ctrl-C and SIGTERM, caught from [`Signals::catch`] on.
#[derive(Debug)]
pub(crate) struct Signals {
    names: mpsc::Receiver<&'static str>,
}

impl Signals {
    pub(crate) fn catch() -> io::Result<Self> {
        let (sender, names) = mpsc::channel();
        listen(sender, &[SIGINT, SIGTERM])?;
        Ok(Self { names })
    }

    /// For a process whose parent may let go of it: that, or SIGTERM. Ctrl-C is for the parent.
    #[cfg(unix)]
    pub(crate) fn of_child() -> io::Result<Self> {
        let (sender, names) = mpsc::channel();
        let released = sender.clone();
        brigade_node::child::until_released(move || {
            let _ = released.send("released");
        });
        listen(sender, &[SIGTERM])?;
        Ok(Self { names })
    }

    /// Waits for the first and names it.
    pub(crate) fn wait(&self) -> &'static str {
        self.names.recv().unwrap_or("interrupted")
    }
}

#[cfg(unix)]
fn listen(names: mpsc::Sender<&'static str>, signals: &[i32]) -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new(signals)?;
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
fn listen(names: mpsc::Sender<&'static str>, _signals: &[i32]) -> io::Result<()> {
    // Ctrl-C ends the process by itself; keep the channel open.
    std::mem::forget(names);
    Ok(())
}
