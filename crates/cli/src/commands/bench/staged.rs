//! The stages' side: a cluster of this machine, each stage on its core.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use brigade_node::{Answer, Cluster, ClusterSpec, End, Event, Memory, Prompt, Tokenizer};

use super::Args;
use super::cores::pin;
use super::report::{Speed, Usage};

/// What a process may take beyond weights, KV cache and compute buffers, in bytes.
const PROCESS_OVERHEAD_BYTES: u64 = 20 * 1024 * 1024;

/// What the stage processes together may take of the weights, as a factor.
const WEIGHTS_ALLOWANCE: f64 = 1.15;

pub(super) struct Staged(Cluster);

impl Staged {
    pub(super) fn start(
        spec: &ClusterSpec,
        tokenizer: &Tokenizer,
        cores: &[usize],
    ) -> anyhow::Result<Self> {
        let cluster = Cluster::start(spec, tokenizer, |_| {})?;
        for (index, node) in cluster.nodes.iter().enumerate() {
            pin(Some(node.stage_pid), &cores[index % cores.len()..][..1])?;
        }
        Ok(Self(cluster))
    }

    /// Answers all prompts at the same time.
    pub(super) fn speed(&self, prompt: &[u32], args: &Args) -> anyhow::Result<Speed> {
        let start = Instant::now();
        let mut answers = Vec::new();
        for _ in 0..args.streams {
            let prompt = Prompt::greedy(prompt.to_vec(), args.tokens, End::Ignored);
            answers.push(self.0.instance.submit(prompt)?);
        }
        let times = if let [answer] = answers.as_mut_slice() {
            vec![times(answer, start)?]
        } else {
            thread::scope(|scope| {
                let readers: Vec<_> = answers
                    .iter_mut()
                    .map(|answer| scope.spawn(move || times(answer, start)))
                    .collect();
                let read = readers.into_iter().map(|reader| {
                    reader
                        .join()
                        .unwrap_or_else(|_| bail!("a reader has panicked"))
                });
                read.collect::<anyhow::Result<Vec<_>>>()
            })?
        };
        Speed::of(prompt.len(), &times).context("the stages gave no tokens")
    }

    /// Sums the stage processes; `None` where the kernel does not account for it.
    pub(super) fn usage(&self, file_bytes: u64) -> Option<Usage> {
        let mut pss = 0;
        let mut buffers = 0;
        for node in &self.0.nodes {
            let path = format!("/proc/{}/smaps_rollup", node.stage_pid);
            let text = std::fs::read_to_string(path).ok()?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
            pss += line.split_whitespace().next()?.parse::<u64>().ok()? * 1024;
            let Memory {
                kv_bytes,
                compute_bytes,
                ..
            } = node.memory?;
            buffers += kv_bytes + compute_bytes;
        }
        let allowed = (file_bytes as f64 * WEIGHTS_ALLOWANCE) as u64
            + buffers
            + PROCESS_OVERHEAD_BYTES * self.0.nodes.len() as u64;
        Some(Usage { pss, allowed })
    }
}

/// When each token of an answer came.
fn times(answer: &mut Answer, start: Instant) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    while let Some(event) = answer.next_blocking() {
        match event {
            Event::Token { .. } => times.push(start.elapsed()),
            Event::Done { .. } => return Ok(times),
            Event::Started { .. } => {}
            Event::Failed(reason) | Event::Refused(reason) => bail!("{reason}"),
        }
    }
    bail!("the answer ended without a reason")
}
