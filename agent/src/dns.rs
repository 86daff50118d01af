//! DNS for the VM: the mesh's names from istiod's name table, all others from the VM's own servers.
//!
//! ```text
//! query → fast_path (a plain query for a name of the mesh) → table → cache → forward to the VM's servers → cache
//! ```
//!
//! Owns the sockets on port 15053; `intercept` sends the VM's queries there. Before the first name table, and
//! whenever istiod is away, every other name still resolves: the VM's DNS never dies of the mesh.
//! Never changes resolv.conf, and never asks a name server that it is itself.

mod ask;
mod cache;
mod check;
mod fast_path;
mod forward;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod in_flight;
mod message;
mod metrics;
mod part;
mod reply;
mod resolv_conf;
mod server;
mod sockets;
mod standby;
mod table;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use hickory_proto::rr::RecordType;
use tokio::sync::watch;
use tokio::time::timeout;

pub use self::ask::{Answer, AnswerRecord, ask};
use self::forward::Upstreams;
pub use self::part::DnsPart;
use self::resolv_conf::Current;
use self::server::Server;
use self::sockets::Sockets;
pub use self::standby::{Lender, stand_by};
use self::table::{Lookup, Table};
use crate::bounds::Refusals;
use crate::config::ports;
use crate::facts::{DnsCounts, HostState, Membership, NameTable};
use crate::host::{Host, InheritedSockets};
use crate::supervise::Scope;

/// Longest time that queries which came in while there was no agent wait for the first name table. Without one the mesh's
/// names would be asked of the VM's own servers, which deny them; a client waits for 5 s.
const NAME_TABLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Addresses that are served, and servers that are asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// The VM, for resolv.conf.
    pub host: Host,
    /// UDP and TCP; an address that the VM has not is passed over.
    pub listen: Vec<SocketAddr>,
    /// The VM's resolv.conf, read again whenever it changes.
    pub resolv_conf: PathBuf,
    /// Port of the servers in resolv.conf.
    pub upstream_port: u16,
    /// Longest time that one of them is given to answer before the next one is asked.
    pub query_timeout: Duration,
    /// Counts queries and connections that are turned away.
    pub refusals: Refusals,
    /// Counts of queries.
    pub counts: DnsCounts,
    /// Where it is told which addresses for containers somebody else has.
    pub problem: watch::Sender<Option<String>>,
    /// Where the sockets are lent to the standby.
    pub lender: Option<Lender>,
}

impl Options {
    /// Istio's port on both loopback addresses and, for containers alone, on all others; and the VM's resolv.conf.
    pub fn new(host: Host, refusals: Refusals) -> Self {
        Self {
            host,
            listen: vec![
                (Ipv4Addr::LOCALHOST, ports::DNS).into(),
                (Ipv6Addr::LOCALHOST, ports::DNS).into(),
                // For containers, whose queries are sent to the address that this VM has on their bridge.
                (Ipv4Addr::UNSPECIFIED, ports::DNS).into(),
                (Ipv6Addr::UNSPECIFIED, ports::DNS).into(),
            ],
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            upstream_port: 53,
            // A client gives up after 5 s (resolv.conf(5), timeout).
            query_timeout: Duration::from_secs(2),
            refusals,
            counts: DnsCounts::default(),
            problem: watch::Sender::default(),
            lender: None,
        }
    }
}

