//! How fast all cores together read memory.

use std::hint::black_box;
use std::sync::Barrier;
use std::time::{Duration, Instant};

/// What is read in all: more than most caches hold.
const ALL_BYTES: usize = 512 << 20;
/// What each thread reads, at least.
const LEAST_BYTES: usize = 8 << 20;
/// How often, and how long each time. The best counts: what else runs here takes its part.
const ROUNDS: usize = 4;
const ROUND: Duration = Duration::from_millis(30);

/// What `threads` threads read, in 10⁹ bytes a second; `None` without a sensible result.
///
/// Takes about a quarter of a second, half of it to make the memory real.
pub(super) fn read_gb_s(threads: usize) -> Option<f64> {
    let threads = threads.clamp(1, 256);
    let words = (ALL_BYTES / threads).max(LEAST_BYTES) / size_of::<u64>();
    let barrier = Barrier::new(threads);
    let read = || {
        // Written, because the kernel maps what was never written to one page of zeros.
        let words: Vec<u64> = (0..words as u64).collect();
        let mut pieces = words.chunks(1 << 15).cycle();
        [(); ROUNDS].map(|()| {
            barrier.wait();
            let start = Instant::now();
            let mut bytes = 0;
            while start.elapsed() < ROUND {
                let piece = pieces.next().unwrap_or_default();
                black_box(piece.iter().fold(0u64, |sum, word| sum.wrapping_add(*word)));
                bytes += size_of_val(piece);
            }
            bytes as f64 / start.elapsed().as_secs_f64() / 1e9
        })
    };
    let sums = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|_| scope.spawn(read)).collect();
        let mut sums = [0.0; ROUNDS];
        for reader in readers {
            for (sum, rate) in sums.iter_mut().zip(reader.join().unwrap_or_default()) {
                *sum += rate;
            }
        }
        sums
    });
    let best = sums.into_iter().fold(0.0, f64::max);
    (best > 0.1).then_some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plausible_rate() {
        let rate = read_gb_s(2).unwrap_or_default();
        assert!((0.1..20_000.0).contains(&rate), "{rate}");
    }
}
