//! The daemons of a lab.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_node::child::{self, ChildProcess, Reports};
use brigade_node::{NodeState, Wiring};

use super::folder::Folder;
use crate::commands::up::Report;
use crate::control::{self, Reply, Request};
use crate::output;

/// How long nodes that have joined may take until all of them see each other.
const MEETING: Duration = Duration::from_secs(30);

/// How long a token is good, in seconds.
const TOKEN_S: u64 = 60;

/// A cluster of daemons on this machine; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Nodes {
    all: Vec<Node>,
    losses: Option<mpsc::Receiver<String>>,
    state: Arc<State>,
    _folder: Folder,
}

#[derive(Debug)]
struct Node {
    name: String,
    home: PathBuf,
    pid: u32,
    process: Arc<Mutex<ChildProcess>>,
}

#[derive(Debug, Default)]
struct State {
    /// Nodes end because they shall.
    closing: AtomicBool,
    failed: AtomicBool,
}

impl Nodes {
    /// Starts so many nodes and joins them. The first is the gateway, with these options for its
    /// API.
    pub(super) fn start(
        folder: Folder,
        count: u32,
        api: Vec<OsString>,
        wiring: Option<&Wiring>,
    ) -> anyhow::Result<Self> {
        let mut api = Some(api);
        let any_api = || vec!["--api".into(), "127.0.0.1:0".into()];
        let mut started = Vec::new();
        for index in 1..=count {
            let name = format!("node-{index}");
            let home = folder.path().join(&name);
            let options = [
                "up",
                "--no-discovery",
                "--name",
                &name,
                "--listen",
                "127.0.0.1:0",
            ];
            let mut options: Vec<OsString> = options.map(OsString::from).into();
            options.extend(api.take().unwrap_or_else(any_api));
            let mut environment = vec![("BRIGADE_HOME", home.clone().into_os_string())];
            if let Some(wiring) = wiring {
                let wiring = Wiring {
                    own: index,
                    ..wiring.clone()
                };
                let (variable, value) = wiring.variable();
                environment.push((variable, value.into()));
            }
            let (process, reports) = child::spawn_with(&options, &environment, &name)?;
            started.push((name, home, process, reports));
        }
        let state = Arc::new(State::default());
        let (sender, losses) = mpsc::channel();
        let mut nodes = Vec::new();
        for (name, home, mut process, mut reports) in started {
            match reports.read::<Report>()? {
                Some(Report::Up) => {}
                Some(Report::Failed(reason)) if nodes.is_empty() => bail!("{reason}"),
                Some(Report::Failed(reason) | Report::Lost(reason)) => bail!("{name}: {reason}"),
                None => return Err(process.gone().into()),
            }
            let pid = process.pid();
            let process = Arc::new(Mutex::new(process));
            watch(
                Arc::clone(&process),
                reports,
                Arc::clone(&state),
                sender.clone(),
            );
            nodes.push(Node {
                name,
                home,
                pid,
                process,
            });
        }
        let cluster = Self {
            all: nodes,
            losses: Some(losses),
            state,
            _folder: folder,
        };
        cluster.join()?;
        Ok(cluster)
    }

    fn join(&self) -> anyhow::Result<()> {
        for node in &self.all[1..] {
            let Reply::Invited(invited) =
                self.ask(&Request::Invite { seconds: TOKEN_S }, |_| {})?
            else {
                bail!("{} did not invite", self.all[0].name);
            };
            control::ask_at(&node.home, &Request::Join(invited.token), |_| {})
                .with_context(|| format!("{} did not join", node.name))?;
        }
        let deadline = Instant::now() + MEETING;
        loop {
            let Reply::Nodes { nodes: view, .. } = self.ask(&Request::Nodes, |_| {})? else {
                bail!("{} did not say whom it sees", self.all[0].name);
            };
            let up = view.iter().filter(|node| node.state == NodeState::Up);
            if up.count() == self.all.len() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the nodes do not see each other within {} s",
                    MEETING.as_secs()
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks the gateway.
    pub(super) fn ask(
        &self,
        request: &Request,
        progress: impl FnMut(&str),
    ) -> anyhow::Result<Reply> {
        control::ask_at(self.gateway_home(), request, progress)
    }

    /// The gateway's state folder.
    pub(super) fn gateway_home(&self) -> &Path {
        &self.all[0].home
    }

    pub(super) fn names(&self) -> impl Iterator<Item = String> {
        self.all.iter().map(|node| node.name.clone())
    }

    /// The process of a node.
    pub(super) fn pid(&self, name: &str) -> Option<u32> {
        self.find(name).map(|node| node.pid)
    }

    /// The state folder of a node.
    pub(super) fn home(&self, name: &str) -> Option<&Path> {
        self.find(name).map(|node| node.home.as_path())
    }

    fn find(&self, name: &str) -> Option<&Node> {
        self.all.iter().find(|node| node.name == name)
    }

    /// From now on says what it loses.
    pub(super) fn mourn(&mut self) {
        let Some(losses) = self.losses.take() else {
            return;
        };
        thread::spawn(move || {
            if let Ok(how) = losses.recv() {
                output::note(&format!(
                    "brigade: {how}; requests get an error until the model is back"
                ));
            }
        });
    }

    /// Whether something was lost.
    pub(super) fn have_failed(&self) -> bool {
        self.state.failed.load(Ordering::SeqCst)
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.state.closing.store(true, Ordering::SeqCst);
        // The gateway first, so that it ends its answers and its model in good order.
        for node in &self.all[..1] {
            lock(&node.process).end();
        }
        for node in &self.all {
            lock(&node.process).release();
        }
        for node in &self.all {
            lock(&node.process).end();
        }
    }
}

/// Listens to a node until its end.
fn watch(
    process: Arc<Mutex<ChildProcess>>,
    mut reports: Reports,
    state: Arc<State>,
    losses: mpsc::Sender<String>,
) {
    thread::spawn(move || {
        loop {
            let (how, over) = match reports.read::<Report>() {
                Ok(Some(Report::Up)) => continue,
                Ok(Some(Report::Lost(how) | Report::Failed(how))) => (how, false),
                Ok(None) if state.closing.load(Ordering::SeqCst) => return,
                Ok(None) => (lock(&process).gone().to_string(), true),
                Err(error) => (error.to_string(), true),
            };
            if !state.closing.load(Ordering::SeqCst) {
                state.failed.store(true, Ordering::SeqCst);
                let _ = losses.send(how);
            }
            if over {
                return;
            }
        }
    });
}

fn lock(process: &Mutex<ChildProcess>) -> MutexGuard<'_, ChildProcess> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}
