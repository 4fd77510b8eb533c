//! Whether a tool is there and usable.

use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Need;
use crate::host::{output_of, which};
use crate::python::{self, Ability};

pub(super) fn is_met(need: Need) -> bool {
    match need {
        Need::CxxCompiler => compilers().iter().any(compiles),
        Need::Cmake => which("cmake").is_some(),
        // cmake's default generator on Unix calls make.
        Need::Make => std::env::var_os("CMAKE_GENERATOR").is_some() || which("make").is_some(),
        Need::Libclang => libclang_dirs().iter().any(|dir| holds_libclang(dir)),
        Need::Pip => python::find(Ability::Download).is_some(),
        Need::Venv => python::find(Ability::Environment).is_some(),
    }
}

fn compilers() -> Vec<OsString> {
    std::env::var_os("CXX").map_or_else(
        || ["c++", "g++", "clang++"].map(OsString::from).to_vec(),
        |own| vec![own],
    )
}

/// A compiler driver without the standard library's headers is common, so ask it to read one.
fn compiles(compiler: &OsString) -> bool {
    let child = Command::new(compiler)
        .args(["-x", "c++", "-fsyntax-only", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = child else { return false };
    let written = child
        .stdin
        .take()
        .is_some_and(|mut stdin| stdin.write_all(b"#include <vector>\n").is_ok());
    child.wait().is_ok_and(|status| status.success()) && written
}

/// The folders where bindgen looks for libclang.
fn libclang_dirs() -> Vec<PathBuf> {
    if let Some(own) = std::env::var_os("LIBCLANG_PATH") {
        return vec![own.into()];
    }
    let mut dirs: Vec<PathBuf> = [
        "/usr/lib",
        "/usr/lib64",
        "/usr/local/lib",
        "/Library/Developer/CommandLineTools/usr/lib",
        "/Applications/Xcode.app/Contents/Developer/Toolchains/XcodeDefault.xctoolchain/usr/lib",
    ]
    .map(PathBuf::from)
    .to_vec();
    dirs.extend(output_of("llvm-config", &["--libdir"]).map(PathBuf::from));
    // Debian's /usr/lib/llvm-14/lib and /usr/lib/x86_64-linux-gnu, Homebrew's /usr/local/opt/llvm/lib.
    for (parent, starts, below) in [
        ("/usr/lib", "llvm", "lib"),
        ("/usr/lib64", "llvm", "lib"),
        ("/usr/local/opt", "llvm", "lib"),
        ("/opt/homebrew/opt", "llvm", "lib"),
        ("/usr/lib", std::env::consts::ARCH, ""),
    ] {
        let entries = fs::read_dir(parent).into_iter().flatten().flatten();
        dirs.extend(
            entries
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(starts))
                .map(|entry| entry.path().join(below)),
        );
    }
    dirs
}

fn holds_libclang(dir: &Path) -> bool {
    // LIBCLANG_PATH may name the file itself.
    if dir.is_file() {
        return true;
    }
    fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| is_libclang(&entry.file_name().to_string_lossy()))
}

/// Whether bindgen would load a file of this name: `libclang.so`, `libclang.so.1`, `libclang-14.so`,
/// `libclang.dylib`; not `libclang-cpp.so`, which has another interface.
fn is_libclang(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("libclang") else {
        return false;
    };
    rest == ".dylib"
        || rest == ".so"
        || rest.starts_with(".so.")
        || rest.strip_prefix('-').is_some_and(|version| {
            version.starts_with(|c: char| c.is_ascii_digit()) && version.contains(".so")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libclang_by_name() {
        for name in [
            "libclang.so",
            "libclang.so.1",
            "libclang-14.so",
            "libclang-14.so.14.0.6",
            "libclang.dylib",
        ] {
            assert!(is_libclang(name), "{name}");
        }
        for name in [
            "libclang-cpp.so.14",
            "libclangAST.a",
            "libclang.a",
            "libclang_rt.so",
            "clang",
        ] {
            assert!(!is_libclang(name), "{name}");
        }
    }

    #[test]
    fn a_compiler_that_is_not_there_does_not_compile() {
        assert!(!compiles(&OsString::from("no-such-compiler")));
        // Runs, and fails.
        assert!(!compiles(&OsString::from("false")));
    }
}
