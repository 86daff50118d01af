//! The ways to a cluster's API server that the configuration wants.

use anyhow::{Result, bail};

use crate::config::{GkeEndpoint, KeyOrigin};
use crate::google::cluster::{ApiEndpoint, Cluster};

/// All ways in of the kind `wanted`, the best first. An error says why there is none.
pub(super) fn wanted(cluster: &Cluster, wanted: GkeEndpoint, keys: KeyOrigin) -> Result<Vec<ApiEndpoint>> {
    check_status(cluster, keys)?;
    let open = cluster.endpoints()?;
    let kinds: Vec<String> = open.iter().map(|endpoint| endpoint.kind.to_string()).collect();
    let mut fitting = open;
    fitting.retain(|endpoint| wanted == GkeEndpoint::Auto || endpoint.kind == wanted);
    if fitting.is_empty() {
        let has = match kinds.is_empty() {
            true => "none".to_owned(),
            false => kinds.join(", "),
        };
        let remedy = match wanted {
            GkeEndpoint::Dns => " (open it by `gcloud container clusters update --enable-dns-access`)",
            _ => "",
        };
        bail!(
            "cluster {} has no {wanted} endpoint that is open, only: {has}{remedy}; set {}",
            cluster.name,
            keys.name("endpoint")
        );
    }
    Ok(fitting)
}

fn check_status(cluster: &Cluster, keys: KeyOrigin) -> Result<()> {
    let Cluster {
        name,
        status,
        status_message,
        ..
    } = cluster;
    let remedy = match status.as_str() {
        // An upgrade, and a part that wants care: the API server answers.
        "RUNNING" | "RECONCILING" | "DEGRADED" => return Ok(()),
        "PROVISIONING" => "it is being made; this VM joins when it is there".to_owned(),
        "STOPPING" => format!("it is being deleted: name another one in {}", keys.name("cluster")),
        _ => "look at it with `gcloud container clusters describe`".to_owned(),
    };
    let why = if status_message.is_empty() { "" } else { ": " };
    bail!("cluster {name} is {status}{why}{status_message}: {remedy}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::google::cluster::tests::cluster;
    use serde_json::json;

    fn error(cluster: &Cluster, kind: GkeEndpoint) -> String {
        wanted(cluster, kind, KeyOrigin::Gke).unwrap_err().to_string()
    }

    #[test]
    fn endpoints_of_another_kind_than_is_wanted_are_left_out() {
        let both = json!({"privateEndpoint": "10.0.0.2", "publicEndpoint": "34.1.2.3"});
        let both = cluster(json!({"endpoint": "34.1.2.3", "privateClusterConfig": both}));
        let servers = |kind| {
            let endpoints = wanted(&both, kind, KeyOrigin::Gke).unwrap();
            endpoints
                .into_iter()
                .map(|endpoint| endpoint.server)
                .collect::<Vec<_>>()
        };
        assert_eq!(servers(GkeEndpoint::Auto), ["https://10.0.0.2", "https://34.1.2.3"]);
        assert_eq!(servers(GkeEndpoint::Public), ["https://34.1.2.3"]);
    }

    #[test]
    fn endpoint_that_is_not_there_is_told_with_those_that_are() {
        let closed = json!({"dnsEndpointConfig": {"endpoint": "gke-1.europe-west1.gke.goog"}});
        let cluster = cluster(json!({"endpoint": "34.1.2.3", "controlPlaneEndpointsConfig": closed}));
        let error = error(&cluster, GkeEndpoint::Dns);
        assert!(
            error.starts_with("cluster boutique has no DNS-based endpoint that is open, only: public"),
            "{error}"
        );
        assert!(error.contains("--enable-dns-access"), "{error}");
    }

    #[test]
    fn cluster_that_does_not_run_is_told_as_what_it_is() {
        for status in ["RECONCILING", "DEGRADED"] {
            let cluster = cluster(json!({"endpoint": "1.2.3.4", "status": status}));
            wanted(&cluster, GkeEndpoint::Auto, KeyOrigin::Gke).unwrap();
        }
        for (status, expected) in [
            ("PROVISIONING", "is PROVISIONING: quota: it is being made"),
            ("STOPPING", "is STOPPING: quota: it is being deleted"),
            ("ERROR", "is ERROR: quota: look at it"),
        ] {
            let cluster = cluster(json!({"endpoint": "1.2.3.4", "status": status, "statusMessage": "quota"}));
            let error = error(&cluster, GkeEndpoint::Auto);
            assert!(error.contains(expected), "{error}");
        }
    }
}
