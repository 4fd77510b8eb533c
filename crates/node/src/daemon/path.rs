//! The ways to a peer: one for each address at which it may be reached.
//!
//! A connection stands over each of them for as long as it can, so that the best is known, and so
//! that a peer is lost only when the last of them is.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use super::gauge::Gauge;
use super::message::Measured;

/// Round trips that are remembered: some eight seconds.
const SAMPLES: usize = 32;

/// After so many round trips a way may be taken instead of another one that stands.
const SETTLED: usize = 4;

/// Bits whose time decides between two ways: hidden states of a short piece of prompt, 256 KiB.
const MESSAGE_BITS: f64 = 256.0 * 1024.0 * 8.0;

/// Another way must be better by this factor to be taken instead of one that stands.
const BETTER: f64 = 0.75;

/// One way to a peer.
#[derive(Debug, Default, Clone)]
pub(super) struct Path {
    /// Somebody keeps a connection over it, or tries to.
    pub(super) dialed: bool,
    /// The last round trips; empty while no connection stands.
    round_trips: VecDeque<Duration>,
    /// Its bandwidth, once that is known of the connection that stands.
    pub(super) gauge: Gauge,
    /// This machine's end of the connection that stands, or stood.
    pub(super) local: Option<IpAddr>,
    /// Why none stands.
    pub(super) trouble: Option<Fault>,
}

/// A pulse's way there and back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trip {
    /// How long it took.
    pub(super) took: Duration,
    /// What this machine's clock showed at its end, in milliseconds since 1970.
    pub(super) clock_ms: u64,
}

impl Trip {
    /// How far the peer's clock is ahead, by what it showed when the answer was written: half of the
    /// way ago, give or take as much.
    pub(super) fn clock_ahead_ms(self, theirs_ms: u64) -> i64 {
        let half = self.took.as_millis() as u64 / 2;
        theirs_ms
            .saturating_add(half)
            .cast_signed()
            .saturating_sub(self.clock_ms.cast_signed())
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// A sentence for a person.
    pub(super) reason: String,
    /// Whether the peer itself said so; that says more than what the network did.
    pub(super) by_peer: bool,
}

impl Path {
    /// A pulse went there and back.
    pub(super) fn measured(&mut self, round_trip: Duration) {
        if self.round_trips.len() == SAMPLES {
            self.round_trips.pop_front();
        }
        self.round_trips.push_back(round_trip);
        self.trouble = None;
    }

    /// The connection is gone, or there never was one.
    pub(super) fn broken(&mut self, fault: Fault) {
        self.round_trips.clear();
        // It may be another network when it comes back.
        self.gauge = Gauge::default();
        self.trouble = Some(fault);
    }

    /// Whether a connection stands.
    pub(super) fn stands(&self) -> bool {
        !self.round_trips.is_empty()
    }

    /// Whether its round trip is no accident any more.
    fn is_settled(&self) -> bool {
        self.round_trips.len() >= SETTLED
    }

    /// The median round trip.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        median(self.round_trips.iter().copied())
    }

    /// How far round trips are from their median, at the median.
    pub(super) fn jitter(&self) -> Option<Duration> {
        let middle = self.round_trip()?;
        median(self.round_trips.iter().map(|time| time.abs_diff(middle)))
    }

    /// Bytes of the burst that is due, if one is.
    pub(super) fn burst(&self, now: Duration) -> Option<u64> {
        self.gauge.due(self.round_trips.len(), now)
    }

    /// All that is known of it.
    pub(super) fn facts(&self, now: Duration) -> Measured {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Measured {
            round_trip_ms: self.round_trip().map(ms),
            jitter_ms: self.jitter().map(ms),
            bandwidth_gbit_s: self.gauge.bit_s().map(|bit_s| bit_s / 1e9),
            bandwidth_age_s: self.gauge.age(now).map(|age| age.as_secs()),
        }
    }
}

