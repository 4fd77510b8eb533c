//! Processes, as the operating system sees them.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{Ended, SOON};

/// Sends a signal; the process must exist.
pub(crate) fn send(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

/// Whether the process runs. One that has ended and was not yet asked for by its parent does not.
pub(crate) fn is_alive(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| stat.state != 'Z')
}

/// The children of a process, and in brackets whether each of them has ended unnoticed.
pub(crate) fn children(parent: u32) -> Vec<(u32, char)> {
    all()
        .filter_map(|pid| stat(pid).map(|stat| (pid, stat)))
        .filter(|(_, stat)| stat.parent == parent)
        .map(|(pid, stat)| (pid, stat.state))
        .collect()
}

/// All descendants of a process with their states.
pub(crate) fn tree(root: u32) -> Vec<(u32, char)> {
    let mut found = children(root);
    let mut next = 0;
    while let Some(&(pid, _)) = found.get(next) {
        found.extend(children(pid));
        next += 1;
    }
    found
}

/// The command line of a process, its words parted by spaces.
pub(crate) fn command_line(pid: u32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Processes that were started with this `NAME=value` in their environment.
pub(crate) fn with_environment(setting: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let bytes = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        bytes
            .split(|byte| *byte == 0)
            .any(|entry| entry == setting.as_bytes())
    };
    all().filter(has).collect()
}

/// The time that a process has computed, in the kernel's ticks of some 10 ms.
pub(crate) fn cpu_ticks(pid: u32) -> u64 {
    stat(pid).map_or(0, |stat| stat.ticks)
}

/// Resident memory of processes, pages that they share counted once, in bytes.
pub(crate) fn resident(pids: &[u32]) -> u64 {
    let of = |pid: &u32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    pids.iter().map(|pid| of(pid).unwrap() << 10).sum()
}

struct Stat {
    state: char,
    parent: u32,
    ticks: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The program's name stands in brackets and may have any character.
    let (_, rest) = text.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    Some(Stat {
        state: words.next()?.chars().next()?,
        parent: words.next()?.parse().ok()?,
        // In user mode: the tenth word after the parent.
        ticks: words.nth(9)?.parse().ok()?,
    })
}

fn all() -> impl Iterator<Item = u32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Runs a command to its end.
pub(super) fn finish(command: &mut Command, input: &str) -> Ended {
    let mut child = command.spawn().unwrap();
    if let Some(mut stdin) = child.stdin.take() {
        // A child that has refused its arguments does not read.
        let _ = stdin.write_all(input.as_bytes());
    }
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let status = wait(&mut child, SOON);
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (stdout, stderr) = (stdout.join().unwrap(), stderr.join().unwrap());
    let Some(status) = status else {
        panic!("{command:?} did not end; it wrote:\n{stdout}{stderr}");
    };
    Ended {
        code: status.code(),
        stdout,
        stderr,
    }
}

/// Waits for a child's end.
pub(crate) fn wait(child: &mut Child, limit: Duration) -> Option<std::process::ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        match child.try_wait().unwrap() {
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            status => return status,
        }
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    })
}
