//! Interfaces, addresses and the default route.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::facts::{HostEvent, HostState};
use crate::host::{Host, KernelChanges, network};

/// Wait between the kernel's word and the look: an address is replaced in two steps.
const SETTLE: Duration = Duration::from_millis(100);

/// Publishes the network at each change of it.
pub(super) async fn follow(host: Host, mut changes: KernelChanges, publish: watch::Sender<HostState>) -> Infallible {
    loop {
        changes.next().await;
        sleep(SETTLE).await;
        look(&host, &publish);
    }
}

/// Publishes the network as it is now, and logs what is another than before.
pub(super) fn look(host: &Host, publish: &watch::Sender<HostState>) {
    let interfaces = match network::interfaces() {
        Ok(interfaces) => interfaces,
        Err(error) => return tracing::warn!("failed to list the VM's addresses: {error}"),
    };
    let bridges = match host.bridges() {
        Ok(bridges) => bridges,
        Err(error) => return tracing::warn!("failed to list the VM's bridges: {error}"),
    };
    let has_default_route = network::has_default_route();
    publish.send_if_modified(|state| {
        let is_first = state.interfaces.is_empty();
        let old = std::mem::replace(&mut state.interfaces, interfaces);
        let are_other_bridges = state.bridges != bridges;
        state.bridges = bridges;
        let had_default_route = std::mem::replace(&mut state.has_default_route, has_default_route);
        let (old, new) = (outer(&old), outer(&state.interfaces));
        let events = events((&old, had_default_route), (&new, has_default_route));
        for (event, what) in events.iter().filter(|_| !is_first) {
            tracing::info!(code = event.code(), "{what}");
        }
        !events.is_empty() || are_other_bridges
    });
}

/// Without the bridges to containers, which come and go with them.
fn outer(interfaces: &[(String, IpAddr)]) -> Vec<(String, IpAddr)> {
    let outer = interfaces.iter().filter(|(name, _)| network::leads_outside(name));
    outer.cloned().collect()
}

type Network<'a> = (&'a [(String, IpAddr)], bool);

/// Events by which the network came from the old to the new state.
fn events((old, had_route): Network<'_>, (new, has_route): Network<'_>) -> Vec<(HostEvent, String)> {
    let links = |of: &[(String, IpAddr)]| of.iter().map(|(name, _)| name.clone()).collect::<BTreeSet<_>>();
    let (links_before, links_now) = (links(old), links(new));
    let of_links = |names: &BTreeSet<String>, others: &BTreeSet<String>, event, what: &str| {
        let differing = names.difference(others);
        differing
            .map(|name| (event, format!("interface {name} {what}")))
            .collect::<Vec<_>>()
    };
    let of_addresses = |these: &[(String, IpAddr)], others: &[(String, IpAddr)], event, what: &str| {
        let differing = these.iter().filter(|address| !others.contains(address));
        differing
            .map(|(name, ip)| (event, format!("address {ip} of interface {name} {what}")))
            .collect::<Vec<_>>()
    };
    let route = match (had_route, has_route) {
        (true, false) => Some((HostEvent::RouteLost, "there is no default route any more".to_owned())),
        (false, true) => Some((HostEvent::RouteBack, "there is a default route".to_owned())),
        _ => None,
    };
    let mut events = of_links(&links_before, &links_now, HostEvent::LinkDown, "is down");
    events.extend(of_links(&links_now, &links_before, HostEvent::LinkUp, "is up"));
    events.extend(of_addresses(old, new, HostEvent::AddressRemoved, "is gone"));
    events.extend(of_addresses(new, old, HostEvent::AddressAdded, "is there"));
    events.extend(route);
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(old: &[(&str, &str)], new: &[(&str, &str)], routes: (bool, bool)) -> Vec<&'static str> {
        let of = |list: &[(&str, &str)]| -> Vec<(String, IpAddr)> {
            let pairs = list.iter().map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap()));
            pairs.collect()
        };
        let (old, new) = (of(old), of(new));
        let events = events((&old, routes.0), (&new, routes.1));
        events.into_iter().map(|(event, _)| event.code()).collect()
    }

    #[test]
    fn network_changes_are_told_by_what_they_are() {
        let (one, other) = (("eth0", "10.0.0.3"), ("eth0", "10.0.0.4"));
        assert_eq!(told(&[one], &[one], (true, true)), [""; 0]);
        assert_eq!(
            told(&[one], &[other], (true, true)),
            ["address-removed", "address-added"]
        );
        assert_eq!(told(&[one], &[one, other], (true, true)), ["address-added"]);
        assert_eq!(
            told(&[one], &[], (true, false)),
            ["link-down", "address-removed", "route-lost"]
        );
        assert_eq!(
            told(&[], &[one], (false, true)),
            ["link-up", "address-added", "route-back"]
        );
    }
}
