//! Envoy's way to istiod: an ADS server on a unix socket, whose every stream is relayed to a stream of its own
//! at istiod, byte for byte, and moved to another istiod when that one goes away.
//!
//! A frame's way: `server` takes Envoy's stream, `relay` runs it, `conversation` looks at each frame and notes it
//! (`session`: what Envoy asked for and has; `acks`: what it refused), `upstream` says it in a peer's terms, and a
//! `peer` answers: `istiod`, or the `snapshot` of what Envoy accepted last while no istiod does. `attempts` finds the next
//! istiod. Beside them are the agent's own types: `name_table`, and `agent_requests`, with the health that
//! `reported_health` makes.
//!
//! `leave` is the way out of the mesh, which `own_endpoints` sees from what Envoy is told. `own_stream` holds the VM's place in
//! it for an agent that takes over, and `standby`, a process of its own, while there is none.
//!
//! Publishes `XdsState`, the `NameTable` and `Departure`. The agent's own types (name table, health) ride on Envoy's stream,
//! because istiod tells proxies apart by stream. Never parses a resource that is Envoy's, and never cuts a
//! running stream because a certificate or a root changed: the next stream uses the new one.

mod acks;
mod agent_requests;
mod conversation;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod istiod;
mod leave;
mod metrics;
mod name_table;
mod node;
mod own_endpoints;
mod own_stream;
mod part;
mod peer;
mod relay;
mod report;
mod reported_health;
mod sent;
mod server;
mod session;
mod snapshot;
mod standby;
mod unix_sockets;
mod upstream;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bounds::Refusals;
use crate::config::PathsConfig;
use crate::control_plane::ControlPlaneSelector;
use crate::control_plane::token::TokenSource;
use crate::facts::{
    Credentials, Departure, EnvoyState, HostState, Membership, NameTable, ProbeState, XdsCounts, XdsState,
};
use crate::host::{Host, Owner};
use crate::part::ENVOY_USER;
use crate::supervise::{Clock, Scope};

pub use part::{LeavePart, XdsPart};
use report::Report;
use snapshot::SnapshotFile;
pub use standby::stand_by;

/// A stream to istiod that served for so long was no failure.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// Settings that stay as long as the agent runs.
#[derive(Debug)]
pub struct Options {
    /// The machine.
    pub host: Host,
    /// The ADS socket's path; its directory is there.
    pub socket: PathBuf,
    /// File in which the last good name table outlives a crash of the agent, not a reboot.
    pub name_table_cache: PathBuf,
    /// File of the node of the Envoy that was connected last, for the agent after a crash.
    pub node: PathBuf,
    /// Socket of root's alone, on which the standby hears what to say in the agent's place.
    pub place: PathBuf,
    /// The standby's unit; none without a systemd, and then nobody listens.
    pub standby: Option<String>,
    /// File of what Envoy accepted last, and of the last good name table, for a boot.
    pub snapshot: PathBuf,
    /// Envoy's user and group; besides root only this user is served.
    pub owner: Owner,
    /// Selects the istiod.
    pub selector: ControlPlaneSelector,
    /// Source of tokens, for a VM whose certificate has ended.
    pub tokens: Option<Arc<dyn TokenSource>>,
    /// Clock that the certificate is judged by.
    pub clock: Clock,
    /// Unix sockets of this VM that istiod may lead Envoy to.
    pub unix_sockets: Vec<PathBuf>,
    /// Counts connections and streams beyond what Envoy needs, and unix sockets that Envoy isn't led to.
    pub refusals: Refusals,
    /// Counts of what happens to the streams.
    pub counts: XdsCounts,
}

impl Options {
    /// The files of `paths`, Envoy's user, and the machine's clock.
    pub fn new(host: Host, paths: &PathsConfig, selector: ControlPlaneSelector) -> Self {
        Self {
            host,
            socket: paths.xds_socket(),
            name_table_cache: paths.names(),
            node: paths.node(),
            place: paths.place_socket(),
            standby: None,
            snapshot: paths.xds_snapshot(),
            owner: ENVOY_USER,
            selector,
            tokens: None,
            clock: Clock::System,
            unix_sockets: Vec::new(),
            refusals: Refusals::default(),
            counts: XdsCounts::default(),
        }
    }
}

