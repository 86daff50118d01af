//! Credentials, servers and a membership for tests.

use std::net::IpAddr;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use kit::{grpc, pki};
use rcgen::KeyPair;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::facts::{Credentials, HostEntry, Membership, PrivateKey, SpiffeId};
use crate::supervise::Scope;

pub(crate) use kit::pki::Ca;

/// The name that `Ca::serving` is mostly made for.
pub(crate) const ISTIOD: &str = "istiod.istio-system.svc";

/// Credentials that `identity` would publish after an issue by this CA.
pub(crate) fn issued_by(ca: &Ca, start: SystemTime, end: SystemTime) -> Credentials {
    let key = KeyPair::generate().unwrap();
    Credentials {
        spiffe_id: id(),
        chain_pem: ca.leaf(&id().to_string(), &key, start, end) + &ca.root_pem(),
        key: PrivateKey::new(key.serialize_pem()),
        roots_pem: ca.root_pem(),
        not_before: start,
        not_after: end,
        serial: "01".to_owned(),
        issued_with: None,
    }
}

/// A server for `name` at a port of 127.0.0.1, while the scope lives.
pub(crate) async fn server(scope: &Scope, ca: &Ca, name: &str, from: SystemTime, until: SystemTime) -> u16 {
    server_of(scope, ca, &ca.serving(&[name], from, until)).await
}

/// A server that shows these, and takes certificates of `ca`.
pub(crate) async fn server_of(scope: &Scope, ca: &Ca, serving: &pki::Credentials) -> u16 {
    let router = Server::builder().add_routes(Routes::default());
    let (port, server) = grpc::serve(([127, 0, 0, 1], 0), serving, &ca.root_pem(), router).await;
    scope.spawn(async move {
        let _ = server.await;
    });
    port
}

/// A way to a server that a test can break: a port of its own, whose bytes it passes on.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) port: u16,
    pub(crate) state: watch::Sender<WireState>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum WireState {
    Whole,
    /// Connections stay open and are accepted, and nothing passes.
    Silent,
    /// Connections break, and so do new ones.
    Cut,
}

impl Wire {
    /// To this port of `ip`, from a port of the same.
    pub(crate) async fn to(scope: &Scope, ip: IpAddr, port: u16) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (state, watched) = watch::channel(WireState::Whole);
        let inner = scope.clone();
        scope.spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut state = watched.clone();
                inner.spawn(async move {
                    if *state.borrow() == WireState::Whole {
                        let mut far = TcpStream::connect((ip, port)).await.unwrap();
                        let broken = state.wait_for(|state| *state != WireState::Whole);
                        tokio::select! {
                            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => return,
                            _ = broken => {}
                        }
                    }
                    let _ = state.wait_for(|state| *state == WireState::Cut).await;
                });
            }
        });
        Self { port: own, state }
    }
}

pub(crate) fn id() -> SpiffeId {
    SpiffeId {
        trust_domain: "cluster.local".to_owned(),
        namespace: "shop".to_owned(),
        service_account: "catalog".to_owned(),
    }
}

pub(crate) fn membership() -> Membership {
    Membership {
        hosts: vec![HostEntry {
            ip: IpAddr::from([127, 0, 0, 1]),
            names: vec![ISTIOD.to_owned()],
        }],
        spiffe_id: id(),
        cluster_id: "Kubernetes".to_owned(),
        cluster_domain: "cluster.local".to_owned(),
        discovery_address: format!("{ISTIOD}:15012"),
        ca_address: format!("{ISTIOD}:15012"),
        node_name: "vm".to_owned(),
        instance_ips: vec![IpAddr::from([10, 0, 0, 1])],
        dns_capture: true,
        ..Membership::default()
    }
}

/// A JWT with this payload and no signature to speak of.
pub(crate) fn jwt(payload: &str) -> String {
    format!("eyJhbGciOiJub25lIn0.{}.c2ln", URL_SAFE_NO_PAD.encode(payload))
}
