//! The fix of each finding of `check`, followed to the letter, leads out of the trouble.

mod host;
mod join;
mod network;
mod vm;
mod workload;

use std::collections::BTreeSet;
use std::io::Write as _;

use vm::Vm;

use crate::part::Finding;

/// The most findings that stand behind one another: a unit that is masked is not enabled either.
const MOST: usize = 3;

/// A trouble, and an operator who does what `check` says about it.
struct Row {
    code: &'static str,
    /// Brings a good VM into trouble.
    trouble: fn(&mut Vm),
    /// Part of the fix, which is this row's.
    says: &'static str,
    /// Does what the finding says, and nothing else.
    follow: fn(&mut Vm, &Finding),
}

fn rows() -> impl Iterator<Item = &'static Row> {
    [host::ROWS, join::ROWS, network::ROWS, workload::ROWS]
        .into_iter()
        .flatten()
}

/// The fault of a row; `None` where the fix leads out.
async fn problem(row: &Row) -> Option<String> {
    let mut vm = Vm::new();
    (row.trouble)(&mut vm);
    let found = vm.amiss(row.code).await;
    let says = |finding: &Finding| finding.fix.as_deref().is_some_and(|fix| fix.contains(row.says));
    if !found.iter().any(says) {
        return Some(format!("no fix with {:?}: {found:?}", row.says));
    }
    let mut left = found;
    for _ in 0..MOST {
        for finding in &left {
            (row.follow)(&mut vm, finding);
        }
        left = vm.amiss(row.code).await;
        if left.is_empty() {
            return None;
        }
    }
    Some(format!("left: {left:?}"))
}

/// Findings whose fixes are followed on a VM in namespaces, or against servers, and where: a file, and what is in it.
const ELSEWHERE: &[(&str, &str, &str)] = &[
    (
        "IVA205",
        "agent/src/join/kubernetes/tests.rs",
        "cluster_id_that_is_written_as_told_is_istios",
    ),
    (
        "IVA607",
        "agent/tests/intercept/firewalls.rs",
        "expect_the_way_is_free_after_the_fix",
    ),
    (
        "IVA608",
        "agent/tests/intercept/firewalls.rs",
        "expect_the_way_is_free_after_the_fix",
    ),
    (
        "IVA801",
        "tests/cases/checking/swarm.rs",
        "put \\\"live-restore\\\": false into",
    ),
];
/// Tables of fixes that are followed on a VM in namespaces.
const CASES: [&str; 2] = ["tests/cases/checking/acts.rs", "tests/cases/checking/commands.rs"];
/// Findings that have no fix, and why.
const WITHOUT: &[(&str, &str)] = &[
    (
        "IVA401",
        "one that is of no use is asked for again: it is fine, or not stored yet",
    ),
    (
        "IVA604",
        "it says where probes are to be sent, and never that something is amiss",
    ),
];

/// None comes without somebody who has done what it says.
#[test]
fn fix_of_each_code_is_followed() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let read = |file: &str| std::fs::read_to_string(root.join(file)).unwrap();
    for (code, file, holds) in ELSEWHERE {
        assert!(read(file).contains(holds), "{code}: {file} has no {holds}");
    }
    let cases = CASES.map(read).concat();
    let in_cases = cases.split("\"IVA").skip(1).map(|rest| format!("IVA{}", &rest[..3]));
    let elsewhere = ELSEWHERE.iter().map(|(code, ..)| (*code).to_owned());
    let followed: BTreeSet<String> = rows()
        .map(|row| row.code.to_owned())
        .chain(in_cases)
        .chain(elsewhere)
        .collect();
    let without: BTreeSet<String> = WITHOUT.iter().map(|(code, _)| (*code).to_owned()).collect();
    for (code, why) in WITHOUT {
        writeln!(std::io::stdout(), "{code} is followed by no test: {why}").unwrap();
    }
    let manual = read("packaging/man/istio-vm-agent.8");
    let all = manual
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm IVA")?.split_once(' '));
    let all: BTreeSet<String> = all.map(|(code, _)| format!("IVA{code}")).collect();
    let left: Vec<_> = all
        .difference(&followed)
        .filter(|code| !without.contains(*code))
        .collect();
    assert!(
        left.is_empty() && followed.is_disjoint(&without),
        "followed by no test: {left:?}"
    );
    assert!(followed.is_subset(&all), "{followed:?}");
}

#[tokio::test]
async fn fix_of_a_finding_leads_out_of_the_trouble() {
    let mut wrong = Vec::new();
    for row in rows() {
        let problem = problem(row).await;
        wrong.extend(problem.map(|problem| format!("{}: {problem}", row.code)));
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}
