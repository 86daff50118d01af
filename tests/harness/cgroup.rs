//! The control groups of a network: one of its name in each hierarchy, for what has namespaces of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

/// Version 2 here; or each hierarchy of version 1 below, and version 2 beside them.
const MOUNTED: &str = "/sys/fs/cgroup";
/// Where a systemd keeps its units, by version.
const SYSTEMDS: [&str; 3] = [MOUNTED, "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd"];

/// A program that begins in the groups of `id`. Without them the services of all booted VMs would be in common ones,
/// and the systemd of one would remove the group of another's service, or wait for its processes.
pub(crate) fn command_within(id: &str, program: &str) -> Result<Command> {
    let mut command = Command::new("sh");
    let enter = r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done; shift; exec "$@""#;
    command.args(["-c", enter, "sh"]);
    let mounted = SYSTEMDS.iter().filter(|at| Path::new(at).join("cgroup.procs").exists());
    for group in mounted.map(|at| Path::new(at).join(id)) {
        fs::create_dir_all(&group).with_context(|| format!("failed to make {}", group.display()))?;
        command.arg(group);
    }
    command.args(["--", program]);
    Ok(command)
}

/// True when a process is in the groups of `id`, or below.
pub(crate) fn has(id: &str, pid: i32) -> bool {
    let is_its = |line: &str| line.split('/').any(|part| part == id);
    fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|text| text.lines().any(is_its))
}

/// Takes away the groups of `id`, which are empty.
pub(crate) fn remove(id: &str) {
    remove_all(Path::new(MOUNTED).join(id));
    for hierarchy in folders_in(Path::new(MOUNTED)) {
        remove_all(hierarchy.join(id));
    }
}

/// The files in them are the kernel's, and go with them.
fn remove_all(group: PathBuf) {
    for below in folders_in(&group) {
        remove_all(below);
    }
    let _ = fs::remove_dir(group);
}

fn folders_in(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}
