//! The settings of Istio's own agent, of both files together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use super::files;

/// Variables of a file.
type Variables = BTreeMap<String, String>;

/// The fate of one setting, for people.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Note {
    /// `KEY=value`.
    pub setting: String,
    /// True when this agent does as the setting says.
    pub taken: bool,
    /// The key that it became, or the difference without it.
    pub detail: String,
}

/// The variables that the start script of Istio's agent exports.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    values: Variables,
    /// Variables that only sidecar.env has.
    own: BTreeSet<String>,
}

/// The mark that the TPROXY mode of Istio's agent gives to packets, and the routing table that they go by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tproxy {
    /// ISTIO_INBOUND_TPROXY_MARK.
    pub mark: u32,
    /// ISTIO_INBOUND_TPROXY_ROUTE_TABLE.
    pub table: u32,
}

impl Settings {
    /// cluster.env is sourced last, so it wins.
    pub fn new(sidecar: Variables, cluster: Variables) -> Self {
        let own = sidecar
            .keys()
            .filter(|key| !cluster.contains_key(*key))
            .cloned()
            .collect();
        let mut values = sidecar;
        values.extend(cluster);
        Self { values, own }
    }

    /// A value that is set and not empty.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    pub(super) fn is_set(&self, key: &str) -> bool {
        self.values.contains_key(key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// True for a variable that cluster.env doesn't have.
    pub(super) fn is_only_in_sidecar_env(&self, key: &str) -> bool {
        self.own.contains(key)
    }

    /// `host:port` of istiod, where a setting names another one than mesh.yaml (istio-start.sh).
    pub(super) fn pilot_address(&self) -> Option<String> {
        let of_port = |port| format!("{}:{port}", self.istiod());
        let address = self.get("PILOT_ADDRESS").map(str::to_owned);
        address.or_else(|| self.get("ISTIO_PILOT_PORT").map(of_port))
    }

    /// The name of istiod that the start script makes up.
    pub(super) fn istiod(&self) -> String {
        let namespace = self.get("ISTIO_SYSTEM_NAMESPACE").unwrap_or("istio-system");
        format!("istiod.{namespace}.svc")
    }

    /// The folder of the certificates that Istio's agent gets, then that of those it is given.
    pub(super) fn certificate_folders(&self) -> [PathBuf; 2] {
        ["OUTPUT_CERTS", "PROV_CERT"].map(|key| files::absolute(self.get(key).unwrap_or(files::CERTIFICATES)))
    }

    /// True when netfilter was to be left to the operator.
    pub fn are_rules_the_operators(&self) -> bool {
        self.get("ISTIO_CUSTOM_IP_TABLES") == Some("true")
    }

    /// Interfaces that the rules of Istio's agent name outside its own chains.
    pub fn interfaces(&self) -> Vec<String> {
        ["ISTIO_EXCLUDE_INTERFACES", "KUBE_VIRT_INTERFACES"]
            .into_iter()
            .filter_map(|key| self.get(key))
            .flat_map(|list| list.split(','))
            .map(|name| name.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    }

    /// Mark and table of the TPROXY mode; also when that mode is no longer set, for nothing takes its routes away.
    pub fn tproxy(&self) -> Tproxy {
        let number = |key, default| self.get(key).and_then(|value| value.parse().ok()).unwrap_or(default);
        Tproxy {
            mark: number("ISTIO_INBOUND_TPROXY_MARK", 1337),
            table: number("ISTIO_INBOUND_TPROXY_ROUTE_TABLE", 133),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(sidecar: &[(&str, &str)], cluster: &[(&str, &str)]) -> Settings {
        let variables = |list: &[(&str, &str)]| list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        Settings::new(variables(sidecar), variables(cluster))
    }

    #[test]
    fn cluster_env_wins_and_an_empty_value_is_none() {
        let both = settings(&[("A", "1"), ("B", "2"), ("C", "")], &[("A", "3")]);
        assert_eq!(
            (both.get("A"), both.get("B"), both.get("C")),
            (Some("3"), Some("2"), None)
        );
        assert!(both.is_only_in_sidecar_env("B") && !both.is_only_in_sidecar_env("A") && both.is_set("C"));
    }

    #[test]
    fn istiod_is_where_the_start_script_looks() {
        assert_eq!(settings(&[], &[]).pilot_address(), None);
        let port = settings(
            &[("ISTIO_PILOT_PORT", "15012"), ("ISTIO_SYSTEM_NAMESPACE", "mesh")],
            &[],
        );
        assert_eq!(port.pilot_address().as_deref(), Some("istiod.mesh.svc:15012"));
        let both = settings(&[("ISTIO_PILOT_PORT", "1"), ("PILOT_ADDRESS", "a:2")], &[]);
        assert_eq!(both.pilot_address().as_deref(), Some("a:2"));
    }

    #[test]
    fn paths_are_those_of_a_unit_in_the_root_directory() {
        let folders = settings(&[("PROV_CERT", "./var/run/secrets/istio")], &[]).certificate_folders();
        assert_eq!(
            folders,
            [PathBuf::from("/etc/certs"), PathBuf::from("/var/run/secrets/istio")]
        );
    }
}
