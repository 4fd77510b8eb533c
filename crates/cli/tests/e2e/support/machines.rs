//! Two machines: network namespaces that are linked by a cable.

use std::io::Write;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// Two network namespaces with a link between them; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Machines {
    names: [String; 2],
}

/// Their addresses.
const ADDRESSES: [&str; 2] = ["192.168.1.10", "192.168.1.11"];

impl Machines {
    /// Makes them, or says aloud why this test is skipped: it needs root.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let stem = format!(
            "brigade-{}-{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let machines = Self {
            names: [1, 2].map(|number| format!("{stem}-{number}")),
        };
        match machines.build() {
            Ok(()) => Some(machines),
            Err(reason) => {
                // Past the test harness, which hides what a passed test prints.
                let _ = writeln!(
                    std::io::stderr(),
                    "SKIPPED: no network namespaces here ({reason}); run as root to test two machines"
                );
                None
            }
        }
    }

    fn build(&self) -> Result<(), String> {
        let [first, second] = &self.names;
        ip(&["netns", "add", first])?;
        ip(&["netns", "add", second])?;
        let cable = ["link", "add", "cable", "netns", first, "type", "veth"];
        ip(&[&cable[..], &["peer", "name", "cable", "netns", second]].concat())?;
        for (name, address) in self.names.iter().zip(ADDRESSES) {
            let address = format!("{address}/24");
            ip(&["-n", name, "addr", "add", &address, "dev", "cable"])?;
            ip(&["-n", name, "link", "set", "lo", "up"])?;
            ip(&["-n", name, "link", "set", "cable", "up"])?;
        }
        Ok(())
    }

    /// The same command on one of the machines.
    pub(crate) fn on(&self, machine: usize, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.names[machine]]);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        if let Some(folder) = command.get_current_dir() {
            inside.current_dir(folder);
        }
        inside
    }

    /// Pulls the cable out, or plugs it in: `down` or `up`.
    pub(crate) fn cable(&self, state: &str) {
        ip(&["-n", &self.names[0], "link", "set", "cable", state]).unwrap();
    }
}

impl Drop for Machines {
    fn drop(&mut self) {
        for name in &self.names {
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
