use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

const CA: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

pub(crate) fn cluster(more: Value) -> Cluster {
    let mut cluster = json!({
        "name": "boutique",
        "status": "RUNNING",
        "masterAuth": {"clusterCaCertificate": STANDARD.encode(CA)},
    });
    for (key, value) in more.as_object().unwrap() {
        cluster[key] = value.clone();
    }
    Cluster::parse(&cluster.to_string()).unwrap()
}

fn servers(cluster: &Cluster) -> Vec<String> {
    let endpoints = cluster.endpoints().unwrap();
    endpoints
        .into_iter()
        .map(|endpoint| format!("{} {}", endpoint.kind, endpoint.server))
        .collect()
}

#[test]
fn clusters_of_each_generation_have_their_endpoints() {
    let public = cluster(json!({"endpoint": "34.1.2.3"}));
    assert_eq!(servers(&public), ["public https://34.1.2.3"]);
    assert_eq!(public.endpoints().unwrap()[0].ca.as_deref(), Some(CA));

    let both = json!({"privateEndpoint": "10.0.0.2", "publicEndpoint": "34.1.2.3"});
    let both = cluster(json!({"endpoint": "34.1.2.3", "privateClusterConfig": both}));
    assert_eq!(servers(&both), ["private https://10.0.0.2", "public https://34.1.2.3"]);

    let private = json!({"enablePrivateEndpoint": true, "privateEndpoint": "10.0.0.2", "publicEndpoint": "34.1.2.3"});
    let private = cluster(json!({"endpoint": "10.0.0.2", "privateClusterConfig": private}));
    assert_eq!(servers(&private), ["private https://10.0.0.2"]);

    let now = json!({
        "dnsEndpointConfig": {"endpoint": "gke-1.europe-west1.gke.goog", "allowExternalTraffic": true},
        "ipEndpointsConfig": {
            "enabled": true,
            "enablePublicEndpoint": true,
            "publicEndpoint": "34.1.2.3",
            "privateEndpoint": "10.0.0.2",
        },
    });
    let now = cluster(json!({"endpoint": "34.1.2.3", "controlPlaneEndpointsConfig": now}));
    let all = [
        "private https://10.0.0.2",
        "public https://34.1.2.3",
        "DNS-based https://gke-1.europe-west1.gke.goog",
    ];
    assert_eq!(servers(&now), all);
    let dns = now.endpoints().unwrap();
    assert!(matches!(dns[2].trust("c"), Trust::System), "{dns:?}");

    let dns_only = json!({
        "dnsEndpointConfig": {"endpoint": "gke-1.europe-west1.gke.goog", "allowExternalTraffic": true},
        "ipEndpointsConfig": {"enabled": false, "privateEndpoint": "10.0.0.2"},
    });
    let dns_only = cluster(json!({"controlPlaneEndpointsConfig": dns_only}));
    assert_eq!(servers(&dns_only), &all[2..]);
}

#[test]
fn ca_that_is_none_is_named() {
    for ca in ["", "%", "AAAA"] {
        let cluster = cluster(json!({"endpoint": "1.2.3.4", "masterAuth": {"clusterCaCertificate": ca}}));
        let error = format!("{:#}", cluster.endpoints().unwrap_err());
        assert!(
            error.contains("masterAuth.clusterCaCertificate is no certificate"),
            "{error}"
        );
    }
}

proptest! {
    #[test]
    fn server_is_made_of_a_host_alone(host in r"[a-z0-9.:-]{1,20}|\PC*") {
        if let Some(url) = server(&host) {
            prop_assert!(!url[8..].contains(['/', '@', '?', '#', '\\', ' ']), "{url}");
        }
    }

    #[test]
    fn cluster_of_any_text_is_read_without_a_panic(text in r#"\{"status":"RUNNING","(endpoint|masterAuth)":("\PC*"|\{\})\}|\PC*"#) {
        if let Ok(cluster) = Cluster::parse(&text) {
            let _ = cluster.endpoints();
        }
    }
}
