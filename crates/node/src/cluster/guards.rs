//! The keys of one chain.
//!
//! A stage runs llama.cpp on a file that may be hostile, so it never holds its node's own key.
//! The coordinator makes keys for one chain and hands each stage its own over the encrypted link
//! to the stage's node, together with the one key that may connect to it.

use crate::link::{Guard, KeyPair};

/// What guards each end of a chain.
#[derive(Debug)]
pub(super) struct Guards {
    /// The coordinator's ends.
    pub(super) coordinator: Guard,
    /// The stages' ends, in order of layers.
    pub(super) stages: Vec<Guard>,
}

impl Guards {
    /// New keys for a chain of so many stages.
    pub(super) fn new(stages: usize) -> Self {
        let own = KeyPair::generate();
        let mut upstream = own.public();
        let stages = (0..stages)
            .map(|_| {
                let own = KeyPair::generate();
                let upstream = std::mem::replace(&mut upstream, own.public());
                Guard { own, upstream }
            })
            .collect();
        Self {
            coordinator: Guard { own, upstream },
            stages,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_expects_the_one_before_it() {
        let guards = Guards::new(3);
        let keys: Vec<_> = guards
            .stages
            .iter()
            .map(|guard| guard.own.public())
            .collect();
        let expected: Vec<_> = guards.stages.iter().map(|guard| guard.upstream).collect();
        assert_eq!(
            expected,
            [guards.coordinator.own.public(), keys[0], keys[1]]
        );
        assert_eq!(guards.coordinator.upstream, keys[2]);
        assert!(keys[0] != keys[1] && keys[1] != keys[2]);
    }
}
