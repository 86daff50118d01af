//! Every file and socket of the agent, by name.

use std::path::PathBuf;

use super::PathsConfig;

impl PathsConfig {
    /// Key, chain and roots as one document, 0600.
    pub fn identity(&self) -> PathBuf {
        self.state.join("identity.json")
    }

    /// File of what the join source gave last, tokens aside, 0600.
    pub fn membership(&self) -> PathBuf {
        self.state.join("membership.json")
    }

    /// When the newest bundle that was accepted was signed, 0600.
    pub fn newest_signature(&self) -> PathBuf {
        self.state.join("newest-signature.json")
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

    /// The lines of /etc/hosts, for the unit that writes them there.
    pub fn hosts(&self) -> PathBuf {
        self.run.join("hosts")
    }

    /// SDS for Envoy.
    pub fn sds_socket(&self) -> PathBuf {
        self.run.join("sds.sock")
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
    pub fn container_endpoints(&self) -> PathBuf {
        self.endpoints().join("container.json")
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
