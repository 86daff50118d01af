//! Directions that are to be redirected, by Envoy's state and the operator's policy. Pure.

use crate::config::{FailPolicy, OnEnvoyDown};
use crate::facts::EnvoyState;

/// Directions whose traffic is redirected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Directions {
    /// Calls to this VM.
    pub inbound: bool,
    /// Calls from this VM, and its DNS.
    pub outbound: bool,
}

impl Directions {
    /// Calls to this VM alone.
    pub const INBOUND: Self = Self {
        inbound: true,
        outbound: false,
    };

    /// All of it.
    pub const BOTH: Self = Self {
        inbound: true,
        outbound: true,
    };
}

/// The rules that are to be now; `None`: as they are. Rules of an earlier agent stay while Envoy starts.
pub(super) fn wanted(envoy: &EnvoyState, policy: OnEnvoyDown) -> Option<Directions> {
    match envoy {
        EnvoyState::Ready { .. } => Some(Directions::BOTH),
        EnvoyState::Down { .. } => {
            let kept = Directions {
                inbound: policy.inbound == FailPolicy::Closed,
                outbound: policy.outbound == FailPolicy::Closed,
            };
            (kept != Directions::BOTH).then_some(kept)
        }
        EnvoyState::Waiting
        | EnvoyState::Fetching { .. }
        | EnvoyState::Starting { .. }
        | EnvoyState::Draining { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: EnvoyState = EnvoyState::Ready {
        pid: 1,
        adopted: false,
        restarts: 0,
        successor: None,
    };

    #[test]
    fn policy_closed_keeps_the_rules_whatever_happens_to_envoy() {
        let policy = OnEnvoyDown::default();
        let down = EnvoyState::Down { reason: "x".into() };
        assert_eq!(wanted(&READY, policy), Some(Directions::BOTH));
        for state in [down, EnvoyState::Waiting, EnvoyState::Starting { pid: 1, ended: None }] {
            assert_eq!(wanted(&state, policy), None);
        }
    }

    #[test]
    fn policy_open_takes_its_own_direction_out_until_envoy_is_ready() {
        let policy = OnEnvoyDown {
            inbound: FailPolicy::Closed,
            outbound: FailPolicy::Open,
        };
        let kept = Directions {
            inbound: true,
            outbound: false,
        };
        assert_eq!(wanted(&EnvoyState::Down { reason: "x".into() }, policy), Some(kept));
        assert_eq!(wanted(&EnvoyState::Starting { pid: 1, ended: None }, policy), None);
        assert_eq!(wanted(&READY, policy), Some(Directions::BOTH));
    }
}
