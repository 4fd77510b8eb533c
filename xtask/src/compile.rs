//! The release build, with signs of life while llama.cpp compiles, and the check that it is optimised.

mod progress;

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::cache;
use crate::host::{cpu_flags, cpu_id, root, which};

pub(crate) use progress::watched;

/// What every task builds: one set of packages, so that cargo resolves one set of features and compiles
/// nothing twice.
pub(crate) const WHOLE: [&str; 2] = ["--release", "--workspace"];

/// cargo, in the repository's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // What `cargo run` tells this process about xtask would make build scripts that watch it run again.
    for (name, _) in std::env::vars_os() {
        let name_text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_"]
            .iter()
            .any(|prefix| name_text.starts_with(prefix))
        {
            command.env_remove(&name);
        }
    }
    if which("ccache").is_some() {
        command.envs(ccache());
    }
    let target = target_dir();
    claim(&target);
    command.env("CARGO_TARGET_DIR", target);
    command
}

/// Makes a shared target folder this clone's: cargo tells members of a workspace apart by their path
/// within it, so that after a build in another clone it would take that one's crates for this one's
/// wherever they are newer. What every clone has alike, llama.cpp above all, stays.
fn claim(target: &Path) {
    let (mark, own) = (target.join("clone"), root());
    if fs::read(&mark).is_ok_and(|last| last == own.as_os_str().as_encoded_bytes()) {
        return;
    }
    for prints in [
        target.join("release/.fingerprint"),
        target.join("planner/release/.fingerprint"),
    ] {
        for entry in fs::read_dir(&prints).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with("brigade") {
                // What stays is built again only if cargo sees that it must.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
    let _ = fs::create_dir_all(target)
        .and_then(|()| fs::write(&mark, own.as_os_str().as_encoded_bytes()));
}

/// Lets ccache keep llama.cpp's objects, apart for each kind of CPU: `-march=native` means another thing
/// on each, and ccache cannot see that.
fn ccache() -> [(&'static str, OsString); 3] {
    [
        ("CMAKE_C_COMPILER_LAUNCHER", "ccache".into()),
        ("CMAKE_CXX_COMPILER_LAUNCHER", "ccache".into()),
        ("CCACHE_NAMESPACE", format!("brigade-{}", cpu_id()).into()),
    ]
}

/// Where the tasks build: `CARGO_TARGET_DIR`, else one folder in the cache for all clones, so that
/// llama.cpp is compiled once, but one for each kind of CPU: everything in it is compiled for the machine
/// that it was compiled on. Without a cache it is the clone's own.
pub(crate) fn target_dir() -> PathBuf {
    let own = root().join("target");
    if let Some(named) = std::env::var_os("CARGO_TARGET_DIR").filter(|named| !named.is_empty()) {
        return root().join(named);
    }
    let Ok(cache) = cache::dir() else { return own };
    let shared = cache.join(format!("target-{}", cpu_id()));
    match fs::create_dir_all(&shared) {
        Ok(()) => shared,
        Err(_) => own,
    }
}

/// Builds the workspace, checks the binary, puts it where a person looks for it and gives its path.
pub(crate) fn release() -> Result<PathBuf> {
    let binary = target_dir().join("release/brigade");
    let mut build = cargo();
    build.arg("build").args(WHOLE);
    watched(build, "building")?;
    if !binary.is_file() {
        bail!("cargo built no {}", binary.display());
    }
    check(&binary)?;
    let usual = root().join("target/release/brigade");
    if usual == binary {
        return Ok(binary);
    }
    // Renamed into place: the old one may be running.
    let new = usual.with_extension("new");
    fs::create_dir_all(root().join("target/release"))
        .and_then(|()| fs::copy(&binary, &new))
        .and_then(|_| fs::rename(&new, &usual))
        .with_context(|| format!("cannot write {}", usual.display()))?;
    Ok(usual)
}

/// What builds the planner alone: the same program without all that runs models.
pub(crate) const PLANNER: [&str; 4] =
    ["--release", "--package", "brigade", "--no-default-features"];

/// cargo for the planner alone, in a folder of its own: with other features in the same one, both builds
/// would compile again what they share.
pub(crate) fn planner_cargo() -> Command {
    let mut command = cargo();
    command.env("CARGO_TARGET_DIR", planner_dir());
    command
}

fn planner_dir() -> PathBuf {
    target_dir().join("planner")
}

/// Builds the planner alone, which needs no C++ and about a minute, and gives the program's path.
pub(crate) fn planner() -> Result<PathBuf> {
    let status = planner_cargo().arg("build").args(PLANNER).status()?;
    if !status.success() {
        bail!("cargo failed ({status})");
    }
    Ok(planner_dir().join("release/brigade"))
}

/// Writes what the catalog's measurements say of speed into the catalog.
pub(crate) fn calibrate() -> Result<()> {
    let output = planner_cargo()
        .args([
            "run",
            "--release",
            "--package",
            "brigade-fit",
            "--example",
            "calibrate",
        ])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        bail!("cargo failed ({})", output.status);
    }
    let path = root().join("catalog/speed.toml");
    fs::write(&path, output.stdout).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.display());
    Ok(())
}

/// Asks the binary how its llama.cpp was built, and fails where this machine can do more.
fn check(binary: &Path) -> Result<()> {
    let output = Command::new(binary)
        .args(["build-info", "--json"])
        .output()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    if !output.status.success() {
        bail!(
            "`brigade build-info --json` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let info =
        BuildInfo::parse(&text).with_context(|| format!("cannot read the build info {text}"))?;
    let wanted = wanted_features(&cpu_flags());
    info.satisfies(&wanted)?;
    eprintln!("      {}: {}", info.llama_cpp, info.cpu_features.join(" "));
    Ok(())
}

/// What `brigade build-info --json` tells.
#[derive(Debug, PartialEq, Eq)]
struct BuildInfo {
    llama_cpp: String,
    cpu_features: Vec<String>,
    rpc: bool,
}

impl BuildInfo {
    /// Reads the one flat document that this project writes itself, in place of a JSON library: its keys are
    /// distinct and no string in it holds a quote, a bracket or a comma.
    fn parse(json: &str) -> Option<Self> {
        let value_of = |key: &str| {
            let (_, rest) = json.split_once(&format!("\"{key}\""))?;
            Some(rest.trim_start().strip_prefix(':')?.trim_start())
        };
        let quoted =
            |text: &str| Some(text.trim().strip_prefix('"')?.split_once('"')?.0.to_owned());
        if quoted(value_of("schema")?)? != "brigade.build/1" {
            return None;
        }
        let (features, _) = value_of("cpu_features")?
            .strip_prefix('[')?
            .split_once(']')?;
        Some(Self {
            llama_cpp: quoted(value_of("llama_cpp")?)?,
            cpu_features: features.split(',').filter_map(quoted).collect(),
            rpc: value_of("rpc")?.starts_with("true"),
        })
    }

    fn satisfies(&self, wanted: &[&str]) -> Result<()> {
        let lacking: Vec<&str> = wanted
            .iter()
            .copied()
            .filter(|wanted| !self.cpu_features.iter().any(|feature| feature == wanted))
            .collect();
        if !lacking.is_empty() {
            bail!(
                "llama.cpp was built without {}, which this CPU has: unset RUSTFLAGS (it replaces the flags in \
                 .cargo/config.toml), run `cargo clean --release -p llama-cpp-sys-2` and build again",
                lacking.join(" and ")
            );
        }
        if !self.rpc {
            bail!(
                "llama.cpp was built without its RPC backend: set GGML_RPC=ON (.cargo/config.toml does, unless \
                 the environment says otherwise) and build again"
            );
        }
        Ok(())
    }
}

/// ggml's names for the instruction sets that matter most to it, of those among the CPU's `flags`.
fn wanted_features(flags: &str) -> Vec<&'static str> {
    let flags: Vec<&str> = flags.split_whitespace().collect();
    [
        ("avx2", "AVX2"),
        ("fma", "FMA"),
        ("avx512f", "AVX512"),
        ("asimddp", "DOTPROD"),
    ]
    .into_iter()
    .filter(|(flag, _)| flags.contains(flag))
    .map(|(_, feature)| feature)
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: &str = r#"{"schema":"brigade.build/1","llama_cpp":"b1234","cpu_features":["SSE3","AVX2","FMA"],"rpc":true}"#;

    #[test]
    fn build_info_compact_or_spread() {
        let info = BuildInfo::parse(INFO).unwrap();
        assert_eq!(info.llama_cpp, "b1234");
        assert_eq!(info.cpu_features, ["SSE3", "AVX2", "FMA"]);
        assert!(info.rpc);
        let spread = INFO
            .replace(',', ",\n  ")
            .replace(':', ": ")
            .replace('[', "[\n");
        assert_eq!(BuildInfo::parse(&spread).unwrap(), info);
    }

    #[test]
    fn other_documents_are_refused() {
        assert_eq!(BuildInfo::parse(""), None);
        assert_eq!(BuildInfo::parse(&INFO.replace("build/1", "build/2")), None);
        assert_eq!(BuildInfo::parse(&INFO.replace("rpc", "grpc")), None);
        let empty = INFO.replace(r#""SSE3","AVX2","FMA""#, "");
        assert!(BuildInfo::parse(&empty).unwrap().cpu_features.is_empty());
    }

    #[test]
    fn a_slow_build_is_named() {
        let info = BuildInfo::parse(INFO).unwrap();
        assert!(info.satisfies(&["AVX2", "FMA"]).is_ok());
        let error = info.satisfies(&["AVX2", "AVX512"]).unwrap_err().to_string();
        assert!(error.contains("without AVX512,"), "{error}");
        let without_rpc = BuildInfo::parse(&INFO.replace("true", "false")).unwrap();
        assert!(
            without_rpc
                .satisfies(&[])
                .unwrap_err()
                .to_string()
                .contains("RPC")
        );
    }

    #[test]
    fn features_follow_the_cpu() {
        assert_eq!(
            wanted_features("fpu avx avx2 fma avx512f"),
            ["AVX2", "FMA", "AVX512"]
        );
        assert_eq!(wanted_features("fp asimd asimddp"), ["DOTPROD"]);
        assert!(wanted_features("").is_empty());
    }
}
