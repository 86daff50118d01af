//! Probes by a command: status 0 is healthy.
//!
//! It runs with group istio-proxy: not as root, not as Envoy's user, whose sockets hand out the workload's key; and by its
//! group the rules let its connections pass. Its environment is a PATH, and in a unit what systemd tells every unit of itself.
//!
//! Under systemd it runs in a transient unit of its own, because the agent's may become no other user, and as a user of its own:
//! other programs are nobody's, and could end it. That unit ends with its time, with the command, or with the agent's, and
//! whatever the command started ends with it. Without systemd it runs as nobody.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, geteuid};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use crate::config::ports::PROXY_GID;

/// `nobody` on every Linux distribution.
const NOBODY: u32 = 65534;
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";
/// Characters of stderr in a reason.
const MAX_REASON: usize = 256;

/// The properties of a command's unit, apart from its time and the unit that it ends with.
const UNIT: [&str; 33] = [
    "KillSignal=SIGKILL",
    "DynamicUser=yes",
    // Whoever says what is run, a fork bomb or a leak in it ends there.
    "TasksMax=128",
    "MemoryMax=256M",
    "MemorySwapMax=0",
    "LimitCORE=0",
    // The metadata server's addresses on Google's machines: a probe has no use for the VM's cloud identity.
    "IPAddressDeny=169.254.169.254 fd20:ce::254",
    // systemd would note each start and end.
    "LogLevelMax=err",
    "UMask=0077",
    "CapabilityBoundingSet=",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "ProtectHome=yes",
    "PrivateTmp=yes",
    "PrivateDevices=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelTunables=yes",
    "ProtectProc=invisible",
    "LockPersonality=yes",
    "RemoveIPC=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "KeyringMode=private",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
    "SystemCallErrorNumber=EPERM",
];

/// Runs the command to its end, which is at `limit` at the latest: in a unit that ends with `unit`, or as a process of
/// ours. Dropped before that, it kills the command and all that it started.
pub(super) async fn run(command: &[String], limit: Duration, unit: Option<&str>) -> Result<()> {
    let mut group = Group(spawn(command, limit, unit)?);
    let mut said = Vec::new();
    let stderr = group.0.stderr.take();
    let status = {
        let mut buffer = [0; 1 << 10];
        let mut stderr = stderr.context("the command has no stderr")?;
        let mut open = true;
        loop {
            tokio::select! {
                // What it said before it ended is read before its end is noticed.
                biased;
                read = stderr.read(&mut buffer), if open => {
                    let read = read.unwrap_or_default();
                    open = read > 0;
                    said.extend(buffer[..read].iter().take(MAX_REASON.saturating_sub(said.len())));
                }
                status = group.0.wait() => break status.context("failed to wait for the command")?,
            }
        }
    };
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said);
    bail!("`{}` ended with {status}: {}", command.join(" "), said.trim())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a command with a deadline and without privileges, which Host::run is not for"
)]
fn spawn(command: &[String], limit: Duration, unit: Option<&str>) -> Result<Child> {
    let in_a_unit = unit.map(|unit| in_a_unit(command, limit, unit));
    let (program, arguments) = in_a_unit
        .as_deref()
        .unwrap_or(command)
        .split_first()
        .context("the command is empty")?;
    let mut process = Command::new(program);
    process
        .args(arguments)
        .env_clear()
        .env("PATH", PATH)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if geteuid().is_root() && unit.is_none() {
        // Supplementary groups go with the user.
        process.gid(PROXY_GID).uid(NOBODY);
    }
    process.spawn().with_context(|| format!("failed to run `{program}`"))
}

/// The command line that has systemd run `command`, waits for it, and ends with its status.
fn in_a_unit(command: &[String], limit: Duration, unit: &str) -> Vec<String> {
    let mut line: Vec<String> = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"]
        .map(str::to_owned)
        .into();
    line.extend([
        format!("--property=Group={PROXY_GID}"),
        format!("--property=RuntimeMaxSec={}ms", limit.as_millis()),
        // Not after it: a probe is part of the agent's start.
        format!("--property=BindsTo={unit}"),
        format!("--setenv=PATH={PATH}"),
    ]);
    line.extend(UNIT.map(|property| format!("--property={property}")));
    line.push("--".to_owned());
    // systemd replaces variables in command lines, and makes one dollar of two.
    line.extend(command.iter().map(|word| word.replace('$', "$$")));
    line
}

/// Under systemd the child only waits, and the unit's end is systemd's to see to: at the same time, or before.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // No id means that it ended and was waited for: its number may be another's by now.
        let leader = self.0.id().and_then(|id| id.try_into().ok());
        if let Some(leader) = leader.map(Pid::from_raw) {
            // It may have ended this moment.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_runs_the_command_as_it_is_and_not_for_longer() {
        let command = ["sh", "-c", "test ${x} = $$"].map(str::to_owned);
        let line = in_a_unit(&command, Duration::from_millis(1500), "agent.service");
        let (properties, command) = line.split_at(line.iter().position(|word| word == "--").unwrap());
        for wanted in [
            "DynamicUser=yes",
            "Group=1337",
            "RuntimeMaxSec=1500ms",
            "BindsTo=agent.service",
            "TasksMax=128",
            "MemoryMax=256M",
            "LimitCORE=0",
            "IPAddressDeny=169.254.169.254 fd20:ce::254",
        ] {
            assert!(
                properties.contains(&format!("--property={wanted}")),
                "{wanted}: {properties:?}"
            );
        }
        assert_eq!(command, ["--", "sh", "-c", "test $${x} = $$$$"]);
    }
}
