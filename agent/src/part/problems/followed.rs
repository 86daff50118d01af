//! The remedy that `status` has for a problem, followed to the letter in a test, takes it away.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::Code;

/// Tables of problems, each with what is done to a VM in namespaces and what an operator does who reads `status`.
const CASES: &str = "tests/cases/telling/remedies";
/// Problems whose remedies are followed elsewhere, and where: a file, and what is in it.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    ("firewall-closed", "tests/cases/telling.rs", "shell(mesh, &command)?"),
    // As for envoy-extensions: istiod has what is refused no more.
    ("envoy-refused", "tests/cases/telling.rs", "the NACK to be over"),
    // It is waited for: Envoy is fetched, and the VM joins.
    (
        "envoy-waiting",
        "tests/cases/envoy.rs",
        "not fetched yet, and there to be",
    ),
    (
        "service-waiting",
        "tests/cases/package/service.rs",
        "\"service-waiting\"",
    ),
    ("service-failed", "tests/cases/package/service.rs", "\"service-failed\""),
    (
        "container-successor",
        "tests/cases/rollout.rs",
        "As its remedy says: mended, and taken up",
    ),
    (
        "bridge-open",
        "agent/src/intercept/tests.rs",
        "bridge_is_closed_by_what_check_says",
    ),
    ("reload-refused", "tests/cases/changing.rs", "As its remedy says"),
    (
        "upgrade-rolled-back",
        "tests/cases/package/upgrade.rs",
        "As the remedy says",
    ),
];

#[test]
fn remedy_of_each_problem_is_followed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (code, file, holds) in ELSEWHERE {
        let text = fs::read_to_string(root.join(file)).unwrap();
        assert!(text.contains(holds), "{code}: {file} has no {holds}");
    }
    let cases = fs::read_dir(root.join(CASES)).unwrap();
    let cases: String = cases
        .map(|case| fs::read_to_string(case.unwrap().path()).unwrap())
        .collect();
    // The rest of a file has codes that are read, and not followed.
    let rows = cases.split("codes: &[").skip(1).filter_map(|row| row.split(']').next());
    let in_cases = rows.flat_map(|row| row.split('"').skip(1).step_by(2));
    let followed: BTreeSet<&str> = in_cases.chain(ELSEWHERE.iter().map(|(code, ..)| *code)).collect();
    let all: BTreeSet<&str> = Code::ALL.iter().map(|code| code.name()).collect();
    let left: Vec<_> = all.difference(&followed).collect();
    assert!(left.is_empty(), "followed by no test: {left:?}");
    assert!(followed.is_subset(&all), "{followed:?}");
}
