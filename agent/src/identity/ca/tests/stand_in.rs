//! A CA of istiod's kind, which does with a request what a test wants.

use std::sync::{Arc, Mutex};

use istio_api::ca::IstioCertificateResponse;
use istio_api::ca::istio_certificate_service_server::{IstioCertificateService, IstioCertificateServiceServer};
use kit::grpc;
use kit::pki::parse_request;
use rcgen::KeyPair;
use tokio_util::sync::CancellationToken;
use tonic::Response;
use tonic::transport::Server;

use super::*;
use crate::control_plane::fixtures::{jwt, membership};
use crate::host::{Host, System};
use crate::supervise::Scope;

/// Behavior of the stand-in at a request.
pub(super) enum Behavior {
    Sign,
    Refuse(Status),
    /// Refuses as an istiod that forgot the root of the VM's certificate.
    RefuseCertificates,
    Hang,
    Say(Vec<String>),
    /// Signs another key, for another identity, or for another time.
    SignKey(KeyPair),
    SignAs(&'static str),
    SignFor(SystemTime, SystemTime),
    /// Signs, with several roots at the end of the chain.
    Roots(String),
}

/// A request that it has seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) authorization: Option<String>,
    pub(super) cluster: Option<String>,
    pub(super) certificate: bool,
    pub(super) seconds: i64,
    pub(super) signer: Option<Value>,
    pub(super) csr: String,
}

struct StandIn {
    ca: Arc<Ca>,
    behavior: Mutex<Behavior>,
    seen: Mutex<Vec<Seen>>,
}

#[tonic::async_trait]
impl IstioCertificateService for StandIn {
    async fn create_certificate(
        &self,
        request: Request<IstioCertificateRequest>,
    ) -> Result<Response<IstioCertificateResponse>, Status> {
        let header = |name| {
            request
                .metadata()
                .get(name)
                .map(|value| value.to_str().unwrap().to_owned())
        };
        let mut seen = Seen {
            authorization: header("authorization"),
            cluster: header("clusterid"),
            certificate: request
                .peer_certs()
                .is_some_and(|certificates| !certificates.is_empty()),
            ..Seen::default()
        };
        let message = request.into_inner();
        seen.seconds = message.validity_duration;
        seen.signer = message.metadata.unwrap().fields.remove("CertSigner");
        seen.csr = message.csr.clone();
        self.seen.lock().unwrap().push(seen.clone());
        let hangs = matches!(*self.behavior.lock().unwrap(), Behavior::Hang);
        if hangs {
            std::future::pending::<()>().await;
        }
        let cert_chain = self.chain(&message.csr, seen.certificate)?;
        Ok(Response::new(IstioCertificateResponse { cert_chain }))
    }
}

impl StandIn {
    fn chain(&self, csr: &str, certificate: bool) -> Result<Vec<String>, Status> {
        let now = SystemTime::now();
        let (from, until) = (now - Duration::from_secs(120), now + HOUR);
        let (asked, id, root) = (
            parse_request(csr).unwrap().public_key,
            id().to_string(),
            self.ca.root_pem(),
        );
        let leaf = match &*self.behavior.lock().unwrap() {
            Behavior::Refuse(status) => return Err(status.clone()),
            Behavior::RefuseCertificates if certificate => return Err(Status::unauthenticated("who?")),
            Behavior::Say(chain) => return Ok(chain.clone()),
            Behavior::SignKey(key) => self.ca.leaf(&id, key, from, until),
            Behavior::SignAs(id) => self.ca.leaf(id, &asked, from, until),
            Behavior::SignFor(from, until) => self.ca.leaf(&id, &asked, *from, *until),
            Behavior::Roots(roots) => return Ok(vec![self.ca.leaf(&id, &asked, from, until), roots.clone()]),
            Behavior::Sign | Behavior::RefuseCertificates | Behavior::Hang => self.ca.leaf(&id, &asked, from, until),
        };
        Ok(vec![leaf, root])
    }
}

/// A VM before its CA, which listens on a port of 127.0.0.1 under istiod's name.
pub(super) struct Mesh {
    pub(super) selector: ControlPlaneSelector,
    pub(super) ca: Arc<Ca>,
    stand_in: Arc<StandIn>,
    pub(super) membership: Membership,
    pub(super) token: String,
    _bundle: tempfile::TempDir,
    drain: CancellationToken,
}

impl Drop for Mesh {
    fn drop(&mut self) {
        self.drain.cancel();
    }
}

pub(super) async fn mesh() -> Mesh {
    let (ca, now) = (Arc::new(Ca::new("mesh")), SystemTime::now());
    let stand_in = Arc::new(StandIn {
        ca: Arc::clone(&ca),
        behavior: Mutex::new(Behavior::Sign),
        seen: Mutex::default(),
    });
    let serving = ca.serving(&[ISTIOD], now - HOUR, now + HOUR);
    let service = IstioCertificateServiceServer::from_arc(Arc::clone(&stand_in));
    let router = Server::builder().add_service(service);
    let (port, server) = grpc::serve(([127, 0, 0, 1], 0), &serving, &ca.root_pem(), router).await;
    let (scope, drain) = Scope::detached();
    scope.spawn(async move { server.await.unwrap() });
    let bundle = tempfile::tempdir().unwrap();
    let token = jwt(r#"{"aud":"istio-ca","exp":1,"sub":"system:serviceaccount:shop:catalog"}"#);
    Host::new(bundle.path(), System)
        .write("/istio-token".as_ref(), &token, 0o600, None)
        .unwrap();
    let address = format!("{ISTIOD}:{port}");
    Mesh {
        selector: selector([&address]),
        membership: Membership {
            roots_pem: ca.root_pem(),
            discovery_address: address.clone(),
            ca_address: address,
            token_file: Some(bundle.path().join("istio-token")),
            ..membership()
        },
        ca,
        stand_in,
        token,
        _bundle: bundle,
        drain,
    }
}

pub(super) fn selector<'a>(addresses: impl IntoIterator<Item = &'a String>) -> ControlPlaneSelector {
    ControlPlaneSelector::new(addresses.into_iter().cloned().collect(), HOUR, Clock::System)
}

impl Mesh {
    pub(super) async fn issue(&self, current: Option<&Credentials>) -> Result<Credentials> {
        self.issue_of(KeyKind::EcdsaP256, current).await
    }

    pub(super) async fn issue_of(&self, key: KeyKind, current: Option<&Credentials>) -> Result<Credentials> {
        let config = IdentityConfig { key, ttl: 24 * HOUR };
        let clock = Clock::System;
        IstiodCa {
            selector: self.selector.clone(),
            config,
            tokens: None,
            clock,
        }
        .issue(&self.membership, current)
        .await
    }

    pub(super) async fn refused(&self, behavior: Behavior) -> String {
        self.behave(behavior);
        format!("{:#}", self.issue(None).await.unwrap_err())
    }

    pub(super) fn behave(&self, behavior: Behavior) {
        *self.stand_in.behavior.lock().unwrap() = behavior;
    }

    pub(super) fn seen(&self) -> Vec<Seen> {
        self.stand_in.seen.lock().unwrap().clone()
    }
}
