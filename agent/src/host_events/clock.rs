//! The wall clock, and suspensions.

use std::convert::Infallible;

use tokio::sync::watch;

use crate::facts::{HostEvent, HostState};
use crate::host::{ClockChange, ClockChanges};

/// Counts the changes of the clocks.
pub(super) async fn follow(mut changes: ClockChanges, publish: watch::Sender<HostState>) -> Infallible {
    loop {
        let change = changes.next().await;
        publish.send_modify(|state| count(state, change));
    }
}

fn count(state: &mut HostState, change: ClockChange) {
    match change {
        ClockChange::Stepped { by, back } => {
            let by = humantime::format_duration(by);
            let direction = if back { "back" } else { "forward" };
            tracing::warn!(
                code = HostEvent::ClockStepped.code(),
                "the clock was set {by} {direction}"
            );
            state.clock_steps += 1;
        }
        ClockChange::Resumed(asleep) => {
            let asleep = humantime::format_duration(asleep);
            tracing::warn!(code = HostEvent::Resumed.code(), "the machine slept for {asleep}");
            state.resumes += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn clock_that_is_set_and_a_machine_that_slept_are_counted_apart() {
        let mut state = HostState::default();
        let by = Duration::from_secs(1);
        count(&mut state, ClockChange::Stepped { by, back: true });
        count(&mut state, ClockChange::Stepped { by, back: false });
        count(&mut state, ClockChange::Resumed(by));
        assert_eq!((state.clock_steps, state.resumes), (2, 1));
    }
}
