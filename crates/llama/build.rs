//! Tells the crate which `llama-cpp-sys-2` it is built on, from the lock file's exact pin.

fn main() {
    let lock = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../Cargo.lock");
    println!("cargo:rerun-if-changed={}", lock.display());
    let version = std::fs::read_to_string(&lock)
        .ok()
        .and_then(|text| {
            let (_, rest) = text.split_once("name = \"llama-cpp-sys-2\"\nversion = \"")?;
            Some(rest.split_once('"')?.0.to_owned())
        })
        .unwrap_or_else(|| "unknown".to_owned());
    println!("cargo:rustc-env=BRIGADE_LLAMA_SYS_VERSION={version}");
}
