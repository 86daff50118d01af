//! systemd: its word on a unit, and its help where a process may not do something itself.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::unistd::geteuid;
use rustix::thread::{CapabilitySet, capabilities};

use super::{CommandError, Host, Invocation};

/// Where programs of root's are.
const PROGRAMS: [&str; 6] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
];

/// Properties of a command's own unit, which has the rights to netfilter and no other.
const NETFILTER: [&str; 11] = [
    "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW",
    // At shutdown the rules are taken out too.
    "DefaultDependencies=no",
    "LimitCORE=0",
    // systemd would note each start and end.
    "LogLevelMax=err",
    "MemoryMax=256M",
    "NoNewPrivileges=yes",
    "ProtectHome=yes",
    "ProtectSystem=strict",
    "RuntimeMaxSec=30s",
    "TasksMax=16",
    "UMask=0077",
];

impl Host {
    /// A property of a unit as `systemctl show` prints it, trimmed; of a unit that isn't there, what systemd takes for
    /// granted. Fails where no systemd runs. Blocks.
    pub fn unit_property(&self, unit: &str, name: &str) -> Result<String, CommandError> {
        let property = format!("--property={name}");
        let value = self.run(&Invocation::new(["systemctl", "show", &property, "--value", unit]))?;
        Ok(value.trim().to_owned())
    }

    /// Has systemd start a unit, and waits for no part of that. Blocks.
    pub fn start_unit(&self, unit: &str) -> Result<(), CommandError> {
        self.run(&Invocation::new(["systemctl", "start", "--no-block", unit]))
            .map(drop)
    }

    /// Tells whether systemd has a unit running; where no systemd runs, it hasn't. Blocks.
    pub fn is_unit_active(&self, unit: &str) -> bool {
        let state = self.unit_property(unit, "ActiveState");
        state.is_ok_and(|state| ["active", "activating", "reloading"].contains(&state.as_str()))
    }

    /// Has systemd stop a unit that runs, and waits for its end. Blocks.
    pub fn stop_unit(&self, unit: &str) -> Result<(), CommandError> {
        if self.is_unit_active(unit) {
            self.run(&Invocation::new(["systemctl", "stop", unit]))?;
        }
        Ok(())
    }

    /// Has systemd stop a unit, and waits for no part of that: it may be this process's own. Blocks.
    pub fn end_unit(&self, unit: &str) -> Result<(), CommandError> {
        self.run(&Invocation::new(["systemctl", "stop", "--no-block", unit]))
            .map(drop)
    }

    /// Has systemd send a signal to a process that is the main one of a service. Blocks.
    pub fn signal_unit_of(&self, pid: u32, signal: i32) -> Result<()> {
        let groups = self
            .control_groups(pid)
            .with_context(|| format!("failed to look for the unit of process {pid}"))?;
        let unit = unit_of(&groups).with_context(|| format!("process {pid} is of no service, and of another user"))?;
        ensure!(
            self.unit_property(unit, "MainPID")? == pid.to_string(),
            "process {pid} is not the main one of {unit}"
        );
        let signal = format!("--signal={signal}");
        self.run(&Invocation::new([
            "systemctl",
            "kill",
            "--kill-who=main",
            &signal,
            unit,
        ]))?;
        Ok(())
    }

    /// Runs a command that opens a raw socket to speak to netfilter: where root has no right to that, as in the agent's
    /// unit, in a unit of the command's own. Blocks.
    pub fn run_with_raw_sockets(&self, call: &Invocation) -> Result<String, CommandError> {
        let may = capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::NET_RAW));
        // One that isn't installed is told as such by a start of ours.
        if may || !geteuid().is_root() || !self.is_installed(call) {
            return self.run(call);
        }
        self.run(&in_a_unit(call))
    }

    fn is_installed(&self, call: &Invocation) -> bool {
        let program = call.argv.first().map_or("", String::as_str);
        let mut places = PROGRAMS.iter().map(|folder| Path::new(folder).join(program));
        places.any(|place| self.meta(&place).is_ok_and(|found| found.is_some()))
    }
}

/// The service in a process's control groups (cgroups(7)).
fn unit_of(groups: &str) -> Option<&str> {
    let mut names = groups.lines().filter_map(|group| group.rsplit('/').next());
    names.find(|name| name.ends_with(".service"))
}

/// Wraps a command to be run by systemd, which waits for it, hands through what it reads and says, and ends as it does.
fn in_a_unit(call: &Invocation) -> Invocation {
    let run = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"];
    let mut argv: Vec<String> = run.map(str::to_owned).into();
    argv.extend(NETFILTER.map(|property| format!("--property={property}")));
    argv.push("--".to_owned());
    argv.extend(call.argv.iter().cloned());
    Invocation { argv, ..call.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_is_told_from_other_groups() {
        let envoy = "0::/system.slice/system-envoy.slice/envoy@a.service\n";
        assert_eq!(unit_of(envoy), Some("envoy@a.service"));
        assert_eq!(
            unit_of("1:name=systemd:/system.slice/a.service\n0::/\n"),
            Some("a.service")
        );
        assert_eq!(unit_of("0::/user.slice/session-1.scope\n"), None);
        assert_eq!(unit_of(""), None);
    }

    #[test]
    fn command_in_a_unit_is_the_same_command() {
        let call = Invocation::new(["iptables-legacy-restore", "--noflush"]).with_stdin("*nat\n");
        let wrapped = in_a_unit(&call);
        assert!(
            wrapped
                .argv
                .contains(&"--property=CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW".to_owned())
        );
        assert!(
            wrapped
                .argv
                .ends_with(&["--".to_owned(), call.argv[0].clone(), call.argv[1].clone()])
        );
        assert_eq!(wrapped.stdin, call.stdin);
    }
}
