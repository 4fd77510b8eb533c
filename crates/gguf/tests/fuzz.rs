//! A fuzz target for headers: mutations of a kept corpus, on stable Rust.
//!
//! `cargo test` replays the corpus and tries a fixed number of mutations of it, always the
//! same ones. For a longer hunt, in a release build:
//!
//! ```text
//! BRIGADE_FUZZ_SECONDS=600 cargo test --release -p brigade-gguf --test fuzz -- --nocapture
//! ```
//!
//! Inputs that lead to an answer not seen before (another kind of error, or another kind of
//! success) join the inputs that are mutated, so that the hunt gets past one check to the next.
//! An input that fails is written to a file that the message names: mend the bug, then copy
//! the file into `tests/corpus`.

#![expect(clippy::unwrap_used, reason = "helpers of tests may, as tests may")]

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::Cursor;
use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use brigade_gguf::testing::{Random, layout_bytes};
use brigade_gguf::{
    Architecture, Balance, Builder, Embedding, Header, Layers, Model, NewTensor, TensorData,
    TensorInfo, check_stages, embedding_layout, head_layers, plan_even, stage_bytes, stage_layout,
};

/// Mutations of an ordinary test run; a second or two.
const MUTATIONS: u64 = 60_000;
/// Inputs beyond the corpus that are mutated.
const MAX_FOUND: usize = 1024;
/// A mutation may make an input longer, up to this.
const MAX_INPUT_BYTES: usize = 16 << 10;

/// What must hold for any bytes at all. Returns the kind of the answer.
fn target(input: &[u8]) -> String {
    let header = match Header::read(&mut Cursor::new(input)) {
        Ok(header) => header,
        Err(error) => return kind(&error.to_string()),
    };
    let mut end = header.data_offset();
    for tensor in header.tensors() {
        assert!(tensor.offset() >= end, "overlap");
        assert_eq!(
            (tensor.offset() - header.data_offset()) % header.alignment(),
            0
        );
        end = tensor.offset() + tensor.bytes();
        assert!(end <= input.len() as u64, "beyond the end");
    }
    write_again(&header, input);
    let model = match Model::from_headers(vec![header]) {
        Ok(model) => model,
        Err(error) => return kind(&error.to_string()),
    };
    match cut(&model, input) {
        Ok(answer) => answer,
        Err(error) => kind(&error.to_string()),
    }
}

/// A header that was read can be written, and is then read as the same.
fn write_again(header: &Header, input: &[u8]) {
    let mut builder = Builder::new();
    for (key, value) in header.metadata() {
        builder.set_ref(key, value);
    }
    for tensor in header.tensors() {
        builder.tensor(NewTensor {
            name: tensor.name().into(),
            dims: tensor.dims().into(),
            ggml_type: tensor.ggml_type(),
            data: TensorData::Copy {
                part: 0,
                offset: tensor.offset(),
            },
        });
    }
    let layout = builder.layout().expect("it was valid");
    let bytes = layout_bytes(&layout, &[input]).expect("its tensors lie in the file");
    let again = Header::read(&mut Cursor::new(&bytes)).expect("it is valid");
    assert_eq!(again.tensors().len(), header.tensors().len());
    for (a, b) in again.tensors().iter().zip(header.tensors()) {
        assert_eq!((a.name(), a.dims()), (b.name(), b.dims()));
    }
    // Not the values, among which may be a NaN.
    let keys = |header: &Header| -> Vec<String> {
        let metadata = header.metadata().iter();
        metadata.map(|(key, _)| key.clone()).collect()
    };
    assert_eq!(keys(&again), keys(header));
}

/// Whatever can be cut gives files that can be read.
fn cut(model: &Model, input: &[u8]) -> Result<String, brigade_gguf::GgufError> {
    let layers = model.header().block_count()?;
    let stages = plan_even(
        layers,
        head_layers(model.header())?,
        layers.min(3),
        Balance::Both,
    )?;
    check_stages(model.header(), &stages)?;
    let architecture = Architecture::of(model.header())?;
    Embedding::of(model)?;
    for &range in &stages {
        let bytes = stage_bytes(model, range)?;
        if range.is_whole(layers) {
            continue;
        }
        let stage = read_layout(&stage_layout(model, range)?, input);
        if let Some(header) = stage {
            let sum: u64 = header.tensors().iter().map(TensorInfo::bytes).sum();
            assert_eq!(sum, bytes.stage);
            assert_eq!(header.block_count()?, range.count());
        }
    }
    read_layout(&embedding_layout(model)?, input);
    assert!(stage_layout(model, Layers::new(0, layers + 1)).is_err());
    Ok(format!(
        "{} in {} stages",
        architecture.name(),
        stages.len()
    ))
}

