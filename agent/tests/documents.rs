//! Quotes in the documents are in the sources.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads the sources, and fails by panicking"
)]

#[path = "documents/commands.rs"]
mod commands;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Shorter pieces are found anywhere.
const SHORTEST: usize = 8;

/// A message in the first column of README's table "Troubleshooting" is in backticks, with `…` for what differs from
/// one time to another; each piece of it is in the sources, where a string may be broken by a backslash.
#[test]
fn readme_quotes_only_messages_that_the_program_prints() {
    let readme = fs::read_to_string(manifest().join("../README.md")).unwrap();
    let table = readme.split("## Troubleshooting").nth(1).unwrap();
    let table = table.split("\n## ").next().unwrap();
    let sources = sources(&manifest().join("src"));
    let mut quoted = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let seen = row.split('|').nth(1).unwrap();
        for message in seen
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|quote| !quote.starts_with('/'))
        {
            for piece in message
                .split('…')
                .map(str::trim)
                .filter(|piece| piece.len() >= SHORTEST)
            {
                assert!(sources.contains(piece), "README: {piece:?} is printed nowhere: {row}");
                quoted += 1;
            }
        }
    }
    assert!(quoted > 5, "the table is not where this test looks");
}

/// unattended-upgrades may have the lock at the first boot, when these scripts run, once.
#[test]
fn first_boot_waits_for_the_lock_of_apt() {
    let mut installs = 0;
    for entry in fs::read_dir(manifest().join("../packaging/cloud-init")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in text.lines().filter(|line| line.contains("apt-get")) {
            assert!(line.contains("apt-get -o DPkg::Lock::Timeout="), "{line}");
            installs += 1;
        }
    }
    assert!(installs > 1, "the scripts are not where this test looks");
}

/// A restart of Envoy ends the calls that it carries, and needrestart is about to do so after each upgrade of libc.
#[test]
fn needrestart_leaves_the_unit_of_envoy_alone() {
    const FILE: &str = "debian/needrestart/istio-vm-agent.conf";
    let root = manifest().join("..");
    let text = fs::read_to_string(root.join("packaging").join(FILE)).unwrap();
    let excepted = text.split_once("{qr(^").unwrap().1.split_once(")} = 0;").unwrap().0;
    let unit = root.join("systemd").join(excepted.replace('\\', "") + ".service");
    assert!(unit.is_file(), "{FILE}: {excepted}");
    let installed = fs::read_to_string(root.join("packaging/debian/istio-vm-agent.install")).unwrap();
    let place = format!("{FILE} etc/needrestart/conf.d");
    assert!(installed.lines().any(|line| line == place), "{place}");
    let rpm = fs::read_to_string(root.join("packaging/rpm")).unwrap();
    assert!(
        rpm.contains("s,^/etc/,%config(noreplace) &,"),
        "an upgrade of the rpm writes over it"
    );
}

/// A group of VMs is told, by its instances' metadata, what the agent reads there.
#[test]
fn groups_of_vms_set_the_attributes_that_the_agent_reads() {
    let root = manifest().join("..");
    let reads = fs::read_to_string(root.join("agent/src/config/attribute.rs")).unwrap();
    for example in ["gcp/managed-instance-group", "terraform/main.tf"] {
        let text = fs::read_to_string(root.join("packaging").join(example)).unwrap();
        let mut set = BTreeSet::new();
        for rest in text.split("istio-vm-agent-").skip(1) {
            let name: String = rest
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '-')
                .collect();
            assert!(
                reads.contains(&format!("= \"istio-vm-agent-{name}\"")),
                "{example}: {name}"
            );
            set.insert(name);
        }
        for name in ["cluster", "namespace", "workload-group"] {
            assert!(set.contains(name), "{example} sets no {name}");
        }
    }
}

