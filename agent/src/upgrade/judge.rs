//! The judgment of a version that is on trial. Pure.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::unit::{Agent, Seen};

/// The time for which a version does as well as the one before to be kept: longer than the watchdog leaves an agent that
/// hangs (30 s).
pub(super) const PROVEN: Duration = Duration::from_secs(40);
/// The time in which an agent that takes over from one that served tells systemd how it is, of which it takes a twentieth.
/// istiod takes a VM without an agent out of the mesh after 10 s.
pub(super) const SILENCE: Duration = Duration::from_secs(5);
/// The time in which a VM that served before is to serve again, and in which any agent tells systemd how it is.
pub(super) const UNREADY: Duration = Duration::from_secs(60);
/// The number of deaths that are too many.
pub(super) const DEATHS: u32 = 3;
/// The time after which a unit that isn't started is taken for stopped.
pub(super) const STOPPED: Duration = Duration::from_secs(5);

/// State of an agent before an upgrade, which the next one has to reach too.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Readiness {
    /// The agent lived, and said what it waited for.
    Waiting,
    /// The agent was ready.
    Serving,
}

/// The judgment of this moment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Decision {
    /// Not known yet.
    Open,
    /// The new version stays.
    Keep,
    /// The version before comes back, for this reason.
    GoBack { fault: Fault, reason: String },
    /// The agent was stopped: the trial goes on when it is started again.
    Stopped,
}

/// The kind of evidence against a version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Fault {
    /// The version's agent ended, and is not started again.
    Ended,
    /// The version's agent died too often, or hangs.
    Broken,
    /// The version isn't ready, and the one before was.
    Late,
}

/// The looks at the agent so far.
#[derive(Debug)]
pub(super) struct Judge {
    before: Readiness,
    /// The agent of the last look, and when it was first seen so.
    agent: (Agent, Instant),
    was_there: bool,
    /// Since when an agent that was started has not served.
    unready: Option<Instant>,
    /// The number of restarts before the trial.
    restarts: Option<u32>,
}

impl Judge {
    pub(super) fn new(before: Readiness, now: Instant) -> Self {
        Self {
            before,
            agent: (Agent::Absent, now),
            was_there: false,
            unready: None,
            restarts: None,
        }
    }

    /// From here on no more is expected than of a version that waits: it may be for nobody's fault.
    pub(super) fn expect_no_service(&mut self) {
        self.before = Readiness::Waiting;
    }

    pub(super) fn see(&mut self, seen: &Seen, now: Instant) -> Decision {
        let Seen { agent, restarts, says } = seen;
        if self.agent.0 != *agent {
            self.agent = (*agent, now);
        }
        let lasted = now.duration_since(self.agent.1);
        self.was_there |= *agent != Agent::Absent;
        // A start by hand begins to count anew.
        let earlier = self.restarts.map_or(*restarts, |earlier| earlier.min(*restarts));
        self.restarts = Some(earlier);
        self.unready = match agent {
            Agent::Absent | Agent::Serving(_) => None,
            _ => Some(self.unready.unwrap_or(now)),
        };
        let back = |fault, what: String| Decision::GoBack {
            fault,
            reason: match says.as_str() {
                "" => what,
                says => format!("{what}: {says}"),
            },
        };
        match agent {
            Agent::Failed => back(Fault::Ended, "its agent ended for good".to_owned()),
            _ if restarts - earlier >= DEATHS => back(Fault::Broken, format!("its agent died {DEATHS} times")),
            Agent::Silent(_) if lasted >= self.silence() => {
                let silence = self.silence();
                back(Fault::Broken, format!("its agent said nothing for {silence:?}"))
            }
            Agent::Absent if self.was_there && lasted >= STOPPED => Decision::Stopped,
            Agent::Serving(_) if lasted >= PROVEN => Decision::Keep,
            Agent::Waiting(_) if self.before == Readiness::Waiting && lasted >= PROVEN => Decision::Keep,
            _ if self.before == Readiness::Serving && self.is_late(now) => {
                back(Fault::Late, format!("its agent was not ready within {UNREADY:?}"))
            }
            _ => Decision::Open,
        }
    }

