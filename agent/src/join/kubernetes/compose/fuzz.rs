//! What holds of the documents that are made of a cluster's objects, whatever these say.

use super::mesh_config::duration as durations;
use super::{Objects, documents};
use crate::config::Keys;
use crate::join::kubernetes::group_ref::{GroupRef, Ingress};
use crate::join::kubernetes::objects::Service;
use crate::join::{cluster_env, mesh_yaml};

/// A duration in the mesh's configuration, as Go writes it.
pub(crate) fn duration(text: &str) {
    if let Some(canonical) = durations::canonical(text) {
        assert_eq!(
            durations::canonical(&canonical),
            Some(canonical.clone()),
            "a canonical form is its own"
        );
    }
}

/// A WorkloadGroup, the mesh's ConfigMap, that of its roots, and the ingress's Service, in JSON.
pub(crate) fn objects(input: &str) {
    let mut parts = input.split('\0');
    let mut next = || parts.next().unwrap_or_default();
    let (group, mesh, roots, service) = (next(), next(), next(), next());
    if let Ok(service) = serde_json::from_str::<Service>(service) {
        assert!(service.outside().len() <= input.len());
    }
    let (Ok(workload_group), Ok(mesh), Ok(roots)) = (
        serde_json::from_str(group),
        serde_json::from_str(mesh),
        serde_json::from_str(roots),
    ) else {
        return;
    };
    let objects = Objects {
        workload_group,
        mesh,
        roots,
        ingress: vec![[203, 0, 113, 7].into()],
    };
    let group_ref = GroupRef {
        namespace: "shop".to_owned(),
        workload_group: "productcatalog".to_owned(),
        cluster_id: "Kubernetes".to_owned(),
        revision: String::new(),
        istio_namespace: "istio-system".to_owned(),
        ingress: Ingress::Given(String::new()),
        auto_register: true,
        dns_capture: true,
        keys: Keys::Kubernetes,
    };
    if let Ok(made) = documents(&objects, &group_ref) {
        assert!(
            cluster_env::parse(&made.cluster_env.text).is_ok(),
            "{}",
            made.cluster_env.text
        );
        // YAML takes no key of more than 1024 characters, and there is none.
        let is_long = made.mesh_yaml.text.lines().any(|line| line.len() > 1024);
        assert!(is_long || mesh_yaml::parse(&made.mesh_yaml.text).is_ok());
    }
}
