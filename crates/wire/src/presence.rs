//! Whether a node is there, as one other node sees it, and as all of them together do.
//!
//! A link that stands or falls is one fact; that a node can be relied on is another. A node that
//! comes and goes is taken back only after it has stayed for a while, longer each time, so that
//! nothing is placed on it that would break at once. Time is an argument: the time since any
//! fixed moment.

use std::time::Duration;

/// Failures that are older do not count any more.
const MEMORY: Duration = Duration::from_secs(60);

/// How long a node must stay after its second failure within [`MEMORY`]; doubled by each more.
const FIRST_HOLD: Duration = Duration::from_secs(2);

/// It is never made to wait longer.
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// What one node sees of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The link stands.
    Up,
    /// The link stands, but has failed too often lately; it counts again after this time.
    Settling(Duration),
    /// There is no link.
    Down,
}

/// The history of one link.
#[derive(Debug, Default, Clone)]
pub struct Presence {
    up_since: Option<Duration>,
    failures: Vec<Duration>,
}

impl Presence {
    /// The link stands from now on.
    pub fn found(&mut self, now: Duration) {
        self.up_since.get_or_insert(now);
    }

    /// The link is gone. Returns whether it stood.
    pub fn lost(&mut self, now: Duration) -> bool {
        let stood = self.up_since.take().is_some();
        if stood {
            self.failures
                .retain(|&failure| now.saturating_sub(failure) < MEMORY);
            self.failures.push(now);
        }
        stood
    }

    /// What can be said now.
    pub fn sight(&self, now: Duration) -> Sight {
        let Some(since) = self.up_since else {
            return Sight::Down;
        };
        let recent = |&&failure: &&Duration| since.saturating_sub(failure) < MEMORY;
        let failures = self.failures.iter().filter(recent).count() as u32;
        let hold = match failures.checked_sub(2) {
            None => Duration::ZERO,
            Some(more) => LONGEST_HOLD.min(FIRST_HOLD * 2u32.saturating_pow(more.min(8))),
        };
        match (since + hold).saturating_sub(now) {
            Duration::ZERO => Sight::Up,
            left => Sight::Settling(left),
        }
    }
}

/// What all nodes together say of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Every other node sees it.
    Up,
    /// Some of them do not.
    Partly,
    /// None does.
    Down,
}

impl Standing {
    /// Sums up whether each of the others sees a node. Nobody else means nobody misses it.
    pub fn of(reports: impl IntoIterator<Item = bool>) -> Self {
        let (mut seen, mut missed) = (false, false);
        for sees in reports {
            seen |= sees;
            missed |= !sees;
        }
        match (seen, missed) {
            (_, false) => Self::Up,
            (true, true) => Self::Partly,
            (false, true) => Self::Down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn one_failure_is_forgiven() {
        let mut presence = Presence::default();
        assert_eq!(presence.sight(s(0)), Sight::Down);
        presence.found(s(1));
        assert_eq!(presence.sight(s(1)), Sight::Up);
        assert!(presence.lost(s(5)));
        assert!(!presence.lost(s(6)), "it is lost once");
        assert_eq!(presence.sight(s(6)), Sight::Down);
        presence.found(s(7));
        assert_eq!(presence.sight(s(7)), Sight::Up);
    }

    #[test]
    fn flapping_is_damped_more_each_time_and_forgotten_after_a_minute() {
        let mut presence = Presence::default();
        let mut now = s(0);
        let mut holds = Vec::new();
        for _ in 0..8 {
            presence.found(now);
            holds.push(match presence.sight(now) {
                Sight::Settling(left) => left.as_secs(),
                Sight::Up => 0,
                Sight::Down => panic!("it was just found"),
            });
            presence.lost(now + s(1));
            now += s(2);
        }
        assert_eq!(holds, [0, 0, 2, 4, 8, 16, 30, 30]);
        presence.found(now);
        assert_eq!(presence.sight(now + s(29)), Sight::Settling(s(1)));
        assert_eq!(presence.sight(now + s(30)), Sight::Up);
        presence.lost(now + s(100));
        presence.found(now + s(101));
        assert_eq!(presence.sight(now + s(101)), Sight::Up);
    }

    #[test]
    fn a_standing_needs_all() {
        assert_eq!(Standing::of([]), Standing::Up);
        assert_eq!(Standing::of([true, true]), Standing::Up);
        assert_eq!(Standing::of([true, false]), Standing::Partly);
        assert_eq!(Standing::of([false, false]), Standing::Down);
    }
}
