//! Envoy's way to istiod: an ADS server on a unix socket, whose every stream is relayed to a stream of its own
//! at istiod, byte for byte, and moved to another istiod when that one goes away.
//!
//! Publishes `XdsState` and the `NameTable`. The agent's own types (name table, health) ride on Envoy's stream,
//! because istiod tells proxies apart by stream. Never parses a resource that is Envoy's, and never cuts a
//! running stream because a certificate or a root changed: the next stream uses the new one.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod nacks;
mod names;
mod own_types;
mod part;
mod relay;
mod report;
mod server;
mod session;
mod upstream;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::watch;

use crate::bounds::Refusals;
use crate::control_plane::ControlPlaneSelector;
use crate::control_plane::token::TokenSource;
use crate::facts::{Credentials, Membership, NameTable, ProbeState, XdsState};
use crate::host::{Host, Owner};
use crate::supervise::{Clock, Scope};

pub use part::XdsPart;
use report::Report;

/// What stays as long as the agent runs.
#[derive(Debug)]
pub struct Options {
    /// Where the socket is.
    pub host: Host,
    /// The ADS socket's path; its directory is there.
    pub socket: PathBuf,
    /// Where the last good name table outlives a crash of the agent, not a reboot.
    pub kept_names: PathBuf,
    /// Envoy's user and group; besides root only this user is served.
    pub owner: Owner,
    /// Which istiod.
    pub selector: ControlPlaneSelector,
    /// Who makes tokens, for a VM whose certificate has ended.
    pub tokens: Option<Arc<dyn TokenSource>>,
    /// Judges the certificate.
    pub clock: Clock,
    /// Counts connections and streams beyond what Envoy needs.
    pub refusals: Refusals,
}

/// What is read.
#[derive(Debug)]
pub struct Inputs {
    /// Where istiod is, and by which roots it is known.
    pub membership: watch::Receiver<Arc<Membership>>,
    /// What the VM proves itself with.
    pub credentials: watch::Receiver<Option<Arc<Credentials>>>,
    /// The application's health, for istiod.
    pub probe: watch::Receiver<ProbeState>,
}

/// What is published.
#[derive(Debug)]
pub struct Outputs {
    /// How the streams are.
    pub state: watch::Sender<XdsState>,
    /// The last good name table.
    pub names: watch::Sender<Option<Arc<NameTable>>>,
}

/// What all streams share.
#[derive(Debug)]
struct Context {
    options: Options,
    inputs: Inputs,
    names: watch::Sender<Option<Arc<NameTable>>>,
    report: Report,
}

impl Context {
    /// Waits for the first certificate: it is on its way while Envoy starts, and spares istiod a token.
    async fn certified(&self) {
        let mut credentials = self.inputs.credentials.clone();
        if credentials.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Serves Envoy until the drain; fails when the socket can't be had.
pub async fn run(scope: Scope, options: Options, inputs: Inputs, outputs: Outputs) -> Result<()> {
    let listener = options.host.listen(&options.socket, Some(options.owner.gid))?;
    let context = Context {
        report: Report::new(outputs.state, options.clock),
        names: outputs.names,
        options,
        inputs,
    };
    let (host, kept) = (context.options.host.clone(), context.options.kept_names.clone());
    context.recall_names();
    scope.spawn(names::keep(host.clone(), kept.clone(), context.names.subscribe()));
    server::serve(scope, listener, Arc::new(context)).await?;
    host.remove(&kept)?;
    Ok(())
}

#[cfg(test)]
mod tests;
