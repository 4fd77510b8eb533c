//! Several `brigade up` on this machine, each with a state folder of its own.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::process::wait;
use super::{Ended, GONE, Mount, SOON, Scratch, Signal, is_alive, send, wait_until};

/// Daemons that end with the test.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) nodes: Vec<Up>,
    pub(crate) scratch: Scratch,
    /// Where models are fetched from; each node then has a cache of its own.
    hub: Option<String>,
    /// What the node that is being started has mounted.
    mounts: Vec<Mount>,
}

/// A running `brigade up`.
#[derive(Debug)]
pub(crate) struct Up {
    child: Child,
    stderr: Arc<Mutex<String>>,
    /// The line that it printed when it was up.
    pub(crate) ready: Value,
}

impl Up {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn name(&self) -> &str {
        self.ready["name"].as_str().unwrap()
    }

    /// Where its API listens.
    pub(crate) fn api(&self) -> &str {
        let url = self.ready["api"].as_str().unwrap();
        url.strip_prefix("http://").unwrap()
    }

    /// What it has said.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap().clone()
    }
}

impl Fleet {
    /// No nodes yet.
    pub(crate) fn new() -> Self {
        Self::within(Scratch::new())
    }

    /// The same in a folder that is there already.
    pub(crate) fn within(scratch: Scratch) -> Self {
        Self {
            nodes: Vec::new(),
            scratch,
            hub: None,
            mounts: Vec::new(),
        }
    }

    /// Nodes of these names in one cluster, which all of them see.
    pub(crate) fn cluster(names: &[&str]) -> Self {
        Self::cluster_in(Scratch::new(), names)
    }

    /// The same in a folder that is there already.
    pub(crate) fn cluster_in(scratch: Scratch, names: &[&str]) -> Self {
        let mut fleet = Self::within(scratch);
        fleet.grow(names);
        fleet
    }

    fn grow(&mut self, names: &[&str]) {
        self.start(names[0], &[]);
        for name in &names[1..] {
            let token = self.token(names[0]);
            self.start(name, &["--join", &token]);
        }
        self.wait_until_all_up();
    }

    /// Nodes with a cache each, for which `hf:` means this hub.
    pub(crate) fn apart(names: &[&str], hub: &str) -> Self {
        let mut fleet = Self::new();
        fleet.hub = Some(hub.to_owned());
        fleet.grow(names);
        fleet
    }

    /// The cache of a node that has one of its own.
    pub(crate) fn cache(&self, name: &str) -> PathBuf {
        self.scratch.path(&format!("cache-{name}"))
    }

    /// The user's folder on a node that has a cache of its own.
    pub(crate) fn user(&self, name: &str) -> PathBuf {
        self.scratch.path(&format!("user-{name}"))
    }

    /// The state folder of a node.
    pub(crate) fn home(&self, name: &str) -> PathBuf {
        self.scratch.path(&format!("home-{name}"))
    }

    /// The same, with mounts that no other node has.
    pub(crate) fn start_with(&mut self, mounts: Vec<Mount>, name: &str, args: &[&str]) -> &Up {
        self.mounts = mounts;
        self.start(name, args);
        self.mounts.clear();
        self.nodes.last().unwrap()
    }

    /// Starts a node on any ports, if the arguments name none for the API. It does not measure its
    /// machine, which would disturb the tests.
    pub(crate) fn start(&mut self, name: &str, args: &[&str]) -> &Up {
        self.start_as_usual(name, &[args, &["--no-calibrate"]].concat())
    }

    /// The same as users start it.
    pub(crate) fn start_as_usual(&mut self, name: &str, args: &[&str]) -> &Up {
        self.start_process(name, &[&["--name", name], args].concat())
    }

    /// Starts a node again without telling it what it is called.
    pub(crate) fn start_unnamed(&mut self, home_of: &str) -> &Up {
        self.start_process(home_of, &["--no-calibrate"])
    }

