//! What the documents quote is in the sources.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads the sources, and fails by panicking"
)]

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

/// Every `make` target and every file of the repository that a document names is there.
#[test]
fn documents_name_only_files_and_targets_that_exist() {
    let root = manifest().join("..");
    let makefile = fs::read_to_string(root.join("Makefile")).unwrap();
    for document in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
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
        }
    }
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

fn manifest() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// All sources in one text; a string that is broken over lines is whole again.
fn sources(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            text += &sources(&path);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
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