/// Every `make` target and every file of the repository, or below agent/src, that a document names is there.
#[test]
fn documents_name_only_files_and_targets_that_exist() {
    let root = manifest().join("..");
    let makefile = fs::read_to_string(root.join("Makefile")).unwrap();
    for document in documents(&root) {
        let text = fs::read_to_string(&document).unwrap();
        let document = document.display();
        for quote in text.split('`').skip(1).step_by(2) {
            if let Some(target) = quote.strip_prefix("make ") {
                let target = target.split_whitespace().next().unwrap();
                assert!(makefile.contains(&format!("\n{target}:")), "{document}: make {target}");
            }
            let is_file = ["agent/", "tests/", "packaging/", "systemd/"]
                .iter()
                .any(|folder| quote.starts_with(folder));
            if is_file && !quote.contains(['{', '*', ' ', '<']) {
                assert!(root.join(quote).exists(), "{document}: {quote}");
            }
            if !is_file && quote.ends_with(".rs") && quote.contains('/') {
                assert!(manifest().join("src").join(quote).exists(), "{document}: {quote}");
            }
        }
    }
}

/// The table at the end of docs/migrate.md names cases by their names, or the beginning of those.
#[test]
fn cases_that_show_a_migration_exist() {
    let document = fs::read_to_string(manifest().join("../docs/migrate.md")).unwrap();
    let table = document.split("## What shows it").nth(1).unwrap();
    let cases = manifest().join("../tests/cases");
    let named = ["migrating.rs", "migrating/two.rs"].map(|file| fs::read_to_string(cases.join(file)).unwrap());
    let named = named.concat().replace("real istiod: migration: ", "real istiod: ");
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(1);
    let shown: Vec<&str> = rows
        .flat_map(|row| row.split('|').nth(2).unwrap().split(';'))
        .map(str::trim)
        .collect();
    for case in &shown {
        assert!(named.contains(&format!("\"{case}")), "there is no case {case:?}");
    }
    assert!(shown.len() > 15, "the table is not where this test looks");
}

/// A link into the repository leads to a file that is there, and to a heading that the file has.
#[test]
fn links_between_documents_resolve() {
    for document in documents(&manifest().join("..")) {
        let text = fs::read_to_string(&document).unwrap();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://")) {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = match file {
                "" => document.clone(),
                file => document.parent().unwrap().join(file),
            };
            assert!(file.exists(), "{}: {target}", document.display());
            let has_heading = || {
                fs::read_to_string(&file)
                    .unwrap()
                    .lines()
                    .any(|line| anchor(line) == heading)
            };
            assert!(heading.is_empty() || has_heading(), "{}: {target}", document.display());
        }
    }
}

/// Each claim in the tables of docs/security.md has tests that state it: functions, or cases by their names.
#[test]
fn claims_on_security_are_stated_by_tests_that_exist() {
    let root = manifest().join("..");
    let document = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let claims = document.split("## What states it").nth(1).unwrap();
    let cases = texts(&root.join("tests/cases"), |_| true);
    let functions = ["agent/src", "agent/tests"].map(|folder| texts(&root.join(folder), |_| true));
    let functions = functions.concat();
    let is_test = |name: &str| {
        let (before, _) = functions.split_once(&format!("fn {name}("))?;
        let attributes = before.rsplit("\n\n").next()?;
        Some(attributes.contains("#[test]") || attributes.contains("#[tokio::test"))
    };
    let mut rows = 0;
    for row in claims
        .lines()
        .filter(|line| line.starts_with("| ") && !line.ends_with("| |"))
    {
        let tests: Vec<&str> = row
            .rsplit(" | ")
            .next()
            .unwrap()
            .split('`')
            .skip(1)
            .step_by(2)
            .collect();
        assert!(!tests.is_empty(), "{row}");
        for test in tests {
            let exists = match test.contains(' ') {
                true => cases.contains(&format!("\"{test}\"")),
                false => is_test(test) == Some(true),
            };
            assert!(exists, "docs/security.md: there is no test {test}");
        }
        rows += 1;
    }
    assert!(rows > 25, "the tables are not where this test looks");
}

