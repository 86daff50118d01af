//! The rules of ARCHITECTURE.md that a compiler doesn't check.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test reads the sources, and fails by panicking"
)]

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/subjects.rs"]
mod subjects;

use std::fs;
use std::path::{Path, PathBuf};

/// The composition root and what is above it.
const ROOTS: [&str; 6] = ["app", "cli", "fuzz", "lib", "main", "telemetry"];
const LAYERS: [&str; 14] = [
    "bounds",
    "config",
    "control_plane",
    "docker",
    "facts",
    "google",
    "host",
    "kube",
    "oci",
    "part",
    "probing",
    "supervise",
    "terminal",
    "web",
];
/// Production lines of one file.
const LONGEST: usize = 500;

#[test]
fn features_never_name_each_other() {
    for file in sources() {
        let owner = owner(&file);
        if !is_feature(&owner) {
            continue;
        }
        for named in crates_own_modules(&file) {
            let wrong = is_feature(&named) && named != owner;
            assert!(
                !wrong,
                "{}: {owner} names {named}; let app connect them by a fact",
                file.display()
            );
        }
    }
}

#[test]
fn layers_never_name_a_feature() {
    for file in sources() {
        if !LAYERS.contains(&owner(&file).as_str()) {
            continue;
        }
        for named in crates_own_modules(&file) {
            assert!(
                LAYERS.contains(&named.as_str()),
                "{}: a layer names {named}",
                file.display()
            );
        }
    }
}

#[test]
fn no_file_is_too_long() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let beside = ["ctl/src", "proto/src"].map(|beside| sources_below(folder.join(beside)));
    let written = |file: &PathBuf| !file.iter().any(|part| part == "generated");
    for file in sources().into_iter().chain(beside.concat()).filter(written) {
        let text = fs::read_to_string(&file).unwrap();
        let production = text
            .split("\n#[cfg(test)]\nmod tests {")
            .next()
            .unwrap_or_default()
            .lines()
            .count();
        assert!(production <= LONGEST, "{}: {production} lines", file.display());
    }
}

/// A feature is a top-level module that is neither a layer nor above the features.
fn is_feature(module: &str) -> bool {
    !LAYERS.contains(&module) && !ROOTS.contains(&module) && root().join(format!("{module}.rs")).exists()
}

/// The top-level module that a file belongs to.
fn owner(file: &Path) -> String {
    let below = file.strip_prefix(root()).unwrap();
    let first = below
        .components()
        .next()
        .unwrap()
        .as_os_str()
        .to_string_lossy()
        .into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// Every `crate::x` of a file, the braces of `use crate::{x, y}` included.
fn crates_own_modules(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    let mut named = Vec::new();
    for (_, after) in text
        .match_indices("crate::")
        .map(|(at, found)| (at, &text[at + found.len()..]))
    {
        let word = |part: &str| {
            part.trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        };
        match after.strip_prefix('{').and_then(|list| list.split_once("};")) {
            Some((list, _)) => named.extend(list.split(',').map(word)),
            None => named.push(word(after)),
        }
    }
    named.retain(|name| !name.is_empty());
    named
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources() -> Vec<PathBuf> {
    let files = sources_below(root());
    assert!(files.len() > 30, "the sources are not where this test looks");
    files
}

fn sources_below(folder: PathBuf) -> Vec<PathBuf> {
    let mut folders = vec![folder];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => folders.push(path),
                Some(extension) if extension == "rs" => files.push(path),
                _ => {}
            }
        }
    }
    files
}
