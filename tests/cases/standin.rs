//! The stand-in itself: what it serves is what a real Envoy accepts.

use anyhow::{Result, ensure};
use e2e::bundle;
use e2e::envoy::Envoy;
use e2e::istiod::Istiod;
use e2e::network::{Host, Network};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;
use serde_json::json;

use crate::told;

pub(crate) fn trials() -> Vec<Trial> {
    let forms = ["DELTA_GRPC", "GRPC"];
    forms
        .into_iter()
        .map(|form| {
            Trial::test(
                format!("stand-in istiod: Envoy accepts what it serves over {form}"),
                move || told(accepts(form)),
            )
        })
        .collect()
}

fn accepts(form: &str) -> Result<()> {
    let network = Network::new()?;
    let istiod = Istiod::start(&network)?;
    let mut envoy = Envoy::start(&network, Host::Vm, bootstrap(&istiod, form)?)?;
    eventually("all of it to be accepted", PATIENCE, || {
        for kind in ["Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"] {
            ensure!(istiod.state().accepted(kind) > 0, "no {kind} yet\n{}", envoy.output());
        }
        Ok(())
    })?;
    envoy.wait_until_live(&network)?;
    let refused = istiod.state().refused();
    ensure!(refused.is_empty(), "Envoy refused {refused:?}");
    let entries = istiod.state().entries();
    ensure!(
        entries.contains_key("productcatalog-10.200.0.3"),
        "registered is {entries:?}"
    );

    istiod.state().set_istio_filters(true);
    eventually("the refusal of Istio's filters", PATIENCE, || {
        let refused = istiod.state().refused();
        ensure!(
            refused
                .iter()
                .any(|refusal| refusal.message.contains("istio.metadata_exchange")),
            "{refused:?}"
        );
        Ok(())
    })
}

/// Envoy without an agent: straight to the stand-in, with a certificate.
fn bootstrap(istiod: &Istiod, form: &str) -> Result<serde_json::Value> {
    let clusters = e2e::envoy::straight_to_istiod(istiod.state(), bundle::SPIFFE_ID)?;
    let source = json!({"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"});
    Ok(json!({
        "node": {
            "id": "sidecar~10.200.0.3~vm.onlineboutique~onlineboutique.svc.cluster.local",
            "cluster": "productcatalog.onlineboutique",
            "metadata": {
                "NAMESPACE": "onlineboutique",
                "SERVICE_ACCOUNT": "productcatalog",
                "INSTANCE_IPS": "10.200.0.3,fd00:200::3",
                "AUTO_REGISTER_GROUP": "productcatalog",
                "NETWORK": "",
            },
        },
        "dynamic_resources": {
            "lds_config": source,
            "cds_config": source,
            "ads_config": {
                "api_type": form,
                "set_node_on_first_message_only": true,
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": {"clusters": clusters},
    }))
}
