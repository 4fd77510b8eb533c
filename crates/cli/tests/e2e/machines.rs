//! Several machines: the commands of `docs/two-machines.md` as typed, and links that break.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use brigade_gguf::testing::TinyModel;
use serde_json::Value;

use crate::support::{
    Machines, SOON, Scratch, Signal, address, second_address, send, smollm2, wait_for_end,
    wait_until,
};

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
    /// So many machines without nodes; none where there can be no machines.
    fn new(count: usize) -> Option<Self> {
        let machines = Machines::new(count)?;
        Some(Self {
            machines,
            up: Vec::new(),
            scratch: Scratch::new(),
        })
    }

    /// A shell's command on a machine, with `brigade` in its path and a home of its own.
    fn command(&self, machine: usize, line: &str) -> Command {
        let brigade = Path::new(env!("CARGO_BIN_EXE_brigade")).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let usual = self.scratch.command(&[]);
        let mut typed = Command::new("sh");
        typed
            .args(["-c", &format!("exec {line}")])
            .env("PATH", format!("{}:{path}", brigade.display()))
            .env(
                "BRIGADE_HOME",
                self.scratch.path(&format!("home-{machine}")),
            )
            .current_dir(self.scratch.path(""));
        for (name, value) in usual.get_envs() {
            match value {
                Some(value) => typed.env(name, value),
                None => typed.env_remove(name),
            };
        }
        let mut shell = self.machines.on(machine, &typed);
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
        let mut command = self.command(machine, &format!("{line} --no-calibrate"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.up.push(child.unwrap());
        wait_until("the node answers", SOON, || {
            self.try_run(machine, "brigade nodes").is_some()
        });
    }

    /// The states of all nodes by name, as a machine shows them.
    fn states(&self, machine: usize) -> Vec<String> {
        let nodes: Value =
            serde_json::from_str(&self.run(machine, "brigade nodes --json")).unwrap();
        let nodes = nodes["nodes"].as_array().unwrap().iter();
        nodes
            .map(|node| node["state"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Whether the machines show these states, one list for each.
    fn show<const N: usize, const M: usize>(&self, states: &[[&str; N]; M]) -> bool {
        let mut shown = states.iter().enumerate();
        shown.all(|(machine, states)| self.states(machine) == *states)
    }

    /// Why the model that machine 0 serves does not answer any more.
    fn failure(&self) -> Value {
        let running: Value = serde_json::from_str(&self.run(0, "brigade ps --json")).unwrap();
        running["models"][0]["failure"].clone()
    }

    /// The links from a machine to others that stand: where they lead, and whether they are in use.
    fn links(&self, machine: usize) -> Vec<(String, bool)> {
        let said = self.run(machine, "brigade nodes --links --json");
        let said: Value = serde_json::from_str(&said).unwrap();
        let here = said["nodes"].as_array().unwrap().iter();
        let here = here.filter(|node| node["is_self"] == true);
        let here = here.map(|node| node["name"].clone()).next().unwrap();
        let links = said["links"].as_array().unwrap().iter();
        links
            .filter(|link| link["from"] == here && !link["round_trip_ms"].is_null())
            .map(|link| {
                let address = link["address"].as_str().unwrap().to_owned();
                (address, link["in_use"] == true)
            })
            .collect()
    }

    /// Ends all nodes in good order.
    fn end(mut self) {
        for child in &mut self.up {
            send(child.id(), Signal::TERM);
            let status = wait_for_end(child, SOON).expect("a node did not end");
            assert_eq!(status.code(), Some(0));
        }
        self.scratch.assert_nothing_runs();
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
    let Some(mut desk) = Desk::new(2) else {
        return;
    };
    symlink(smollm2(), desk.scratch.path("model.gguf")).unwrap();
    let (mut invitation, mut asked) = (String::new(), false);
    for (machine, line) in commands() {
        if line.starts_with("brigade up --join") {
            // The line that the other machine printed, in the place of the one on the page.
            desk.start(machine, &format!("{} --name second", invitation.trim()));
            wait_until("both are up", SOON, || desk.show(&[["up"; 2]; 2]));
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
    desk.end();
}

/// Nobody closes a connection when a cable is pulled out.
fn unplugged(desk: &Desk) {
    desk.machines.cable(1, "down");
    let pulled = Instant::now();
    wait_until("both miss the other", SOON, || {
        desk.show(&[["up", "down"], ["down", "up"]])
    });
    let taken = pulled.elapsed();
    assert!(taken < Duration::from_secs(2), "{taken:?}");
    assert_eq!(
        desk.failure(),
        "second is gone: the connection to it is closed"
    );
    desk.machines.cable(1, "up");
    wait_until("they are together again", SOON, || {
        desk.show(&[["up"; 2]; 2])
    });
}

/// Two nodes that lose each other while both still reach the gateway: their stages' link is idle,
/// and nobody closes it.
#[test]
fn a_link_that_breaks_between_two_other_nodes_is_noticed() {
    let Some(mut desk) = Desk::new(3) else {
        return;
    };
    desk.scratch.tiny("model.gguf", &TinyModel::llama(6));
    // One address each, so that one wall is between two nodes.
    let up = |machine| format!("--listen {}:8810", address(machine));
    desk.start(0, &format!("brigade up --name a {}", up(0)));
    for (machine, name) in [(1, "b"), (2, "c")] {
        let line = desk.run(0, "brigade invite");
        let line = format!("{} --name {name} {}", line.trim(), up(machine));
        desk.start(machine, &line);
    }
    wait_until("all are up", SOON, || desk.show(&[["up"; 3]; 3]));
    desk.run(0, "brigade load model.gguf --on all --ctx 256 --threads 1");
    desk.machines.wall([1, 2], "add");
    let partly = [["up", "partly", "partly"]; 3];
    // The two of them see each other as the gateway does: some reach it, some do not.
    wait_until("all show the same view of it", SOON, || desk.show(&partly));
    wait_until("the model is known to be broken", SOON, || {
        !desk.failure().is_null()
    });
    desk.machines.wall([1, 2], "del");
    wait_until("all are up again", SOON, || desk.show(&[["up"; 3]; 3]));
    wait_until("the model is back", SOON, || desk.failure().is_null());
    desk.end();
}

/// Two nodes in two networks: whichever of them is cut, they stay together.
#[test]
fn nodes_with_two_links_stay_together_when_one_is_cut() {
    let Some(mut desk) = Desk::new(2) else {
        return;
    };
    desk.machines.second_network();
    desk.scratch.tiny("model.gguf", &TinyModel::llama(6));
    // IPv4 alone: no link-local addresses that would be further ways over the same cables.
    desk.start(0, "brigade up --name a --listen 0.0.0.0");
    let line = desk.run(0, "brigade invite");
    let line = format!("{} --name b --listen 0.0.0.0", line.trim());
    desk.start(1, &line);
    let both = [second_address(1), address(1)].map(|ip| format!("{ip}:8810"));
    wait_until("they are linked twice", SOON, || {
        let mut links: Vec<_> = desk.links(0).into_iter().map(|(way, _)| way).collect();
        links.sort();
        links == both && desk.show(&[["up"; 2]; 2])
    });
    desk.run(0, "brigade load model.gguf --on all --ctx 256 --threads 1");
    let in_use = |desk: &Desk| {
        let used = desk.links(0).into_iter().find(|(_, in_use)| *in_use);
        used.map(|(way, _)| way)
    };
    for _ in 0..2 {
        let used = in_use(&desk).unwrap();
        let first = used.starts_with("192.");
        let plug = |state| {
            if first {
                desk.machines.cable(1, state);
            } else {
                desk.machines.second_cable(1, state);
            }
        };
        plug("down");
        wait_until("the other link is used", SOON, || {
            assert!(desk.show(&[["up"; 2]; 2]), "they lost each other");
            in_use(&desk).is_some_and(|way| way != used)
        });
        // Once what ran over the broken link has ended, the model comes back over the other.
        wait_until("the break is known", SOON, || !desk.failure().is_null());
        wait_until("it is back", SOON, || desk.failure().is_null());
        plug("up");
        wait_until("they are linked twice again", SOON, || {
            desk.links(0).len() == 2 && desk.links(1).len() == 2
        });
        assert!(desk.failure().is_null());
    }
    desk.end();
}

/// A lease that ends: the machine has another address from now on.
#[test]
fn a_node_that_gets_another_address_stays_a_member() {
    let Some(mut desk) = Desk::new(3) else {
        return;
    };
    desk.start(0, "brigade up --name a");
    for (machine, name) in [(1, "b"), (2, "c")] {
        let line = desk.run(0, "brigade invite");
        desk.start(machine, &format!("{} --name {name}", line.trim()));
    }
    wait_until("all are up", SOON, || desk.show(&[["up"; 3]; 3]));
    desk.machines.readdress(2, "192.168.1.77");
    wait_until("the others reach it there", SOON, || {
        let there = |machine| {
            let links = desk.links(machine);
            links.iter().any(|(way, _)| way == "192.168.1.77:8810")
        };
        there(0) && there(1) && desk.show(&[["up"; 3]; 3])
    });
    let old = format!("{}:8810", address(2));
    // The connection at the old address falls silent first.
    wait_until("the old address is given up", SOON, || {
        !desk.run(0, "brigade nodes --json").contains(&old)
    });
    desk.end();
}

/// What multicast DNS is for: nodes that nobody has named, a token whose addresses are out of date,
/// and two members that both have moved.
#[test]
fn nodes_of_one_network_find_each_other() {
    let Some(mut desk) = Desk::new(3) else {
        return;
    };
    desk.start(0, "brigade up --name a");
    desk.start(2, "brigade up --name stranger");
    wait_until("the stranger is seen", SOON, || {
        desk.run(0, "brigade nodes").contains("stranger")
    });
    assert_eq!(desk.states(0), ["up"], "it is no member by that");

    let line = desk.run(0, "brigade invite");
    desk.machines.readdress(0, "192.168.1.50");
    desk.start(1, &format!("{} --name b", line.trim()));
    let both = |desk: &Desk, at: [&str; 2]| {
        [0, 1].into_iter().all(|machine| {
            let links = desk.links(machine);
            let way = format!("{}:8810", at[1 - machine]);
            desk.states(machine) == ["up", "up"] && links.iter().any(|(known, _)| *known == way)
        })
    };
    wait_until("it has joined where the token does not lead", SOON, || {
        both(&desk, ["192.168.1.50", "192.168.1.11"])
    });

    for (machine, address) in [(0, "192.168.1.60"), (1, "192.168.1.61")] {
        desk.machines.readdress(machine, address);
    }
    wait_until("they have found each other again", SOON, || {
        both(&desk, ["192.168.1.60", "192.168.1.61"])
    });
    desk.end();
}
