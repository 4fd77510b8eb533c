//! Several machines: network namespaces that are linked by a switch.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Network namespaces, each with a cable to one that is their switch; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Machines {
    names: Vec<String>,
    switch: String,
}

/// The address of a machine in the second network.
pub(crate) fn second_address(machine: usize) -> String {
    format!("10.1.1.{}", 10 + machine)
}

/// The address of a machine.
pub(crate) fn address(machine: usize) -> String {
    format!("192.168.1.{}", 10 + machine)
}

impl Machines {
    /// Makes so many, or says aloud why this test is skipped: it needs root.
    pub(crate) fn new(count: usize) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stem = format!(
            "brigade-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let machines = Self {
            names: (0..count)
                .map(|machine| format!("{stem}-{machine}"))
                .collect(),
            switch: format!("{stem}-switch"),
        };
        match machines.build() {
            Ok(()) => Some(machines),
            Err(reason) => {
                // Past the test harness, which hides what a passed test prints.
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED: no network namespaces here ({reason}); run as root to test several machines"
                );
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        ip(&["netns", "add", &self.switch])?;
        for name in &self.names {
            ip(&["netns", "add", name])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
        }
        self.network("cable", "port", "bridge", address)
    }

    /// Links all machines by a second network.
    pub(crate) fn second_network(&self) {
        self.network("second", "other", "bridge2", second_address)
            .unwrap();
    }

    fn network(
        &self,
        cable: &str,
        port: &str,
        bridge: &str,
        address: fn(usize) -> String,
    ) -> Result<(), String> {
        let switch = &self.switch;
        ip(&["-n", switch, "link", "add", bridge, "type", "bridge"])?;
        ip(&["-n", switch, "link", "set", bridge, "up"])?;
        for (machine, name) in self.names.iter().enumerate() {
            let port = format!("{port}{machine}");
            let address = format!("{}/24", address(machine));
            let link = ["link", "add", cable, "netns", name, "type", "veth"];
            ip(&[&link[..], &["peer", "name", &port, "netns", switch]].concat())?;
            ip(&["-n", switch, "link", "set", &port, "master", bridge])?;
            ip(&["-n", switch, "link", "set", &port, "up"])?;
            ip(&["-n", name, "addr", "add", &address, "dev", cable])?;
            ip(&["-n", name, "link", "set", cable, "up"])?;
        }
        Ok(())
    }

    /// Gives a machine another address in the first network, and takes all others from it there.
    pub(crate) fn readdress(&self, machine: usize, address: &str) {
        let name = &self.names[machine];
        ip(&["-n", name, "addr", "flush", "dev", "cable"]).unwrap();
        let address = format!("{address}/24");
        ip(&["-n", name, "addr", "add", &address, "dev", "cable"]).unwrap();
    }

    /// The same command on one of the machines.
    pub(crate) fn on(&self, machine: usize, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.names[machine]]);
        within(inside, command)
    }

    /// Pulls a machine's cable out of the switch, or plugs it in: `down` or `up`.
    pub(crate) fn cable(&self, machine: usize, state: &str) {
        self.plug("port", machine, state);
    }

    /// The same in the second network.
    pub(crate) fn second_cable(&self, machine: usize, state: &str) {
        self.plug("other", machine, state);
    }

    fn plug(&self, port: &str, machine: usize, state: &str) {
        let port = format!("{port}{machine}");
        ip(&["-n", &self.switch, "link", "set", &port, state]).unwrap();
    }

    /// Lets nothing pass between two machines, or everything again: `add` or `del`.
    pub(crate) fn wall(&self, machines: [usize; 2], change: &str) {
        let [one, other] = machines;
        for (here, there) in [(one, other), (other, one)] {
            let route = ["route", change, "blackhole", &address(there)];
            ip(&[&["-n", &self.names[here]], &route[..]].concat()).unwrap();
        }
    }
}

/// A command with all of its surroundings, as the last arguments of one that becomes it.
pub(super) fn within(mut outer: Command, command: &Command) -> Command {
    outer.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        outer.current_dir(folder);
    }
    outer
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.switch]) {
            // One that was never made is gone as well.
            let _ = ip(&["netns", "del", name]);
        }
    }
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(complaint.trim().to_owned())
}
