//! From single results to a verdict. Pure.

use crate::facts::{Probe, ProbeState};

/// The reason while Envoy isn't ready, whatever the application says.
pub(super) const NO_ENVOY: &str = "Envoy is not ready";
/// The reason until the application has started by its startup probe, and while it is to be started again.
pub(super) const NOT_ALIVE: &str = "the application has not started";

/// Counts consecutive results of one kind.
#[derive(Debug)]
pub(in crate::health) struct Streak {
    success_threshold: u32,
    failure_threshold: u32,
    good: u32,
    bad: u32,
    ever_healthy: bool,
    state: ProbeState,
}

impl Streak {
    pub(in crate::health) fn new(probe: &Probe) -> Self {
        Self {
            success_threshold: probe.success_threshold,
            failure_threshold: probe.failure_threshold,
            good: 0,
            bad: 0,
            ever_healthy: false,
            state: ProbeState::Unknown,
        }
    }

    /// Takes a result and returns the verdict when it changes. A verdict's reason changes only between Envoy's
    /// fault, a start and the application's: istiod writes each change to the Kubernetes API.
    pub(in crate::health) fn observe(&mut self, result: Result<(), String>) -> Option<&ProbeState> {
        let verdict = match result {
            Ok(()) => {
                self.bad = 0;
                self.good = self.good.saturating_add(1);
                if self.good < self.success_threshold || self.state == ProbeState::Healthy {
                    return None;
                }
                self.ever_healthy = true;
                ProbeState::Healthy
            }
            Err(reason) => {
                self.good = 0;
                self.bad = self.bad.saturating_add(1);
                if self.bad < self.failure_threshold {
                    return None;
                }
                match &self.state {
                    ProbeState::Unhealthy { reason: old } if unasked(old) == unasked(&reason) => return None,
                    _ => ProbeState::Unhealthy { reason },
                }
            }
        };
        self.state = verdict;
        Some(&self.state)
    }

    /// True once there was a healthy verdict.
    pub(super) fn ever_healthy(&self) -> bool {
        self.ever_healthy
    }
}

/// Index of the reason for which the application was not asked at all.
fn unasked(reason: &str) -> Option<usize> {
    [NO_ENVOY, NOT_ALIVE].iter().position(|own| *own == reason)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::facts::ProbeKind;

    fn streak(success_threshold: u32, failure_threshold: u32) -> Streak {
        Streak::new(&Probe {
            kind: ProbeKind::Tcp { host: None, port: 1 },
            initial_delay: Duration::ZERO,
            timeout: Duration::from_secs(1),
            period: Duration::from_secs(10),
            success_threshold,
            failure_threshold,
        })
    }

    /// Feeds `+` and other letters (failures of that reason) and writes the verdicts down: `.` for none.
    fn verdicts(mut streak: Streak, results: &str) -> String {
        let one = |result: char| {
            let result = match result {
                '+' => Ok(()),
                'e' => Err(NO_ENVOY.to_owned()),
                other => Err(other.to_string()),
            };
            match streak.observe(result) {
                None => '.',
                Some(ProbeState::Healthy) => 'H',
                Some(ProbeState::Unhealthy { reason }) if reason == NO_ENVOY => 'E',
                Some(ProbeState::Unhealthy { .. }) => 'U',
                Some(other) => panic!("{other:?}"),
            }
        };
        results.chars().map(one).collect()
    }

    #[test]
    fn results_count_when_consecutive_and_transitions_alone_are_told() {
        let cases = [
            ((1, 1), "++++", "H..."),
            ((1, 1), "+--+", "HU.H"),
            ((1, 1), "-++", "UH."),
            ((3, 2), "++-+++", ".....H"),
            ((3, 2), "+++-+--", "..H...U"),
            ((1, 3), "--+---", "..H..U"),
        ];
        for ((success, failure), results, expected) in cases {
            assert_eq!(verdicts(streak(success, failure), results), expected, "{results}");
        }
    }

    #[test]
    fn new_reason_is_told_only_between_envoy_and_the_application() {
        assert_eq!(verdicts(streak(1, 1), "eeabce+"), "E.U..EH");
    }
}
