//! A real Envoy that the harness runs itself, from a configuration of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::istiod::{self, State};
use crate::network::{Host, Network};
use crate::pki::Credentials;
use crate::process::Process;
use crate::{PATIENCE, eventually, http, programs};

const ADMIN_PORT: u16 = 15000;

/// The process.
#[derive(Debug)]
pub struct Envoy {
    process: Process,
    host: Host,
}

impl Envoy {
    /// Starts Envoy on `host` with what `bootstrap` says, and an admin interface on 15000.
    pub fn start(network: &Network, host: Host, mut bootstrap: Value) -> Result<Self> {
        let admin = json!({"address": socket_address("127.0.0.1", ADMIN_PORT)});
        bootstrap["admin"] = admin;
        let file = network.folder().join(format!("envoy-{host}.json"));
        fs::write(&file, serde_json::to_vec_pretty(&bootstrap)?)?;
        let file = file.to_string_lossy();
        let args = [
            "-c",
            &file,
            "--disable-hot-restart",
            "-l",
            "warning",
            "--concurrency",
            "1",
        ];
        let process = network.spawn(host, "envoy", programs::envoy()?, &args)?;
        Ok(Self { process, host })
    }

    /// Waits until it serves.
    pub fn wait_until_live(&mut self, network: &Network) -> Result<()> {
        eventually(format!("Envoy of {}", self.host), PATIENCE, || {
            self.process.check_alive()?;
            let (status, body) = self.admin(network, "/ready")?;
            ensure!(status == 200, "/ready: {status} {body}");
            Ok(())
        })
    }

    /// GETs a page of its admin interface.
    pub fn admin(&self, network: &Network, path: &str) -> Result<(u16, String)> {
        http::get(network, self.host, ADMIN_PORT, path)
    }

    /// Log of Envoy so far.
    pub fn output(&self) -> String {
        self.process.output()
    }
}

/// Where a listener or an endpoint is.
pub fn socket_address(address: &str, port: u16) -> Value {
    json!({"socket_address": {"address": address, "port_value": port}})
}

/// A cluster of one endpoint.
pub fn http2_cluster(name: &str, address: &str, port: u16, transport_socket: Option<Value>) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": socket_address(address, port)}}]}],
        },
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
            // So that handshakes are always a part of what is tried.
            "common_http_protocol_options": {"max_connection_duration": "2s"},
        }},
    });
    if let Some(socket) = transport_socket {
        cluster["transport_socket"] = socket;
    }
    cluster
}

/// Fields that both directions of TLS have: certificate, key, root.
pub(crate) fn tls(credentials: &Credentials, root_pem: &str, alpn: &[&str]) -> Value {
    json!({
        "alpn_protocols": alpn,
        "tls_certificates": [{
            "certificate_chain": {"inline_string": credentials.certificate},
            "private_key": {"inline_string": credentials.key},
        }],
        "validation_context": {"trusted_ca": {"inline_string": root_pem}},
    })
}

/// The same from the files that [`write_secrets`] wrote; Envoy takes up others that are moved there.
pub(crate) fn tls_from(folder: &Path, alpn: &[&str]) -> Value {
    let secret = |name: &str| {
        let source = json!({"path_config_source": {"path": secret_file(folder, name)}, "resource_api_version": "V3"});
        json!({"name": name, "sds_config": source})
    };
    json!({
        "alpn_protocols": alpn,
        "tls_certificate_sds_secret_configs": [secret("default")],
        "validation_context_sds_secret_config": secret("ROOTCA"),
    })
}

/// Certificate and key, and the roots, each as a file of Envoy's secret discovery.
pub(crate) fn write_secrets(folder: &Path, credentials: &Credentials, root_pem: &str) -> Result<()> {
    let certificate = json!({
        "certificate_chain": {"inline_string": credentials.certificate},
        "private_key": {"inline_string": credentials.key},
    });
    let roots = json!({"trusted_ca": {"inline_string": root_pem}});
    for (name, kind, value) in [
        ("default", "tls_certificate", certificate),
        ("ROOTCA", "validation_context", roots),
    ] {
        let secret = json!({
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            "name": name,
            kind: value,
        });
        let file = secret_file(folder, name);
        let new = file.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&json!({"resources": [secret]}))?)?;
        fs::rename(new, file)?;
    }
    Ok(())
}

fn secret_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("pod-{name}.json"))
}

/// The transport socket of a client that calls `sni`.
pub(crate) fn upstream_tls(common: &Value, sni: &str) -> Value {
    json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": sni,
        "common_tls_context": common,
    }})
}

/// The transport socket of a server that wants a certificate from its callers.
pub(crate) fn downstream_tls(common: &Value) -> Value {
    json!({"name": "tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": true,
        "common_tls_context": common,
    }})
}

/// A listener that passes all calls to `cluster`, and says who calls.
pub fn listener(name: &str, at: (&str, u16), cluster: &str, transport_socket: Option<Value>) -> Value {
    let manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "HTTP2",
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": true},
        "stream_idle_timeout": "0s",
        "route_config": {"virtual_hosts": [{
            "name": name,
            "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "0s"}}],
        }]},
        "http_filters": [{"name": "router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }}],
    });
    let mut chain = json!({"filters": [{"name": "http", "typed_config": manager}]});
    if let Some(socket) = transport_socket {
        chain["transport_socket"] = socket;
    }
    json!({"name": name, "address": socket_address(at.0, at.1), "filter_chains": [chain]})
}

/// The clusters `xds-grpc` and `sds-grpc` of an Envoy that has no agent: straight to the stand-in.
pub fn straight_to_istiod(istiod: &State, spiffe_id: &str) -> Result<[Value; 2]> {
    let credentials = istiod.pki.issue_for_workload(spiffe_id);
    let common = tls(&credentials, &istiod.root_pem(), &["h2"]);
    let address = Host::ControlPlane.ipv4().to_string();
    Ok(["xds-grpc", "sds-grpc"].map(|name| {
        let socket = upstream_tls(&common, istiod::NAME);
        http2_cluster(name, &address, istiod::PORT, Some(socket))
    }))
}
