//! The problems of all parts folded into one verdict. Pure.
//!
//! Ready is what Istio's 15020 calls ready, and the container beside it: Envoy serves, the rules are as wanted,
//! the certificate is valid, the name table is here when DNS is captured. What is merely amiss, such as istiod
//! being away, is told and changes nothing: the VM serves on with what it has.

use crate::bounds::bounded_line;
use crate::facts::Health;
use crate::part::Problems;

/// Longest problem, in characters: it is a line of `status`, and others' words are in it.
const MAX_PROBLEM: usize = 600;

/// The verdict: first the cause, then what keeps the VM from serving, then what is merely amiss.
pub fn aggregate(parts: impl Iterator<Item = Problems>) -> Health {
    let all = parts.fold(Problems::default(), Problems::with).in_order();
    Health {
        ready: all.iter().all(|problem| !problem.blocks),
        problems: all
            .iter()
            .map(|problem| bounded_line(&problem.text, MAX_PROBLEM))
            .collect(),
        codes: all.iter().map(|problem| problem.code.name().to_owned()).collect(),
        remedy: all.first().map(|problem| problem.code.remedy().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Code;

    #[test]
    fn blocking_problems_come_first_and_make_the_vm_unready() {
        let first = Problems::default().amiss(Code::IstiodUnreachable, ["istiod is away".to_owned()]);
        let second = Problems::default().blocking(Code::EnvoyDown, ["Envoy is down".to_owned()]);
        let health = aggregate([first.clone(), second].into_iter());
        assert!(!health.ready);
        assert_eq!(health.problems, ["Envoy is down", "istiod is away"]);
        assert_eq!(health.codes, ["envoy-down", "istiod-unreachable"]);
        assert_eq!(health.remedy.as_deref(), Some(Code::EnvoyDown.remedy()));
        assert!(aggregate([first].into_iter()).ready);
        assert!(aggregate(std::iter::empty()).ready);
    }

    #[test]
    fn problems_are_one_line_each_and_bounded() {
        let long = format!("{}: use another", "é".repeat(5000));
        let problems = ["0.0.0.0_80: duplicate\naddress".to_owned(), long];
        let health = aggregate([Problems::default().amiss(Code::EnvoyRefused, problems)].into_iter());
        assert_eq!(health.problems[0], "0.0.0.0_80: duplicate address");
        assert_eq!(health.problems[1].chars().count(), MAX_PROBLEM);
        assert!(health.problems[1].ends_with("é: use another"));
    }
}
