//! Two machines with a cable between them: the commands of `docs/two-machines.md`, as typed.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Machines, SOON, Scratch, Signal, send, smollm2, wait_for_end, wait_until};

const PAGE: &str = include_str!("../../../../docs/two-machines.md");

/// A command of the page, and the number of the machine where it is typed.
fn commands() -> Vec<(usize, String)> {
    let mut commands = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        let machine = match line {
            "```sh first" => 0,
            "```sh second" => 1,
            _ => continue,
        };
        let block = lines.by_ref().take_while(|line| *line != "```");
        commands.extend(block.map(|line| (machine, line.to_owned())));
    }
    commands
}

struct Desk {
    machines: Machines,
    up: Vec<Child>,
    // Last, because it is what the others live in.
    scratch: Scratch,
}

impl Desk {
    /// A shell's command on a machine, with `brigade` in its path and a home of its own.
    fn command(&self, machine: usize, line: &str) -> Command {
        let brigade = Path::new(env!("CARGO_BIN_EXE_brigade")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let mut shell = self.scratch.command(&[]);
        let mut typed = Command::new("sh");
        typed
            .args(["-c", &format!("exec {line}")])
            .env("PATH", format!("{}:{path}", brigade.display()))
            .env(
                "BRIGADE_HOME",
                self.scratch.path(&format!("home-{machine}")),
            )
            .current_dir(self.scratch.path(""));
        for (name, value) in shell.get_envs() {
            match value {
                Some(value) => typed.env(name, value),
                None => typed.env_remove(name),
            };
        }
        shell = self.machines.on(machine, &typed);
        shell
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        shell
    }

    fn try_run(&self, machine: usize, line: &str) -> Option<String> {
        let output = self.command(machine, line).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        output.status.success().then_some(text)
    }

    fn run(&self, machine: usize, line: &str) -> String {
        let output = self.command(machine, line).output().unwrap();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {complaint}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Starts a node, which stays.
    fn start(&mut self, machine: usize, line: &str) {
        let mut command = self.command(machine, line);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.up.push(child.unwrap());
        wait_until("the node answers", SOON, || {
            self.try_run(machine, "brigade nodes").is_some()
        });
    }

    /// The states of both nodes, as a machine shows them.
    fn states(&self, machine: usize) -> Vec<String> {
        let nodes: Value =
            serde_json::from_str(&self.run(machine, "brigade nodes --json")).unwrap();
        let nodes = nodes["nodes"].as_array().unwrap().iter();
        nodes
            .map(|node| node["state"].as_str().unwrap().to_owned())
            .collect()
    }

    fn both_show(&self, first: [&str; 2], second: [&str; 2]) -> bool {
        self.states(0) == first && self.states(1) == second
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for child in &mut self.up {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn the_page_on_two_machines_works_as_it_is_typed() {
    let Some(machines) = Machines::new() else {
        return;
    };
    let scratch = Scratch::new();
    symlink(smollm2(), scratch.path("model.gguf")).unwrap();
    let mut desk = Desk {
        machines,
        up: Vec::new(),
        scratch,
    };
    let (mut invitation, mut asked) = (String::new(), false);
    for (machine, line) in commands() {
        if line.starts_with("brigade up --join") {
            // The line that the other machine printed, in the place of the one on the page.
            desk.start(machine, &format!("{} --name second", invitation.trim()));
            wait_until("both are up", SOON, || desk.both_show(["up"; 2], ["up"; 2]));
        } else if line.starts_with("brigade up") {
            desk.start(machine, &line);
        } else if line.starts_with("brigade invite") {
            invitation = desk.run(machine, &line);
        } else if line.starts_with("curl") {
            let answer: Value = serde_json::from_str(&desk.run(machine, &line)).unwrap();
            let tokens = &answer["usage"]["completion_tokens"];
            assert_eq!(tokens, 20, "{answer}");
            asked = true;
            unplugged(&desk);
        } else {
            let said = desk.run(machine, &line);
            if line.ends_with("nodes") {
                assert!(said.contains("192.168.1.11:8810"), "{said}");
            }
        }
    }
    assert!(asked, "the page asks nothing");
    assert_eq!(desk.states(0), ["up"]);
    for child in &mut desk.up {
        send(child.id(), Signal::TERM);
        let status = wait_for_end(child, SOON).expect("a node did not end");
        assert_eq!(status.code(), Some(0));
    }
    desk.scratch.assert_nothing_runs();
}

/// Nobody closes a connection when a cable is pulled out.
fn unplugged(desk: &Desk) {
    desk.machines.cable("down");
    let pulled = Instant::now();
    wait_until("both miss the other", SOON, || {
        desk.both_show(["up", "down"], ["down", "up"])
    });
    let taken = pulled.elapsed();
    assert!(taken < Duration::from_secs(2), "{taken:?}");
    let running: Value = serde_json::from_str(&desk.run(0, "brigade ps --json")).unwrap();
    let failure = &running["models"][0]["failure"];
    assert_eq!(failure, "second is gone: the connection to it is closed");
    desk.machines.cable("up");
    wait_until("they are together again", SOON, || {
        desk.both_show(["up"; 2], ["up"; 2])
    });
}
