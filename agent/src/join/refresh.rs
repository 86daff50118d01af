//! Keeps the membership true: asks the source when it may have changed, and publishes what did.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::sleep;

use super::Join;
use crate::config::mesh_address;
use crate::facts::{HostEvent, HostState, Membership};
use crate::host::blocking;
use crate::host::network::Reach;
use crate::supervise::{Backoff, Scope};

/// Shortest wait between tries of a source that fails; each has up to as much again of jitter.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// Longest such wait.
const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// Follows the source until the drain; `problem` tells why what is published may be old. A failed or unusable
/// answer never replaces a good one. Never fails.
pub async fn run(
    scope: Scope,
    join: Join,
    host: watch::Receiver<HostState>,
    publish: watch::Sender<Arc<Membership>>,
    problem: watch::Sender<Option<String>>,
) -> Result<()> {
    scope.ready();
    tokio::select! {
        biased;
        () = scope.draining() => {}
        () = follow(&join, host, &publish, &problem) => {}
    }
    Ok(())
}

async fn follow(
    join: &Join,
    mut host: watch::Receiver<HostState>,
    publish: &watch::Sender<Arc<Membership>>,
    problem: &watch::Sender<Option<String>>,
) {
    // What is published may be of a moment before the first look at the network.
    host.mark_changed();
    let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
    // What a remote source gave last was taken without asking it.
    let mut due = !join.source.is_local();
    loop {
        if !due {
            relocating(join.source.changed(), join, &mut host, publish).await;
        }
        match relocating(join.fetch(), join, &mut host, publish).await {
            Ok(membership) => {
                due = false;
                backoff.reset();
                problem.send_if_modified(|problem| problem.take().is_some());
                update(publish, membership);
            }
            Err(error) => {
                due = true;
                let (wait, text) = (backoff.next_wait(), format!("{error:#}"));
                problem.send_if_modified(|problem| {
                    let news = problem.as_deref() != Some(&text);
                    if news {
                        let source = join.source();
                        tracing::warn!(retry_in = ?wait, "failed to refresh from {source}, what it gave last stays: {text}");
                        *problem = Some(text);
                    }
                    news
                });
                pause(wait, join, &mut host, publish).await;
            }
        }
    }
}

/// Lets `wait` pass, or less where the source is reached in another way meanwhile.
async fn pause(
    wait: Duration,
    join: &Join,
    host: &mut watch::Receiver<HostState>,
    publish: &watch::Sender<Arc<Membership>>,
) {
    let mut reach = Reach::of(&host.borrow());
    let mut over = std::pin::pin!(sleep(wait));
    loop {
        tokio::select! {
            () = &mut over => return,
            Ok(()) = host.changed() => relocate(join, host, publish).await,
        }
        if reach.differs(&host.borrow()) {
            return;
        }
    }
}

/// Waits for `awaited`, and relocates the VM whenever its network changes meanwhile.
async fn relocating<T>(
    awaited: impl Future<Output = T>,
    join: &Join,
    host: &mut watch::Receiver<HostState>,
    publish: &watch::Sender<Arc<Membership>>,
) -> T {
    let mut awaited = std::pin::pin!(awaited);
    loop {
        tokio::select! {
            biased;
            done = &mut awaited => return done,
            Ok(()) = host.changed() => relocate(join, host, publish).await,
        }
    }
}

/// Publishes the membership at hand with this VM's addresses of now: the network has changed, and not what the source
/// says.
async fn relocate(join: &Join, host: &watch::Receiver<HostState>, publish: &watch::Sender<Arc<Membership>>) {
    let code = HostEvent::AddressMissing.code();
    let at_hand = join.clone();
    match blocking(move || at_hand.at_hand()).await {
        Ok(Some(membership)) => {
            let address = membership.instance_ips.first().copied();
            // A public one may be mapped by the cloud.
            let is_missing = |ip: &IpAddr| !host.borrow().may_have(*ip) && !mesh_address::is_public(*ip);
            if let Some(address) = address.filter(is_missing) {
                tracing::warn!(
                    code,
                    "peers call this VM at {address}, which is fixed by network.address or the bundle's ISTIO_SVC_IP, and on \
                     no interface that is up"
                );
            }
            update(publish, membership);
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(code, "the membership stays as it was: {error:#}"),
    }
}

/// Publishes what differs, and says what that is.
fn update(publish: &watch::Sender<Arc<Membership>>, mut new: Membership) {
    publish.send_if_modified(|published| {
        if new.instance_ips.first() == published.instance_ips.first() {
            // Interfaces of no importance come and go; what peers call is the first.
            new.instance_ips.clone_from(&published.instance_ips);
        }
        if **published == new {
            return false;
        }
        if let (Some(old), Some(now)) = (published.instance_ips.first(), new.instance_ips.first())
            && old != now
        {
            let code = HostEvent::AddressChanged.code();
            tracing::warn!(code, %old, %now, "the mesh is told another address of this VM");
        }
        if published.roots_pem != new.roots_pem {
            tracing::info!(code = HostEvent::RootsChanged.code(), "the mesh's roots are others");
        }
        tracing::info!(
            changed = changes(published, &new).join(", "),
            "the membership has changed"
        );
        *published = Arc::new(new.clone());
        true
    });
}

/// The names of what differs, in an operator's words.
fn changes(old: &Membership, new: &Membership) -> Vec<&'static str> {
    [
        ("cluster.env", old.env != new.env),
        ("mesh config", old.proxy_config != new.proxy_config),
        ("root certificates", old.roots_pem != new.roots_pem),
        ("hosts", old.hosts != new.hosts),
        ("token file", old.token_file != new.token_file),
        ("identity", old.spiffe_id != new.spiffe_id),
        ("cluster", old.cluster_id != new.cluster_id),
        ("control plane address", old.discovery_address != new.discovery_address),
        ("CA address", old.ca_address != new.ca_address),
        ("name", old.node_name != new.node_name),
        ("address of this VM", old.instance_ips != new.instance_ips),
        ("inbound ports", old.inbound_ports != new.inbound_ports),
        ("excluded ports", old.exclude_ports != new.exclude_ports),
        ("DNS capture", old.dns_capture != new.dns_capture),
        ("probe", old.probe != new.probe),
    ]
    .into_iter()
    .filter_map(|(name, differs)| differs.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::fixtures::membership;

    #[test]
    fn addresses_but_the_first_are_worth_no_change() {
        let at = |ips: &[&str]| Membership {
            instance_ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
            ..membership()
        };
        let publish = watch::Sender::new(Arc::new(at(&["10.0.0.1"])));
        let mut seen = publish.subscribe();
        update(&publish, at(&["10.0.0.1", "172.17.0.1"]));
        assert!(!seen.has_changed().unwrap());
        update(&publish, at(&["10.0.0.2", "172.17.0.1"]));
        assert_eq!(
            seen.borrow_and_update().instance_ips,
            at(&["10.0.0.2", "172.17.0.1"]).instance_ips
        );
    }
}
