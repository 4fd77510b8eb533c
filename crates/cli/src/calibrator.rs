//! What this machine does with stages of zeros, measured in a child process: llama.cpp may abort.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_engine::sampling::{Sampler, Scratch};
use brigade_engine::{Input, Stage};
use brigade_fit::speed::calibration::{Calibration, TypeRates};
use brigade_gguf::{GgmlType, Synthetic};
use brigade_llama::{LlamaStage, Role, Setup, StageConfig};
use brigade_node::child::{self, ChildProcess};
use brigade_wire::{KvOp, SamplingParams, SeqId, Span, StageParams, Want};
use serde::{Deserialize, Serialize};

/// Types of weights that are measured: those of the usual quantizations. Others count as the nearest.
const MEASURED: [&str; 8] = [
    "F16", "Q4_0", "Q4_1", "Q5_0", "Q8_0", "Q4_K", "Q5_K", "Q6_K",
];
/// Tokens that are computed at once, as measured.
const BATCHES: [u32; 3] = [4, 16, 64];
/// Tokens in the cache when its part is measured.
const DEEP: u32 = 2048;
/// What the weights of a stage have in all, at least: more than the caches of most machines.
const WEIGHT_BYTES: u64 = 96 << 20;
/// How often a token is computed.
const TOKENS: usize = 32;
/// How long a stage waits for the others.
const PAUSE: Duration = Duration::from_millis(4);
/// How often it is measured at most.
const ATTEMPTS: usize = 3;
/// Tokens of the vocabulary that is chosen from.
const VOCABULARY: usize = 100_000;

/// What the child is told.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    threads: u32,
}

/// What it reports: each type that it turns to, then the result.
#[derive(Debug, Serialize, Deserialize)]
enum Report {
    Measuring(String),
    Done(Calibration),
    Failed(String),
}

/// A measurement that is under way in a child process; dropping it ends it at once.
#[derive(Debug)]
pub(crate) struct Measuring {
    process: ChildProcess,
    reports: mpsc::Receiver<Report>,
}

impl Measuring {
    /// Begins to measure this machine with so many threads.
    pub(crate) fn start(threads: u32) -> anyhow::Result<Self> {
        let (mut process, mut reports) = child::spawn("calibrator", "the calibration")?;
        process.order(&Order { threads })?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            loop {
                let report = match reports.read() {
                    Ok(Some(report)) => report,
                    Ok(None) => break,
                    Err(error) => Report::Failed(error.to_string()),
                };
                if sender.send(report).is_err() {
                    break;
                }
            }
        });
        Ok(Self {
            process,
            reports: receiver,
        })
    }

    /// The result, if there is one by now.
    pub(crate) fn poll(&mut self) -> anyhow::Result<Option<Calibration>> {
        loop {
            match self.reports.try_recv() {
                Ok(Report::Measuring(_)) => {}
                Ok(report) => return self.result(report).map(Some),
                Err(mpsc::TryRecvError::Empty) => return Ok(None),
                Err(mpsc::TryRecvError::Disconnected) => return Err(self.process.gone().into()),
            }
        }
    }

    /// Waits for the result; `progress` gets what is being measured.
    pub(crate) fn finish(mut self, mut progress: impl FnMut(&str)) -> anyhow::Result<Calibration> {
        loop {
            match self.reports.recv() {
                Ok(Report::Measuring(what)) => progress(&what),
                Ok(report) => return self.result(report),
                Err(_) => return Err(self.process.gone().into()),
            }
        }
    }

    fn result(&mut self, report: Report) -> anyhow::Result<Calibration> {
        match report {
            Report::Done(calibration) => Ok(calibration),
            Report::Failed(reason) => bail!("this machine cannot be measured: {reason}"),
            Report::Measuring(_) => Err(self.process.gone().into()),
        }
    }
}

/// `brigade calibrator`: measures, once.
pub(crate) fn serve() -> ExitCode {
    let orders = child::orders::<Order>();
    let Ok(order) = orders.recv() else {
        return ExitCode::SUCCESS;
    };
    let report = match measure_well(order.threads) {
        Ok(calibration) => Report::Done(calibration),
        Err(error) => Report::Failed(format!("{error:#}")),
    };
    child::report(&report);
    ExitCode::SUCCESS
}

/// Measures until the result is one that a machine can have.
fn measure_well(threads: u32) -> anyhow::Result<Calibration> {
    let mut oddity = String::new();
    for _ in 0..ATTEMPTS {
        let measured = measure(threads)?;
        match measured.oddity() {
            None => return Ok(measured),
            Some(odd) => oddity = odd,
        }
    }
    bail!("something else keeps it busy, again and again ({oddity}): try when it is idle")
}

