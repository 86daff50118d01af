//! Names that a bundle may put into /etc/hosts, before the VM's resolver: those of the control plane inside the
//! cluster, which no resolver of the VM's knows, and what the operator's own configuration has. With any other one
//! whoever writes the bundle would redirect the VM's package mirror, its metadata server, or localhost.

use crate::config::Config;
use crate::facts::HostPort;

/// The end of a service's name in the cluster, after the namespace.
const SERVICE: &str = ".svc";

/// The names that one membership needs.
pub(super) struct Names {
    /// The operator's.
    configured: Vec<String>,
    /// The domain of the cluster's services.
    domain: String,
    /// The bundle's own addresses of istiod and its CA.
    control_plane: Vec<String>,
}

impl Names {
    /// `addresses`: `host:port` of the control plane, as the bundle has them.
    pub(super) fn new(config: &Config, addresses: &[&str]) -> Self {
        let hosts = |address: &str| HostPort::host_of(address).to_owned();
        let configured = config.control_plane.addresses.iter().map(|address| hosts(address));
        Self {
            domain: config.network.cluster_domain().to_owned(),
            configured: configured.chain(config.network.hosts_allow.iter().cloned()).collect(),
            control_plane: addresses.iter().map(|address| hosts(address)).collect(),
        }
    }

    pub(super) fn allows(&self, name: &str) -> bool {
        let is_in = |names: &[String]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        let is_control_plane = |service: &str| is_istiod(service) || is_in(&self.control_plane);
        is_in(&self.configured) || self.service(name).is_some_and(is_control_plane)
    }

    /// The first label of `<service>.<namespace>.svc`, with the cluster's domain or without.
    fn service<'n>(&self, name: &'n str) -> Option<&'n str> {
        let name = without_end(name, &format!(".{}", self.domain)).unwrap_or(name);
        let (service, namespace) = without_end(name, SERVICE)?.split_once('.')?;
        let is_label = |label: &str| !label.is_empty() && !label.contains('.');
        (is_label(service) && is_label(namespace)).then_some(service)
    }
}

/// `name` up to `end`, in whatever case that is.
fn without_end<'n>(name: &'n str, end: &str) -> Option<&'n str> {
    let (before, rest) = name.split_at_checked(name.len().checked_sub(end.len())?)?;
    rest.eq_ignore_ascii_case(end).then_some(before)
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
    fn cluster_s_domain_is_the_configuration_s() {
        let text = "[join]\ndirectory = { path = '/b' }\n[network]\ncluster_domain = 'corp.local'";
        let config = Config::parse(Path::new("c.toml"), text).unwrap();
        let names = Names::new(&config, &[]);
        assert!(names.allows("istiod.istio-system.svc.corp.local") && names.allows("istiod.istio-system.svc"));
        assert!(!names.allows("istiod.istio-system.svc.cluster.local"));
    }

    #[test]
    fn bundle_names_the_control_plane_and_nothing_else_of_the_vm_s_world() {
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
