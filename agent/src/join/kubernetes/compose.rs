//! Kubernetes objects to the documents that `istioctl x workload entry configure` makes of them.
//!
//! Pure: asks nobody. What istioctl leaves out or fails on and still has one meaning gets that meaning: a
//! WorkloadGroup without metadata, a service account or a trust domain that is not named.

mod env;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod labels;
mod mesh_config;

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::group_ref::GroupRef;
use super::objects::{ConfigMap, WorkloadGroup};
use crate::config::ConfigError;
use crate::join::assemble::Documents;
use crate::join::document::Document;
use mesh_config::MeshConfig;

/// Annotation with fields of ProxyConfig (istio.io/api, annotation/annotations.yaml).
const PROXY_CONFIG: &str = "proxy.istio.io/config";
/// Key of the mesh's ConfigMap (istio/istioctl/pkg/util).
const MESH_KEY: &str = "mesh";
/// Key of `istio-ca-root-cert` (istio/pkg/config/constants).
const ROOT_KEY: &str = "root-cert.pem";

/// All that the documents are made of.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) workload_group: WorkloadGroup,
    pub(super) mesh: ConfigMap,
    pub(super) roots: ConfigMap,
    /// Addresses of istiod's ingress, in order of preference.
    pub(super) ingress: Vec<IpAddr>,
}

/// Makes the documents; an error names the object, and the key in it.
pub(super) fn documents(objects: &Objects, group_ref: &GroupRef) -> Result<Documents, ConfigError> {
    let group = &objects.workload_group;
    let mesh = mesh_config(objects, group_ref)?;
    let env = env::variables(group, &mesh, group_ref);
    let sources = format!("{} and {}", config_map(&objects.mesh), place(group));
    Ok(Documents {
        cluster_env: document(format!("cluster.env of {sources}"), env::text(&env)),
        mesh_yaml: document(format!("mesh.yaml of {sources}"), mesh_yaml(&mesh)),
        root_cert: document(config_map(&objects.roots), root_cert(&objects.roots)?),
        hosts: document(
            "hosts of istiod's ingress".to_owned(),
            hosts(&objects.ingress, &mesh, group_ref),
        ),
        token: None,
        signed: None,
    })
}

/// The mesh's defaults for its proxies, with what the group and its workloads are annotated with, and what makes
/// this proxy a member of the group.
fn mesh_config(objects: &Objects, group_ref: &GroupRef) -> Result<MeshConfig, ConfigError> {
    let group = &objects.workload_group;
    let wrong_mesh = |problem: String| wrong(config_map(&objects.mesh), format!("{MESH_KEY}: {problem}"));
    let text = objects.mesh.data.get(MESH_KEY).ok_or_else(|| {
        wrong_mesh("is missing: the ConfigMap is not one of Istio's, or the revision is another".to_owned())
    })?;
    let mut mesh = MeshConfig::parse(text).map_err(wrong_mesh)?;
    if let Some(address) = group_ref.revision_address() {
        mesh.proxy.set_default("discoveryAddress", json!(address));
    }
    let annotations = [
        ("metadata", &group.metadata.annotations),
        ("spec.metadata", &group.spec.metadata.annotations),
    ];
    for (part, annotations) in annotations {
        if let Some(text) = annotations.get(PROXY_CONFIG) {
            mesh.proxy
                .overlay(text)
                .map_err(|problem| wrong(place(group), format!("{part}.annotations[{PROXY_CONFIG}]: {problem}")))?;
        }
    }
    mesh.proxy.set("readinessProbe", group.spec.probe.clone());
    let metadata = env::proxy_metadata(group, &mesh, group_ref);
    mesh.proxy.extend_metadata(metadata);
    Ok(mesh)
}

/// JSON is YAML, but for some characters that stand in its strings as they are, and that YAML takes only when escaped
/// (YAML 1.2, 5.1).
fn mesh_yaml(mesh: &MeshConfig) -> String {
    let fields = Value::Object(mesh.proxy.fields().clone());
    let json = format!("{:#}\n", json!({ "defaultConfig": fields }));
    let mut yaml = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                yaml += &format!("\\u{:04x}", u32::from(c));
            }
            c => yaml.push(c),
        }
    }
    yaml
}

fn root_cert(roots: &ConfigMap) -> Result<String, ConfigError> {
    let text = roots.data.get(ROOT_KEY).filter(|text| !text.trim().is_empty());
    text.cloned().ok_or_else(|| {
        wrong(
            config_map(roots),
            format!("{ROOT_KEY}: is missing: istiod fills it in when it is up and serves this namespace"),
        )
    })
}

/// All addresses of the ingress, where istioctl takes the first; and for another name of istiod that the mesh's
/// configuration has, which no resolver outside the cluster knows either.
fn hosts(ingress: &[IpAddr], mesh: &MeshConfig, group_ref: &GroupRef) -> String {
    let mut names = vec![group_ref.istiod_host()];
    let address = mesh.proxy.text("discoveryAddress").unwrap_or_default();
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    if is_inside(host) && !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    let names = names.join(" ");
    ingress.iter().map(|ip| format!("{ip} {names}\n")).collect()
}

/// Whether only the cluster's own resolver knows a name.
fn is_inside(host: &str) -> bool {
    host.ends_with(".svc") || host.ends_with(".svc.cluster.local")
}

fn document(place: String, text: String) -> Document {
    Document {
        path: PathBuf::from(place),
        text,
    }
}

fn wrong(place: String, problem: String) -> ConfigError {
    ConfigError::new(place.as_ref(), problem)
}

fn place(group: &WorkloadGroup) -> String {
    let metadata = &group.metadata;
    format!("workloadgroup {}/{}", metadata.namespace, metadata.name)
}

fn config_map(object: &ConfigMap) -> String {
    format!("configmap {}/{}", object.metadata.namespace, object.metadata.name)
}

#[cfg(test)]
mod tests;