fn measure(threads: u32) -> anyhow::Result<Calibration> {
    let folder = tempfile::tempdir().context("no folder for the stages")?;
    let path = folder.path().join("stage.gguf");
    let q8 = GgmlType::Q8_0;
    // Two depths of a model that is hardly more than its layers' overhead.
    let narrow = |layers| Synthetic {
        layers,
        width: 128,
        feed_forward: 256,
        heads: 2,
        kv_heads: 1,
        context: 256,
        weights: q8,
    };
    child::report(&Report::Measuring("layers".to_owned()));
    let (few, many) = (narrow(2), narrow(34));
    let mut probe = Probe::load(&few, &path, threads, 1)?;
    let few_ms = probe.token_ms(0)?;
    let waited_ms = probe.token_after_pause_ms()?;
    drop(probe);
    let many_ms = Probe::load(&many, &path, threads, 1)?.token_ms(0)?;
    let layer_ms = ((many_ms - few_ms) / f64::from(many.layers - few.layers)).max(1e-4);
    // Tokens of one stage alone follow at once; those of a stage among others after a pause.
    let at_once_ms = (few_ms - layer_ms * f64::from(few.layers)).max(0.0);
    let step_ms = at_once_ms + (waited_ms - few_ms).max(0.0);
    child::report(&Report::Measuring("the KV cache".to_owned()));
    let cached = Synthetic {
        layers: 12,
        width: 576,
        feed_forward: 576,
        heads: 9,
        kv_heads: 3,
        context: DEEP + 256,
        weights: q8,
    };
    let mut probe = Probe::load(&cached, &path, threads, 256)?;
    let shallow_ms = probe.token_ms(0)?;
    probe.fill(DEEP)?;
    let deep_ms = probe.token_ms(DEEP)?;
    drop(probe);
    let kv_gb = (cached.kv_bytes() * u64::from(DEEP)) as f64 / 1e9;
    let kv_gb_s = kv_gb / ((deep_ms - shallow_ms).max(1e-3) / 1e3);
    let mut types = Vec::new();
    for name in MEASURED {
        child::report(&Report::Measuring(name.to_owned()));
        let ggml_type = GgmlType::all().find(|known| known.name() == name);
        let Some(weights) = ggml_type else { continue };
        let (slim, stage) = (heavy(512, weights), heavy(1024, weights));
        let beside = |stage: &Synthetic| at_once_ms + f64::from(stage.layers) * layer_ms;
        let slim_ms = Probe::load(&slim, &path, threads, 1)?.token_ms(0)? - beside(&slim);
        let mut probe = Probe::load(&stage, &path, threads, BATCHES[BATCHES.len() - 1])?;
        let rest_ms = beside(&stage);
        let weights_ms = (probe.token_ms(0)? - rest_ms).max(1e-3);
        let row_ns = row_ns((slim, slim_ms), (stage, weights_ms));
        let bytes_ms = (weights_ms - rows(&stage) * row_ns / 1e6).max(1e-3);
        let gflop = 2.0 * stage.params() as f64 / 1e9;
        let mut batches = vec![(1, gflop / (weights_ms / 1e3))];
        for tokens in BATCHES {
            let ms = (probe.batch_ms(tokens)? - rest_ms).max(1e-3);
            batches.push((tokens, f64::from(tokens) * gflop / (ms / 1e3)));
        }
        types.push(TypeRates {
            ggml_type: name.to_owned(),
            decode_gb_s: stage.weight_bytes() as f64 / 1e9 / (bytes_ms / 1e3),
            row_ns,
            batches,
        });
    }
    child::report(&Report::Measuring("sampling".to_owned()));
    Ok(Calibration {
        threads,
        step_ms,
        layer_ms,
        kv_gb_s,
        vocabulary_ms: sampling_ms()?,
        types,
        checks: Vec::new(),
    })
}

/// As a model of this width, in blocks of every type, with [`WEIGHT_BYTES`].
fn heavy(width: u32, weights: GgmlType) -> Synthetic {
    let mut stage = Synthetic {
        layers: 1,
        width,
        feed_forward: width * 3,
        heads: width / 64,
        kv_heads: width / 256,
        context: 512,
        weights,
    };
    let layers = WEIGHT_BYTES.div_ceil(stage.weight_bytes().max(1)).max(2);
    stage.layers = layers as u32;
    stage
}

/// Rows of its matrices, as [`Calibration`] counts them.
fn rows(stage: &Synthetic) -> f64 {
    stage.params() as f64 / f64::from(stage.width)
}