/// Answers the VM's DNS queries until the drain, first those that came in since an earlier agent died.
///
/// # Errors
/// When an address can't be listened on.
pub async fn run(
    scope: Scope,
    options: Options,
    kept: InheritedSockets,
    membership: watch::Receiver<Arc<Membership>>,
    mut names: watch::Receiver<Option<Arc<NameTable>>>,
    machine: watch::Receiver<HostState>,
) -> Result<()> {
    let store = kept.store();
    let sockets = Sockets::bind(&options.listen, kept).await?;
    let taken = sockets.taken(&options.host).await;
    if let Some(taken) = &taken {
        tracing::warn!("{taken}");
    }
    options.problem.send_replace(taken);
    if sockets.kept {
        scope.ready();
        // Whether a table came shows in the answers.
        let _ = timeout(NAME_TABLE_TIMEOUT, names.wait_for(Option::is_some)).await;
    }
    if let Some(lender) = &options.lender {
        let listener = options.host.listen(&lender.socket, None)?;
        let (copies, refusals) = (sockets.copies()?, options.refusals.clone());
        scope.spawn(standby::lend(listener, copies, membership.clone(), refusals));
        if let Some(unit) = lender.unit.clone() {
            scope.spawn(standby::start(options.host.clone(), unit));
        }
    }
    let (host, lender) = (options.host.clone(), options.lender.clone());
    serve(scope, options, sockets, membership, names, machine).await?;
    store.forget();
    if let Some(lender) = lender {
        host.remove(&lender.socket)?;
    }
    Ok(())
}

async fn serve(
    scope: Scope,
    options: Options,
    sockets: Sockets,
    mut membership: watch::Receiver<Arc<Membership>>,
    mut names: watch::Receiver<Option<Arc<NameTable>>>,
    machine: watch::Receiver<HostState>,
) -> Result<()> {
    let own = sockets.addresses();
    let current = Current::new(options.host, options.resolv_conf, &own, options.upstream_port);
    // The first table is what is known already, before the first query is read.
    let (publish, table) = watch::channel(Arc::new(table_of(&mut membership, &mut names).unwrap_or_default()));
    let upstreams = Upstreams::new(current, options.upstream_port, options.query_timeout);
    let server = Server::new(table, upstreams, machine, options.refusals, options.counts);
    server
        .serve(&scope, sockets)
        .context("failed to start a thread for DNS")?;
    tracing::info!(addresses = ?own, "serving DNS");
    scope.ready();
    loop {
        // A publisher that is gone is no reason to stop: what it said last holds.
        tokio::select! {
            biased;
            () = scope.draining() => return Ok(()),
            Ok(()) = membership.changed() => {}
            Ok(()) = names.changed() => {}
        }
        if let Some(newest) = table_of(&mut membership, &mut names) {
            publish.send_replace(Arc::new(newest));
        }
    }
}

/// The table for the VM's namespace; `None` before the first name table.
fn table_of(
    membership: &mut watch::Receiver<Arc<Membership>>,
    names: &mut watch::Receiver<Option<Arc<NameTable>>>,
) -> Option<Table> {
    let namespace = membership.borrow_and_update().spiffe_id.namespace.clone();
    let newest = names.borrow_and_update().clone()?;
    Some(Table::new(&newest, &namespace))
}

/// The mesh's addresses of a name, as the agent answers a workload of `namespace` with these search domains.
pub fn lookup(names: &NameTable, namespace: &str, name: &str, search: &[String]) -> Vec<IpAddr> {
    let table = Table::new(names, namespace);
    let name = name.to_ascii_lowercase();
    let of = |kind| table.lookup(&name, kind, search).map_or_else(Vec::new, Lookup::to_vec);
    [of(RecordType::A), of(RecordType::AAAA)].concat()
}

/// True for a name, or an address, that the agent answers out of the mesh's names.
pub fn is_of_mesh(names: &NameTable, namespace: &str, name: &str, search: &[String]) -> bool {
    let table = Table::new(names, namespace);
    let mut questions = ask::questions(name).unwrap_or_default().into_iter();
    questions.any(|(name, kind)| {
        let name = name.to_ascii().to_ascii_lowercase();
        table.lookup(name.trim_end_matches('.'), kind, search).is_some()
    })
}

/// True where programs ask for names past DNS, which nobody can answer in its server's place (nsswitch.conf).
pub fn is_passed_by(host: &Host) -> bool {
    check::is_passed_by(host)
}

#[cfg(test)]
mod tests;
