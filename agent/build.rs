//! Tells the program which commit it is built from: by the variable ISTIO_VM_AGENT_COMMIT of whoever packages it, else by
//! what `git archive` has put into the file COMMIT, else by git.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script has cargo's environment and no Host"
)]

use std::path::Path;
use std::process::Command;
use std::{env, fs};

const VARIABLE: &str = "ISTIO_VM_AGENT_COMMIT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    // With the sources, so that `-dirty` is as true as the program.
    for path in ["src", "proto", "build.rs", "Cargo.toml", "COMMIT"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let given = env::var(VARIABLE).ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(archived).or_else(described);
    println!("cargo::rustc-env={VARIABLE}={}", commit.as_deref().unwrap_or("unknown"));
}

/// The commit of an archive; a working copy has git's placeholder there.
fn archived() -> Option<String> {
    let text = fs::read_to_string("COMMIT").ok()?;
    let commit = text.trim();
    let is_commit = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_commit.then(|| commit.to_owned())
}

/// The commit of the working copy that these sources are in, and not of one around an unpacked archive.
fn described() -> Option<String> {
    let root = fs::canonicalize("..").ok()?;
    if fs::canonicalize(git(&["rev-parse", "--show-toplevel"])?).ok()? != root {
        return None;
    }
    for log in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", log])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["describe", "--always", "--exclude=*", "--abbrev=12", "--dirty"])
}

fn git(arguments: &[&str]) -> Option<String> {
    // Whoever owns the working copy builds it; and a build changes nothing in it.
    let output = Command::new("git")
        .args(["-c", "safe.directory=*"])
        .args(arguments)
        .env("GIT_OPTIONAL_LOCKS", "0")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
