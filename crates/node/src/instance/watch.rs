//! Notices a stage that hangs: nothing breaks then, and everybody would wait forever.

use std::sync::Weak;
use std::thread;
use std::time::Duration;

use brigade_wire::StepId;

use super::Shared;

/// From one look to the next.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A look counts as so much silence. Looks are counted, not the clock asked: where this process
/// was stopped itself, or the machine slept, no time has passed for the chain.
const LOOK_US: u64 = 1_000_000;

/// Fails the instance when its chain has owed an answer for too long; returns when it is over.
pub(super) fn watch(instance: &Weak<Shared>, look_every: Duration) {
    let mut silence: Option<(StepId, u64)> = None;
    loop {
        thread::sleep(look_every);
        let Some(shared) = instance.upgrade() else {
            return;
        };
        let state = shared.lock();
        if state.failure.is_some() {
            return;
        }
        let awaited = state.scheduler.awaited();
        drop(state);
        silence = awaited.map(|awaited| match silence {
            Some((step, us)) if step == awaited.step => (step, us + LOOK_US),
            _ => (awaited.step, 0),
        });
        if let (Some(awaited), Some((_, silent_us))) = (awaited, silence)
            && silent_us >= awaited.patience_us
        {
            shared.fail(&format!(
                "a stage hangs: no answer for {} s",
                silent_us / 1_000_000
            ));
        }
    }
}
