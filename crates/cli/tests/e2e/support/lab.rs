//! A `brigade lab` that ends with the test.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::process::wait;
use super::{SOON, Scratch, Signal, send, text, wait_until};

/// A running lab.
#[derive(Debug)]
pub(crate) struct Lab {
    child: Child,
    lines: mpsc::Receiver<String>,
    stderr: Arc<Mutex<String>>,
    listener: JoinHandle<()>,
    /// The line that it printed when it was ready.
    pub(crate) ready: Value,
    pub(crate) scratch: Scratch,
}

impl Lab {
    /// Starts a lab that serves, with a short context on any port, and waits until it is ready.
    pub(crate) fn start(scratch: Scratch, model: &Path, args: &[&str]) -> Self {
        let mut all = vec!["--api", "127.0.0.1:0"];
        all.extend(args);
        Self::start_with(scratch, model, &all)
    }

    /// The same without an address.
    pub(crate) fn start_with(scratch: Scratch, model: &Path, args: &[&str]) -> Self {
        let mut all = vec!["lab", "--json", "--model", text(model)];
        all.extend(args);
        if !args.contains(&"--ctx") {
            all.extend(["--ctx", "512"]);
        }
        let mut child = scratch.command(&all).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let (said, mut pipe) = (Arc::clone(&stderr), child.stderr.take().unwrap());
        let listener = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                said.lock().unwrap().push_str(&text);
            }
        });
        let mut lab = Self {
            child,
            lines,
            stderr,
            listener,
            ready: Value::Null,
            scratch,
        };
        let line = lab.line();
        lab.ready = serde_json::from_str(&line).unwrap();
        lab
    }

    /// The next line of its standard output.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(SOON).unwrap_or_else(|_| {
            panic!(
                "the lab printed no line; on standard error: {}",
                self.stderr()
            )
        })
    }

    /// What it has written to standard error.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }

    /// Host and port of its API.
    pub(crate) fn api(&self) -> &str {
        let url = self.ready["api"].as_str().unwrap();
        url.strip_prefix("http://").unwrap()
    }

    /// Its own process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A process id of each node: `pid` or `stage_pid`.
    pub(crate) fn pids(&self, kind: &str) -> Vec<u32> {
        let nodes = self.ready["nodes"].as_array().unwrap();
        let pids = nodes.iter().map(|node| node[kind].as_u64().unwrap() as u32);
        pids.collect()
    }

    /// Waits for its end, and for all that it had to say.
    pub(crate) fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        let status = wait(&mut self.child, limit)?;
        // The children have the same standard error.
        wait_until("standard error is closed", super::GONE, || {
            self.listener.is_finished()
        });
        Some(status)
    }

    /// Asks it to end; it must do so in good order and leave nothing running.
    pub(crate) fn end(self, signal: Signal) {
        let said = Arc::clone(&self.stderr);
        self.end_with(signal, Some(0));
        // Its processes were told to end, so it must not mourn them.
        let said = said.lock().unwrap();
        assert!(!said.contains("requests get an error"), "{said}");
    }

    /// The same for a lab that has lost a process, which it must have said.
    pub(crate) fn end_failed(self) {
        wait_until("the lab says what it lost", super::GONE, || {
            self.stderr().contains("requests get an error")
        });
        self.end_with(Signal::TERM, Some(1));
    }

    /// Asks it to end; `None` is the signal's own end.
    pub(crate) fn end_with(mut self, signal: Signal, code: Option<i32>) {
        send(self.pid(), signal);
        let status = self.wait(super::GONE).expect("the lab did not end");
        assert_eq!(status.code(), code, "{}", self.stderr());
        self.scratch.assert_nothing_runs();
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !thread::panicking() {
            self.scratch.assert_nothing_runs();
        }
    }
}
