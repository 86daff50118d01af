//! Names that a bundle may put into /etc/hosts, before the VM's resolver: those of the control plane inside the
//! cluster, which no resolver of the VM's knows, and what the operator's own configuration has. With any other one
//! whoever writes the bundle would redirect the VM's package mirror, its metadata server, or localhost.

use crate::config::Config;
use crate::facts::HostPort;

/// Ends of a service's name in the cluster, after the namespace.
const CLUSTER: [&str; 2] = [".svc", ".svc.cluster.local"];

/// The names that one membership needs.
pub(super) struct Names {
    /// The operator's.
    configured: Vec<String>,
    /// The bundle's own addresses of istiod and its CA.
    control_plane: Vec<String>,
}

impl Names {
    /// `addresses`: `host:port` of the control plane, as the bundle has them.
    pub(super) fn new(config: &Config, addresses: &[&str]) -> Self {
        let hosts = |address: &str| HostPort::host_of(address).to_owned();
        let configured = config.control_plane.addresses.iter().map(|address| hosts(address));
        Self {
            configured: configured.chain(config.network.hosts_allow.iter().cloned()).collect(),
            control_plane: addresses.iter().map(|address| hosts(address)).collect(),
        }
    }

    pub(super) fn allows(&self, name: &str) -> bool {
        let is_in = |names: &[String]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let is_control_plane = |service: &str| is_istiod(service) || is_in(&self.control_plane);
        is_in(&self.configured) || service(name).is_some_and(is_control_plane)
    }
}

/// The first label of `<service>.<namespace>.svc`, with the cluster's domain or without.
fn service(name: &str) -> Option<&str> {
    let inside = CLUSTER.into_iter().find_map(|end| {
        let start = name.len().checked_sub(end.len())?;
        let (inside, rest) = name.split_at_checked(start)?;
        rest.eq_ignore_ascii_case(end).then_some(inside)
    })?;
    let (service, namespace) = inside.split_once('.')?;
    let is_label = |label: &str| !label.is_empty() && !label.contains('.');
    (is_label(service) && is_label(namespace)).then_some(service)
}

/// Istio's own name for it, of whatever revision.
fn is_istiod(service: &str) -> bool {
    let service = service.to_ascii_lowercase();
    service == "istiod" || service.starts_with("istiod-")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_bundle_names_the_control_plane_and_nothing_else_of_the_vm_s_world() {
        let text = "[join]\ndirectory = { path = '/b' }\n[control_plane]\naddresses = ['istiod.example.com:15012']\n\
                    [network]\nhosts_allow = ['ca.example.com']";
        let config = Config::parse(Path::new("c.toml"), text).unwrap();
        let names = Names::new(
            &config,
            &["pilot.mesh.svc:15012", "deb.debian.org:15012", "localhost:15012"],
        );
        for name in [
            "istiod.istio-system.svc",
            "ISTIOD-1-31-0.mesh.svc.cluster.local",
            "pilot.mesh.svc",
            "istiod.example.com",
            "ca.example.com",
        ] {
            assert!(names.allows(name), "{name}");
        }
        for name in [
            "localhost",
            "metadata.google.internal",
            "deb.debian.org",
            "istiod",
            "istiod.svc",
            "istiod.a.b.svc",
            "istiod..svc",
            ".istiod.svc",
            "istiodx.a.svc",
            "istiod.istio-system.svc.",
            "istiod.istio-system.svc.evil.example",
            "cartservice.onlineboutique.svc",
            "é.svc",
            ".svc",
            "",
        ] {
            assert!(!names.allows(name), "{name}");
        }
    }
}
