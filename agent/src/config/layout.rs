//! Every file and socket of the agent, by name.

use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Checks;

/// The longest path of a unix socket, in bytes (unix(7): `sun_path` has 108, one of them a NUL).
pub(super) const LONGEST_SOCKET: usize = 107;

/// Directories of the system (hier(7)), which are not to be one program's own.
const SYSTEM: [&str; 30] = [
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib32",
    "/lib64",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/run/lock",
    "/run/systemd",
    "/run/user",
    "/sbin",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/local",
    "/var",
    "/var/cache",
    "/var/lib",
    "/var/log",
    "/var/run",
    "/var/spool",
    "/var/tmp",
];

/// `[paths]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PathsConfig {
    /// Directory of what outlives a reboot: key, certificate.
    pub state: PathBuf,
    /// Directory of what doesn't: sockets, Envoy's bootstrap and pid.
    pub run: PathBuf,
}

impl Default for PathsConfig {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/var/lib/istio-vm-agent"),
            run: PathBuf::from("/run/istio-vm-agent"),
        }
    }
}

/// Checks that a unix socket can have this path.
pub(super) fn check_socket(key: &str, path: &Path) -> Result<(), String> {
    super::absolute(key, path)?;
    let length = path.as_os_str().len();
    match length > LONGEST_SOCKET {
        true => Err(format!(
            "{key}: the socket {} has a path of {length} bytes, at most {LONGEST_SOCKET} are allowed: take a shorter one",
            path.display()
        )),
        false => Ok(()),
    }
}

impl PathsConfig {
    pub(super) fn checks(&self) -> Checks {
        let mut checks = vec![
            Self::check_own("paths.state", &self.state),
            Self::check_own("paths.run", &self.run),
        ];
        if self.state.starts_with(&self.run) || self.run.starts_with(&self.state) {
            checks.push(Err(format!(
                "paths.run = {:?}: paths.state is {:?}, and neither may be in the other: what is in the one outlives a \
                 reboot, and what is in the other doesn't",
                self.run, self.state
            )));
        }
        if self.run.is_absolute() {
            checks.push(check_socket("paths.run", &self.admin_socket_aside()));
        }
        checks
    }

    fn check_own(key: &str, path: &Path) -> Result<(), String> {
        super::absolute(key, path)?;
        let is_up = path.components().any(|part| part == Component::ParentDir);
        let is_of_the_kernel = ["/dev", "/proc", "/sys"].iter().any(|system| path.starts_with(system));
        match is_up
            || is_of_the_kernel
            || path.parent().is_none()
            || SYSTEM.iter().any(|system| path == Path::new(system))
        {
            true => Err(format!(
                "{key} = {path:?}: must be a directory of the agent's own, such as {:?}",
                Self::example(key)
            )),
            false => Ok(()),
        }
    }

    fn example(key: &str) -> PathBuf {
        let Self { state, run } = Self::default();
        if key == "paths.run" { run } else { state }
    }

    /// Key, chain and roots as one document, 0600.
    pub fn identity(&self) -> PathBuf {
        self.state.join("identity.json")
    }

    /// File of what the join source gave last, tokens aside, 0600.
    pub fn membership(&self) -> PathBuf {
        self.state.join("membership.json")
    }

    /// The configuration that Envoy accepted last, for a start without a control plane, 0600.
    pub fn xds_snapshot(&self) -> PathBuf {
        self.state.join("xds.snapshot")
    }

    /// When the newest bundle that was accepted was signed, 0600.
    pub fn newest_signature(&self) -> PathBuf {
        self.state.join("newest-signature.json")
    }

    /// Record of an upgrade of the package that is on trial, or was taken back, 0600.
    pub fn upgrade(&self) -> PathBuf {
        self.state.join("upgrade.json")
    }

    /// File of what was captured of calls to this VM, for the guard of the next boot, 0600.
    pub fn inbound(&self) -> PathBuf {
        self.state.join("inbound.json")
    }

    /// Envoys that the agent fetched, each in a directory named by what pins it.
    pub fn envoys(&self) -> PathBuf {
        self.state.join("envoy")
    }

    /// File of what a switch from Istio's own agent took away, 0600.
    pub fn sidecar_backup(&self) -> PathBuf {
        self.state.join("istio-sidecar.json")
    }

    /// Held by the running agent.
    pub fn lock(&self) -> PathBuf {
        self.run.join("lock")
    }

    /// xDS for Envoy.
    pub fn xds_socket(&self) -> PathBuf {
        self.run.join("xds.sock")
    }

    /// The last good name table, for the agent after a crash.
    pub fn names(&self) -> PathBuf {
        self.run.join("names.json")
    }

    /// Who Envoy said that it is, for the agent after a crash.
    pub fn node(&self) -> PathBuf {
        self.run.join("node")
    }

    /// The applications that count for the VM's health, for the agent after a reload or a crash.
    pub fn counted(&self) -> PathBuf {
        self.run.join("counted.json")
    }

    /// The lines of /etc/hosts, for the unit that writes them there.
    pub fn hosts(&self) -> PathBuf {
        self.run.join("hosts")
    }

    /// SDS for Envoy.
    pub fn sds_socket(&self) -> PathBuf {
        self.run.join("sds.sock")
    }

    /// DNS sockets for the standby.
    pub fn dns_socket(&self) -> PathBuf {
        self.run.join("dns.sock")
    }

    /// Socket that tells what to say to istiod, for the standby that holds the VM's place in the mesh.
    pub fn place_socket(&self) -> PathBuf {
        self.run.join("place.sock")
    }

    /// `status` and other commands of root.
    pub fn status_socket(&self) -> PathBuf {
        self.run.join("status.sock")
    }

    /// Directory that only Envoy's user may write: its admin socket, and the FIFOs that are its stdout and stderr.
    pub fn envoy(&self) -> PathBuf {
        self.run.join("envoy")
    }

    /// Envoy's admin interface.
    pub fn admin_socket(&self) -> PathBuf {
        self.envoy().join("admin.sock")
    }

    /// The admin interface of an Envoy that another one takes over from.
    pub fn admin_socket_aside(&self) -> PathBuf {
        self.envoy().join("admin.old.sock")
    }

    /// Envoy's stdout, and so its access log.
    pub fn envoy_output(&self) -> PathBuf {
        self.envoy().join("output")
    }

    /// Envoy's stderr: its own log.
    pub fn envoy_errors(&self) -> PathBuf {
        self.envoy().join("errors")
    }

    /// Directory of what Envoy is to read and watch, and root alone writes.
    pub fn endpoints(&self) -> PathBuf {
        self.run.join("endpoints")
    }

    /// Where the container is, for Envoy, which is told of a change by its directory.
    pub fn container_endpoints(&self, workload: &str) -> PathBuf {
        self.endpoints().join(format!("{workload}.json"))
    }

    /// Directory that keeps the container's secrets from the VM's users; root's, 0700.
    pub fn secrets(&self) -> PathBuf {
        self.run.join("secrets")
    }

    /// Directory of the container's secrets as it has them: whoever is in the container may read them.
    pub fn container_secrets(&self, workload: &str) -> PathBuf {
        self.secrets().join(workload)
    }

    /// Envoy's bootstrap.
    pub fn bootstrap(&self) -> PathBuf {
        self.run.join("envoy.json")
    }

    /// Envoy's command line, for the unit that becomes it.
    pub fn envoy_command(&self) -> PathBuf {
        self.run.join("envoy.command.json")
    }

    /// Envoy's pid, start time and command line, for the agent that adopts it.
    pub fn envoy_record(&self) -> PathBuf {
        self.run.join("envoy.pid.json")
    }
}
