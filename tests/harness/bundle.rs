//! Bundle as `istioctl x workload entry configure --autoregister` writes it for WorkloadGroup
//! onlineboutique/productcatalog, in the stand-in's mesh.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::istiod::{NAME, State, TokenClaims};
use crate::network::Host;

const LABELS: &str = r#"{"app":"productcatalogservice","service.istio.io/canonical-name":"productcatalogservice","service.istio.io/canonical-revision":"latest"}"#;
const PORTS: &str = r#"[{"name":"grpc","containerPort":3550,"protocol":""}]"#;

/// The service account of the VM.
pub const SPIFFE_ID: &str = "spiffe://cluster.local/ns/onlineboutique/sa/productcatalog";

/// The claims of the token in it.
pub fn claims() -> TokenClaims {
    TokenClaims::of_service_account("onlineboutique", "productcatalog")
}

/// Writes the five files. With `probe`: the WorkloadGroup has a gRPC probe of 3550, once a second.
pub fn write(folder: &Path, istiod: &State, claims: &TokenClaims, probe: bool) -> Result<()> {
    fs::create_dir_all(folder)?;
    let env = metadata()
        .map(|(key, value)| format!("{key}='{value}'\n"))
        .into_iter()
        .chain([
            "ISTIO_INBOUND_PORTS='3550'\n".to_owned(),
            "ISTIO_LOCAL_EXCLUDE_PORTS='22,15090,15021,15020'\n".to_owned(),
            "ISTIO_NAMESPACE='onlineboutique'\n".to_owned(),
            "ISTIO_SERVICE='productcatalog.onlineboutique'\n".to_owned(),
            "ISTIO_SERVICE_CIDR='*'\n".to_owned(),
        ]);
    let yaml = metadata().map(|(key, value)| format!("    {key}: '{value}'\n"));
    let mut mesh = format!(
        "defaultConfig:\n  discoveryAddress: {NAME}:15012\n  proxyMetadata:\n{}",
        yaml.concat()
    );
    if probe {
        mesh.push_str("  readinessProbe:\n    grpc:\n      port: 3550\n    periodSeconds: 1\n");
    }
    fs::write(folder.join("cluster.env"), env.collect::<String>())?;
    fs::write(folder.join("mesh.yaml"), mesh)?;
    fs::write(folder.join("root-cert.pem"), istiod.root_pem())?;
    fs::write(folder.join("hosts"), format!("{} {NAME}\n", Host::ControlPlane.ipv4()))?;
    fs::write(folder.join("istio-token"), istiod.tokens.issue(claims)?)?;
    Ok(())
}

fn metadata() -> [(&'static str, &'static str); 13] {
    [
        ("CANONICAL_REVISION", "latest"),
        ("CANONICAL_SERVICE", "productcatalogservice"),
        ("ISTIO_METAJSON_LABELS", LABELS),
        ("ISTIO_META_AUTO_REGISTER_GROUP", "productcatalog"),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes"),
        ("ISTIO_META_DNS_CAPTURE", "true"),
        ("ISTIO_META_MESH_ID", ""),
        ("ISTIO_META_NETWORK", ""),
        ("ISTIO_META_POD_PORTS", PORTS),
        ("ISTIO_META_WORKLOAD_NAME", "productcatalog"),
        ("POD_NAMESPACE", "onlineboutique"),
        ("SERVICE_ACCOUNT", "productcatalog"),
        ("TRUST_DOMAIN", "cluster.local"),
    ]
}
