//! The object, and the field in it, that each key of a composed bundle is from: nobody can open the bundle itself.

use std::collections::BTreeMap;

use super::super::group_ref::GroupRef;
use super::traffic::Traffic;
use super::{Objects, config_map, place};
use crate::facts::ProxyConfig;

/// Fields of the WorkloadGroup that a variable is from; empty: its name or namespace.
const OF_GROUP: [(&str, &str); 11] = [
    ("POD_NAMESPACE", ""),
    ("ISTIO_NAMESPACE", ""),
    ("ISTIO_SERVICE", ""),
    ("ISTIO_META_WORKLOAD_NAME", ""),
    ("CANONICAL_SERVICE", "spec.metadata.labels"),
    ("CANONICAL_REVISION", "spec.metadata.labels"),
    ("ISTIO_METAJSON_LABELS", "spec.metadata.labels"),
    ("SERVICE_ACCOUNT", "spec.template.serviceAccount"),
    ("ISTIO_META_NETWORK", "spec.template.network"),
    ("ISTIO_META_POD_PORTS", "spec.template.ports"),
    ("ISTIO_INBOUND_PORTS", "spec.template.ports"),
];
/// Keys of the configuration that a variable is from.
const OF_CONFIGURATION: [(&str, &str); 3] = [
    ("ISTIO_META_CLUSTER_ID", "cluster_id"),
    ("ISTIO_META_DNS_CAPTURE", "dns_capture"),
    ("ISTIO_META_AUTO_REGISTER_GROUP", "auto_register"),
];
/// Fields of the mesh that a variable is from.
const OF_MESH: [(&str, &str); 2] = [
    ("TRUST_DOMAIN", "trustDomain"),
    ("ISTIO_META_MESH_ID", "defaultConfig.meshId"),
];

/// The sources of one bundle.
pub(super) struct Sources {
    group: String,
    mesh: String,
    keys: BTreeMap<&'static str, String>,
    /// Sources of the fields of ProxyConfig.
    pub(super) fields: BTreeMap<String, String>,
}

impl Sources {
    pub(super) fn new(objects: &Objects, group_ref: &GroupRef) -> Self {
        let group = place(&objects.workload_group);
        let probe = (
            "defaultConfig.readinessProbe".to_owned(),
            format!("{group}: spec.probe"),
        );
        Self {
            group,
            mesh: config_map(&objects.mesh),
            keys: OF_CONFIGURATION
                .map(|(variable, key)| (variable, group_ref.keys.name(key)))
                .into(),
            fields: BTreeMap::from([probe]),
        }
    }

    /// Takes note that `fields` were written where their names after `place` lead.
    pub(super) fn are(&mut self, fields: &ProxyConfig, place: &str) {
        let names = fields.0.keys().map(|field| format!("defaultConfig.{field}"));
        let metadata = fields.metadata();
        let keys = metadata.keys().map(|key| format!("defaultConfig.proxyMetadata.{key}"));
        for key in names.chain(keys).filter(|key| key != "defaultConfig.readinessProbe") {
            let field = key.strip_prefix("defaultConfig.").unwrap_or(&key);
            self.fields.insert(key.clone(), format!("{place}{field}"));
        }
    }

    /// Where a key of `proxyMetadata` was written.
    pub(super) fn of_metadata(&self, key: &str) -> String {
        let written = self.fields.get(&format!("defaultConfig.proxyMetadata.{key}"));
        written.cloned().unwrap_or_else(|| self.group.clone())
    }

    /// The source of each variable.
    pub(super) fn variables(&self, env: &BTreeMap<String, String>, traffic: &Traffic) -> BTreeMap<String, String> {
        let source = |key: &String| Some((key.clone(), self.variable(key, traffic)?));
        env.keys().filter_map(source).collect()
    }

    fn variable(&self, key: &str, traffic: &Traffic) -> Option<String> {
        let named = |table: &[(&str, &str)]| {
            table
                .iter()
                .find(|(variable, _)| *variable == key)
                .map(|(_, field)| (*field).to_owned())
        };
        if let Some((_, annotation)) = traffic.0.get(key) {
            return Some(format!("{}: {annotation}", self.group));
        }
        if let Some(key) = self.keys.get(key) {
            return Some(key.clone());
        }
        if let Some(field) = named(&OF_MESH) {
            return Some(format!("{}: mesh: {field}", self.mesh));
        }
        let written = self.fields.get(&format!("defaultConfig.proxyMetadata.{key}"));
        match named(&OF_GROUP) {
            Some(field) if field.is_empty() => Some(self.group.clone()),
            Some(field) => Some(format!("{}: {field}", self.group)),
            None => written.cloned(),
        }
    }
}