    fn silence(&self) -> Duration {
        match self.before {
            Readiness::Serving => SILENCE,
            Readiness::Waiting => UNREADY,
        }
    }

    fn is_late(&self, now: Instant) -> bool {
        self.unready.is_some_and(|since| now.duration_since(since) >= UNREADY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Looks every half second at what `agent` says of each second; the first verdict that isn't open, with its second.
    fn judge(before: Readiness, agent: impl Fn(u32) -> (Agent, u32)) -> (u32, Decision) {
        let start = Instant::now();
        let mut judge = Judge::new(before, start);
        let looks = (0..600).map(|half| {
            let (agent, restarts) = agent(half / 2);
            let says = "words".to_owned();
            let verdict = judge.see(&Seen { agent, restarts, says }, start + SECOND * half / 2);
            (half / 2, verdict)
        });
        let mut looks = looks.skip_while(|(_, verdict)| *verdict == Decision::Open);
        looks.next().unwrap_or((300, Decision::Open))
    }

    fn back(fault: Fault, what: &str) -> Decision {
        let reason = format!("{what}: words");
        Decision::GoBack { fault, reason }
    }

    #[test]
    fn version_that_serves_as_the_one_before_is_kept() {
        let serves = |second| match second {
            0 => (Agent::Absent, 0),
            1 => (Agent::Silent(7), 0),
            2 => (Agent::Waiting(7), 0),
            _ => (Agent::Serving(7), 0),
        };
        assert_eq!(judge(Readiness::Serving, serves), (43, Decision::Keep));
        assert_eq!(judge(Readiness::Waiting, serves), (43, Decision::Keep));
    }

    #[test]
    fn death_or_two_are_made_up_for_by_serving_and_a_third_is_not() {
        let dies_every_30_s = |second: u32| (Agent::Serving(second / 30), second / 30);
        let died = back(Fault::Broken, "its agent died 3 times");
        assert_eq!(judge(Readiness::Serving, dies_every_30_s), (90, died.clone()));
        let twice = |second: u32| (Agent::Serving((second / 30).min(2)), (second / 30).min(2));
        assert_eq!(judge(Readiness::Serving, twice), (100, Decision::Keep));
        // Each death is half a second of nothing; the agent of before had been restarted five times.
        let at_once = |second| match second {
            0 => (Agent::Absent, 5),
            _ => (Agent::Dead, second - 1),
        };
        assert_eq!(judge(Readiness::Waiting, at_once), (4, died));
    }

    #[test]
    fn version_that_hangs_ends_for_good_or_never_serves_goes_back() {
        let hangs = |_| (Agent::Silent(7), 0);
        let silent = |time| back(Fault::Broken, &format!("its agent said nothing for {time}"));
        assert_eq!(judge(Readiness::Serving, hangs), (5, silent("5s")));
        assert_eq!(judge(Readiness::Waiting, hangs), (60, silent("60s")));
        let ends = |second| match second {
            0..3 => (Agent::Serving(7), 0),
            _ => (Agent::Failed, 0),
        };
        let ended = back(Fault::Ended, "its agent ended for good");
        assert_eq!(judge(Readiness::Serving, ends), (3, ended));
        let late = back(Fault::Late, "its agent was not ready within 60s");
        assert_eq!(judge(Readiness::Serving, |_| (Agent::Waiting(7), 0)), (60, late));
    }

    #[test]
    fn version_that_waits_is_as_good_as_one_before_that_never_served() {
        assert_eq!(
            judge(Readiness::Waiting, |_| (Agent::Waiting(7), 0)),
            (40, Decision::Keep)
        );
    }

    #[test]
    fn stopped_agent_is_no_fault_and_one_that_waits_for_its_start_is_not_stopped() {
        let stopped = |second| match second {
            0..9 => (Agent::Serving(7), 0),
            _ => (Agent::Absent, 0),
        };
        assert_eq!(judge(Readiness::Serving, stopped), (14, Decision::Stopped));
        assert_eq!(judge(Readiness::Serving, |_| (Agent::Absent, 0)), (300, Decision::Open));
    }
}
