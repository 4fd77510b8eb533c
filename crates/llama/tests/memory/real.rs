//! The demo's models, whole and cut, where they have been fetched.

use std::path::PathBuf;

use brigade_gguf::{Balance, Source, head_layers, plan_even};

use crate::compare::{Apart, MIB};
use crate::{CONTEXTS, has_amx, load, of_each_type, skip, stages, whole};

/// A part of the file's name, and the numbers of stages that it is cut into.
const MODELS: [(&str, &[u32]); 2] = [("SmolLM2-135M", &[2, 4]), ("gemma-3-270m", &[2])];

#[test]
fn real_models() {
    let Some(folder) = std::env::var_os("BRIGADE_TEST_MODELS").map(PathBuf::from) else {
        skip("real_models", "BRIGADE_TEST_MODELS names no folder");
        return;
    };
    if has_amx("real_models") {
        return;
    }
    let files = std::fs::read_dir(&folder).expect("the folder");
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|name| name == "gguf"));
    paths.sort();
    let mut apart = Apart::new(MIB / 8);
    for (model, cuts) in MODELS {
        let of = |path: &&PathBuf| path.to_string_lossy().contains(model);
        let path = paths.iter().find(of);
        let path = path.unwrap_or_else(|| panic!("no {model} is in {}", folder.display()));
        let mut loads = CONTEXTS.map(|context| load(context, 1, 512)).to_vec();
        loads.extend([load(4096, 4, 64), load(4096, 16, 64)]);
        whole::check(&mut apart, model, path, &of_each_type(&loads));
        let source = Source::open(path).expect("a model");
        let layers = source.header().block_count().expect("a number of layers");
        let head = head_layers(source.header()).expect("a head");
        for &count in cuts {
            let stages = plan_even(layers, head, count, Balance::default());
            let stages = stages.expect("layers for each stage");
            let loads = CONTEXTS.map(|context| load(context, 4, 64));
            let name = format!("{model} in {count} stages");
            stages::check(&mut apart, &name, path, &stages, &of_each_type(&loads));
        }
    }
    println!("real models:\n{apart}");
}