/// What a row costs beside its bytes, by two stages of one type of weights and their milliseconds.
fn row_ns(slim: (Synthetic, f64), broad: (Synthetic, f64)) -> f64 {
    let by_byte = |(stage, amount): (Synthetic, f64)| amount / stage.weight_bytes() as f64;
    let ms = by_byte(slim) - by_byte(broad);
    let rows = by_byte((slim.0, rows(&slim.0))) - by_byte((broad.0, rows(&broad.0)));
    (ms / rows * 1e6).max(0.0)
}

/// Milliseconds to take over the logits of [`VOCABULARY`] tokens and to choose one, as most requests
/// ask for it.
fn sampling_ms() -> anyhow::Result<f64> {
    let logits: Vec<f32> = (0..VOCABULARY)
        .map(|token| (token % 97) as f32 / 10.0)
        .collect();
    let sampler = Sampler::new(SamplingParams::default(), 0, None)?;
    let mut scratch = Scratch::default();
    let mut taken = Vec::new();
    quick((0..TOKENS).map(|_| {
        let start = Instant::now();
        taken.clear();
        taken.extend_from_slice(&logits);
        sampler.sample(&taken, &mut scratch)?;
        Ok(start.elapsed())
    }))
}

/// A stage under measurement.
struct Probe {
    stage: LlamaStage,
    position: u32,
    output: Vec<f32>,
}

impl Probe {
    fn load(of: &Synthetic, path: &Path, threads: u32, batch: u32) -> anyhow::Result<Self> {
        let mut out = BufWriter::new(File::create(path)?);
        let layout = of.layout()?;
        layout.write_to::<File>(&mut [], &mut out, |_| {})?;
        out.flush()?;
        let stage = LlamaStage::load(StageConfig {
            path: path.to_owned(),
            role: Role::Middle,
            params: StageParams {
                context_tokens: of.context,
                sequences: 1,
                batch_tokens: batch,
                flash_attention: true,
                draft_tokens: 0,
            },
            threads,
            setup: Setup::Stage,
            devices: crate::devices::chosen(),
            rpc: Vec::new(),
        })?;
        Ok(Self {
            stage,
            position: 0,
            output: Vec::new(),
        })
    }

    /// Computes some tokens after those that there are.
    fn forward(&mut self, tokens: u32) -> anyhow::Result<Duration> {
        let span = Span {
            seq: SeqId(0),
            position: self.position,
            tokens: vec![0; tokens as usize],
            want: Want::Nothing,
            sampling: None,
            prompt_tokens: 0,
        };
        let hidden = vec![0.5; tokens as usize * self.stage.hidden_size()];
        let start = Instant::now();
        self.stage
            .forward(&[span], Input::Hidden(&hidden), &mut self.output)?;
        let taken = start.elapsed();
        self.position += tokens;
        Ok(taken)
    }

    fn back_to(&mut self, position: u32) -> anyhow::Result<()> {
        let seq = SeqId(0);
        let from = position;
        self.stage.apply(KvOp::Remove { seq, from })?;
        self.position = position;
        Ok(())
    }

    fn fill(&mut self, tokens: u32) -> anyhow::Result<()> {
        self.back_to(0)?;
        while self.position < tokens {
            self.forward(256.min(tokens - self.position))?;
        }
        Ok(())
    }

    /// Milliseconds of one token after so many.
    fn token_ms(&mut self, after: u32) -> anyhow::Result<f64> {
        for _ in 0..3 {
            self.forward(1)?;
        }
        self.back_to(after)?;
        quick((0..TOKENS).map(|_| self.forward(1)))
    }

    /// Milliseconds of one token when the others' stages have had their turn: this one has slept.
    fn token_after_pause_ms(&mut self) -> anyhow::Result<f64> {
        self.back_to(0)?;
        quick((0..TOKENS).map(|_| {
            thread::sleep(PAUSE);
            self.forward(1)
        }))
    }

    /// Milliseconds of so many tokens at once.
    fn batch_ms(&mut self, tokens: u32) -> anyhow::Result<f64> {
        quick((0..3).map(|_| {
            self.back_to(0)?;
            self.forward(tokens)
        }))
    }
}

/// The time below which a quarter of them are, in milliseconds: what else runs here takes its part
/// of the others, and the least is luck.
fn quick(times: impl Iterator<Item = anyhow::Result<Duration>>) -> anyhow::Result<f64> {
    let mut times = times.collect::<anyhow::Result<Vec<_>>>()?;
    times.sort();
    let quick = times.get(times.len() / 4).context("nothing was measured")?;
    Ok(quick.as_secs_f64() * 1e3)
}
