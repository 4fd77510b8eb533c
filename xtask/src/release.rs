//! What a release consists of: an archive for each platform and flavor, their checksums, the Homebrew
//! formula and the installer, both from the templates in `packaging/`.
//!
//! The repository's address stands nowhere but in the environment of the workflow that releases.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::compile::{cargo, target_dir, watched};
use crate::host::root;
use crate::models::sha256;

/// The version of every crate.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What of the system and its GPUs an archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// The CPU; on a Mac with Metal.
    Plain,
    Cuda,
    Vulkan,
}

impl Flavor {
    pub(crate) fn named(name: &str) -> Result<Self> {
        match name {
            "plain" => Ok(Self::Plain),
            "cuda" => Ok(Self::Cuda),
            "vulkan" => Ok(Self::Vulkan),
            other => bail!("no flavor `{other}`: plain, cuda or vulkan"),
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Cuda => "-cuda",
            Self::Vulkan => "-vulkan",
        }
    }

    /// Cargo's features. A Mac's processors differ little: its build has all in one program.
    fn features(self, system: &str) -> &'static str {
        match self {
            Self::Plain if system == "macos" => "engine",
            Self::Plain => "portable",
            Self::Cuda => "portable,cuda",
            Self::Vulkan => "portable,vulkan",
        }
    }
}

/// What an archive is called, without its ending.
fn archive_name(system: &str, machine: &str, flavor: Flavor) -> String {
    let machine = if machine == "aarch64" {
        "arm64"
    } else {
        machine
    };
    format!("brigade-{VERSION}-{system}-{machine}{}", flavor.suffix())
}

/// Builds the archive for this machine's system and writes it to a folder; returns its path.
pub(crate) fn package(flavor: Flavor, folder: &Path) -> Result<PathBuf> {
    let system = std::env::consts::OS;
    let name = archive_name(system, std::env::consts::ARCH, flavor);
    // Apart, since everything in the usual folder is for this machine's CPU.
    let target = target_dir().join(format!("package{}", flavor.suffix()));
    let mut build = cargo();
    build
        .args(["build", "--release", "--locked", "--package", "brigade"])
        .args(["--features", flavor.features(system)])
        .env("CARGO_TARGET_DIR", &target)
        // In place of `-C target-cpu=native`.
        .env("RUSTFLAGS", "");
    watched(build, "building")?;
    let staging = target.join(&name);
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    fs::create_dir_all(&staging)?;
    let release = target.join("release");
    let mut files = vec![release.join("brigade")];
    files.extend(["LICENSE-MIT", "LICENSE-APACHE", "README.md"].map(|file| root().join(file)));
    if flavor.features(system).contains("portable") {
        files.extend(libraries(&release.join("build"))?);
    }
    for file in files {
        let to = staging.join(file.file_name().unwrap_or_default());
        fs::copy(&file, &to).with_context(|| format!("cannot copy {}", file.display()))?;
    }
    fs::create_dir_all(folder)?;
    archive(&target, &name, folder)
}

/// llama.cpp's libraries under the names that the program asks for, and its backends, all from the
/// newest of the build script's folders.
fn libraries(builds: &Path) -> Result<Vec<PathBuf>> {
    let outs = fs::read_dir(builds)?.flatten().map(|entry| entry.path());
    let newest = outs
        .map(|folder| folder.join("out"))
        .filter(|folder| folder.join("backends").is_dir())
        .max_by_key(|folder| fs::metadata(folder).and_then(|data| data.modified()).ok())
        .context("llama.cpp's build has left no backends")?;
    let mut found = Vec::new();
    for folder in ["lib", "lib64", "backends"] {
        let entries = fs::read_dir(newest.join(folder)).into_iter().flatten();
        for path in entries.flatten().map(|entry| entry.path()) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // Of libggml.so, libggml.so.0 and libggml.so.0.26.0 the program names the second.
            let wanted = match name.split_once(".so") {
                Some((_, "")) => folder == "backends",
                Some((_, version)) => version.matches('.').count() == 1,
                None => false,
            };
            if wanted {
                found.push(path);
            }
        }
    }
    if found.is_empty() {
        bail!("{} has no libraries", newest.display());
    }
    Ok(found)
}

/// Packs `folder/name`.
fn archive(folder: &Path, name: &str, to: &Path) -> Result<PathBuf> {
    let path = to.join(format!("{name}.tar.gz"));
    let status = Command::new("tar")
        .arg("-czf")
        .arg(&path)
        .arg("-C")
        .arg(folder)
        .arg(name)
        .status()
        .context("cannot run tar")?;
    if !status.success() {
        bail!("tar failed ({status})");
    }
    Ok(path)
}

/// Writes SHA256SUMS, the formula and the installer beside a folder's archives. `repository` is its
/// address, such as `https://github.com/OWNER/NAME`.
pub(crate) fn checksums(folder: &Path, repository: &str) -> Result<()> {
    let mut archives: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().ends_with(".tar.gz"))
        .collect();
    archives.sort();
    if archives.is_empty() {
        bail!("{} has no archives", folder.display());
    }
    let mut sums = String::new();
    for path in &archives {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let _ = writeln!(sums, "{}  {name}", sha256(path)?);
    }
    fs::write(folder.join("SHA256SUMS"), &sums)?;
    for (template, name) in [("install.sh", "install.sh"), ("brigade.rb", "brigade.rb")] {
        let template = root().join("packaging").join(template);
        let text = fs::read_to_string(&template)
            .with_context(|| format!("cannot read {}", template.display()))?;
        fs::write(folder.join(name), filled(&text, &sums, repository)?)?;
    }
    Ok(())
}

/// A template with the release's facts in place of its `@…@`.
fn filled(template: &str, sums: &str, repository: &str) -> Result<String> {
    let repository = repository.trim_end_matches('/');
    if !repository.starts_with("https://") && !repository.starts_with("http://") {
        bail!("`{repository}` is no address of a repository");
    }
    let mut text = template
        .replace("@VERSION@", VERSION)
        .replace("@HOMEPAGE@", repository)
        .replace(
            "@DOWNLOADS@",
            &format!("{repository}/releases/download/v{VERSION}"),
        );
    while let Some((before, rest)) = text.split_once("@SHA256 ") {
        let (platform, after) = rest.split_once('@').context("a template is broken")?;
        let file = format!("  brigade-{VERSION}-{platform}.tar.gz");
        let sum = sums.lines().find_map(|line| line.strip_suffix(&file));
        let sum = sum.with_context(|| format!("the release has no archive for {platform}"))?;
        text = format!("{before}{sum}{after}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests;
