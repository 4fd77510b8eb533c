//! What the tests share.

mod fleet;
mod http;
mod lab;
mod machines;
mod models;
mod mounts;
mod process;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use brigade_gguf::testing::TinyModel;
use tempfile::TempDir;

pub(crate) use fleet::{Fleet, wait_until_gone};
pub(crate) use http::{Event, Stream, chat, get, measure, metric, post, post_with, status};
pub(crate) use lab::Lab;
pub(crate) use machines::{Machines, address, second_address};
pub(crate) use models::{damaged, huge, internlm2};
pub(crate) use mounts::{Mount, meminfo};
pub(crate) use process::wait as wait_for_end;
pub(crate) use process::{
    children, command_line, cpu_ticks, is_alive, resident, send, tree, with_environment,
};
pub(crate) use rustix::process::Signal;

/// How long anything may take that should take a moment, on a machine that is busy.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// How long processes may take to be gone after whoever started them.
pub(crate) const GONE: Duration = Duration::from_secs(5);

/// Tests that compute at the same time; more of them only wait for each other's cores.
const AT_ONCE: usize = 2;

/// The variable by which a test knows its processes.
const MARK: &str = "BRIGADE_E2E";

/// A folder for everything that one test writes, and a place among the tests that compute. A test
/// takes all that it needs at once, or all would wait for each other.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
    /// What its commands log.
    log: Option<&'static str>,
    _turn: Turn,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        Self::with(Turn::take(1))
    }

    /// The same for a test beside which no other computes.
    pub(crate) fn undisturbed() -> Self {
        Self::with(Turn::take(AT_ONCE))
    }

    fn with(turn: Turn) -> Self {
        let folder = TempDir::with_prefix_in("e2e-", env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self {
            folder,
            log: None,
            _turn: turn,
        }
    }

    /// The same, with commands that log so much (`BRIGADE_LOG`).
    pub(crate) fn logging(log: &'static str) -> Self {
        Self {
            log: Some(log),
            ..Self::new()
        }
    }

    /// A path in the folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a model into the folder.
    pub(crate) fn tiny(&self, name: &str, model: &TinyModel) -> PathBuf {
        let path = self.path(name);
        model.write(&path).unwrap();
        path
    }

    /// The cache folder of the commands that are started here.
    pub(crate) fn cache(&self) -> PathBuf {
        self.path("cache")
    }

    /// The user's folder, for the commands that are started here.
    pub(crate) fn user(&self) -> PathBuf {
        self.path("user")
    }

    /// `brigade` with these arguments.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_brigade"));
        command
            .args(args)
            .current_dir(self.folder.path())
            .env("BRIGADE_CACHE", self.cache())
            .env(MARK, self.folder.path())
            // What other programs keep on this machine is not the test's.
            .env("HOME", self.user())
            .env_remove("HF_HOME")
            .env_remove("HF_HUB_CACHE")
            .env_remove("HUGGINGFACE_HUB_CACHE")
            .env_remove("XDG_CACHE_HOME")
            .env("OLLAMA_MODELS", self.user().join(".ollama/models"))
            .env_remove("BRIGADE_DEMO_MODEL")
            .env_remove("BRIGADE_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if let Some(log) = self.log {
            command.env("BRIGADE_LOG", log);
        }
        command
    }

    /// Runs `brigade` to its end, which must come soon and leave nothing running.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        self.finish(self.command(args), "")
    }

    /// The same with a command of [`Self::command`] and a text for its standard input.
    pub(crate) fn finish(&self, mut command: Command, input: &str) -> Ended {
        if !input.is_empty() {
            command.stdin(Stdio::piped());
        }
        let ended = process::finish(&mut command, input);
        self.assert_nothing_runs();
        ended
    }

    /// Processes that were started here, directly or not.
    pub(crate) fn processes(&self) -> Vec<u32> {
        with_environment(&format!("{MARK}={}", self.folder.path().display()))
    }

    /// Fails if a process stays longer than [`GONE`].
    pub(crate) fn assert_nothing_runs(&self) {
        wait_until("no process is left", GONE, || self.processes().is_empty());
    }
}

/// A real model, by its file's name.
pub(crate) fn model(name: &str) -> PathBuf {
    let folder = std::env::var_os("BRIGADE_TEST_MODELS")
        .filter(|folder| !folder.is_empty())
        .map_or_else(|| cache().join("models"), PathBuf::from);
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is missing: `cargo xtask models --test` fetches it",
        path.display()
    );
    path
}

/// SmolLM2, 30 layers.
pub(crate) fn smollm2() -> PathBuf {
    model("SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// Gemma 3, 18 layers.
pub(crate) fn gemma3() -> PathBuf {
    model("gemma-3-270m-q4_k_m.gguf")
}

/// A Python with the `openai` client.
pub(crate) fn python() -> PathBuf {
    let path = std::env::var_os("BRIGADE_TEST_PYTHON")
        .filter(|path| !path.is_empty())
        .map_or_else(|| cache().join("venv/bin/python"), PathBuf::from);
    assert!(
        path.is_file(),
        "{} is missing: `cargo xtask verify` sets it up",
        path.display()
    );
    path
}

fn cache() -> PathBuf {
    brigade_node::cache_dir().unwrap()
}

/// A path as an argument.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Waits for a condition.
pub(crate) fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// So many of [`AT_ONCE`] places, given back when dropped.
#[derive(Debug)]
struct Turn(usize);

static BUSY: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

impl Turn {
    fn take(places: usize) -> Self {
        let busy = BUSY.lock().unwrap_or_else(PoisonError::into_inner);
        let mut busy = FREED
            .wait_while(busy, |busy| *busy + places > AT_ONCE)
            .unwrap_or_else(PoisonError::into_inner);
        *busy += places;
        Self(places)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *BUSY.lock().unwrap_or_else(PoisonError::into_inner) -= self.0;
        FREED.notify_all();
    }
}
