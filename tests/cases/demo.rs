//! `make demo` and `make playground`: the page works as it is printed, and nothing is left of either, however it ends.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use e2e::process::Process;
use e2e::{PATIENCE, eventually, programs};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::told;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        Trial::test("demo: its page brings the VM in, and out as it came", || told(page())),
        Trial::test("demo: the playground takes commands, and ends with its shell", || {
            told(playground())
        }),
        Trial::test("demo: a Ctrl-C leaves nothing", || told(interrupted())),
    ]
}

fn page() -> Result<()> {
    let logs = tempfile::tempdir()?;
    let mut demo = Process::spawn("demo", Command::new(programs::demo()?), logs.path())?;
    let status = demo.wait(3 * PATIENCE)?;
    let said = demo.output();
    ensure!(status.success(), "{said}");
    let of_the_vm = "URI=spiffe://cluster.local/ns/onlineboutique/sa/productcatalog";
    let of_the_pod = "URI=spiffe://cluster.local/ns/onlineboutique/sa/cartservice";
    for part in [
        of_the_vm,
        of_the_pod,
        "of the VM are as before",
        "Nothing is left behind.",
    ] {
        ensure!(said.contains(part), "{part:?} is not in\n{said}");
    }
    expect_nothing_of(demo.pid())
}

fn playground() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let script = folder.path().join("script");
    // The last one is what a shell leaves behind.
    fs::write(
        &script,
        "command -v istio-vm-agent\ncat /etc/hosts\nsleep 1000 &\nfalse\n",
    )?;
    let playground = Command::new(programs::demo()?)
        .arg("--playground")
        .stdin(fs::File::open(script)?)
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = playground.id();
    let output = playground.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "{said}");
    for part in [
        "istio-vm-agent up --yes --directory",
        "/usr/local/bin/istio-vm-agent",
        e2e::files::HOSTS,
    ] {
        ensure!(said.contains(part), "{part:?} is not in\n{said}");
    }
    expect_nothing_of(pid)
}

fn interrupted() -> Result<()> {
    let logs = tempfile::tempdir()?;
    let mut demo = Process::spawn("demo", Command::new(programs::demo()?), logs.path())?;
    // The agent, two Envoys and a shell run by then.
    eventually("the agent to be started", PATIENCE, || {
        demo.check_alive()?;
        let said = demo.output();
        ensure!(said.contains("\nistio-vm-agent run"), "{said}");
        Ok(())
    })?;
    let running = pids_of(demo.pid())?;
    ensure!(!running.is_empty(), "nothing runs in its namespaces");
    demo.signal(Signal::INT)?;
    let status = demo.wait(PATIENCE)?;
    ensure!(status.code() == Some(130), "{status}: {}", demo.output());
    for pid in running {
        // A container's first process may let ended ones lie.
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        ensure!(status.is_empty() || status.contains("State:\tZ"), "{status}");
    }
    expect_nothing_of(demo.pid())
}

/// Names of files that are named after the process that made them.
fn names_in(folder: &Path, pid: u32) -> Result<Vec<String>> {
    let prefix = format!("e2e-{pid}-");
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with(&prefix)).collect())
}

fn pids_of(demo: u32) -> Result<Vec<String>> {
    let mut pids = Vec::new();
    for namespace in names_in(Path::new("/run/netns"), demo)? {
        let output = Command::new("ip").args(["netns", "pids", &namespace]).output()?;
        pids.extend(String::from_utf8(output.stdout)?.lines().map(str::to_owned));
    }
    Ok(pids)
}

fn expect_nothing_of(demo: u32) -> Result<()> {
    for folder in [Path::new("/run/netns"), Path::new("/etc/netns"), &std::env::temp_dir()] {
        let left = names_in(folder, demo)?;
        ensure!(left.is_empty(), "{} has {left:?}", folder.display());
    }
    Ok(())
}