/// The runbook has an entry for each code of `status`, in the order of causes, and a row for each of `check`.
#[test]
fn runbook_has_each_code_and_no_other() {
    let runbook = fs::read_to_string(manifest().join("../docs/runbook.md")).unwrap();
    let sources = sources(&manifest().join("src/part"));
    let names = sources.split("pub fn name(self)").nth(1).unwrap();
    let names = names.split("\n    }\n").next().unwrap();
    let codes: Vec<&str> = names.split('"').skip(1).step_by(2).collect();
    let entries = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### `")?.strip_suffix('`'));
    assert!(codes.len() > 20, "{codes:?}");
    assert_eq!(entries.collect::<Vec<_>>(), codes);

    let manual = fs::read_to_string(manifest().join("../packaging/man/istio-vm-agent.8")).unwrap();
    let findings = manual
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm IVA")?.split_once(" Pq "))
        .map(|(code, name)| format!("| IVA{code} | {name} |"));
    let rows = runbook.lines().filter(|line| line.starts_with("| IVA"));
    for (row, finding) in rows.clone().zip(findings.clone()) {
        assert!(row.starts_with(&finding), "{row}, and the manual has {finding}");
    }
    assert_eq!(rows.count(), findings.count());
}

/// A finding's code is what a runbook or an alert refers to: none without a paragraph in the manual, none that is gone,
/// and none with two meanings.
#[test]
fn manual_has_each_code_of_a_finding_and_no_other() {
    let sources = sources(&manifest().join("src"));
    let subjects = sources.split("Subject::new(\"IVA").skip(1).map(|rest| {
        let mut words = rest.split('"');
        (
            format!("IVA{}", words.next().unwrap()),
            words.nth(1).unwrap().to_owned(),
        )
    });
    let subjects: BTreeSet<(String, String)> = subjects.collect();
    let manual = fs::read_to_string(manifest().join("../packaging/man/istio-vm-agent.8")).unwrap();
    let items = manual
        .lines()
        .filter_map(|line| line.strip_prefix(".It Cm IVA")?.split_once(" Pq "));
    let documented: Vec<(String, String)> = items
        .map(|(code, name)| (format!("IVA{code}"), name.to_owned()))
        .collect();
    assert_eq!(documented, subjects.iter().cloned().collect::<Vec<_>>());
    let codes: BTreeSet<&String> = subjects.iter().map(|(code, _)| code).collect();
    assert!(codes.len() == subjects.len() && codes.len() >= 30, "{subjects:?}");
}

/// The manual's page of the configuration is the example itself, behind a margin of 5 columns.
#[test]
fn example_fits_a_terminal_as_a_page_of_the_manual() {
    let example = fs::read_to_string(manifest().join("../config.example.toml")).unwrap();
    let wide: Vec<&str> = example.lines().filter(|line| line.chars().count() > 75).collect();
    assert!(
        wide.is_empty(),
        "wider than 80 columns in the manual:\n{}",
        wide.join("\n")
    );
}

/// Documents for people, of the whole repository.
fn documents(root: &Path) -> Vec<PathBuf> {
    let here = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].map(|name| root.join(name));
    let entries = |folder: &str| {
        let entries = fs::read_dir(root.join(folder)).unwrap();
        entries.map(|entry| entry.unwrap().path())
    };
    let docs = entries("docs").filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    let beside = entries("packaging").map(|folder| folder.join("README.md"));
    here.into_iter()
        .chain(docs)
        .chain(beside.filter(|path| path.exists()))
        .collect()
}

/// The fragment by which a heading is linked.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || *c == ' ' || *c == '-');
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// All sources but those of tests.
fn sources(folder: &Path) -> String {
    texts(folder, |path| !path.ends_with("tests.rs"))
}

/// All sources in one text; a string that is broken over lines is whole again.
fn texts(folder: &Path, is_meant: fn(&Path) -> bool) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &texts(&path, is_meant);
        } else if path.extension().is_some_and(|extension| extension == "rs") && is_meant(&path) {
            let mut lines = fs::read_to_string(path).unwrap();
            while let Some(at) = lines.find("\\\n") {
                let rest = lines[at + 2..].trim_start().to_owned();
                lines.truncate(at);
                lines += &rest;
            }
            text += &lines;
        }
    }
    text
}
