//! Takes away what a network leaves: its processes, containers, namespaces and files, found by its name alone.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::{PATIENCE, cgroup, eventually};

/// Begins the name of everything that the harness makes outside target/.
pub(crate) const PREFIX: &str = "e2e-";

/// Once per run: removes what runs that were killed have left.
pub(crate) fn leftovers_once() -> Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    DONE.get_or_init(|| {
        let namespaces = names_in("/run/netns");
        let folders = names_in(&std::env::temp_dir().to_string_lossy());
        let mut ids: Vec<String> = namespaces.chain(folders).filter_map(|name| dead_owner(&name)).collect();
        ids.sort();
        ids.dedup();
        for id in ids {
            remove(&id);
            let _ = fs::remove_dir_all(std::env::temp_dir().join(id));
        }
    });
    Ok(())
}

/// The network's id, when the run that made it is gone.
fn dead_owner(name: &str) -> Option<String> {
    let mut parts = name.strip_prefix(PREFIX)?.split('-');
    let (pid, number) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse::<u32>().ok()?);
    (!Path::new(&format!("/proc/{pid}")).exists()).then(|| format!("{PREFIX}{pid}-{number}"))
}

/// Removes all that belongs to the network `id`, but its folder.
pub(crate) fn remove(id: &str) {
    let namespaces: Vec<String> = names_in("/run/netns")
        .filter(|name| name.strip_prefix(id).is_some_and(|rest| rest.starts_with('-')))
        .collect();
    let emptied = eventually(format!("the end of what runs in {id}"), PATIENCE, || {
        let pids: Vec<i32> = namespaces
            .iter()
            .flat_map(|ns| pids_in(ns))
            .chain(pids_below(id))
            .collect();
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        ensure!(pids.is_empty(), "{pids:?} are left");
        Ok(())
    });
    if let Err(error) = emptied {
        tracing::warn!("{error:#}");
    }
    for namespace in namespaces {
        let _ = Command::new("ip").args(["netns", "del", &namespace]).status();
        let _ = fs::remove_dir_all(Path::new("/etc/netns").join(namespace));
    }
    cgroup::remove(id);
}

fn names_in(folder: &str) -> impl Iterator<Item = String> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
}

pub(crate) fn pids_in(namespace: &str) -> Vec<i32> {
    Command::new("ip")
        .args(["netns", "pids", namespace])
        .stderr(Stdio::null())
        .output()
        .map_or_else(
            |_| Vec::new(),
            |output| {
                String::from_utf8_lossy(&output.stdout)
                    .lines()
                    .filter_map(|line| line.parse().ok())
                    .collect()
            },
        )
}

/// Containers and booted VMs have namespaces of their own; they are known by the control group that they were put in.
fn pids_below(id: &str) -> Vec<i32> {
    names_in("/proc")
        .filter_map(|name| name.parse().ok())
        .filter(|pid| cgroup::has(id, *pid))
        .collect()
}
