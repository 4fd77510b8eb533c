//! What this machine is and has.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest, Sha256};

/// The repository's root. The run-time value comes first: with a shared target folder this binary may have
/// been compiled in another clone.
pub(crate) fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest
        .parent()
        .map_or(manifest.clone(), Path::to_path_buf)
}

/// The first file `program` on `PATH`.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// What `program` prints on stdout, trimmed, if it runs and succeeds.
pub(crate) fn output_of<A: AsRef<OsStr>>(
    program: impl AsRef<OsStr>,
    arguments: &[A],
) -> Option<String> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Whether this process may write everywhere.
pub(crate) fn is_root() -> bool {
    output_of("id", &["-u"]).as_deref() == Some("0")
}

/// The CPU's instruction-set flags as the system writes them, or its name where it lists none; empty where
/// neither can be had.
pub(crate) fn cpu_flags() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    flags_in(&cpuinfo)
        .map(str::to_owned)
        .or_else(|| output_of("sysctl", &["-n", "machdep.cpu.brand_string"]))
        .unwrap_or_default()
}

/// The flags of the first CPU in `/proc/cpuinfo`'s text (`flags` on x86, `Features` on Arm).
fn flags_in(cpuinfo: &str) -> Option<&str> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| matches!(key.trim(), "flags" | "Features"))
        .map(|(_, flags)| flags.trim())
}

/// The CPU's name as the system writes it.
pub(crate) fn cpu_name() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == "model name")
        .map(|(_, name)| name.trim().to_owned())
        .or_else(|| output_of("sysctl", &["-n", "machdep.cpu.brand_string"]))
        .unwrap_or_else(|| "a CPU without a name".to_owned())
}

/// A short name for this CPU's instruction set: code compiled with `-march=native` must not move to a
/// machine where it differs.
pub(crate) fn cpu_id() -> String {
    let digest = Sha256::digest(cpu_flags());
    format!("{digest:x}")[..12].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_first_cpu() {
        let x86 =
            "processor\t: 0\nmodel name\t: Some CPU\nflags\t\t: fpu avx2 fma\n\nflags\t\t: none\n";
        assert_eq!(flags_in(x86), Some("fpu avx2 fma"));
        let arm = "processor\t: 0\nFeatures\t: fp asimd asimddp\n";
        assert_eq!(flags_in(arm), Some("fp asimd asimddp"));
        assert_eq!(flags_in("vendor_id : x\n"), None);
    }

    #[test]
    fn root_holds_the_workspace() {
        assert!(root().join(".cargo/config.toml").is_file());
    }
}