    /// Starts a node with the state folder of this name.
    fn start_process(&mut self, name: &str, args: &[&str]) -> &Up {
        let mut all = vec!["up", "--json"];
        if !args.contains(&"--listen") {
            all.extend(["--listen", "127.0.0.1:0"]);
        }
        if !args.contains(&"--api") {
            all.extend(["--api", "127.0.0.1:0"]);
        }
        all.extend(args);
        let mut command = self.scratch.command(&all);
        command.env("BRIGADE_HOME", self.home(name));
        if let Some(hub) = &self.hub {
            command
                .env("BRIGADE_CACHE", self.cache(name))
                .env("HOME", self.user(name))
                .env("HF_ENDPOINT", hub);
        }
        if !self.mounts.is_empty() {
            command = Mount::before(&self.mounts, &command);
            command.stdin(Stdio::null());
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn().unwrap();
        let stderr = Arc::new(Mutex::new(String::new()));
        let (said, mut pipe) = (Arc::clone(&stderr), child.stderr.take().unwrap());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                said.lock().unwrap().push_str(&text);
            }
        });
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let ready = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("{name} is not up: {}", stderr.lock().unwrap()));
        self.nodes.push(Up {
            child,
            stderr,
            ready,
        });
        self.nodes.last().unwrap()
    }

    /// Starts a node again whose process is gone.
    pub(crate) fn restart(&mut self, name: &str) {
        let index = self.nodes.iter().position(|node| node.name() == name);
        let mut gone = self.nodes.remove(index.unwrap());
        gone.child.wait().unwrap();
        self.start(name, &[]);
    }

    /// Starts a command for a node.
    pub(crate) fn spawn(&self, name: &str, args: &[&str]) -> Child {
        let mut command = self.scratch.command(args);
        command
            .env("BRIGADE_HOME", self.home(name))
            .spawn()
            .unwrap()
    }

    /// A node by its name.
    pub(crate) fn node(&self, name: &str) -> &Up {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.unwrap_or_else(|| panic!("no node {name}"))
    }

    /// Runs a command for a node to its end.
    pub(crate) fn run(&self, name: &str, args: &[&str]) -> Ended {
        let mut command = self.scratch.command(args);
        super::process::finish(command.env("BRIGADE_HOME", self.home(name)), "")
    }

    /// The JSON of a command that must succeed.
    pub(crate) fn json(&self, name: &str, args: &[&str]) -> Value {
        let ended = self.run(name, &[args, &["--json"]].concat());
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// The sentence of a command that must fail, without the words that name the program.
    pub(crate) fn complaint(&self, name: &str, args: &[&str]) -> String {
        let ended = self.run(name, args);
        assert_eq!(ended.code, Some(1), "{args:?}: {}", ended.stdout);
        let last = ended.stderr.trim_end().lines().last().unwrap_or_default();
        last.trim_start_matches("brigade: ").to_owned()
    }

    /// A fresh token.
    pub(crate) fn token(&self, name: &str) -> String {
        let invite = self.json(name, &["invite"]);
        invite["token"].as_str().unwrap().to_owned()
    }

    /// The cluster as a node shows it, by name: id, address and state of each.
    pub(crate) fn view(&self, name: &str) -> Vec<(String, String, String, String)> {
        let nodes = self.json(name, &["nodes"]);
        assert_eq!(nodes["schema"], "brigade.nodes/1");
        let text = |node: &Value, field: &str| node[field].as_str().unwrap().to_owned();
        let nodes = nodes["nodes"].as_array().unwrap().iter();
        nodes
            .map(|node| {
                let [name, id, state] = ["name", "id", "state"].map(|field| text(node, field));
                let addresses = node["addresses"].as_array().unwrap();
                assert_eq!(addresses.len(), 1, "on loopback it has one address");
                (name, id, addresses[0].as_str().unwrap().to_owned(), state)
            })
            .collect()
    }

    /// The state of a node as another one shows it.
    pub(crate) fn state(&self, of: &str, by: &str) -> Option<String> {
        let view = self.view(by);
        view.into_iter()
            .find(|(name, ..)| name == of)
            .map(|(.., state)| state)
    }

    /// Waits until every node shows every node as up.
    pub(crate) fn wait_until_all_up(&self) {
        wait_until("all nodes see each other", SOON, || {
            self.nodes.iter().all(|node| {
                let view = self.view(node.name());
                view.len() == self.nodes.len() && view.iter().all(|(.., state)| state == "up")
            })
        });
    }

    /// Takes a node's process away from it.
    pub(crate) fn kill(&self, name: &str) {
        send(self.node(name).pid(), Signal::KILL);
    }

    /// Asks all of them to end; they must do so in good order and leave nothing running.
    pub(crate) fn end(mut self) {
        for node in &self.nodes {
            send(node.pid(), Signal::TERM);
        }
        for node in &mut self.nodes {
            let status = wait(&mut node.child, GONE).expect("a node did not end");
            assert_eq!(status.code(), Some(0), "{}", node.stderr());
        }
        self.scratch.assert_nothing_runs();
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.child.kill();
            let _ = node.child.wait();
        }
        if !thread::panicking() {
            self.scratch.assert_nothing_runs();
        }
    }
}

/// Waits until a process is gone.
pub(crate) fn wait_until_gone(pids: &[u32], limit: Duration) {
    wait_until("the processes are gone", limit, || {
        !pids.iter().any(|&pid| is_alive(pid))
    });
}
