//! Istio's own name of the cluster, where istioctl finds it: in the values of the sidecar injector.

use serde_json::Value;

use crate::kube::ConfigMap;

/// Without the revision.
pub(super) const NAME: &str = "istio-sidecar-injector";
/// Key of the ConfigMap (istio/istioctl/pkg/workload).
const VALUES: &str = "values";
const CLUSTER_NAME: &str = "/global/multiCluster/clusterName";

/// `None` where the mesh was installed without one: then it is "Kubernetes".
pub(super) fn cluster_name(injector: &ConfigMap) -> Option<String> {
    let values: Value = serde_json::from_str(injector.data.get(VALUES)?).ok()?;
    let name = values.pointer(CLUSTER_NAME)?.as_str()?;
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_is_called_what_the_injector_s_values_call_it() {
        let named = |values: &str| {
            let object = serde_json::json!({"metadata": {}, "data": {"values": values}});
            cluster_name(&serde_json::from_value(object).unwrap())
        };
        let values = r#"{"global": {"multiCluster": {"clusterName": "cluster1"}}}"#;
        assert_eq!(named(values).as_deref(), Some("cluster1"));
        for values in ["", "{}", "[]", r#"{"global": {"multiCluster": {"clusterName": ""}}}"#] {
            assert_eq!(named(values), None, "{values}");
        }
    }
}