/// Facts that are read.
#[derive(Debug)]
pub struct Inputs {
    /// Addresses of istiod, and the roots that it is known by.
    pub membership: watch::Receiver<Arc<Membership>>,
    /// Certificate that the VM shows.
    pub credentials: watch::Receiver<Option<Arc<Credentials>>>,
    /// Health of the application, as istiod is to be told of it.
    pub probe: watch::Receiver<ProbeState>,
    /// Envoy: what it has is kept once it is ready.
    pub envoy: watch::Receiver<EnvoyState>,
    /// The machine: a stream that is from an address of before is not to be stayed with.
    pub host: watch::Receiver<HostState>,
    /// The VM's way out of the mesh, on which the stream to istiod may have to go first.
    pub departure: watch::Receiver<Departure>,
}

/// Facts that are published.
#[derive(Debug)]
pub struct Outputs {
    /// State of both streams, Envoy's and istiod's.
    pub state: watch::Sender<XdsState>,
    /// The last good name table.
    pub names: watch::Sender<Option<Arc<NameTable>>>,
}

/// Everything that all streams share.
#[derive(Debug)]
struct Context {
    options: Options,
    inputs: Inputs,
    names: watch::Sender<Option<Arc<NameTable>>>,
    /// The node of the Envoy that was connected last, as its bytes came; none before the first.
    node: watch::Sender<Option<Bytes>>,
    snapshot: SnapshotFile,
    /// The node of the Envoy before the one that is to come, where the snapshot has its whole configuration.
    kept_for: watch::Sender<Option<Bytes>>,
    report: Report,
    /// Cancelled once istiod is to see that the VM is gone.
    hung_up: CancellationToken,
}

impl Context {
    fn new(options: Options, inputs: Inputs, outputs: Outputs) -> Self {
        Self {
            report: Report::new(outputs.state, options.counts.clone(), options.clock),
            names: outputs.names,
            node: watch::Sender::default(),
            snapshot: SnapshotFile {
                host: options.host.clone(),
                path: options.snapshot.clone(),
            },
            kept_for: watch::Sender::default(),
            hung_up: CancellationToken::new(),
            options,
            inputs,
        }
    }

    /// Completes when the VM has a certificate, valid or not.
    async fn first_certificate(&self) {
        let mut credentials = self.inputs.credentials.clone();
        if credentials.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Serves Envoy until the drain; fails when the socket can't be had.
pub async fn run(scope: Scope, options: Options, inputs: Inputs, outputs: Outputs) -> Result<()> {
    let listener = options.host.listen(&options.socket, Some(options.owner.gid))?;
    let place = options.host.listen(&options.place, None)?;
    let context = Arc::new(Context::new(options, inputs, outputs));
    scope.spawn(hang_up(Arc::clone(&context)));
    let host = context.options.host.clone();
    let (cache, node) = (context.options.name_table_cache.clone(), context.options.node.clone());
    let names = context.names.subscribe();
    // The cache is written sooner than the snapshot.
    if !context.restore_names() {
        scope.spawn(Arc::clone(&context).restore_names_of_snapshot());
    }
    scope.spawn(name_table::write_cache(host.clone(), cache.clone(), names));
    if let Some(kept) = context.kept_node() {
        context.note_node(&kept);
        context.report.takes_over(true);
        scope.spawn(own_stream::hold(Arc::clone(&context), kept));
    }
    let nodes = context.node.subscribe();
    let departure = context.inputs.departure.clone();
    scope.spawn(own_stream::write_nodes(host.clone(), node.clone(), nodes, departure));
    standby::tell(&scope, Arc::clone(&context), place);
    let place = context.options.place.clone();
    server::serve(scope, listener, context).await?;
    // This VM has left the mesh.
    host.remove(&place)?;
    host.remove(&cache)?;
    Ok(host.remove(&node)?)
}

/// Ends every stream to istiod once the VM's way out of the mesh asks for that.
async fn hang_up(context: Arc<Context>) {
    let mut departure = context.inputs.departure.clone();
    let hung_up = departure.wait_for(|departure| *departure == Departure::HungUp).await;
    if hung_up.is_ok() {
        context.hung_up.cancel();
    }
}

#[cfg(test)]
mod tests;