fn read_layout(layout: &brigade_gguf::Layout, input: &[u8]) -> Option<Header> {
    // Padding to a large alignment is allowed to take space, but would take time here.
    if layout.len() > 1 << 20 {
        return None;
    }
    let bytes = layout_bytes(layout, &[input]).expect("its tensors lie in the file");
    assert_eq!(bytes.len() as u64, layout.len());
    Some(Header::read(&mut Cursor::new(bytes)).expect("what is written can be read"))
}

/// An error message without the names and numbers in it.
fn kind(message: &str) -> String {
    let outside = message.split('`').step_by(2);
    outside
        .flat_map(str::chars)
        .filter(|c| !c.is_ascii_digit())
        .take(100)
        .collect()
}

fn corpus() -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus");
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "gguf")
        })
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

/// Changes an input in one to four places.
fn mutate(random: &mut Random, pool: &[Vec<u8>]) -> Vec<u8> {
    const WORDS: [u64; 14] = [
        0,
        1,
        2,
        7,
        8,
        9,
        31,
        64,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 40,
        i64::MAX as u64,
        u64::MAX,
    ];
    let mut input = pool[random.below(pool.len())].clone();
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        let len = random.below(input.len() - at + 1).min(random.below(64));
        match random.below(8) {
            0 => input.truncate(at),
            1 => drop(input.drain(at..at + len)),
            2 => {
                let copy = input[at..at + len].to_vec();
                input.splice(at..at, copy);
            }
            3 => {
                let other = &pool[random.below(pool.len())];
                let from = random.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
            4 | 5 => {
                // Fields stand anywhere, so any 4 or 8 bytes may be one.
                let near = i64::from(random.below(3) as i32 - 1) as u64;
                let word = WORDS[random.below(WORDS.len())].wrapping_add(near);
                let width = 4 + 4 * random.below(2);
                if let Some(field) = input.get_mut(at..at + width) {
                    field.copy_from_slice(&word.to_le_bytes()[..width]);
                }
            }
            _ => {
                if let Some(byte) = input.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    input.truncate(MAX_INPUT_BYTES);
    input
}

/// Runs the target; an input that makes it panic is kept.
fn run(input: &[u8]) -> String {
    catch_unwind(|| target(input)).unwrap_or_else(|_| {
        let name = format!("fuzz-{}.gguf", &blake3::hash(input).to_hex()[..16]);
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::write(&path, input).unwrap();
        panic!("failed on {}", path.display());
    })
}

/// Bounds this process's address space, so that a length that is believed ends it. Where the
/// system has no such bound, another one's run finds the bug.
#[cfg(unix)]
fn limit_memory() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let bytes = Some(2 << 30);
    let limit = Rlimit {
        current: bytes,
        maximum: bytes,
    };
    let _ = setrlimit(Resource::As, limit);
}

#[cfg(not(unix))]
fn limit_memory() {}

#[test]
fn no_header_breaks_the_parser() {
    limit_memory();
    let mut pool = corpus();
    let kept = pool.len();
    let mut kinds: HashSet<String> = pool.iter().map(|input| run(input)).collect();
    for family in ["llama in 3 stages", "gemma3 in 3 stages"] {
        assert!(kinds.contains(family), "the corpus has no {family}");
    }

    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seconds = number("BRIGADE_FUZZ_SECONDS").map(Duration::from_secs);
    let mut seed = number("BRIGADE_FUZZ_SEED").unwrap_or(1);
    let started = Instant::now();
    let mut tried = 0;
    while match seconds {
        Some(limit) => started.elapsed() < limit,
        None => tried < MUTATIONS,
    } {
        // Each input has a generator of its own, so that the count alone would repeat it if
        // the pool were the same.
        let input = mutate(&mut Random::new(seed), &pool);
        seed = seed.wrapping_add(1);
        tried += 1;
        let answer = run(&input);
        if pool.len() < kept + MAX_FOUND && kinds.insert(answer) {
            pool.push(input);
        }
    }
    println!("{tried} inputs, {} kinds of answer", kinds.len());
    // A target that refuses everything at the door would find nothing.
    assert!(kinds.len() > 25, "{kinds:#?}");
}
