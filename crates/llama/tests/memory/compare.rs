//! A ledger beside what was allocated, item by item.

use std::fmt;

use brigade_fit::memory::Item;

use crate::measure::Allocated;

pub(crate) const MIB: u64 = 1 << 20;

/// How far an item may be off: so many bytes, or this share of what was allocated, if that is more.
#[derive(Clone, Copy)]
struct Bound {
    bytes: u64,
    share: f64,
}

/// What is promised of every item of every node, and of its sum.
const PROMISED: Bound = Bound {
    bytes: 16 * MIB,
    share: 0.02,
};

/// Of weights, caches and states nothing is estimated. The log rounds each of its lines to 0.01 MiB,
/// tensors are aligned, and stages without a head have dummies.
const EXACT: Bound = Bound {
    bytes: MIB / 8,
    share: 0.001,
};

/// The largest differences that were seen.
pub(crate) struct Apart {
    /// How many bytes compute buffers of the models here may be off.
    compute_bytes: u64,
    seen: [(&'static str, Seen); 5],
}

#[derive(Clone, Default)]
struct Seen {
    bytes: u64,
    largest: String,
    percent: f64,
}

impl Apart {
    pub(crate) fn new(compute_bytes: u64) -> Self {
        let names = [
            "weights",
            "KV cache",
            "recurrent state",
            "compute buffers",
            "total",
        ];
        Self {
            compute_bytes,
            seen: names.map(|name| (name, Seen::default())),
        }
    }

    /// Compares all that a ledger has but the runtime, which llama.cpp does not log.
    pub(crate) fn check(&mut self, what: &str, ledger: &[Item], actual: Allocated) {
        let printed = |name: &str| -> u64 {
            let of = ledger.iter().filter(|item| item.item == name);
            of.map(|item| item.bytes).sum()
        };
        let total = ledger.iter().map(|item| item.bytes).sum::<u64>() - printed("runtime");
        let compute = Bound {
            bytes: self.compute_bytes,
            share: PROMISED.share,
        };
        let rows = [
            (printed("weights"), actual.weights, EXACT),
            (printed("KV cache"), actual.kv, EXACT),
            (printed("recurrent state"), actual.state, EXACT),
            (printed("compute buffers"), actual.compute, compute),
            (total, actual.total(), PROMISED),
        ];
        for ((name, seen), (ledger, actual, bound)) in self.seen.iter_mut().zip(rows) {
            let apart = ledger.abs_diff(actual);
            let said = format!("{what}: {name} {ledger} in the ledger, {actual} allocated");
            assert!(bound.allows(apart, actual), "{said}");
            assert!(PROMISED.allows(apart, actual), "{said}");
            if apart >= seen.bytes {
                *seen = Seen {
                    bytes: apart,
                    percent: 100.0 * apart as f64 / actual.max(1) as f64,
                    largest: what.to_owned(),
                };
            }
        }
    }
}

impl Bound {
    fn allows(self, apart: u64, of: u64) -> bool {
        apart <= self.bytes || apart as f64 <= self.share * of as f64
    }
}

impl fmt::Display for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, seen) in &self.seen {
            let mebibytes = seen.bytes as f64 / MIB as f64;
            writeln!(
                f,
                "  {name}: at most {mebibytes:.2} MiB apart, {:.2} % ({})",
                seen.percent, seen.largest
            )?;
        }
        Ok(())
    }
}
