//! The other end of a call: a pod of the mesh with its own Envoy, when the control plane is the stand-in.
//!
//! Its Envoy is static but for the endpoints of productcatalogservice, which istiod tells it: out to them, over mTLS to a
//! VM, and in on 7070 for callers with a certificate of the mesh. It never tries a call twice, so that no failure hides.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use crate::envoy::{Envoy, downstream_tls, http2_cluster, listener, tls_from, upstream_tls, write_secrets};
use crate::istiod::{State, endpoints};
use crate::network::{Host, Network};
use crate::process::Process;
use crate::programs;

/// Where its Envoy takes calls to productcatalogservice.
const OUTBOUND_PORT: u16 = 13550;
/// cartservice's port.
pub const CART_PORT: u16 = 7070;
/// Where its application listens behind Envoy.
const APPLICATION_PORT: u16 = 17070;
/// Who it is.
pub const SPIFFE_ID: &str = "spiffe://cluster.local/ns/onlineboutique/sa/cartservice";

/// Envoy and an application.
#[derive(Debug)]
pub struct Pod {
    _application: Process,
    _envoy: Envoy,
    secrets: PathBuf,
}

impl Pod {
    /// Starts it, and waits until it serves.
    pub fn start(network: &Network, istiod: &State) -> Result<Self> {
        let port = APPLICATION_PORT.to_string();
        let application = network.spawn(Host::Pod, "cart", programs::productcatalog()?, &["--port", &port])?;
        let secrets = network.folder().to_owned();
        write_secrets(&secrets, &istiod.pki.issue_for_workload(SPIFFE_ID), &istiod.root_pem())?;
        let outbound = tls_from(&secrets, &["istio", "h2"]);
        let inbound = tls_from(&secrets, &["h2"]);
        let sni = "outbound_.3550_._.productcatalogservice.onlineboutique.svc.cluster.local";
        let bootstrap = json!({"node": {"id": "pod", "cluster": "pod"}, "static_resources": {
            "listeners": [
                listener("outbound", ("127.0.0.1", OUTBOUND_PORT), "catalog", None),
                listener("inbound", ("0.0.0.0", CART_PORT), "application", Some(downstream_tls(&inbound))),
            ],
            "clusters": [
                endpoints::cluster(network, upstream_tls(&outbound, sni)),
                http2_cluster("application", "127.0.0.1", APPLICATION_PORT, None),
            ],
        }});
        let mut envoy = Envoy::start(network, Host::Pod, bootstrap)?;
        envoy.wait_until_live(network)?;
        Ok(Self {
            _application: application,
            _envoy: envoy,
            secrets,
        })
    }

    /// Gives its Envoy another certificate, and the roots that are trusted now.
    pub fn renew(&self, istiod: &State) -> Result<()> {
        write_secrets(
            &self.secrets,
            &istiod.pki.issue_for_workload(SPIFFE_ID),
            &istiod.root_pem(),
        )
    }

    /// Where calls to productcatalogservice go.
    pub fn catalog() -> String {
        format!("127.0.0.1:{OUTBOUND_PORT}")
    }
}
