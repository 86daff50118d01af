//! The judgment on the pods, from what each cluster's Prometheus has counted in one window. Nothing counted is no
//! verdict, and never a good one.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod prometheus;
mod queries;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::migration::{Gate, Share};

pub(crate) use prometheus::Prometheus;

/// The part of the expected calls below which the others are missing: hung, or never sent.
const LEAST_ARRIVED: f64 = 0.5;

/// Figures of one side in the window.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Figures {
    /// Calls that ended.
    pub(crate) requests: f64,
    /// The part of them that succeeded; absent: no call ended.
    pub(crate) success: Option<f64>,
    /// The 99th percentile, in milliseconds.
    pub(crate) p99: Option<f64>,
}

/// The gate's verdict, and the figures that it is of.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Judgment {
    pub(crate) verdict: Verdict,
    /// Of VM and pods; absent: Prometheus gave none.
    pub(crate) figures: Option<(Figures, Figures)>,
}

/// The gate's verdict.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    Good(String),
    Bad(String),
    /// There is too little to judge.
    Unknown(String),
}

impl Verdict {
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Good(_) => "good",
            Self::Bad(_) => "bad",
            Self::Unknown(_) => "no verdict",
        }
    }

    pub(crate) fn because(&self) -> &str {
        match self {
            Self::Good(why) | Self::Bad(why) | Self::Unknown(why) => why,
        }
    }
}

/// Judges the pods against the limits and against the VM. `is_whole` says that the whole window is of this share: before that
/// it has calls of another one, and how many are the pods' says nothing.
pub(crate) fn judge(gate: &Gate, share: Share, is_whole: bool, vm: Figures, pods: Figures) -> Verdict {
    let total = vm.requests + pods.requests;
    let expected = total * f64::from(share.of_pods()) / 100.0;
    let least = gate.min_requests as f64;
    if is_whole && expected >= least && pods.requests < expected * LEAST_ARRIVED {
        return Verdict::Bad(format!(
            "{:.0} calls of the pods ended where {expected:.0} of {total:.0} were to: the others hang or were not sent",
            pods.requests
        ));
    }
    if pods.requests < least {
        return Verdict::Unknown(format!(
            "{:.0} calls of the pods in {}, gate.min_requests is {}",
            pods.requests,
            humantime::format_duration(gate.window),
            gate.min_requests
        ));
    }
    let Some(success) = pods.success else {
        return Verdict::Unknown("the pods' part of calls that succeed is no number".to_owned());
    };
    if success < gate.success {
        return Verdict::Bad(format!(
            "{} of the pods' calls succeed, gate.success is {}",
            of(success),
            of(gate.success)
        ));
    }
    let enough_of_vm = vm.requests >= least;
    if let Some(of_vm) = vm
        .success
        .filter(|of_vm| enough_of_vm && success < of_vm - gate.worse_than_vm)
    {
        return Verdict::Bad(format!(
            "{} of the pods' calls succeed, of the VM's {}",
            of(success),
            of(of_vm)
        ));
    }
    match slow(gate, vm.p99.filter(|_| enough_of_vm), pods.p99) {
        Some(verdict) => verdict,
        None => Verdict::Good(format!(
            "{} of {:.0} calls of the pods succeed, p99 {:.0} ms",
            of(success),
            pods.requests,
            pods.p99.unwrap_or_default()
        )),
    }
}

/// The verdict on latency, unless it is good.
fn slow(gate: &Gate, vm: Option<f64>, pods: Option<f64>) -> Option<Verdict> {
    let Some(pods) = pods else {
        return Some(Verdict::Unknown("the pods' p99 is no number".to_owned()));
    };
    let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
    let limit = gate.p99.map(milliseconds);
    if let Some(limit) = limit.filter(|limit| pods > *limit) {
        return Some(Verdict::Bad(format!(
            "the pods' p99 is {pods:.0} ms, gate.p99 is {limit:.0} ms"
        )));
    }
    let slack = milliseconds(gate.p99_slack);
    let vm = vm.filter(|vm| pods > vm * gate.p99_ratio && pods > vm + slack)?;
    Some(Verdict::Bad(format!(
        "the pods' p99 is {pods:.0} ms and the VM's {vm:.0} ms, gate.p99_ratio is {} and gate.p99_slack {slack:.0} ms",
        gate.p99_ratio
    )))
}

fn of(part: f64) -> String {
    format!("{:.3} %", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(requests: f64, success: f64, p99: f64) -> Figures {
        Figures {
            requests,
            success: Some(success),
            p99: Some(p99),
        }
    }

    fn verdict(vm: Figures, pods: Figures) -> Verdict {
        let gate = Gate {
            p99: Some(Duration::from_millis(400)),
            ..Gate::default()
        };
        judge(&gate, Share::try_from(20).unwrap(), true, vm, pods)
    }

    #[test]
    fn pods_that_are_as_good_as_the_vm_pass() {
        let vm = figures(8000.0, 1.0, 20.0);
        for pods in [figures(2000.0, 0.9995, 25.0), figures(2000.0, 1.0, 65.0)] {
            let verdict = verdict(vm, pods);
            assert!(matches!(verdict, Verdict::Good(_)), "{verdict:?}");
        }
    }

    #[test]
    fn window_of_two_shares_says_nothing_of_what_arrived() {
        let (gate, share) = (Gate::default(), Share::try_from(20).unwrap());
        let judged = |is_whole| {
            judge(
                &gate,
                share,
                is_whole,
                figures(9400.0, 1.0, 20.0),
                figures(600.0, 1.0, 20.0),
            )
        };
        assert!(matches!(judged(false), Verdict::Good(_)), "{:?}", judged(false));
        assert!(matches!(judged(true), Verdict::Bad(_)), "{:?}", judged(true));
    }

    #[test]
    fn pods_that_fail_or_are_slow_do_not_pass() {
        let vm = figures(8000.0, 1.0, 20.0);
        for (pods, words) in [
            (figures(2000.0, 0.95, 20.0), "gate.success"),
            (figures(2000.0, 1.0, 320.0), "p99_ratio"),
            (figures(2000.0, 1.0, 500.0), "gate.p99 is"),
        ] {
            let Verdict::Bad(why) = verdict(vm, pods) else {
                panic!("{pods:?}");
            };
            assert!(why.contains(words), "{why}");
        }
        let close = judge(
            &Gate {
                success: 0.9,
                ..Gate::default()
            },
            Share::try_from(20).unwrap(),
            true,
            vm,
            figures(2000.0, 0.99, 20.0),
        );
        assert!(
            matches!(&close, Verdict::Bad(why) if why.contains("of the VM's")),
            "{close:?}"
        );
    }

    #[test]
    fn calls_that_hang_are_counted_as_missing() {
        let Verdict::Bad(why) = verdict(figures(8000.0, 1.0, 20.0), figures(50.0, 1.0, 20.0)) else {
            panic!("passed");
        };
        assert!(why.contains("hang"), "{why}");
    }

    #[test]
    fn nothing_counted_is_no_verdict() {
        let none = Figures::default();
        assert!(matches!(verdict(none, none), Verdict::Unknown(_)));
        let vm = figures(400.0, 1.0, 20.0);
        assert!(matches!(verdict(vm, figures(90.0, 1.0, 20.0)), Verdict::Unknown(_)));
        let without_latency = Figures {
            p99: None,
            ..figures(2000.0, 1.0, 0.0)
        };
        assert!(matches!(
            verdict(figures(8000.0, 1.0, 20.0), without_latency),
            Verdict::Unknown(_)
        ));
    }
}
