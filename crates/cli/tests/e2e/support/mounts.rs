//! Nodes that see another disk or another memory than this machine's: mounts that only they have.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machines::within;
use super::{Scratch, text};

/// What one node finds in the place of this machine's.
#[derive(Debug)]
pub(crate) enum Mount {
    /// A disk of so many MB at this folder.
    Disk(PathBuf, u64),
    /// This file as `/proc/meminfo`.
    Memory(PathBuf),
}

impl Mount {
    /// Whether there can be any; says aloud that this test is skipped where not: it needs root.
    pub(crate) fn possible() -> bool {
        let tried = Command::new("unshare").args(["--mount", "true"]).output();
        let possible = tried.is_ok_and(|tried| tried.status.success());
        if !possible {
            // Past the test harness, which hides what a passed test prints.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: no mount namespaces here; run as root to test other disks and memories"
            );
        }
        possible
    }

    /// The same command for a process that has these mounts.
    pub(super) fn before(mounts: &[Self], command: &Command) -> Command {
        let lines = mounts.iter().map(|mount| match mount {
            Self::Disk(folder, mb) => {
                fs::create_dir_all(folder).unwrap();
                format!("mount -t tmpfs -o size={mb}m tmpfs {} && ", text(folder))
            }
            Self::Memory(file) => format!("mount --bind {} /proc/meminfo && ", text(file)),
        });
        let script: String = lines.chain(["exec \"$@\"".to_owned()]).collect();
        let mut outer = Command::new("unshare");
        outer.args(["--mount", "sh", "-c", &script, "sh"]);
        within(outer, command)
    }

    /// Gives the disk at this folder, which only the process has, another size.
    pub(crate) fn resize(pid: u32, folder: &Path, mb: u64) {
        let size = format!("remount,size={mb}m");
        let target = pid.to_string();
        let enter = ["--target", &target, "--mount", "mount", "-o", &size];
        let done = Command::new("nsenter").args(enter).arg(folder).status();
        assert!(done.unwrap().success());
    }
}

/// Writes what `/proc/meminfo` shall say: so much in all, and so much that nobody uses.
pub(crate) fn meminfo(scratch: &Scratch, name: &str, total: u64, available: u64) -> PathBuf {
    let path = scratch.path(name);
    let (total, available) = (total >> 10, available >> 10);
    let said = format!("MemTotal: {total} kB\nMemAvailable: {available} kB\n");
    // In place, as who has mounted it sees this file and no other.
    fs::write(&path, said).unwrap();
    path
}
