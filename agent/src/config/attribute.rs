//! Names of the attributes of an instance's metadata that configure the agent.

/// Prefix of the names of all attributes of ours.
pub(super) const PREFIX: &str = "istio-vm-agent-";
/// The text of a configuration file.
pub(super) const WHOLE: &str = "istio-vm-agent-config";
/// `projects/P/locations/L/clusters/C`; or C alone, of the instance's project.
pub(super) const CLUSTER: &str = "istio-vm-agent-cluster";
/// Region or zone of the cluster, when CLUSTER is a name alone; absent: the instance's region.
pub(super) const LOCATION: &str = "istio-vm-agent-location";
pub(super) const NAMESPACE: &str = "istio-vm-agent-namespace";
pub(super) const WORKLOAD_GROUP: &str = "istio-vm-agent-workload-group";
/// The value of `join.gke.endpoint`; may be absent.
pub(super) const ENDPOINT: &str = "istio-vm-agent-endpoint";
/// The attributes of one value each.
pub(super) const SINGLE: [&str; 5] = [CLUSTER, LOCATION, NAMESPACE, WORKLOAD_GROUP, ENDPOINT];

/// The attribute in which `key` of `join.gke` is written, if it has one of its own.
pub(super) fn attribute_of(key: &str) -> Option<&'static str> {
    let name = format!("{PREFIX}{}", key.replace('_', "-"));
    SINGLE.into_iter().find(|attribute| *attribute == name)
}
