//! Properties of the bundle that is made of a cluster's objects, whatever these say.

use super::{Objects, bundle};
use crate::config::KeyOrigin;
use crate::facts::duration as durations;
use crate::join::kubernetes::group_ref::{GroupRef, Ingress};
use crate::kube::Service;

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
        cluster_domain: "cluster.local".to_owned(),
        ingress: Ingress::Given(String::new()),
        auto_register: true,
        dns_capture: true,
        keys: KeyOrigin::Kubernetes,
    };
    if let Ok(made) = bundle(&objects, &group_ref) {
        let in_a_shell = |(key, value): (&String, &String)| !key.contains(['=', ' ', '\n']) && !value.contains('\0');
        assert!(made.env.iter().all(in_a_shell), "{:?}", made.env);
        assert!(!made.proxy_config.0.values().any(serde_json::Value::is_null));
    }
}
