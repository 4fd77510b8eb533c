//! `brigade bench --peers`: one table for the README. What a cluster is asked most, each on stages, on
//! llama.cpp's RPC and in one llama.cpp process, measured in turns.

use std::fmt::Write as _;

use super::report::{Pick, Results};
use super::{Args, Balance};

/// Two cores, so that a stage or a server has one for itself.
const CORES: usize = 2;

/// llama.cpp's own micro-batch, with which its prefill is fastest.
const STOCK_CHUNK: u32 = 512;

/// A row of the table.
pub(super) struct Workload {
    name: &'static str,
    streams: u32,
    prompt_tokens: usize,
    tokens: u32,
    /// Cores of the one process.
    whole_cores: usize,
    /// At what the stages' work is even.
    balance: Balance,
    pick: Pick,
}

pub(super) const WORKLOADS: [Workload; 5] = [
    Workload {
        name: "decode, one stream",
        streams: 1,
        prompt_tokens: 16,
        tokens: 96,
        whole_cores: 1,
        balance: Balance::Both,
        pick: |speed| speed.decode,
    },
    SIXTEEN,
    PROMPT,
    Workload {
        name: "decode, 16 streams, cut for decode",
        balance: Balance::Decode,
        ..SIXTEEN
    },
    Workload {
        name: "prefill, 2,048 tokens, cut for prompts",
        balance: Balance::Prompts,
        ..PROMPT
    },
];

const SIXTEEN: Workload = Workload {
    name: "decode, 16 streams",
    streams: 16,
    prompt_tokens: 16,
    tokens: 96,
    whole_cores: CORES,
    balance: Balance::Both,
    pick: |speed| speed.decode,
};

const PROMPT: Workload = Workload {
    name: "prefill, 2,048 tokens",
    streams: 1,
    prompt_tokens: 2048,
    tokens: 2,
    whole_cores: 1,
    balance: Balance::Both,
    pick: |speed| speed.prefill,
};

impl Workload {
    /// The benchmark of this row: rounds and model as the user said.
    pub(super) fn args(&self, args: &Args) -> Args {
        Args {
            stages: CORES as u32,
            balance: self.balance,
            streams: self.streams,
            rpc: true,
            prompt_tokens: self.prompt_tokens,
            tokens: self.tokens,
            stock_chunk: Some(STOCK_CHUNK),
            cores: Some((0..CORES).collect()),
            whole_cores: self.whole_cores,
            ..args.clone()
        }
    }
}

/// The table in Markdown.
pub(super) fn table(results: &[Results]) -> String {
    let mut table =
        "| | one process | RPC, 2 servers | 2 stages | stages ÷ one process | stages ÷ RPC |\n\
                     |---|---|---|---|---|---|\n"
            .to_owned();
    for (workload, results) in WORKLOADS.iter().zip(results) {
        let cores = match workload.whole_cores {
            1 => "1 core",
            _ => "2 cores",
        };
        let _ = write!(table, "| {} |", workload.name);
        let (speeds, ratios): (Vec<_>, Vec<_>) = (0..3)
            .map(|side| results.spreads(side, workload.pick))
            .unzip();
        for (side, speed) in speeds.iter().enumerate() {
            let _ = match side {
                0 => write!(table, " {:.0} ({cores}) |", speed.median),
                _ => write!(table, " {:.0} |", speed.median),
            };
        }
        for ratio in ratios.into_iter().flatten() {
            let _ = write!(table, " {} |", ratio.text(2));
        }
        table.push('\n');
    }
    table
}
