//! What of this machine's memory is taken, and by whom: the node that hosts decides, under its
//! lock, so that two loads never both get it.

use serde::{Deserialize, Serialize};

use super::message::Refusal;

/// Memory that a stage takes, or that models may take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// The pool, by the name that the planner gives it, such as `cpu` or `rtx-3090-1`.
    pub pool: String,
    /// Bytes of it.
    pub bytes: u64,
}

/// What a job takes of its node's memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The model that it is for.
    pub model: String,
    /// What it takes of which pool.
    pub amounts: Vec<Amount>,
}

/// Memory that is taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The model that a stage of holds it.
    pub model: String,
    /// The node that loaded the model.
    pub coordinator: String,
    /// What is held.
    pub amount: Amount,
    /// Whether the stage has loaded: what it holds is then missing from what the machine has free.
    pub loaded: bool,
}

/// Names a reservation.
pub(super) type Ticket = u64;

/// Limits and what is held of them.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    limits: Vec<Amount>,
    held: Vec<(Ticket, Held)>,
    last: Ticket,
}

impl Ledger {
    /// What models may take, whatever of it is taken already.
    pub(super) fn limit(&mut self, limits: Vec<Amount>) {
        self.limits = limits;
    }

    /// Takes memory for a stage, or says what holds it. A machine of which nothing is known
    /// refuses nothing.
    pub(super) fn reserve(&mut self, coordinator: &str, claim: &Claim) -> Result<Ticket, Refusal> {
        for limit in &self.limits {
            let of_pool = |amount: &&Amount| amount.pool == limit.pool;
            let asked = sum(claim.amounts.iter().filter(of_pool));
            let held = || self.held.iter().map(|(_, held)| held);
            let taken = sum(held().map(|held| &held.amount).filter(of_pool));
            let free = limit.bytes.saturating_sub(taken);
            if asked > free {
                let holders = held().filter(|held| held.amount.pool == limit.pool);
                return Err(Refusal::Memory {
                    pool: limit.pool.clone(),
                    asked,
                    free,
                    holders: holders.cloned().collect(),
                });
            }
        }
        self.last += 1;
        for amount in &claim.amounts {
            let held = Held {
                model: claim.model.clone(),
                coordinator: coordinator.to_owned(),
                amount: amount.clone(),
                loaded: false,
            };
            self.held.push((self.last, held));
        }
        Ok(self.last)
    }

    /// The stage has loaded.
    pub(super) fn loaded(&mut self, ticket: Ticket) {
        for (own, held) in &mut self.held {
            held.loaded |= *own == ticket;
        }
    }

    /// All that a node has reserved for this model is in use.
    pub(super) fn filled(&mut self, coordinator: &str, model: &str) {
        for (_, held) in &mut self.held {
            held.loaded |= held.coordinator == coordinator && held.model == model;
        }
    }

    /// Gives it back.
    pub(super) fn release(&mut self, ticket: Ticket) {
        self.held.retain(|(own, _)| *own != ticket);
    }

    /// Whether nothing is held.
    pub(super) fn is_free(&self) -> bool {
        self.held.is_empty()
    }

    /// All that is held.
    pub(super) fn held(&self) -> Vec<Held> {
        self.held.iter().map(|(_, held)| held.clone()).collect()
    }
}

fn sum<'a>(amounts: impl Iterator<Item = &'a Amount>) -> u64 {
    amounts
        .map(|amount| amount.bytes)
        .fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount(pool: &str, bytes: u64) -> Amount {
        Amount {
            pool: pool.to_owned(),
            bytes,
        }
    }

    fn claim(model: &str, amounts: &[Amount]) -> Claim {
        Claim {
            model: model.to_owned(),
            amounts: amounts.to_vec(),
        }
    }

    fn ledger() -> Ledger {
        let mut ledger = Ledger::default();
        ledger.limit(vec![amount("gpu", 100), amount("cpu", 50)]);
        ledger
    }

    #[test]
    fn the_second_of_two_is_told_who_was_first() {
        let mut ledger = ledger();
        let first = claim("m", &[amount("gpu", 70)]);
        let first = ledger.reserve("a", &first).unwrap();
        let second = claim("n", &[amount("gpu", 40)]);
        let refusal = ledger.reserve("b", &second).unwrap_err();
        let Refusal::Memory { free, holders, .. } = &refusal else {
            panic!("{refusal}");
        };
        assert_eq!((*free, holders[0].model.as_str()), (30, "m"));
        // What was refused holds nothing, in no pool.
        let both = claim("n", &[amount("cpu", 50), amount("gpu", 31)]);
        assert!(ledger.reserve("b", &both).is_err());
        assert_eq!(ledger.held().len(), 1);
        ledger.loaded(first);
        assert!(ledger.held()[0].loaded);
        ledger.release(first);
        let all = claim("n", &[amount("gpu", 100)]);
        ledger.reserve("b", &all).unwrap();
    }

    #[test]
    fn a_machine_of_which_nothing_is_known_refuses_nothing() {
        let mut ledger = Ledger::default();
        let huge = claim("m", &[amount("gpu", u64::MAX)]);
        for _ in 0..2 {
            ledger.reserve("a", &huge).unwrap();
        }
    }

    proptest! {
        #[test]
        fn never_more_is_held_than_there_is(
            steps in prop::collection::vec((0..2_usize, 0..120_u64, any::<bool>()), 0..60),
        ) {
            let mut ledger = ledger();
            let mut tickets = Vec::new();
            for (pool, bytes, give_back) in steps {
                if give_back && !tickets.is_empty() {
                    ledger.release(tickets.remove(0));
                    continue;
                }
                let need = amount(["gpu", "cpu"][pool], bytes);
                tickets.extend(ledger.reserve("a", &claim("m", &[need])));
                for (pool, limit) in [("gpu", 100), ("cpu", 50)] {
                    let held = ledger.held();
                    let held = held.iter().map(|held| &held.amount);
                    prop_assert!(sum(held.filter(|held| held.pool == pool)) <= limit);
                }
            }
        }
    }
}