/// The best of the ways that stand, by the time of a message, or half a round trip as long as a
/// bandwidth is unknown. The one in use stays unless one that is known well is clearly better;
/// between equals the first is taken.
pub(super) fn best<'a, K: Copy + PartialEq>(
    paths: impl IntoIterator<Item = (K, &'a Path)>,
    in_use: Option<K>,
) -> Option<K> {
    let standing: Vec<_> = paths
        .into_iter()
        .filter(|(_, path)| path.stands())
        .collect();
    let gauged = standing
        .iter()
        .all(|(_, path)| path.gauge.bit_s().is_some());
    let cost = |path: &Path| {
        let trip = path.round_trip()?.as_secs_f64() / 2.0;
        let flow = path.gauge.bit_s().filter(|_| gauged);
        Some(trip + flow.map_or(0.0, |bit_s| MESSAGE_BITS / bit_s))
    };
    let is_used = |key: K| in_use == Some(key);
    let used_stands = standing.iter().any(|(key, _)| is_used(*key));
    let costs: Vec<_> = standing
        .iter()
        .filter(|(key, path)| !used_stands || is_used(*key) || path.is_settled())
        .filter_map(|(key, path)| Some((*key, cost(path)?)))
        .collect();
    let least = costs.iter().map(|(_, cost)| *cost).reduce(f64::min)?;
    let good = || costs.iter().filter(|(_, cost)| cost * BETTER <= least);
    let used = good().find(|(key, _)| is_used(*key));
    used.or_else(|| good().next()).map(|(key, _)| *key)
}

fn median(times: impl Iterator<Item = Duration>) -> Option<Duration> {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(time: u64) -> Duration {
        Duration::from_millis(time)
    }

    fn path(round_trips: &[u64]) -> Path {
        let mut path = Path::default();
        for &time in round_trips {
            path.measured(ms(time));
        }
        path
    }

    #[test]
    fn a_way_is_left_for_one_that_is_clearly_better_or_when_it_breaks() {
        let best = |paths: &[(&'static str, &Path)], in_use| best(paths.iter().copied(), in_use);
        let (slow, near, fast) = (path(&[10; 4]), path(&[9; 4]), path(&[5; 4]));
        let equal = [("slow", &slow), ("near", &near)];
        assert_eq!(best(&equal, None), Some("slow"), "the first of equals");
        assert_eq!(
            best(&[("slow", &slow), ("new", &path(&[1]))], Some("slow")),
            Some("slow")
        );
        let used = Some("slow");
        assert_eq!(best(&[("slow", &slow), ("near", &near)], used), used);
        assert_eq!(
            best(&[("slow", &slow), ("fast", &fast)], used),
            Some("fast")
        );
        let mut broken = slow.clone();
        broken.broken(Fault {
            reason: String::new(),
            by_peer: false,
        });
        assert_eq!(
            best(&[("slow", &broken), ("near", &near)], used),
            Some("near")
        );
        assert_eq!(best(&[("slow", &broken)], used), None);
    }

    #[test]
    fn bandwidth_counts_once_it_is_known_of_all() {
        let best = |paths: &[(&'static str, &Path)]| best(paths.iter().copied(), None);
        let (mut wifi, mut cable) = (path(&[2]), path(&[3]));
        let gauged = |path: &mut Path, bit_s: f64| {
            let bytes = 32 << 20;
            let took = Duration::from_secs_f64(bytes as f64 * 8.0 / bit_s);
            path.gauge.sent(bytes, took, ms(0), ms(0));
        };
        gauged(&mut wifi, 100e6);
        assert_eq!(best(&[("wifi", &wifi), ("cable", &cable)]), Some("wifi"));
        gauged(&mut cable, 10e9);
        assert_eq!(best(&[("wifi", &wifi), ("cable", &cable)]), Some("cable"));
        let facts = cable.facts(ms(5000));
        assert_eq!(facts.bandwidth_age_s, Some(5));
        assert!((facts.bandwidth_gbit_s.unwrap() - 10.0).abs() < 0.01);
    }

    #[test]
    fn a_clock_is_compared_at_the_middle_of_the_way() {
        let trip = Trip {
            took: ms(400),
            clock_ms: 1_000_000,
        };
        assert_eq!(trip.clock_ahead_ms(999_800), 0);
        assert_eq!(trip.clock_ahead_ms(1_059_800), 60_000);
        assert_eq!(trip.clock_ahead_ms(0), -999_800);
        assert!(
            trip.clock_ahead_ms(u64::MAX) < 0,
            "no clock shows that: no panic either"
        );
    }

    #[test]
    fn one_slow_pulse_changes_nothing_and_old_ones_are_dropped() {
        let mut path = path(&[2, 2, 90, 2]);
        assert_eq!(
            (path.round_trip(), path.jitter()),
            (Some(ms(2)), Some(ms(0)))
        );
        for _ in 0..SAMPLES {
            path.measured(ms(7));
        }
        assert_eq!(path.round_trips.len(), SAMPLES);
        assert_eq!(path.round_trip(), Some(ms(7)));
    }
}
