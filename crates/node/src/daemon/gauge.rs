//! The bandwidth of a way, found by bursts that grow until one takes long enough to be timed.
//!
//! No burst is so long that pulses behind it would be late: each is at most [`GROWTH`] times one
//! that was short.

use std::time::Duration;

/// The first burst: a quarter of a second at 1 Mbit/s.
const FIRST_BYTES: u64 = 32 * 1024;

/// A burst that was too short is followed by one that is so many times larger.
const GROWTH: u64 = 4;

/// No burst is larger: some 30 ms at 10 Gbit/s.
pub(super) const LAST_BYTES: u64 = 32 << 20;

/// A burst that takes so long says enough.
const ENOUGH: Duration = Duration::from_millis(40);

/// So many of these are sent, and the fastest counts: whatever else the machines do only makes them
/// slower.
const TELLING: usize = 3;

/// Pulses before the first burst, so that the round trip is known and the node has come to rest.
const PULSES: usize = 4;

/// A measurement is repeated after this time.
const KEPT: Duration = Duration::from_secs(600);

/// What is known of a way's bandwidth.
#[derive(Debug, Default, Clone)]
pub(super) struct Gauge {
    /// Bits a second, and when that was measured, since the daemon's start.
    found: Option<(f64, Duration)>,
    /// The last burst was this large and too short.
    short_bytes: Option<u64>,
    /// Bursts that told, and the size of the last one.
    telling: (usize, u64),
}

impl Gauge {
    /// Bytes of the burst that is due after so many pulses, if one is.
    pub(super) fn due(&self, pulses: usize, now: Duration) -> Option<u64> {
        let fresh = |&(_, at): &(f64, Duration)| now.saturating_sub(at) < KEPT;
        let (told, bytes) = self.telling;
        if pulses >= PULSES && told > 0 {
            return Some(bytes);
        }
        if pulses < PULSES || self.found.as_ref().is_some_and(fresh) {
            return None;
        }
        let next = |short: u64| (short * GROWTH).min(LAST_BYTES);
        Some(self.short_bytes.map_or(FIRST_BYTES, next))
    }

    /// A burst was answered after `took`, of which a round trip is no time on the way of bytes.
    pub(super) fn sent(&mut self, bytes: u64, took: Duration, round_trip: Duration, now: Duration) {
        let flowing = took.saturating_sub(round_trip);
        if flowing < ENOUGH && bytes < LAST_BYTES {
            self.short_bytes = Some(bytes);
            if self.telling.0 > 0 {
                // What told before was a moment in which the machines did something else.
                (self.found, self.telling) = (None, (0, 0));
            }
            return;
        }
        self.short_bytes = None;
        let bit_s = bytes as f64 * 8.0 / flowing.as_secs_f64().max(1e-6);
        let (told, _) = self.telling;
        self.found = Some(match self.found {
            Some((before, _)) if told > 0 => (before.max(bit_s), now),
            _ => (bit_s, now),
        });
        self.telling = ((told + 1) % TELLING, bytes);
    }

    /// Bits a second.
    pub(super) fn bit_s(&self) -> Option<f64> {
        self.found.map(|(bit_s, _)| bit_s)
    }

    /// How long ago that was measured.
    pub(super) fn age(&self, now: Duration) -> Option<Duration> {
        self.found.map(|(_, at)| now.saturating_sub(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bursts over a way of this bandwidth and round trip, in milliseconds, until it is known.
    fn bursts(gauge: &mut Gauge, bit_s: f64, now: Duration) -> Vec<f64> {
        let round_trip = Duration::from_millis(2);
        let mut times = Vec::new();
        while let Some(bytes) = gauge.due(PULSES, now) {
            let flowing = Duration::from_secs_f64(bytes as f64 * 8.0 / bit_s);
            gauge.sent(bytes, flowing + round_trip, round_trip, now);
            times.push(flowing.as_secs_f64() * 1e3);
        }
        times
    }

    #[test]
    fn bursts_grow_until_one_tells_and_none_holds_pulses_up() {
        for bit_s in [1e6, 3e6, 20e6, 300e6, 1e9, 10e9, 40e9, 400e9] {
            let mut gauge = Gauge::default();
            let times = bursts(&mut gauge, bit_s, Duration::ZERO);
            assert!(times.len() < 6 + TELLING, "{times:?}");
            assert!(times.iter().all(|&time| time < 270.0), "{times:?}");
            let found = gauge.bit_s().unwrap();
            assert!((found / bit_s - 1.0).abs() < 1e-3, "{found} {bit_s}");
        }
    }

    #[test]
    fn a_moment_in_which_the_machine_was_busy_is_not_kept() {
        let mut gauge = Gauge::default();
        let (now, round_trip) = (Duration::ZERO, Duration::from_millis(1));
        // What should take 0.3 ms takes 50.
        gauge.sent(FIRST_BYTES, Duration::from_millis(51), round_trip, now);
        assert!(gauge.bit_s().unwrap() < 6e6);
        bursts(&mut gauge, 1e9, now);
        assert!((gauge.bit_s().unwrap() / 1e9 - 1.0).abs() < 1e-3);
        // Another way after ten minutes counts, also a slower one.
        bursts(&mut gauge, 1e8, KEPT);
        assert!((gauge.bit_s().unwrap() / 1e8 - 1.0).abs() < 1e-3);
    }

    #[test]
    fn nothing_is_sent_at_once_and_nothing_again_for_ten_minutes() {
        let mut gauge = Gauge::default();
        assert_eq!(gauge.due(PULSES - 1, Duration::ZERO), None);
        bursts(&mut gauge, 1e9, Duration::ZERO);
        assert_eq!(gauge.due(99, Duration::from_secs(599)), None);
        assert_eq!(
            gauge.age(Duration::from_secs(9)),
            Some(Duration::from_secs(9))
        );
        assert_eq!(gauge.due(99, KEPT), Some(FIRST_BYTES));
    }
}
