//! The VM's certificate: its key is made here, istiod signs it, and it is renewed long before it ends.
//!
//! Owns the stored identity (one document, 0600) and Envoy's secret service; publishes `Credentials`. Never
//! withdraws a certificate before its successor is in, and never shows a key or a token.

mod ca;
mod certificate;
mod check;
mod csr;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod metrics;
mod part;
mod renewal;
pub mod sds;
mod store;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;

use crate::config::IdentityConfig;
use crate::control_plane::ControlPlaneSelector;
pub use crate::control_plane::token;
use crate::control_plane::token::TokenSource;
use crate::facts::{Credentials, HostState, IdentityProblem, Membership, PrivateKey};
use crate::host::Host;
use crate::supervise::{Clock, Scope};
pub use part::{IdentityPart, SdsPart};

/// Settings of `run` beside the membership.
#[derive(Debug)]
pub struct Options {
    /// The machine.
    pub host: Host,
    /// `[identity]`.
    pub config: IdentityConfig,
    /// The stored identity's file; its directory is made when missing.
    pub store: PathBuf,
    /// Selects the istiod, when the CA is where configuration comes from.
    pub selector: ControlPlaneSelector,
    /// Source of tokens; absent: the membership's file has one.
    pub tokens: Option<Arc<dyn TokenSource>>,
    /// Clock that certificates are judged by.
    pub clock: Clock,
    /// The reason why there is no new certificate while one is due; `status` shows it.
    pub problem: watch::Sender<Option<IdentityProblem>>,
}

/// Keeps a valid certificate of the membership's identity published and stored; ready with the first one. Never
/// fails: what goes wrong is logged, put into `problem` and tried again.
pub async fn run(
    scope: Scope,
    options: Options,
    membership: watch::Receiver<Arc<Membership>>,
    host: watch::Receiver<HostState>,
    publish: watch::Sender<Option<Arc<Credentials>>>,
) -> Result<()> {
    let issuer = ca::IstiodCa {
        config: options.config.clone(),
        selector: options.selector.clone(),
        tokens: options.tokens.clone(),
        clock: options.clock,
    };
    let renewal = renewal::Renewal::new(scope.clone(), options, issuer, publish);
    tokio::select! {
        biased;
        () = scope.draining() => {}
        () = renewal.run(membership, host) => {}
    }
    Ok(())
}

/// Has the CA certify a key that nobody keeps, as the next renewal would, and tells how the VM proved itself: at most one
/// certificate is issued. `current` is the VM's, valid or not; `addresses` are those of the control planes.
///
/// # Errors
/// When no CA gave one that this VM could use; it names the CA and the remedy.
pub async fn rehearse(
    config: &IdentityConfig,
    addresses: Vec<String>,
    membership: &Membership,
    current: Option<&Credentials>,
    tokens: Option<Arc<dyn TokenSource>>,
) -> Result<Credentials> {
    let clock = Clock::System;
    let issuer = ca::IstiodCa {
        config: config.clone(),
        selector: ControlPlaneSelector::new(addresses, Duration::ZERO, clock),
        tokens,
        clock,
    };
    ca::CertificateIssuer::issue(&issuer, membership, current).await
}

/// Credentials out of the key, chain and roots of another agent; whether they are valid now is the caller's question.
///
/// # Errors
/// When they don't belong together.
pub fn credentials(key: PrivateKey, chain_pem: &str, roots_pem: &str) -> Result<Credentials> {
    certificate::credentials(key, chain_pem, roots_pem)
}

/// Stores credentials for the next `run`, which then needs no token.
///
/// # Errors
/// When the file can't be written.
pub fn save(host: &Host, path: &Path, credentials: &Credentials) -> Result<()> {
    store::save(host, path, credentials)
}

/// The stored identity, valid or not, for `status` without a running agent.
///
/// # Errors
/// When the file is unusable.
pub fn stored(host: &Host, path: &Path) -> Result<Option<Credentials>> {
    store::load(host, path)
}
