//! How long the chain may be silent while a step is in it. A stage that dies breaks the chain; one
//! that hangs, in a driver or because somebody stopped it, says nothing.

use brigade_wire::StepId;

use super::Scheduler;

/// Borne however fast the chain was: weights may have been swapped out.
const LEAST_US: u64 = 60_000_000;
/// Borne as long as nothing is known.
const MOST_US: u64 = 900_000_000;
/// Borne when this much longer than answers usually take, for each token: longer contexts take
/// longer, and so does a machine with other work.
const TIMES: u64 = 20;
/// What an answer took counts by this part, so that one pause that was survived is soon forgotten.
const NEWS: u64 = 16;

/// A step that the chain owes an answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awaited {
    /// The oldest step in flight.
    pub step: StepId,
    /// How long its answer may take, from when the one before it came or from when it was sent, in
    /// microseconds.
    pub patience_us: u64,
}

/// What the chain's answers took.
#[derive(Debug, Default)]
pub(super) struct Patience {
    /// When the last answer came.
    answered_us: u64,
    /// The usual silence before an answer, for each token of its step.
    usual_us: Option<u64>,
}

impl Patience {
    /// The answer came to a step of so many tokens.
    pub(super) fn observe(&mut self, sent_us: u64, tokens: usize, now_us: u64) {
        let silent_us = now_us.saturating_sub(self.answered_us.max(sent_us));
        self.answered_us = now_us;
        // Changes of the KV cache alone say nothing of computing.
        if tokens > 0 {
            let us = silent_us / tokens as u64;
            let mixed = |usual| (usual * (NEWS - 1) + us) / NEWS;
            self.usual_us = Some(self.usual_us.map_or(us, mixed));
        }
    }

    fn us(&self, tokens: usize) -> u64 {
        self.usual_us.map_or(MOST_US, |us| {
            let expected_us = us.saturating_mul(tokens.max(1) as u64);
            expected_us.saturating_mul(TIMES).clamp(LEAST_US, MOST_US)
        })
    }
}

impl Scheduler {
    /// The answer that comes next, if one is to come.
    pub fn awaited(&self) -> Option<Awaited> {
        let oldest = self.in_flight.front()?;
        Some(Awaited {
            step: oldest.id,
            patience_us: self.patience.us(oldest.tokens),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_with_what_answers_take_and_with_the_step() {
        let mut patience = Patience::default();
        assert_eq!(patience.us(1), MOST_US);
        // A chunk of 64 tokens in 6.4 s, sent at 1 s.
        patience.observe(1_000_000, 64, 7_400_000);
        assert_eq!(patience.us(1), LEAST_US);
        assert_eq!(patience.us(64), 128_000_000);
        // Not from when it was sent, but from when the one before it had come.
        patience.observe(2_000_000, 64, 13_800_000);
        assert_eq!(patience.us(64), 128_000_000);
        assert_eq!(patience.us(2048), MOST_US);
    }

    #[test]
    fn a_pause_that_was_survived_is_soon_forgotten() {
        let mut patience = Patience::default();
        patience.observe(0, 1, 20_000);
        patience.observe(20_000, 1, 40_020_000);
        assert!(patience.us(64) > 10 * LEAST_US);
        for step in 0..100 {
            let sent = 50_000_000 + step * 20_000;
            patience.observe(sent, 1, sent + 20_000);
        }
        assert_eq!(patience.us(64), LEAST_US);
    }

    #[test]
    fn changes_of_the_kv_cache_alone_teach_nothing() {
        let mut patience = Patience::default();
        patience.observe(0, 0, 10);
        assert_eq!(patience.us(1), MOST_US);
    }
}
