//! Lets a portable build find its libraries in the folder of the program, wherever that is: by an rpath
//! of the old kind, which counts for the libraries that libraries need, too.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_PORTABLE").is_some() {
        println!("cargo:rustc-link-arg-bins=-Wl,--disable-new-dtags,-rpath,$ORIGIN");
    }
}
