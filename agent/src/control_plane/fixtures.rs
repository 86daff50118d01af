//! A certificate authority and a membership for tests.

use std::net::IpAddr;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, PublicKeyData, SanType};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use crate::facts::{Credentials, HostEntry, Membership, PrivateKey, SpiffeId};
use crate::supervise::Scope;

/// The name that `Ca::serving` is mostly made for.
pub(crate) const ISTIOD: &str = "istiod.istio-system.svc";

/// A root that signs.
#[derive(Debug)]
pub(crate) struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::OrganizationName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A CA below this one, whose certificate has the extension of this number, critical: an empty sequence.
    pub(crate) fn issuing(&self, name: &str, critical: &[u64]) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let mut extension = rcgen::CustomExtension::from_oid_content(critical, vec![0x30, 0]);
        extension.set_criticality(true);
        params.custom_extensions.push(extension);
        Self(CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &self.0).unwrap())
    }

    pub(crate) fn root_pem(&self) -> String {
        self.0.pem()
    }

    /// Chain and key of a server of this DNS name, valid from `start` to `end`.
    pub(crate) fn serving(&self, name: &str, start: SystemTime, end: SystemTime) -> (String, String) {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = (start.into(), end.into());
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    /// A leaf for `id` and this public key.
    pub(crate) fn leaf(&self, id: &str, key: &impl PublicKeyData, start: SystemTime, end: SystemTime) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        (params.not_before, params.not_after) = (start.into(), end.into());
        params.signed_by(key, &self.0).unwrap().pem()
    }

    /// Credentials that `identity` would publish after an issue by this CA.
    pub(crate) fn credentials(&self, start: SystemTime, end: SystemTime) -> Credentials {
        let key = KeyPair::generate().unwrap();
        Credentials {
            spiffe_id: id(),
            chain_pem: self.leaf(&id().to_string(), &key, start, end) + &self.root_pem(),
            key: PrivateKey::new(key.serialize_pem()),
            roots_pem: self.root_pem(),
            not_before: start,
            not_after: end,
            serial: "01".to_owned(),
            issued_with: None,
        }
    }
}

/// A server for `name` at a port of 127.0.0.1, while the scope lives.
pub(crate) async fn server(scope: &Scope, ca: &Ca, name: &str, from: SystemTime, until: SystemTime) -> u16 {
    let (chain, key) = ca.serving(name, from, until);
    server_of(scope, chain, key).await
}

/// A server that shows this chain.
pub(crate) async fn server_of(scope: &Scope, chain: String, key: String) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(Identity::from_pem(chain, key)))
        .unwrap()
        .add_routes(Routes::default())
        .serve_with_incoming(TcpListenerStream::new(listener));
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
