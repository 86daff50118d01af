//! Kubernetes objects to the bundle that `istioctl x workload entry configure` writes as files.
//!
//! Pure: asks nobody. What istioctl leaves out or fails on and still has one meaning gets that meaning: a
//! WorkloadGroup without metadata, a service account or a trust domain that is not named.

mod env;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod labels;
mod mesh_config;
mod sources;
mod traffic;

use std::net::IpAddr;

use serde_json::json;

use super::group_ref::GroupRef;
use crate::config::ConfigError;
use crate::facts::{HostEntry, HostPort, ProxyConfig};
use crate::join::bundle::{Bundle, Origins};
use crate::join::canonical;
use crate::join::origin::Origin;
use crate::join::values::flag;
use crate::kube::{ConfigMap, WorkloadGroup};
use mesh_config::MeshConfig;
use sources::Sources;
use traffic::Traffic;

/// Annotation with fields of ProxyConfig (istio.io/api, annotation/annotations.yaml).
const PROXY_CONFIG: &str = "proxy.istio.io/config";
/// Key of the mesh's ConfigMap (istio/istioctl/pkg/util).
const MESH_KEY: &str = "mesh";
/// Key of `istio-ca-root-cert` (istio/pkg/config/constants).
const ROOT_KEY: &str = "root-cert.pem";

/// All that the bundle is made of.
#[derive(Debug)]
pub(super) struct Objects {
    pub(super) workload_group: WorkloadGroup,
    pub(super) mesh: ConfigMap,
    pub(super) roots: ConfigMap,
    /// Addresses of istiod's ingress, in order of preference.
    pub(super) ingress: Vec<IpAddr>,
}

/// Makes the bundle; an error names the object, and the key in it.
pub(super) fn bundle(objects: &Objects, group_ref: &GroupRef) -> Result<Bundle, ConfigError> {
    let group = &objects.workload_group;
    let mut sources = Sources::new(objects, group_ref);
    let mesh = merged(objects, group_ref, &mut sources)?;
    let traffic = Traffic::of(group).map_err(|problem| wrong(place(group), problem))?;
    let all = format!("{} and {}", config_map(&objects.mesh), place(group));
    let env = env::settable(env::variables(group, &mesh, group_ref, &traffic));
    let origins = Origins {
        env: Origin::new(format!("cluster.env of {all}")).with_objects(sources.variables(&env, &traffic)),
        proxy_config: Origin::new(format!("mesh.yaml of {all}")).with_objects(sources.fields),
        roots: Origin::new(config_map(&objects.roots)),
        hosts: Origin::new("hosts of istiod's ingress"),
    };
    if let Some((key, _)) = env.iter().find(|(_, value)| value.contains('\0')) {
        return Err(origins.env.key_error(key, "has a NUL byte: remove it"));
    }
    Ok(Bundle {
        env,
        roots: root_cert(&objects.roots)?,
        hosts: hosts(&objects.ingress, &mesh, group_ref),
        proxy_config: mesh.proxy,
        token: None,
        unheeded: Vec::new(),
        signed: None,
        origins,
    })
}

/// The mesh's defaults for its proxies, with what the group and its workloads are annotated with, and what makes
/// this proxy a member of the group.
fn merged(objects: &Objects, group_ref: &GroupRef, sources: &mut Sources) -> Result<MeshConfig, ConfigError> {
    let group = &objects.workload_group;
    let wrong_mesh = |problem: &str| wrong(config_map(&objects.mesh), format!("{MESH_KEY}: {problem}"));
    let text = objects
        .mesh
        .data
        .get(MESH_KEY)
        .ok_or_else(|| wrong_mesh("is missing: the ConfigMap is not one of Istio's, or the revision is another"))?;
    let mut mesh = MeshConfig::parse(text).map_err(|error| wrong_mesh(&error.to_string()))?;
    sources.are(
        &mesh.proxy,
        &format!("{}: {MESH_KEY}: defaultConfig.", config_map(&objects.mesh)),
    );
    if let Some(address) = group_ref.revision_address() {
        let addresses = mesh.proxy.0.entry("discoveryAddress");
        addresses.or_insert_with(|| json!(address));
    }
    let annotations = [
        ("metadata", &group.metadata.annotations),
        ("spec.metadata", &group.spec.metadata.annotations),
    ];
    for (part, annotations) in annotations {
        if let Some(text) = annotations.get(PROXY_CONFIG) {
            let at = format!("{part}.annotations[{PROXY_CONFIG}]");
            let mut annotated = ProxyConfig::default();
            mesh_config::overlay(&mut annotated, text)
                .and_then(|()| mesh_config::overlay(&mut mesh.proxy, text))
                .map_err(|problem| wrong(place(group), format!("{at}: {problem}")))?;
            sources.are(&annotated, &format!("{}: {at}: ", place(group)));
        }
    }
    // The VM's own word takes its place, so nobody else would judge it.
    let capture = mesh.proxy.metadata().remove(env::DNS_CAPTURE).unwrap_or_default();
    flag(&capture).map_err(|problem| wrong(sources.of_metadata(env::DNS_CAPTURE), problem))?;
    canonical::set(&mut mesh.proxy, "readinessProbe", group.spec.probe.clone());
    let metadata = env::proxy_metadata(group, &mesh, group_ref);
    canonical::extend_metadata(&mut mesh.proxy, metadata);
    Ok(mesh)
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
fn hosts(ingress: &[IpAddr], mesh: &MeshConfig, group_ref: &GroupRef) -> Vec<HostEntry> {
    let mut names = vec![group_ref.istiod_host()];
    let address = mesh.proxy.str("discoveryAddress").unwrap_or_default();
    let host = HostPort::host_of(address);
    if is_inside(host, &group_ref.cluster_domain) && !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    let entry = |ip: &IpAddr| HostEntry {
        ip: *ip,
        names: names.clone(),
    };
    ingress.iter().map(entry).collect()
}

/// True for a name that only the cluster's own resolver knows.
fn is_inside(host: &str, domain: &str) -> bool {
    host.ends_with(".svc") || host.ends_with(&format!(".svc.{domain}"))
}

fn wrong(place: String, problem: String) -> ConfigError {
    ConfigError::about(place, problem)
}

fn place(group: &WorkloadGroup) -> String {
    let metadata = &group.metadata;
    format!("workloadgroup {}/{}", metadata.namespace, metadata.name)
}

fn config_map(object: &ConfigMap) -> String {
    format!("configmap {}/{}", object.metadata.namespace, object.metadata.name)
}

#[cfg(test)]
pub(in crate::join) mod tests;
