//! Addresses by which istiod is reached from outside the cluster.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::super::Answered;
use super::group_ref::{GroupRef, Ingress};
use crate::kube::Service;

const DEADLINE: Duration = Duration::from_secs(5);
/// An address is the same for all ports.
const ANY_PORT: u16 = 0;

/// All addresses, in order of preference; none only where none is needed.
pub(super) async fn addresses(group_ref: &GroupRef, service: Option<&Service>) -> Result<Vec<IpAddr>> {
    let key = || group_ref.keys.name("ingress");
    let (names, place) = match (&group_ref.ingress, service) {
        (Ingress::Given(name), _) => (vec![name.as_str()], key()),
        (_, Some(service)) => {
            let metadata = &service.metadata;
            (
                service.outside(),
                format!("service {}/{}", metadata.namespace, metadata.name),
            )
        }
        (_, None) => return Ok(Vec::new()),
    };
    if names.is_empty() && !matches!(group_ref.ingress, Ingress::Optional { .. }) {
        let problem = format!(
            "{place} has no address outside the cluster: wait for its load balancer, give it externalIPs, or set {} to \
             istiod's address (`up --ingress`)",
            key()
        );
        return Err(Answered(problem).into());
    }
    let (mut found, mut failure) = (Vec::new(), None);
    for name in &names {
        match resolve(name).await {
            Ok(addresses) => found.extend(
                addresses
                    .into_iter()
                    .filter(|address| !found.contains(address))
                    .collect::<Vec<_>>(),
            ),
            Err(error) => failure = Some(error.context(format!("{place}: failed to resolve {name}"))),
        }
    }
    match failure {
        Some(error) if found.is_empty() => Err(error),
        _ => Ok(found),
    }
}

async fn resolve(name: &str) -> Result<Vec<IpAddr>> {
    if let Ok(address) = name.parse() {
        return Ok(vec![address]);
    }
    let found = timeout(DEADLINE, lookup_host((name, ANY_PORT))).await;
    let found = found.map_err(|_| anyhow!("no answer within {DEADLINE:?}"))?;
    let mut addresses: Vec<IpAddr> = found
        .context("the VM's resolver doesn't know it")?
        .map(|address| address.ip())
        .collect();
    // A resolver turns the list round at every question, which is no change.
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses)
}
