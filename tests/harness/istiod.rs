//! The stand-in istiod: certificate authority, aggregated discovery (delta and state of the world) and the registry
//! of VMs, on 15012 with TLS, with what a real istiod served to this very VM. It records what it is asked, and
//! fails on command.
//!
//! It runs in the test's own process; only its socket is in the control plane's namespace.

mod ads;
mod ca;
mod caller;
mod config;
mod delta;
pub(crate) mod endpoints;
mod misconfiguration;
mod sds;
mod sotw;
mod state;
mod token;

use std::net::{Ipv6Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use istio_api::ads::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use istio_api::ca::istio_certificate_service_server::IstioCertificateServiceServer;
use istio_api::sds::secret_discovery_service_server::SecretDiscoveryServiceServer;
use kit::tls;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::network::{Host, Network};
use crate::{PATIENCE, eventually};

pub use caller::Caller;
pub use config::PeerAuthentication;
pub use misconfiguration::Misconfiguration;
pub use state::{Authenticated, CertificateCall, Fault, Refusal, Service, State, WorkloadEntry};
pub use token::TokenClaims;

/// The name in its certificate, and in mesh.yaml's discoveryAddress.
pub const NAME: &str = "istiod.istio-system.svc";
/// The thread of it, by name.
pub const THREAD: &str = "istiod";
/// Port of istiod.
pub const PORT: u16 = 15012;

/// The server; what it knows outlives a kill, as istiod's registry outlives istiod.
#[derive(Debug)]
pub struct Istiod {
    state: Arc<State>,
    port: u16,
    running: Option<Runtime>,
    /// False once it is killed: then it takes note of nothing any more.
    alive: Arc<AtomicBool>,
}

impl Istiod {
    /// Makes one and starts it in the control plane's namespace.
    pub fn start(network: &Network) -> Result<Self> {
        Self::serving(network, Arc::new(State::new()?), PORT)
    }

    /// Starts another one at this port of the same host: of the same mesh, with the same registry.
    pub fn beside(&self, network: &Network, port: u16) -> Result<Self> {
        Self::serving(network, Arc::clone(&self.state), port)
    }

    fn serving(network: &Network, state: Arc<State>, port: u16) -> Result<Self> {
        let mut istiod = Self {
            state,
            port,
            running: None,
            alive: Arc::default(),
        };
        istiod.restart(network)?;
        Ok(istiod)
    }

    /// Questions to it so far, and answers that it is to give.
    pub fn state(&self) -> &Arc<State> {
        &self.state
    }

    /// Cuts every connection and closes the port, as kill -9 does.
    pub fn kill(&mut self) {
        self.alive.store(false, Ordering::SeqCst);
        if let Some(running) = self.running.take() {
            running.shutdown_background();
        }
    }

    /// Starts it again, killed before or not.
    pub fn restart(&mut self, network: &Network) -> Result<()> {
        self.kill();
        let socket = network.within(Host::ControlPlane, || {
            // A killed one's connections may still be on their way out.
            eventually("the port of istiod", PATIENCE, || {
                TcpListener::bind((Ipv6Addr::UNSPECIFIED, self.port)).context("failed to listen")
            })
        })?;
        socket.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name(THREAD)
            .enable_all()
            .build()?;
        let state = Arc::clone(&self.state);
        self.alive = Arc::new(AtomicBool::new(true));
        let ads = ads::Ads {
            state: Arc::clone(&state),
            alive: Arc::clone(&self.alive),
        };
        endpoints::write(&endpoints::file(network), &state.endpoints())?;
        let serving = state.pki.issue_for_names(&[NAME]);
        let acceptor = tls::grpc_acceptor(&serving, &state.pki.root_pem(), Arc::clone(state.pki.clock()) as _);
        let router = Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(ads))
            .add_service(SecretDiscoveryServiceServer::new(sds::Sds(Arc::clone(&state))))
            .add_service(IstioCertificateServiceServer::new(ca::Ca(Arc::clone(&state))));
        runtime.spawn(endpoints::follow(state, endpoints::file(network)));
        runtime.spawn(async move {
            let connections = tls::accept_all(tokio::net::TcpListener::from_std(socket)?, acceptor);
            let served = router.serve_with_incoming(ReceiverStream::new(connections));
            served.await.context("istiod ended")
        });
        self.running = Some(runtime);
        Ok(())
    }
}

impl Drop for Istiod {
    fn drop(&mut self) {
        self.kill();
    }
}
