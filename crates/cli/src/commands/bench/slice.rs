//! `brigade bench --slice`: cutting a stage out of a file against `cp` of as many bytes.
//!
//! Both write one file of the same size into the same folder, and both end when it is on the disk:
//! the file and its folder are synced, which slicing does by itself and is done for `cp` here.
//! Slicing also hashes what it writes. Each side is followed by the other, in alternating order.

use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, bail};
use brigade_gguf::{GgmlType, Layers, Source, Synthetic, prepare_stage};
use serde_json::json;

use super::Args;
use super::report::Spread;
use crate::output;

const Q8_0: u32 = 8;

/// Layers of the model that is made where none is named: some 1.9 GB.
const LAYERS: u32 = 8;

pub(super) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    if args.pairs == 0 {
        bail!("--pairs must be at least 1");
    }
    // Where stages are cut to in earnest.
    let cache = brigade_node::cache_dir()?;
    fs::create_dir_all(&cache)?;
    let folder = tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(&cache)
        .with_context(|| format!("cannot write in {}", cache.display()))?;
    let source = match &args.model {
        Some(path) => crate::model::open(path)?,
        None => Source::open(&synthetic(folder.path())?)?,
    };
    let count = source.header().block_count()?;
    let layers = Layers::new(count / 4, (count - count / 4).max(count / 4 + 1));
    if layers.is_whole(count) {
        bail!("the model has too few layers to cut");
    }
    let turns = Turns::new(&source, layers, folder.path())?;
    // Both once: what is read lies in memory from then on, where it fits.
    turns.slice()?;
    turns.copy()?;
    let mut rows = Vec::new();
    for pair in 0..args.pairs {
        output::note(&format!("pair {} of {}", pair + 1, args.pairs));
        rows.push(if pair % 2 == 0 {
            let slice = turns.slice()?;
            (slice, turns.copy()?)
        } else {
            let copy = turns.copy()?;
            (turns.slice()?, copy)
        });
    }
    let gigabytes = turns.bytes as f64 / 1e9;
    let slice = Spread::of(rows.iter().map(|(slice, _)| gigabytes / slice));
    let copy = Spread::of(rows.iter().map(|(_, copy)| gigabytes / copy));
    let ratio = Spread::of(rows.iter().map(|(slice, copy)| copy / slice));
    if args.json {
        let json = json!({
            "schema": "brigade.bench-slice/1",
            "pairs": rows.len(),
            "bytes": turns.bytes,
            "slice_gb_s": slice.json(),
            "cp_gb_s": copy.json(),
            "ratio": ratio.json(),
        });
        output::line(&json.to_string())?;
    } else {
        output::line(&format!(
            "layers {layers} of {count}, {}, written and synced {} times: median (lowest to highest)\n\
             slice  {} GB/s\ncp     {} GB/s\nratio  {}",
            output::bytes(turns.bytes),
            rows.len(),
            slice.text(2),
            copy.text(2),
            ratio.text(2),
        ))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The two sides.
struct Turns<'a> {
    source: &'a Source,
    layers: Layers,
    folder: &'a Path,
    /// A stage that was cut before, which `cp` copies.
    original: PathBuf,
    bytes: u64,
}

impl<'a> Turns<'a> {
    fn new(source: &'a Source, layers: Layers, folder: &'a Path) -> anyhow::Result<Self> {
        let original = prepare_stage(source, layers, &folder.join("original"), |_, _| {})?.model;
        let bytes = fs::metadata(&original)?.len();
        Ok(Self {
            source,
            layers,
            folder,
            original,
            bytes,
        })
    }

    /// Seconds of a slice.
    fn slice(&self) -> anyhow::Result<f64> {
        let to = self.folder.join("slice");
        let start = Instant::now();
        prepare_stage(self.source, self.layers, &to, |_, _| {})?;
        let seconds = start.elapsed().as_secs_f64();
        fs::remove_dir_all(&to)?;
        Ok(seconds)
    }

    /// Seconds of a copy.
    fn copy(&self) -> anyhow::Result<f64> {
        let folder = self.folder.join("copy");
        let to = folder.join("copy.gguf");
        let start = Instant::now();
        fs::create_dir(&folder)?;
        let mut command = Command::new("cp");
        command.arg(&self.original).arg(&to);
        if !command.status().context("cannot start cp")?.success() {
            bail!("cp has failed");
        }
        File::open(&to)?.sync_all()?;
        File::open(&folder)?.sync_all()?;
        let seconds = start.elapsed().as_secs_f64();
        fs::remove_dir_all(&folder)?;
        Ok(seconds)
    }
}

/// Writes a model of zeros that is large enough to be timed.
fn synthetic(folder: &Path) -> anyhow::Result<PathBuf> {
    let eight_bits = GgmlType::from_id(Q8_0).context("no such type")?;
    let model = Synthetic {
        layers: LAYERS,
        width: 4096,
        feed_forward: 14_336,
        heads: 32,
        kv_heads: 8,
        context: 4096,
        weights: eight_bits,
    };
    let path = folder.join("synthetic.gguf");
    let mut file = File::create(&path)?;
    let mut out = BufWriter::new(&mut file);
    let nothing: &mut [File] = &mut [];
    model.layout()?.write_to(nothing, &mut out, |_| {})?;
    drop(out);
    file.sync_all()?;
    Ok(path)
}
